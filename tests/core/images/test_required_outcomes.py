"""What must become of bad files: the public tables row by row, then the same faults made anew."""

import csv
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from annotation_platform.errors import DataError
from annotation_platform.images.probing import probe_image
from annotation_platform.ingestion.inspect import inspect_files
from tests.conftest import DATA
from tests.core.images.conftest import POLICY, saved, scene, tiff_tags

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


def required(text):
    """Return outcome, start of the reason and flags that a row of evil_EXPECT.csv asks for."""
    rule, _, what = text.partition(":")
    flags = {FLAGS[what]} if what in FLAGS else set()
    if rule.startswith(("quarantine", "reject")) or what == "uniform":
        return "quarantined", REASONS[what], flags
    if rule.startswith("skip"):
        return "pending", REASONS[what], flags
    return "accepted", "", flags


def test_every_image_of_the_evil_table(public, alone):
    folder = public("evil") / "in"
    rows = list(csv.DictReader((DATA / "evil_EXPECT.csv").open(encoding="utf-8")))
    images = [row for row in rows if (folder / row["path"]).is_file()]
    wrong = {}
    for row in images:
        path = folder / row["path"]
        got = alone(path.name, path.read_bytes())
        outcome, reason, flags = required(row["required_outcome"])
        met = got.outcome == outcome and got.reason.startswith(reason) and flags <= set(got.flags)
        if not met:
            wrong[row["path"]] = (row["required_outcome"], got)
    assert wrong == {}
    assert {path.name for path in folder.iterdir()} == {row["path"] for row in images}
    assert len(images) == 53


def test_the_evil_folder_at_once_differs_only_in_duplicates(public, alone):
    folder = public("evil") / "in"
    rows = inspect_files(folder, POLICY)
    accepted = {row.image_id for row in rows if row.outcome == "accepted"}
    assert len(rows) == len(list(folder.iterdir()))
    for row in rows:
        by_itself = alone(row.path, (folder / row.path).read_bytes())
        if row.outcome == "duplicate":
            assert by_itself.outcome == "accepted"
            assert row.duplicate_of in accepted
            assert row.flags == by_itself.flags
        else:
            flags = [flag for flag in row.flags if flag != "similar"]
            assert replace(row, flags=flags) == by_itself


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
def test_every_row_of_the_table_of_broken_images(public, name):
    folder = public(name)
    started = time.monotonic()
    found = {row.image_id: row for row in inspect_files(folder, POLICY)}
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
            probe_image(bytes(rotten), POLICY)
        except DataError:
            refused += 1
    assert refused >= 45


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_no_allowed_image(alone, seed):
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


def test_sound_images_under_their_own_names_have_no_flag(alone):
    names = {"JPEG": ("a.jpg", "A.JPEG", "noname"), "PNG": ("a.png", "a.b.PNG")}
    for kind, each in names.items():
        for name in each:
            got = alone(name, saved(scene(1), kind))
            assert (got.outcome, got.flags) == ("accepted", []), name
