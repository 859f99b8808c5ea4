import hashlib
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from annotation_platform.demo.harbour import MINIMUM_VISIBLE, draw_scene
from annotation_platform.demo.scenes import ONTOLOGY, draw_batch
from annotation_platform.demo.sprites import DRAW, Pen
from annotation_platform.errors import DataError
from annotation_platform.images.decoding import decode
from annotation_platform.images.quality import measure, unusable
from annotation_platform.images.signature import signature
from annotation_platform.policy import CleaningPolicy


@pytest.fixture(scope="module")
def batch():
    return draw_batch(1, 30, seed=7)


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(np.random.default_rng([11, number])) for number in range(30)]


def test_the_bytes_depend_on_the_seed_alone(batch):
    first, again = (draw_batch(1, 4, seed=7) for _ in range(2))
    assert again.files == first.files
    assert again.truth.labels.equals(first.truth.labels)
    other = draw_batch(1, 3, seed=8)
    common = set(other.files.values()) & set(batch.files.values())
    assert {data[:15] for data in common} == {b"<!DOCTYPE html>"}


def test_a_larger_batch_contains_the_images_of_a_smaller_one(batch):
    smaller = draw_batch(1, 5, seed=7)
    sound = [name for name, outcome in smaller.expected.items() if outcome == "accepted"]
    assert len(sound) == 5
    assert all(batch.files[name] == smaller.files[name] for name in sound)


def test_a_ground_truth_box_is_the_extent_of_the_visible_part(scenes):
    for scene in scenes:
        for number, box in scene.labels.iterrows():
            seen = scene.seen == number
            columns, rows = np.flatnonzero(seen.any(axis=0)), np.flatnonzero(seen.any(axis=1))
            assert (box.x1, box.y1) == (columns[0], rows[0])
            assert (box.x2, box.y2) == (columns[-1] + 1, rows[-1] + 1)


def test_an_object_has_a_box_if_a_quarter_of_it_is_visible(scenes):
    shares = [
        (number in scene.labels.index, share)
        for scene in scenes
        for number, share in scene.visible.items()
    ]
    assert all(in_truth == (share >= MINIMUM_VISIBLE) for in_truth, share in shares)
    # Both cases occur: objects are cut by the edge or covered, and some disappear.
    assert sum(share < 0.95 for _, share in shares) > 20
    assert any(not in_truth for in_truth, _ in shares)


@pytest.mark.parametrize("class_name", list(DRAW))
def test_the_edge_of_an_object_is_where_the_image_changes(class_name):
    rng = np.random.default_rng(3)
    pen = Pen((60.3, 59.6), 0.7, 45)
    DRAW[class_name](pen, 60, 20, rng)
    sprite = pen.sprite(light=np.array([1.0, 0.0]), height=0)
    # No object is pure magenta, so on that background every pixel half covered by one differs.
    ground = np.tile([255.0, 0.0, 255.0], (*sprite.alpha.shape, 1))
    laid = ground * (1 - sprite.alpha[..., None]) + sprite.pixels * sprite.alpha[..., None]
    changed = np.abs(laid - ground).max(axis=2) > 60
    covered = sprite.alpha >= 0.5
    for axis in (0, 1):
        by_colour, by_mask = np.flatnonzero(changed.any(axis)), np.flatnonzero(covered.any(axis))
        assert abs(int(by_colour[0]) - int(by_mask[0])) <= 1
        assert abs(int(by_colour[-1]) - int(by_mask[-1])) <= 1


def test_boxes_are_inside_the_image_and_have_an_area(batch):
    labels = batch.truth.labels
    assert (labels[["x1", "y1"]] >= 0).all(axis=None)
    assert (labels["x2"] <= 320).all()
    assert (labels["y2"] <= 240).all()
    sides = np.minimum(labels["x2"] - labels["x1"], labels["y2"] - labels["y1"])
    assert sides.min() >= 4


def test_a_fully_visible_object_has_sides_of_14_pixels_or_more(scenes):
    whole = [
        (box.x2 - box.x1, box.y2 - box.y1)
        for scene in scenes
        for number, box in scene.labels.iterrows()
        if scene.visible[number] == 1
    ]
    assert len(whole) > 100
    assert np.min(whole) >= 14


def test_there_are_four_classes_of_clearly_unequal_frequency(batch, scenes):
    labels = pd.concat([batch.truth.labels, *(scene.labels for scene in scenes)])
    counts = labels["class_name"].value_counts()
    assert set(counts.index) == set(ONTOLOGY.names)
    assert list(counts.index) == ["boat", "container", "buoy", "lorry"]
    assert (counts.to_numpy()[:-1] > 1.2 * counts.to_numpy()[1:]).all()


def test_cleaning_gives_each_file_the_expected_outcome(batch):
    for name, outcome in batch.expected.items():
        try:
            pixels = decode(batch.files[name])
            height, width = pixels.shape[:2]
            quality = measure(pixels)
            problem = unusable(quality, width=width, height=height, policy=CleaningPolicy())
        except DataError as error:
            problem = str(error)
        assert bool(problem) == (outcome == "quarantined"), (name, problem)
    outcomes = list(batch.expected.values())
    assert (outcomes.count("accepted"), outcomes.count("duplicate")) == (30, 2)
    assert outcomes.count("quarantined") == 3


def test_only_the_copies_are_near_duplicates(batch):
    names = [name for name, outcome in batch.expected.items() if outcome != "quarantined"]
    bits = np.array([signature(decode(batch.files[name])).hashes[0, 0] for name in names])
    apart = np.bitwise_count(bits[:, None] ^ bits[None, :])
    alike = {tuple(sorted((names[a], names[b]))) for a, b in np.argwhere(apart <= 6) if a < b}
    copies = [name for name, outcome in batch.expected.items() if outcome == "duplicate"]
    assert len(alike) == len(copies) == 2
    # A copy sorts after its original, so that the original is accepted.
    assert {pair[1] for pair in alike} == set(copies)


def test_later_batches_repeat_an_image_of_the_previous_batch():
    first, second = draw_batch(1, 2, seed=5), draw_batch(2, 2, seed=5)
    original = next(name for name in first.files if name.startswith("harbour-01-0001"))
    resaved = next(name for name in second.files if name.startswith("harbour-01-0001"))
    assert resaved > original
    assert second.expected[resaved] == "duplicate"
    files = (first.files[original], second.files[resaved])
    hashes = np.array([signature(decode(data)).hashes[0, 0] for data in files])
    assert np.bitwise_count(hashes[0] ^ hashes[1]) <= 6


def test_the_truth_is_keyed_by_the_bytes_of_the_files(batch):
    images = batch.truth.images.set_index("file_name")["image_id"]
    for name, outcome in batch.expected.items():
        if outcome == "accepted":
            assert images[name] == hashlib.sha256(batch.files[name]).hexdigest()
    assert set(batch.truth.labels["image_id"]) <= set(images)


def test_some_images_have_a_gps_position_that_cleaning_must_remove(batch):
    gps = 0x8825
    sound = [batch.files[name] for name, outcome in batch.expected.items() if outcome == "accepted"]
    placed = [bool(Image.open(io.BytesIO(data)).getexif().get_ifd(gps)) for data in sound]
    assert 0 < sum(placed) < len(placed)


def test_other_sizes_show_objects_in_proportion():
    truth = draw_batch(1, 2, seed=1, width=640, height=480).truth
    assert set(truth.images["width"]) == {640}
    sides = truth.labels[["x2", "y2"]].to_numpy() - truth.labels[["x1", "y1"]].to_numpy()
    assert np.median(sides) > 50


@pytest.mark.parametrize(("batch", "images"), [(0, 5), (1, 0)])
def test_an_impossible_batch_is_an_error(batch, images):
    with pytest.raises(DataError, match="count from 1"):
        draw_batch(batch, images, seed=0)
