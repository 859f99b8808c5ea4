"""From bytes to pixels, and what is stored of them."""

import io

import numpy as np
import pytest
from PIL import Image

from annotation_platform.images.decoding import decode
from annotation_platform.images.probing import probe_image
from tests.core.images.conftest import POLICY, saved, scene, stored

SEEDS = (101, 202, 303)


def test_what_the_evil_images_look_like(public):
    folder = public("evil") / "in"
    ok = decode((folder / "ok.jpg").read_bytes()).astype(int)
    for name in ("cmyk.jpg", "rgba.png", "png_named.jpg", "exif_o99.jpg"):
        # They were coded with coarse colours; a wrong inversion would turn the sign.
        other = decode((folder / name).read_bytes()).astype(int)
        assert np.corrcoef(ok.mean(axis=2).ravel(), other.mean(axis=2).ravel())[0, 1] > 0.8, name
    for orientation in range(1, 9):
        data = (folder / f"exif_o{orientation}.jpg").read_bytes()
        kept = stored(data)
        turned = {5: 5, 6: 4, 7: 6, 8: 2, 2: 0, 3: 3, 4: 1}.get(orientation)
        plain = Image.open(io.BytesIO(data)).convert("RGB")
        upright = plain if turned is None else plain.transpose(Image.Transpose(turned))
        assert (decode(kept) == np.asarray(upright)).all()
        assert Image.open(io.BytesIO(kept)).getexif().get(0x0112, 1) == 1
    gps = stored((folder / "exif_gps.jpg").read_bytes())
    assert b"Exif" not in gps


def test_turned_photographs_come_out_alike(public):
    folder = public("exif_ianare") / "orientation"
    for kind, size in (("landscape", (600, 450)), ("portrait", (450, 600))):
        images = [decode((folder / f"{kind}_{n}.jpg").read_bytes()) for n in range(1, 9)]
        for pixels in images:
            assert pixels.shape[1::-1] == size
            # Each file was coded by itself and bears its own number.
            both = np.stack([images[0], pixels]).reshape(2, -1)
            assert np.corrcoef(both)[0, 1] > 0.95


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once_in_every_format(kind, orientation):
    upright = scene(orientation)
    transposed = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    image = Image.fromarray(upright)
    if orientation > 1:
        image = image.transpose(Image.Transpose(transposed[orientation]))
    tags = Image.Exif()
    tags[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    options |= {"lossless": True} if kind == "WEBP" else {}
    data = saved(image, kind, exif=tags, **options)
    look = probe_image(data, POLICY)
    assert (look.facts["width"], look.facts["height"]) == (160, 120)
    tolerance = 12 if kind == "JPEG" else 0
    assert np.abs(decode(stored(data)).astype(int) - upright).max() <= tolerance
    assert ("rotated" in str(look.facts["flags"])) == (orientation > 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_colour_mode_becomes_rgb_by_its_rule(seed):
    pixels = scene(seed)
    image = Image.fromarray(pixels)
    grey = pixels[..., 0]
    deep = (grey.astype(np.uint16) * 257).astype(np.uint16)
    clear = np.dstack([pixels, np.full(grey.shape, 255, np.uint8)])
    clear[:, 80:, 3] = 0
    white = pixels.copy()
    white[:, 80:] = 255
    half = np.dstack([pixels, np.full(grey.shape, 128, np.uint8)])
    keyed = np.where(grey == grey[0, 0], 255, grey)
    three = np.repeat(grey[..., np.newaxis], 3, axis=2)
    stretched = (grey - grey.min()) / np.ptp(grey) * 255
    palette = image.quantize(64)
    cases = {
        "16 bit PNG": (saved(deep, "PNG"), three, 0),
        "16 bit TIFF": (saved(deep, "TIFF"), three, 0),
        "float": (saved((grey / 1000 - 0.1).astype(np.float32), "TIFF"), stretched[..., None], 1),
        "32 bit": (saved(grey.astype(np.int32) * 100_000, "TIFF"), stretched[..., None], 1),
        "transparent": (saved(clear, "PNG"), white, 0),
        "transparent WebP": (saved(clear, "WEBP", lossless=True), white, 0),
        "half": (saved(half, "PNG"), pixels * (128 / 255) + 127, 2),
        "grey and alpha": (saved(Image.fromarray(half).convert("LA"), "PNG"), None, 0),
        "one colour clear": (saved(grey, "PNG", transparency=int(grey[0, 0])), keyed[..., None], 0),
        "palette": (saved(palette, "PNG"), np.asarray(palette.convert("RGB")), 0),
        "palette GIF": (saved(palette, "GIF"), np.asarray(palette.convert("RGB")), 0),
        "black and white": (saved(image.convert("1"), "PNG"), None, 0),
        "CMYK": (saved(image.convert("CMYK"), "JPEG", quality=98), pixels, 25),
        "CMYK TIFF": (saved(image.convert("CMYK"), "TIFF"), pixels, 1),
        "LAB": (saved(Image.new("LAB", (160, 120), (128, 128, 128)), "TIFF"), None, 0),
    }
    for name, (data, wanted, tolerance) in cases.items():
        got = decode(data)
        assert got.shape == (120, 160, 3), name
        if wanted is not None:
            assert np.abs(got.astype(float) - wanted).max() <= tolerance, name
    assert np.abs(decode(cases["LAB"][0]).astype(int) - 119).max() <= 3
    # The stored copy shows the same, and needs no rule of its own.
    for name, (data, _, _) in cases.items():
        if name != "LAB":
            assert (decode(stored(data)) == decode(data)).all(), name


def test_twelve_bits_are_scaled_over_their_own_range(public):
    pixels = decode((public("broken_pillow") / "12bit.cropped.tif").read_bytes())
    assert pixels.max() == round(30 / 4095 * 255)


def test_a_stereo_photograph_keeps_its_coded_data():
    frames = [Image.fromarray(scene(number)) for number in (1, 2)]
    both = saved(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert probe_image(both, POLICY).facts["extension"] == "jpg"
    alone = saved(frames[0], "JPEG")
    kept = stored(both)
    assert kept[kept.index(b"\xff\xda") :] == alone[alone.index(b"\xff\xda") :]
