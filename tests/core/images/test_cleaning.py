import hashlib
import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from annotation_platform.images.cleaning import clean_round
from annotation_platform.images.decoding import decode
from annotation_platform.images.ingest import image_key, raw_key
from annotation_platform.params import CleaningPolicy
from annotation_platform.schema.tables import empty_table, make_table
from annotation_platform.storage.objects import LocalObjectStore


def scene(seed, *, width=160, height=120):
    """Return a picture with blobs at random places: smooth, sharp enough, unlike any other."""
    rng = np.random.default_rng(seed)
    planes = [gaussian_filter(rng.normal(size=(height, width)), 6) for _ in range(3)]
    stretched = [(plane - plane.min()) / np.ptp(plane) * 200 + 20 for plane in planes]
    noise = rng.normal(scale=4, size=(height, width, 1))
    return np.clip(np.stack(stretched, axis=-1) + noise, 0, 255).astype(np.uint8)


def encode(pixels, kind="JPEG", **options):
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format=kind, **options)
    return sink.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x010F] = "SECRET-CAMERA-OWNER"
    return tags


@pytest.fixture
def clean(tmp_path):
    store = LocalObjectStore(tmp_path)
    known = [empty_table("cleaned_images")]

    def run(files, policy=None):
        round_id = f"round-{len(known):04d}"
        rows = []
        for name, data in files.items():
            digest = hashlib.sha256(data).hexdigest()
            store.create(raw_key(digest), data)
            rows.append(
                {
                    "round_id": round_id,
                    "source_key": name,
                    "stamp": f"{len(data)}-1",
                    "image_id": digest,
                    "byte_size": len(data),
                    "problem": "",
                }
            )
        earlier = known[-1]
        raw = make_table("raw_images", rows)
        cleaned = clean_round(raw, earlier, store, policy or CleaningPolicy())
        known.append(cleaned)
        return cleaned.set_index("source_key"), store

    return run


def test_each_defect_is_quarantined_with_its_reason_and_the_rest_goes_on(clean):
    sound = encode(scene(1), quality=90)
    middle = bytearray(sound)
    middle[len(middle) // 2 : len(middle) // 2 + 64] = np.random.default_rng(0).bytes(64)
    png = bytearray(encode(scene(2), "PNG"))
    png[-16] ^= 0xFF  # inside the last checksum of the pixels
    cleaned, _ = clean(
        {
            "black.png": encode(np.zeros((120, 160, 3), np.uint8), "PNG"),
            "blurred.png": encode(np.tile(np.uint8([[[90]]]), (120, 160, 3)), "PNG"),
            "bomb.png": encode(np.zeros((20, 20, 3), np.uint8), "PNG"),
            "checksum.png": bytes(png),
            "cut.jpg": sound[: len(sound) // 2],
            "empty.jpg": b"",
            "flipped.jpg": bytes(middle),
            "page.jpg": b"<html>sign in</html>",
            "sound.jpg": sound,
            "tail.jpg": sound[:-2],
        },
        CleaningPolicy(maximum_pixels=160 * 120, minimum_side=32),
    )
    outcomes = cleaned["outcome"].to_dict()
    assert outcomes.pop("sound.jpg") == "accepted"
    assert set(outcomes.values()) == {"quarantined"}
    reasons = cleaned["reason"].str.split(":").str[0].to_dict()
    assert reasons == {
        "black.png": "too dark",
        "blurred.png": "blurred",
        "bomb.png": "too small",
        "checksum.png": "damaged image",
        "cut.jpg": "damaged image",
        "empty.jpg": "empty file",
        "flipped.jpg": "damaged image",
        "page.jpg": "not an image",
        "sound.jpg": "",
        "tail.jpg": "damaged image",
    }


def test_a_header_without_dimensions_is_no_image(clean):
    # The tags of a picture whose width and height are missing; Pillow answers with a TypeError.
    broken = b"II*\x00\x08\x00\x00\x00\x01\x00\x02\x01\x03\x00\x01\x00\x00\x00\x08\x00\x00\x00"
    cleaned, _ = clean({"broken.tif": broken + bytes(8), "sound.jpg": encode(scene(1))})
    assert cleaned["outcome"].to_dict() == {"broken.tif": "quarantined", "sound.jpg": "accepted"}


def test_too_many_pixels_are_refused_from_the_header(clean):
    policy = CleaningPolicy(maximum_pixels=160 * 120 - 1)
    cleaned, _ = clean({"large.jpg": encode(scene(1))}, policy)
    assert cleaned.loc["large.jpg", "reason"].startswith("too many pixels: 160x120")


def test_a_sound_picture_keeps_its_pixels_and_coded_data_and_loses_its_metadata(clean):
    pixels = scene(3)
    plain = encode(pixels, quality=90)
    tagged = encode(pixels, quality=90, exif=exif(1), comment=b"SECRET-COMMENT")
    cleaned, store = clean({"a.jpg": tagged + b"SECRET-TRAILER"})
    row = cleaned.loc["a.jpg"]
    stored = store.get(image_key(row["image_id"], "jpg"))
    assert (row["outcome"], row["flags"]) == ("accepted", "trailing_data,metadata_cut")
    assert b"SECRET" not in stored
    assert (decode(stored) == decode(plain)).all()
    scan = plain[plain.index(b"\xff\xda") :]
    assert stored.endswith(scan)
    assert hashlib.md5(stored).hexdigest() == row["stored_md5"]


@pytest.mark.parametrize("orientation", range(2, 9))
def test_orientation_is_applied_once(clean, orientation):
    upright = scene(4)
    transposed = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    turned = np.asarray(Image.fromarray(upright).transpose(Image.Transpose(transposed)))
    cleaned, store = clean({"a.png": encode(turned, "PNG", exif=exif(orientation))})
    row = cleaned.loc["a.png"]
    assert (row["width"], row["height"]) == (160, 120)
    assert (decode(store.get(image_key(row["image_id"], "png"))) == upright).all()
    assert "rotated" in row["flags"]


def test_other_kinds_become_rgb_by_a_stated_rule(clean):
    grey16 = (np.linspace(0, 65535, 160 * 120).reshape(120, 160)).astype(np.uint16)
    grey16 += np.random.default_rng(0).integers(0, 3000, grey16.shape).astype(np.uint16) // 2
    clear = np.dstack([scene(5), np.zeros((120, 160), np.uint8)])
    clear[:, :80, 3] = 255
    cleaned, store = clean(
        {
            "clear.png": encode(clear, "PNG"),
            "deep.png": encode(np.minimum(grey16, 65535), "PNG"),
            "wrong-name.jpg": encode(scene(6), "PNG"),
        }
    )
    assert set(cleaned["outcome"]) == {"accepted"}
    assert set(cleaned["extension"]) == {"png"}
    shown = decode(store.get(image_key(cleaned.loc["clear.png", "image_id"], "png")))
    assert (shown[:, 80:] == 255).all()
    assert (shown[:, :80] == scene(5)[:, :80]).all()
    deep = decode(store.get(image_key(cleaned.loc["deep.png", "image_id"], "png")))
    assert np.abs(deep[..., 0] - grey16 / 257).max() <= 1


def test_duplicates_point_at_what_they_repeat_also_in_earlier_rounds(clean):
    pixels = scene(7)
    original = encode(pixels, quality=92)
    larger = np.asarray(Image.fromarray(decode(original)).resize((320, 240)))
    first, _ = clean({"a.jpg": original, "b.jpg": original, "other.jpg": encode(scene(8))})
    image_id = first.loc["a.jpg", "image_id"]
    assert first.loc["b.jpg", ["outcome", "reason"]].tolist() == ["duplicate", "exact_bytes"]
    second, store = clean(
        {
            "bytes.jpg": original,
            "pixels.png": encode(decode(original), "PNG"),
            "resaved.jpg": encode(decode(original), quality=50),
            "resized.jpg": encode(larger, quality=85),
            "new.jpg": encode(scene(9)),
        }
    )
    assert second["outcome"].to_dict() == {
        "bytes.jpg": "duplicate",
        "pixels.png": "duplicate",
        "resaved.jpg": "duplicate",
        "resized.jpg": "duplicate",
        "new.jpg": "accepted",
    }
    assert second["reason"].to_dict() == {
        "bytes.jpg": "exact_bytes",
        "pixels.png": "exact_pixels",
        "resaved.jpg": "near",
        "resized.jpg": "near",
        "new.jpg": "",
    }
    assert set(second["duplicate_of"].dropna()) == {image_id}
    stored = list(store.list("images"))
    assert len(stored) == 3


def test_cleaning_twice_gives_the_same_table_and_files(clean):
    files = {f"{n}.jpg": encode(scene(n)) for n in range(3)}
    first, store = clean(files)
    before = {key: store.get(key) for key in store.list("images")}
    again, _ = clean(files)
    assert list(first["stored_md5"]) == list(again["stored_md5"])
    assert {key: store.get(key) for key in store.list("images")} == before
