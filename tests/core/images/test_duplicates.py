"""What repeats what in a folder, and what looks alike, on images whose answers are known."""

import json
import os
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from annotation_platform.errors import DataError
from annotation_platform.images.duplicates import find_duplicates
from annotation_platform.images.signature import seen_as, set_signature, signature, signature_rows
from annotation_platform.images.similar_pairs import find_similar
from tests.commands import run_command
from tests.core.images.conftest import public_pairs, saved, scene


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
            "a.png": saved(pixels, "PNG"),
            "b/copy.png": saved(pixels, "PNG"),
            "b/pixels.bmp": saved(pixels, "BMP"),
            "b/recoded.jpg": saved(pixels, quality=50),
            "b/small.jpg": saved(np.asarray(other.resize((80, 60))), quality=90),
            "b/upside_down.jpg": saved(pixels[::-1, ::-1], quality=90, exif=turned),
            "c/middle.png": saved(pixels[18:102, 24:136], "PNG"),
            "c/mirrored.jpg": saved(pixels[:, ::-1], quality=80),
            "c/on_its_side.jpg": saved(np.rot90(pixels), quality=80),
            "other.png": saved(scene(2), "PNG"),
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


def test_what_is_no_sound_image_is_skipped_with_its_reason(find):
    sound = saved(scene(1))
    found = find(
        {"cut.jpg": sound[:-200], "empty.jpg": b"", "page.jpg": b"<html>", "ok.jpg": sound}
    )
    assert [file.path for file in found.skipped] == ["cut.jpg", "empty.jpg", "page.jpg"]
    assert all(file.reason for file in found.skipped)
    assert found.groups == found.pairs == []


def test_links_and_pipes_are_skipped_with_a_reason(tmp_path):
    outside, folder = tmp_path / "outside.png", tmp_path / "folder"
    outside.write_bytes(saved(scene(1), "PNG"))
    folder.mkdir()
    (folder / "link.png").symlink_to(outside)
    (folder / "a.png").write_bytes(outside.read_bytes())
    os.mkfifo(folder / "pipe.png")
    found = find_duplicates(folder)
    assert found.pairs == []
    assert {file.path: file.reason for file in found.skipped} == {
        "link.png": "cannot be read: Too many levels of symbolic links",
        "pipe.png": "not a regular file",
    }


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match="not a readable folder"):
        find_duplicates(tmp_path / "nowhere")
    assert find_duplicates(tmp_path).groups == []


def test_blank_images_repeat_only_themselves(find):
    blank = {
        f"{grey:03d}{letter}.png": saved(np.full((40, 40, 3), grey, np.uint8), "PNG")
        for grey in range(10, 250, 10)
        for letter in "ab"
    }
    found = find(blank)
    assert len(found.pairs) == len(found.groups) == 24
    assert {pair.kind for pair in found.pairs} == {"exact_bytes"}


def test_many_copies_are_one_group_but_not_every_pair(find):
    found = find({f"{n:02d}.jpg": saved(scene(1), quality=90) for n in range(50)})
    assert [len(group) for group in found.groups] == [50]
    assert len(found.pairs) == 49


def test_different_scenes_are_not_alike(find):
    found = find({f"{seed}.jpg": saved(scene(seed)) for seed in range(150)})
    assert found.pairs == []


def test_a_view_of_a_image_is_the_image_seen_so():
    pixels = scene(3, width=192, height=192)
    views = signature(pixels)
    for view in range(8):
        turned = pixels.transpose(1, 0, 2) if view & 4 else pixels
        turned = turned[:: -1 if view & 2 else 1, :: -1 if view & 1 else 1]
        whole = signature(np.ascontiguousarray(turned))
        assert seen_as(views.vectors[None], np.array([0]), view)[0] @ whole.vectors[0] > 0.999
        assert np.bitwise_count(views.hashes[view] ^ whole.hashes[0]).max() <= 2


def test_known_duplicates_of_blood_cells_are_found_and_no_others(public):
    folder = public("neardup_synth")
    found = find_duplicates(folder / "img")
    kinds = {frozenset((pair.a, pair.b)): pair.kind for pair in found.pairs}
    outcomes = Counter(
        (relation, kinds.get(frozenset((base, variant))))
        for base, variant, relation in public_pairs(folder)
    )
    assert outcomes == {
        ("exact_bytes", "exact_bytes"): 16,
        ("exact_pixels", "exact_pixels"): 20,
        ("near", "near"): 80,
        ("near_after_exif_rotation", "near"): 16,
        ("hard_near", "similar"): 16,
        ("policy_flip", "similar"): 16,
        ("policy_rot", "similar"): 16,
    }
    # Other files of one image are pairs, too; files of two images never are.
    assert all(pair.a[:3] == pair.b[:3] for pair in found.pairs)
    beyond_near = ("hflip", "rot90", "crop20")
    assert not any(
        name in pair.a + pair.b
        for pair in found.pairs
        if pair.kind == "near"
        for name in beyond_near
    )


def test_mirrored_and_resized_photographs_are_found(public):
    found = find_duplicates(public("neardup_imagededup") / "mixed_images")
    first = "ukbench00120.jpg"
    assert {pair.b: pair.kind for pair in found.pairs if pair.a == first} == {
        "ukbench00120_hflip.jpg": "similar",
        "ukbench00120_resize.jpg": "near",
    }
    assert [file.path for file in found.skipped] == ["ukbench09268_corrupt.jpg"]


def test_the_command_prints_one_object(tmp_path):
    for name in ("a.jpg", "[b].jpg"):
        (tmp_path / name).write_bytes(saved(scene(1)))
    (tmp_path / "notes.txt").write_text("no image")
    done = run_command("dataset", "duplicates", tmp_path, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {
        "groups": [["[b].jpg", "a.jpg"]],
        "pairs": [{"a": "[b].jpg", "b": "a.jpg", "kind": "exact_bytes", "distance": 0}],
        "skipped": [{"path": "notes.txt", "reason": "not an image"}],
    }
    shown = run_command("dataset", "duplicates", tmp_path).stdout
    assert "[b].jpg" in shown
    assert "2 images in 1 groups" in shown


def test_pairs_are_found_whichever_of_both_is_known():
    wholes = [scene(seed, width=192, height=192) for seed in range(4)]
    views = [wholes[0][::-1], np.rot90(wholes[1]), wholes[2][24:168, 24:168], wholes[3] // 2 + 40]
    expected = [(0, 4, False), (1, 5, False), (2, 6, False), (3, 7, True)]
    for first, second in ((wholes, views), (views, wholes)):
        table = signature_rows(8)
        for row, pixels in zip(table, [*first, *second], strict=True):
            set_signature(row, "", signature(np.ascontiguousarray(pixels)))
        for known in (0, 4):
            found = find_similar(table, np.arange(8), known=known, bits=8)
            columns = (found.earlier, found.later, found.near)
            assert list(zip(*(each.tolist() for each in columns), strict=True)) == expected
        assert len(find_similar(table, np.arange(8), known=8, bits=8)) == 0
