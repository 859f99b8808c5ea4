"""What repeats what: an exact search, and what it finds on pictures whose answers are known."""

import csv
import io
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from annotation_platform.errors import DataError
from annotation_platform.images.duplicates import find_duplicates
from annotation_platform.images.hashing import hash_bits, likeness, seen_as
from annotation_platform.images.near_duplicates import (
    Candidate,
    close_across,
    close_hashes,
    close_pairs,
    groups,
)

PROJECT_ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("ANNOTATION_TEST_DATA", PROJECT_ROOT.parent / "shared" / "data"))


def data_folder(name):
    if not (DATA / name).is_dir():
        pytest.skip(f"the public test data are not at {DATA}; set ANNOTATION_TEST_DATA")
    return DATA / name


def random_hashes(count, rng):
    """Return distinct hashes, evenly drawn, half of them up to 13 bits away from another."""
    hashes = rng.integers(0, 2**64, count // 2, dtype=np.uint64)
    return with_neighbours(hashes, rng)


def skewed_hashes(count, rng):
    """Return distinct hashes as one kind of picture has: few bits vary, and those together."""
    mixing = rng.normal(size=(5, 64))
    values = rng.normal(size=(count // 2, 5)) @ mixing + rng.normal(scale=4.0, size=64)
    packed = np.packbits(values > 0, axis=1)
    return with_neighbours(packed.view(">u8").ravel().astype(np.uint64), rng)


def with_neighbours(hashes, rng):
    moved = hashes.copy()
    for change in range(13):
        still_moving = moved[change * len(moved) // 13 :]
        still_moving ^= np.uint64(1) << rng.integers(0, 64, len(still_moving), dtype=np.uint64)
    return rng.permutation(np.unique(np.concatenate([hashes, moved])))


def brute_force(left, right, bits):
    distances = np.bitwise_count(left[:, None] ^ right[None, :])
    rows, columns = np.nonzero(distances <= bits)
    return list(zip(rows, columns, distances[rows, columns], strict=True))


def listed(found):
    return list(zip(found.first, found.second, found.bits, strict=True))


@pytest.mark.parametrize("make", [random_hashes, skewed_hashes])
@pytest.mark.parametrize("bits", [0, 1, 6, 8, 9, 16, 40, 64])
def test_no_pair_is_missed_whatever_the_bands(make, bits):
    hashes = make(300, np.random.default_rng(bits))
    left, right = hashes[:200], hashes[150:]
    within = [pair for pair in brute_force(hashes, hashes, bits) if pair[0] < pair[1]]
    across = brute_force(left, right, bits)
    least, most = (bits + 2) // 2, min(bits + 1, 64)
    for bands in [None, 0, *range(least, most + 1, 1 if bits < 16 else 7)]:
        assert listed(close_pairs(hashes, bits=bits, bands=bands)) == within, bands
        assert listed(close_across(left, right, bits=bits, bands=bands)) == across, bands


@pytest.mark.parametrize("make", [random_hashes, skewed_hashes])
def test_no_pair_is_missed_among_so_many_that_bands_are_chosen(make):
    hashes = make(8_000, np.random.default_rng(0))
    found = close_pairs(hashes, bits=8)
    assert len(found) > 500
    assert listed(found) == listed(close_pairs(hashes, bits=8, bands=0))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3), max_size=30),
    st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3), max_size=30),
    st.integers(0, 64),
)
def test_close_hashes_returns_every_pair_nearest_first(new, known, bits):
    found = close_hashes([f"{n:016x}" for n in new], [f"{n:016x}" for n in known], bits=bits)
    pairs = [
        Candidate(a, b, (one ^ other).bit_count())
        for a, one in enumerate(new)
        for b, other in enumerate(known)
    ]
    expected = [pair for pair in pairs if pair.bits <= bits]
    assert found == sorted(expected, key=lambda pair: (pair.bits, pair.new, pair.known))


def test_a_search_refuses_what_would_make_it_wrong_or_slow():
    equal = np.zeros(2, dtype=np.uint64)
    with pytest.raises(ValueError, match="collapsed"):
        close_pairs(equal, bits=8)
    with pytest.raises(ValueError, match="0 to 64"):
        close_pairs(equal[:1], bits=65)
    with pytest.raises(ValueError, match="bands"):
        close_pairs(equal[:1], bits=8, bands=4)
    assert len(close_pairs(equal[:0], bits=8)) == 0
    assert hash_bits(["00000000000000ff"]).tolist() == [255]


def test_groups_tie_together_what_pairs_tie_directly_or_through_others():
    assert groups(7, [(5, 6), (1, 0), (3, 1), (6, 5)]) == [[0, 1, 3], [5, 6]]
    assert groups(3, []) == []


def scene(seed, *, width=160, height=120):
    """Return a picture with blobs at random places, unlike any other."""
    rng = np.random.default_rng(seed)
    planes = [gaussian_filter(rng.normal(size=(height, width)), 6) for _ in range(3)]
    stretched = [(plane - plane.min()) / np.ptp(plane) * 200 + 20 for plane in planes]
    return np.stack(stretched, axis=-1).astype(np.uint8)


def encode(pixels, kind="JPEG", **options):
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format=kind, **options)
    return sink.getvalue()


@pytest.fixture
def find(tmp_path):
    def in_folder(files):
        for name, data in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return find_duplicates(tmp_path)

    return in_folder


def test_each_pair_has_the_strictest_kind_that_holds(find):
    pixels = scene(1)
    other = Image.fromarray(pixels)
    turned = Image.Exif()
    turned[0x0112] = 3
    found = find(
        {
            "a.png": encode(pixels, "PNG"),
            "b/copy.png": encode(pixels, "PNG"),
            "b/pixels.bmp": encode(pixels, "BMP"),
            "b/recoded.jpg": encode(pixels, quality=50),
            "b/small.jpg": encode(np.asarray(other.resize((80, 60))), quality=90),
            "b/upside_down.jpg": encode(pixels[::-1, ::-1], quality=90, exif=turned),
            "c/middle.png": encode(pixels[18:102, 24:136], "PNG"),
            "c/mirrored.jpg": encode(pixels[:, ::-1], quality=80),
            "c/on_its_side.jpg": encode(np.rot90(pixels), quality=80),
            "other.png": encode(scene(2), "PNG"),
        }
    )
    with_first = {pair.b: pair.kind for pair in found.pairs if pair.a == "a.png"}
    assert with_first == {
        "b/copy.png": "exact_bytes",
        "b/pixels.bmp": "exact_pixels",
        "b/recoded.jpg": "near",
        "b/small.jpg": "near",
        "b/upside_down.jpg": "near",
        "c/middle.png": "similar",
        "c/mirrored.jpg": "similar",
        "c/on_its_side.jpg": "similar",
    }
    assert found.groups == [["a.png", *with_first]]
    assert all(pair.distance <= 8 and pair.a < pair.b for pair in found.pairs)


def test_what_is_no_sound_picture_is_skipped_with_its_reason(find):
    sound = encode(scene(1))
    found = find(
        {"cut.jpg": sound[:-200], "empty.jpg": b"", "page.jpg": b"<html>", "ok.jpg": sound}
    )
    assert [file.path for file in found.skipped] == ["cut.jpg", "empty.jpg", "page.jpg"]
    assert all(file.reason for file in found.skipped)
    assert found.groups == found.pairs == []


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        find_duplicates(tmp_path / "nowhere")
    assert find_duplicates(tmp_path).groups == []


def test_blank_pictures_repeat_only_themselves(find):
    blank = {
        f"{grey:03d}{letter}.png": encode(np.full((40, 40, 3), grey, np.uint8), "PNG")
        for grey in range(10, 250, 10)
        for letter in "ab"
    }
    found = find(blank)
    assert len(found.pairs) == len(found.groups) == 24
    assert {pair.kind for pair in found.pairs} == {"exact_bytes"}


def test_many_copies_are_one_group_but_not_every_pair(find):
    found = find({f"{n:02d}.jpg": encode(scene(1), quality=90) for n in range(50)})
    assert [len(group) for group in found.groups] == [50]
    assert len(found.pairs) == 49


def test_different_scenes_are_not_alike(find):
    found = find({f"{seed}.jpg": encode(scene(seed)) for seed in range(150)})
    assert found.pairs == []


def test_a_view_of_a_picture_is_the_picture_seen_so():
    pixels = scene(3, width=192, height=192)
    views = likeness(pixels)
    for view in range(8):
        turned = pixels.transpose(1, 0, 2) if view & 4 else pixels
        turned = turned[:: -1 if view & 2 else 1, :: -1 if view & 1 else 1]
        whole = likeness(np.ascontiguousarray(turned))
        assert seen_as(views.vectors[None], view)[0] @ whole.vectors[0] > 0.999
        assert np.bitwise_count(views.hashes[view] ^ whole.hashes[0]).max() <= 2


def test_known_duplicates_of_blood_cells_are_found_and_no_others():
    folder = data_folder("neardup_synth")
    found = find_duplicates(folder / "img")
    kinds = {frozenset((pair.a, pair.b)): pair.kind for pair in found.pairs}
    with (folder / "TRUTH_pairs.csv").open(newline="") as file:
        truth = {
            frozenset((row["base"], row["variant"])): row["relation"]
            for row in csv.DictReader(file)
        }
    outcomes = Counter((relation, kinds.get(pair)) for pair, relation in truth.items())
    assert outcomes == {
        ("exact_bytes", "exact_bytes"): 16,
        ("exact_pixels", "exact_pixels"): 20,
        ("near", "near"): 80,
        ("near_after_exif_rotation", "near"): 16,
        ("hard_near", "similar"): 16,
        ("policy_flip", "similar"): 16,
        ("policy_rot", "similar"): 16,
    }
    # Other files of one picture are pairs, too; files of two pictures never are.
    assert all(pair.a[:3] == pair.b[:3] for pair in found.pairs)
    beyond_near = ("hflip", "rot90", "crop20")
    assert not any(
        name in pair.a + pair.b
        for pair in found.pairs
        if pair.kind == "near"
        for name in beyond_near
    )


def test_mirrored_and_resized_photographs_are_found():
    found = find_duplicates(data_folder("neardup_imagededup") / "mixed_images")
    first = "ukbench00120.jpg"
    assert {pair.b: pair.kind for pair in found.pairs if pair.a == first} == {
        "ukbench00120_hflip.jpg": "similar",
        "ukbench00120_resize.jpg": "near",
    }
    assert [file.path for file in found.skipped] == ["ukbench09268_corrupt.jpg"]


def test_the_command_prints_one_object(tmp_path):
    for name in ("a.jpg", "[b].jpg"):
        (tmp_path / name).write_bytes(encode(scene(1)))
    (tmp_path / "notes.txt").write_text("no picture")
    command = [sys.executable, "-m", "annotation_platform.cli", "duplicates", str(tmp_path)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {
        "groups": [["[b].jpg", "a.jpg"]],
        "pairs": [{"a": "[b].jpg", "b": "a.jpg", "kind": "exact_bytes", "distance": 0}],
        "skipped": [{"path": "notes.txt", "reason": "not an image"}],
    }
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "[b].jpg" in shown
    assert "2 pictures in 1 groups" in shown
