"""What must become of bad files: the public tables row by row, then the same faults made anew."""

import csv
import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from annotation_platform.errors import DataError
from annotation_platform.images.cleaning import clean_round, look_at
from annotation_platform.images.decoding import decode
from annotation_platform.images.ingest import raw_key
from annotation_platform.images.inspect import count_outcomes, inspect_folder
from annotation_platform.params import CleaningPolicy
from annotation_platform.schema.tables import empty_table, make_table
from annotation_platform.storage.objects import LocalObjectStore

PROJECT_ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("ANNOTATION_TEST_DATA", PROJECT_ROOT / ".." / "shared" / "data"))
POLICY = CleaningPolicy()
SEEDS = (101, 202, 303)
FORMATS = {"JPEG", "MPO", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM"}
POLICY_REASONS = ("too small", "too dark", "too bright", "blurred")

REASONS = {
    "empty_file": "empty file",
    "truncated": "damaged image",
    "missing_EOI": "damaged image",
    "corrupt": "damaged image",
    "not_an_image": "not an image",
    "format_not_allowed": "format not allowed: SVG",
    "too_many_pixels": "too many pixels",
    "175Mpx": "too many pixels",
    "too_small": "too small: 1x1",
    "uniform": "too dark: mean 0.0",
    "still_uploading": "still being transferred",
}
FLAGS = {
    "trailing_data": "trailing_data",
    "extension_mismatch": "extension_mismatch",
    "multi_frame": "multi_frame",
    "multi_frame or reject by policy": "multi_frame",
    "uniform": "uniform",
    "ignore_bad_orientation+flag": "bad_orientation",
}


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """Return a function that gives a public folder, unpacked if it is an archive."""

    def folder(name):
        archive = DATA / f"{name}.tar.gz"
        if not (DATA / name).is_dir() and not archive.is_file():
            pytest.skip(f"the public test data are not at {DATA}; set ANNOTATION_TEST_DATA")
        if (DATA / name).is_dir():
            return DATA / name
        place = tmp_path_factory.mktemp("unpacked")
        with tarfile.open(archive) as packed:
            packed.extractall(place, filter="data")
        return place / name

    return folder


@pytest.fixture
def alone(tmp_path):
    """Return a function that inspects one file by itself, where it can repeat no other."""

    def inspect(name, data):
        place = tmp_path / hashlib.sha256(os.fsencode(name) + data).hexdigest()
        place.mkdir()
        (place / name).write_bytes(data)
        (row,) = inspect_folder(place, POLICY)
        return row

    return inspect


def scene(seed, *, width=160, height=120):
    rng = np.random.default_rng(seed)
    planes = [gaussian_filter(rng.normal(size=(height, width)), 6) for _ in range(3)]
    stretched = [(plane - plane.min()) / np.ptp(plane) * 200 + 20 for plane in planes]
    noise = rng.normal(scale=4, size=(height, width, 1))
    return np.clip(np.stack(stretched, axis=-1) + noise, 0, 255).astype(np.uint8)


def saved(image, kind, **options):
    sink = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(sink, format=kind, **options)
    return sink.getvalue()


def png(width, height, depth, colour, packed):
    """Return a PNG of any size whose pixels are the zlib stream ``packed``."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)),
        (b"IDAT", packed),
        (b"IEND", b""),
    ]
    parts = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff_tags(entries):
    """Return a TIFF of one directory; ``entries`` gives type and four bytes of value by tag."""
    body = b"".join(
        struct.pack("<HHI", tag, kind, 4 if kind == 2 else 1) + value
        for tag, (kind, value) in entries.items()
    )
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)


def required(text):
    """Return outcome, start of the reason and flags that a row of evil_EXPECT.csv asks for."""
    rule, _, what = text.partition(":")
    flags = {FLAGS[what]} if what in FLAGS else set()
    if rule.startswith(("quarantine", "reject")) or what == "uniform":
        return "quarantined", REASONS[what], flags
    if rule.startswith("skip"):
        return "pending", REASONS[what], flags
    return "accepted", "", flags


def test_every_picture_of_the_evil_table(public, alone):
    folder = public("evil") / "in"
    rows = list(csv.DictReader((DATA / "evil_EXPECT.csv").open(encoding="utf-8")))
    pictures = [row for row in rows if (folder / row["path"]).is_file()]
    wrong = {}
    for row in pictures:
        path = folder / row["path"]
        got = alone(path.name, path.read_bytes())
        outcome, reason, flags = required(row["required_outcome"])
        met = got.outcome == outcome and got.reason.startswith(reason) and flags <= set(got.flags)
        if not met:
            wrong[row["path"]] = (row["required_outcome"], got)
    assert wrong == {}
    assert {path.name for path in folder.iterdir()} == {row["path"] for row in pictures}
    assert len(pictures) == 53


def test_the_evil_folder_at_once_differs_only_in_duplicates(public, alone):
    folder = public("evil") / "in"
    rows = inspect_folder(folder, POLICY)
    accepted = {row.image_id for row in rows if row.outcome == "accepted"}
    assert len(rows) == len(list(folder.iterdir()))
    for row in rows:
        by_itself = alone(row.path, (folder / row.path).read_bytes())
        if row.outcome == "duplicate":
            assert by_itself.outcome == "accepted"
            assert row.duplicate_of in accepted
            assert row.flags == by_itself.flags
        else:
            assert row == by_itself


def test_what_the_evil_pictures_look_like(public):
    folder = public("evil") / "in"
    ok = decode((folder / "ok.jpg").read_bytes()).astype(int)
    for name in ("cmyk.jpg", "rgba.png", "png_named.jpg", "exif_o99.jpg"):
        # They were coded with coarse colours; a wrong inversion would turn the sign.
        other = decode((folder / name).read_bytes()).astype(int)
        assert np.corrcoef(ok.mean(axis=2).ravel(), other.mean(axis=2).ravel())[0, 1] > 0.8, name
    for orientation in range(1, 9):
        data = (folder / f"exif_o{orientation}.jpg").read_bytes()
        kept = look_at(data, POLICY).data
        turned = {5: 5, 6: 4, 7: 6, 8: 2, 2: 0, 3: 3, 4: 1}.get(orientation)
        plain = Image.open(io.BytesIO(data)).convert("RGB")
        upright = plain if turned is None else plain.transpose(Image.Transpose(turned))
        assert (decode(kept) == np.asarray(upright)).all()
        assert Image.open(io.BytesIO(kept)).getexif().get(0x0112, 1) == 1
    gps = look_at((folder / "exif_gps.jpg").read_bytes(), POLICY).data
    assert b"Exif" not in gps


@pytest.mark.parametrize(
    "name",
    [
        "broken_fuzz",
        "broken_pillow",
        "broken_png",
        "exif_ianare",
        "exif_pdq",
        "neardup_imagededup",
    ],
)
def test_every_row_of_the_table_of_broken_pictures(public, name):
    folder = public(name)
    started = time.monotonic()
    found = {row.image_id: row for row in inspect_folder(folder, POLICY)}
    assert time.monotonic() - started < 60
    table = csv.DictReader((DATA / "TRUTH_image_outcomes.csv").open(encoding="utf-8"))
    rows = [row for row in table if row["path"].startswith(f"{name}/")]
    assert rows
    wrong = []
    for row in rows:
        got = found[row["sha256"]]
        if row["loads"] == "0":
            met = got.outcome == "quarantined"
        elif got.outcome == "quarantined" and row["fmt"] in FORMATS:
            # Strict decoders refuse damage that the table's decoder passed over.
            is_damaged = got.reason.startswith("damaged image") and row["fmt"] in {"JPEG", "PNG"}
            met = is_damaged or got.reason.startswith(POLICY_REASONS)
        elif got.outcome == "quarantined":
            met = got.reason.startswith(("format not allowed", "not an image"))
        else:
            is_turned = int(row["orientation"] or 1) in range(5, 9) and row["fmt"] != "TIFF"
            size = (int(row["w"]), int(row["h"]))
            met = (got.width, got.height) == (size[::-1] if is_turned else size)
            if row["frames"].isdigit():
                met = met and ("multi_frame" in got.flags) == (int(row["frames"]) > 1)
        if not met:
            wrong.append((row, got))
    assert wrong == []


def test_turned_photographs_come_out_alike(public):
    folder = public("exif_ianare") / "orientation"
    for kind, size in (("landscape", (600, 450)), ("portrait", (450, 600))):
        pictures = [decode((folder / f"{kind}_{n}.jpg").read_bytes()) for n in range(1, 9)]
        for pixels in pictures:
            assert pixels.shape[1::-1] == size
            # Each file was coded by itself and bears its own number.
            both = np.stack([pictures[0], pixels]).reshape(2, -1)
            assert np.corrcoef(both)[0, 1] > 0.95


@pytest.mark.parametrize("seed", SEEDS)
def test_damage_is_quarantined_wherever_it_is(alone, seed):
    jpeg = saved(scene(seed), "JPEG", quality=90)
    files = {f"{kind}.{share}": (kind, share) for kind in ("JPEG", "PNG") for share in (10, 50, 99)}
    for name, (kind, share) in files.items():
        whole = saved(scene(seed), kind)
        got = alone(name.replace(".", "-") + f".{kind.lower()}", whole[: len(whole) * share // 100])
        assert (got.outcome, got.reason.split(":")[0]) == ("quarantined", "damaged image"), name
    for kind in ("BMP", "GIF", "TIFF", "WEBP", "PPM"):
        whole = saved(scene(seed), kind)
        assert alone(f"half.{kind}", whole[: len(whole) // 2]).outcome == "quarantined", kind
    checksum = bytearray(saved(scene(seed), "PNG"))
    checksum[-16] ^= 1 << seed % 8
    assert alone("checksum.png", bytes(checksum)).reason.startswith("damaged image")
    assert alone("tail.jpg", jpeg[:-2]).reason.startswith("damaged image")


@pytest.mark.parametrize("seed", SEEDS)
def test_rot_inside_a_jpeg_is_noticed_as_far_as_its_code_allows(seed):
    # A JPEG has no checksum: now and then random bytes are code for just as many blocks. Of
    # photographs with fine detail, as here, few such pass; of smooth ones more.
    rng = np.random.default_rng(seed)
    grain = rng.normal(scale=12, size=(240, 320, 1))
    pixels = np.clip(scene(seed, width=320, height=240) + grain, 0, 255).astype(np.uint8)
    jpeg = saved(pixels, "JPEG", quality=92)
    refused = 0
    for place in rng.integers(jpeg.rindex(b"\xff\xda") + 20, len(jpeg) - 70, 50):
        rotten = bytearray(jpeg)
        rotten[place : place + 64] = rng.bytes(64)
        try:
            look_at(bytes(rotten), POLICY)
        except DataError:
            refused += 1
    assert refused >= 45


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_no_allowed_picture(alone, seed):
    noise = np.random.default_rng(seed).bytes(4000)
    reasons = {
        "zero.jpg": (b"", "empty file"),
        "noise.jpg": (b"\x01" + noise, "not an image"),
        "page.jpg": (b"<!doctype html><p>sign in", "not an image"),
        "text.png": (b"hello" * seed, "not an image"),
        "drawing.svg": (b'<?xml version="1.0"?><svg onload="x()"/>', "format not allowed: SVG"),
        "drawing.png": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "format not allowed: SVG"),
        "one.ico": (saved(scene(seed), "ICO"), "format not allowed: ICO"),
        "two.jp2": (saved(scene(seed), "JPEG2000"), "format not allowed: JPEG 2000"),
        "three.avif": (b"\0\0\0\x1cftypavif" + noise, "format not allowed: AVIF, HEIC or video"),
    }
    got = {name: alone(name, data) for name, (data, _) in reasons.items()}
    assert {row.outcome for row in got.values()} == {"quarantined"}
    assert {name: row.reason for name, row in got.items()} == {
        name: reason for name, (_, reason) in reasons.items()
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_accepted_with_a_flag(alone, seed):
    jpeg = saved(scene(seed), "JPEG")
    frames = [Image.fromarray(scene(seed + number)) for number in range(4)]
    several = {"save_all": True, "append_images": frames[1:]}
    bad = Image.Exif()
    wanted = [
        ("archive.jpg", jpeg + b"PK\x03\x04" + b"x" * seed, "trailing_data"),
        ("tail.png", saved(scene(seed), "PNG") + b"tail", "trailing_data"),
        ("tail.gif", saved(scene(seed), "GIF") + b"tail", "trailing_data"),
        ("tail.webp", saved(scene(seed), "WEBP") + b"tail", "trailing_data"),
        ("png.jpg", saved(scene(seed), "PNG"), "extension_mismatch"),
        ("jpeg.PNG", jpeg, "extension_mismatch"),
        ("webp.jpeg", saved(scene(seed), "WEBP"), "extension_mismatch"),
        ("moving.gif", saved(frames[0], "GIF", **several), "multi_frame"),
        ("moving.png", saved(frames[0], "PNG", **several), "multi_frame"),
        ("moving.webp", saved(frames[0], "WEBP", **several), "multi_frame"),
        ("pages.tiff", saved(frames[0], "TIFF", **several), "multi_frame"),
        ("stereo.jpg", saved(frames[0], "MPO", **several), "multi_frame"),
    ]
    for value in (0, 9, 99, 65535):
        bad[0x0112] = value
        wanted.append(
            (f"turned{value}.jpg", saved(scene(seed), "JPEG", exif=bad), "bad_orientation")
        )
    text = b"Exif\0\0" + tiff_tags({0x0112: (2, b"six\0")})
    wanted.append(("text.jpg", saved(scene(seed), "JPEG", exif=text), "bad_orientation"))
    for name, data, flag in wanted:
        got = alone(name, data)
        assert (got.outcome, got.width, got.height) == ("accepted", 160, 120), name
        assert [each for each in got.flags if each in FLAGS.values()] == [flag], name


def test_sound_pictures_under_their_own_names_have_no_flag(alone):
    names = {"JPEG": ("a.jpg", "A.JPEG", "noname"), "PNG": ("a.png", "a.b.PNG")}
    for kind, each in names.items():
        for name in each:
            got = alone(name, saved(scene(1), kind))
            assert (got.outcome, got.flags) == ("accepted", []), name


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
    look = look_at(saved(image, kind, exif=tags, **options), POLICY)
    assert (look.facts["width"], look.facts["height"]) == (160, 120)
    tolerance = 12 if kind == "JPEG" else 0
    assert np.abs(decode(look.data).astype(int) - upright).max() <= tolerance
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
            assert (decode(look_at(data, POLICY).data) == decode(data)).all(), name


def test_twelve_bits_are_scaled_over_their_own_range(public):
    pixels = decode((public("broken_pillow") / "12bit.cropped.tif").read_bytes())
    assert pixels.max() == round(30 / 4095 * 255)


def test_a_stereo_photograph_keeps_its_coded_data():
    frames = [Image.fromarray(scene(number)) for number in (1, 2)]
    look = look_at(saved(frames[0], "MPO", save_all=True, append_images=frames[1:]), POLICY)
    assert look.facts["extension"] == "jpg"
    alone = saved(frames[0], "JPEG")
    assert look.data[look.data.index(b"\xff\xda") :] == alone[alone.index(b"\xff\xda") :]


def test_limits_hold_before_anything_is_decoded():
    few = CleaningPolicy(maximum_frames=3, maximum_bytes=100_000, maximum_pixels=160 * 120)
    frames = [Image.fromarray(scene(number, width=40, height=40)) for number in range(5)]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        with pytest.raises(DataError, match="too many frames: at most 3"):
            look_at(data, few)
    with pytest.raises(DataError, match="too many bytes"):
        look_at(bytes(100_001), few)
    with pytest.raises(DataError, match="too many pixels: 161x120"):
        look_at(saved(scene(1, width=161), "JPEG"), few)
    jpeg = saved(scene(1), "JPEG", progressive=True)
    scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    with pytest.raises(DataError, match="too many scans"):
        look_at(jpeg[:-2] + scan * 2000 + jpeg[-2:], CleaningPolicy())


def test_files_of_countless_empty_parts_are_refused_at_once():
    start, jpeg = saved(scene(1), "PNG"), saved(scene(1), "JPEG")
    empty = struct.pack(">I4sI", 0, b"teXt", zlib.crc32(b"teXt"))
    hostile = {
        "chunks": start[:33] + empty * 2_000_000 + start[33:],
        "segments": jpeg[:2] + b"\xff\xfe\0\2" * 2_000_000 + jpeg[2:],
        "fill": jpeg[:2] + b"\xff" * 20_000_000 + jpeg[2:],
        "junk": jpeg[:2] + bytes(20_000_000) + jpeg[2:],
        "late segments": jpeg[:-2] + b"\xff\xfe\0\2" * 200_000 + jpeg[-2:],
        "sub-blocks": saved(scene(1), "GIF")[:-1] + b"\x21\xfe" + b"\1x" * 2_000_000,
        "junk between blocks": saved(scene(1), "GIF")[:-1] + bytes(20_000_000),
    }
    outcomes = {}
    for name, data in hostile.items():
        started = time.monotonic()
        try:
            outcomes[name] = str(look_at(data, POLICY).facts["flags"]).split(",")[0]
        except DataError as error:
            outcomes[name] = str(error).split(":")[0]
        assert time.monotonic() - started < 5, name
    assert outcomes == {
        "chunks": "too many parts",
        "segments": "too many parts",
        "fill": "too many parts",
        "junk": "damaged image",
        "late segments": "too many parts",
        "sub-blocks": "end_missing",
        "junk between blocks": "end_missing",
    }


BOMBS = """
import resource, sys, time
from pathlib import Path
from annotation_platform.images.inspect import inspect_folder
from annotation_platform.params import CleaningPolicy
resource.setrlimit(resource.RLIMIT_AS, (1_500_000_000, 1_500_000_000))
started = time.monotonic()
for row in inspect_folder(Path(sys.argv[1]), CleaningPolicy()):
    print(row.path, row.outcome, row.reason.split(":")[0], sep="|")
assert time.monotonic() - started < 10
"""


def test_bombs_are_refused_within_the_memory_of_one_picture(tmp_path):
    pack = zlib.compressobj(9)
    rows = b"".join(pack.compress(bytes(6251)) for _ in range(50_000)) + pack.flush()
    canvas = struct.pack("<I", 16382)[:3] * 2
    webp = (
        b"WEBPVP8X"
        + struct.pack("<II", 10, 2)[:8]
        + canvas
        + b"ANIM"
        + struct.pack("<IIH", 6, 0, 0)
    )
    tiled = {256: 64, 257: 64, 258: 8, 259: 1, 262: 1, 277: 1, 322: 60_000, 323: 60_000}
    tiled |= {324: 200, 325: 4096}
    frame = b"\x2c" + struct.pack("<4HB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    files = {
        "bits.png": png(50_000, 50_000, 1, 0, rows),
        "header.png": png(2**31 - 1, 2**31 - 1, 16, 6, b"\x78\x9c"),
        "below-pillow.png": png(13_000, 13_000, 8, 2, zlib.compress(bytes(1000))),
        "screen.gif": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + frame + b";",
        "frames.gif": b"GIF89a" + struct.pack("<HHBBB", 64, 64, 0, 0, 0) + frame * 10**6 + b";",
        "canvas.webp": b"RIFF" + struct.pack("<I", len(webp)) + webp,
        "numbers.pgm": b"P5 60000 60000 255\n",
        "tile.tif": tiff_tags(
            {number: (4, struct.pack("<I", value)) for number, value in tiled.items()}
        ),
        "sound.jpg": saved(scene(7), "JPEG"),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", BOMBS, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=PROJECT_ROOT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = dict(line.split("|", 1) for line in done.stdout.splitlines())
    assert found.pop("sound.jpg") == "accepted|"
    assert found.pop("frames.gif") == "quarantined|too many frames"
    assert set(found.values()) == {"quarantined|too many pixels"}
    assert len(found) == len(files) - 2


def test_a_folder_of_traps_is_listed_without_following_or_waiting(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.jpg").write_bytes(saved(scene(1), "JPEG"))
    folder = tmp_path / "folder"
    (folder / "directory.jpg").mkdir(parents=True)
    (folder / "directory.jpg" / "inner.jpg").write_bytes(saved(scene(2), "JPEG"))
    (folder / ".hidden.jpg").write_bytes(saved(scene(3), "JPEG"))
    (folder / "link.jpg").symlink_to(outside / "secret.jpg")
    (folder / "loop").symlink_to(folder)
    (folder / "gone.jpg").symlink_to(folder / "nothing")
    os.mkfifo(folder / "pipe.jpg")
    for name in ("a.jpg.part", "b.TMP", "c.crdownload"):
        (folder / name).write_bytes(b"half")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")).write_bytes(b"x")
    (folder / "line\nbreak.jpg").write_bytes(saved(scene(4), "JPEG"))
    rows = inspect_folder(folder, POLICY)
    assert {row.path: (row.outcome, row.reason) for row in rows} == {
        ".hidden.jpg": ("accepted", ""),
        "a.jpg.part": ("pending", "still being transferred, by its name"),
        "b.TMP": ("pending", "still being transferred, by its name"),
        "c.crdownload": ("pending", "still being transferred, by its name"),
        "caf\\xe9.jpg": ("quarantined", "its name is not UTF-8; rename it and it lands anew"),
        "directory.jpg/inner.jpg": ("accepted", ""),
        "gone.jpg": ("quarantined", "cannot be read: Too many levels of symbolic links"),
        "line\nbreak.jpg": ("accepted", ""),
        "link.jpg": ("quarantined", "cannot be read: Too many levels of symbolic links"),
        "loop": ("quarantined", "cannot be read: Too many levels of symbolic links"),
        "pipe.jpg": ("quarantined", "not a regular file"),
    }
    assert count_outcomes(rows) == {"accepted": 3, "quarantined": 5, "pending": 3}
    with pytest.raises(DataError, match="is no folder"):
        inspect_folder(tmp_path / "nowhere", POLICY)


def test_the_command_prints_one_row_a_file_and_stores_nothing(tmp_path):
    folder, home = tmp_path / "folder", tmp_path / "home"
    folder.mkdir()
    (folder / "=a\tb\n.png").write_bytes(saved(scene(1), "JPEG"))
    (folder / "cut.jpg").write_bytes(saved(scene(2), "JPEG")[:900])

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "annotation_platform.cli", "inspect", *arguments],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            cwd=PROJECT_ROOT,
            env={**os.environ, "ANNOTATION_HOME": str(home)},
        )
        return done.returncode, done.stdout, done.stderr

    code, said, _ = run(str(folder), "--json")
    files = json.loads(said.splitlines()[-1])["files"]
    assert code == 0
    assert set(files[0]) == {
        *("path", "outcome", "reason", "flags"),
        *("image_id", "width", "height", "duplicate_of"),
    }
    assert [(file["path"], file["outcome"], file["flags"]) for file in files] == [
        ("=a\tb\n.png", "accepted", ["extension_mismatch"]),
        ("cut.jpg", "quarantined", []),
    ]
    code, said, _ = run(str(folder))
    assert (code, "2 files: 1 accepted, 1 quarantined" in said) == (0, True)
    code, _, complaint = run(str(folder / "nowhere"))
    assert (code, "is no folder" in complaint) == (2, True)
    assert not home.exists()


def test_the_dry_run_says_what_cleaning_does(tmp_path):
    jpeg = saved(scene(1), "JPEG", quality=92)
    files = {
        "a.jpg": jpeg,
        "b.jpg": jpeg,
        "c.png": saved(decode(jpeg), "PNG"),
        "d.jpg": saved(decode(jpeg), "JPEG", quality=60),
        "e.png": saved(scene(2), "JPEG") + b"tail",
        "f.png": b"",
        "g.jpg": jpeg[:500],
        "h.gif": saved(scene(3), "GIF"),
    }
    store = LocalObjectStore(tmp_path / "lake")
    rows = []
    for name, data in files.items():
        digest = hashlib.sha256(data).hexdigest()
        store.create(raw_key(digest), data)
        facts = {"source_key": name, "stamp": "1-1", "image_id": digest, "byte_size": len(data)}
        rows.append({"round_id": "round-0001", **facts, "problem": ""})
    raw = make_table("raw_images", rows)
    cleaned = clean_round(raw, empty_table("cleaned_images"), store, POLICY)
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    inspected = inspect_folder(folder, POLICY)
    columns = ["source_key", "outcome", "reason", "flags", "image_id", "width", "height"]
    assert [
        [
            row.path,
            row.outcome,
            row.reason,
            ",".join(row.flags),
            row.image_id,
            row.width,
            row.height,
        ]
        for row in inspected
    ] == cleaned[columns].to_numpy().tolist()
    assert [row.duplicate_of for row in inspected[1:4]] == [inspected[0].image_id] * 3
    assert [row.outcome for row in inspected] == [
        *["accepted", "duplicate", "duplicate", "duplicate"],
        *["accepted", "quarantined", "quarantined", "accepted"],
    ]
