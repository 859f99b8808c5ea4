"""A training split drawn by shares: near the target, or it says by how much it is not."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.curation.balance import balance_images
from annotation_platform.errors import DataError


def table(images: dict[str, tuple[str, list[str]]]) -> pd.DataFrame:
    """Return labels of images, given as split and classes; the column ``source`` is their split."""
    rows = [
        {"image_id": image, "split": split, "class_name": name, "shape": "box" if name else "none"}
        for image, (split, names) in images.items()
        for name in names or [None]
    ]
    return pd.DataFrame(rows)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_shares_are_met_or_the_shortfall_is_said_and_only_training_images_are_drawn(seed):
    rng = np.random.default_rng(seed)
    images = {
        f"{number:03}": (
            rng.choice(["train", "train", "val", "test"]),
            list(rng.choice(["a", "b", "c"], size=rng.integers(0, 5), p=[0.85, 0.1, 0.05])),
        )
        for number in range(120)
    }
    labels = table(images)
    of_split = {image for image, (split, _) in images.items() if split == "train"}
    present = {name for image in of_split for name in images[image][1]}
    targets = {name: 1 / len(present) for name in sorted(present)}
    drawn = balance_images(labels, targets, rng=np.random.default_rng(1))
    assert len(drawn.image_ids) == len(of_split)
    assert set(drawn.image_ids) <= of_split
    assert max(map(drawn.image_ids.count, set(drawn.image_ids))) <= 4
    names = [name for image in drawn.image_ids for name in images[image][1]]
    for name, target in targets.items():
        share = names.count(name) / len(names)
        assert share == pytest.approx(drawn.shares[name])
        assert drawn.shortfall.get(name, 0) == pytest.approx(
            target - share if target - share > 0.02 else 0
        )
    # Never further from the target than all images once.
    before = [name for image in of_split for name in images[image][1]]
    off = [sum(abs(each.count(name) / len(each) - share) for name, share in targets.items())
           for each in (names, before)]  # fmt: skip
    assert off[0] <= off[1] + 0.02
    again = balance_images(labels.sample(frac=1, random_state=seed % 1000), targets,
                           rng=np.random.default_rng(1))  # fmt: skip
    assert again == drawn


def test_a_rare_class_is_brought_to_its_share_where_there_is_enough_of_it():
    images = {f"a{number:02}": ("train", ["a"]) for number in range(90)}
    images |= {f"b{number:02}": ("train", ["b"]) for number in range(15)}
    images |= {f"t{number:02}": ("test", ["b"]) for number in range(90)}
    drawn = balance_images(table(images), {"a": 0.5, "b": 0.5}, rng=np.random.default_rng(0))
    assert drawn.shares == pytest.approx({"a": 0.5, "b": 0.5}, abs=0.01)
    assert drawn.shortfall == {}
    short = balance_images(
        table(images), {"a": 0.2, "b": 0.8}, size=105, rng=np.random.default_rng(0)
    )
    # Sixty is all that fifteen images give when each is taken four times.
    assert short.shares["b"] == pytest.approx(60 / 105)
    assert short.shortfall["b"] == pytest.approx(0.8 - 60 / 105)


def test_images_that_serve_as_well_are_taken_as_often():
    images = {f"x{number}": ("train", ["a", "b"]) for number in range(5)}
    images |= {f"y{number}": ("train", ["a", "b"] * 2) for number in range(5)}
    drawn = balance_images(
        table(images), {"a": 0.5, "b": 0.5}, size=20, rng=np.random.default_rng(0)
    )
    assert {image: drawn.image_ids.count(image) for image in images} == dict.fromkeys(images, 2)


def test_many_kinds_of_images_are_balanced_in_a_moment():
    rng = np.random.default_rng(0)
    names = [f"c{number}" for number in range(20)]
    odds = np.linspace(3, 9, 20) / 120
    images = {
        f"{number:05}": ("train", list(rng.choice(names, size=10, p=odds)))
        for number in range(3000)
    }
    drawn = balance_images(table(images), dict.fromkeys(names, 0.05), rng=rng)
    assert drawn.shortfall == {}


def test_other_columns_are_balanced_as_classes_are():
    labels = table({f"{number:02}": ("train", ["a"]) for number in range(40)})
    labels["source"] = ["north" if image < "30" else "south" for image in labels["image_id"]]
    drawn = balance_images(
        labels, {"north": 0.5, "south": 0.5}, by="source", rng=np.random.default_rng(0)
    )
    assert drawn.shares == {"north": 0.5, "south": 0.5}


@pytest.mark.parametrize(
    ("targets", "size", "message"),
    [
        ({"a": 0.5, "b": 0.6}, None, "the sum 1"),
        ({"a": 1.5, "b": -0.5}, None, "above 0"),
        ({"a": 0.5, "z": 0.5}, None, "no training image has class_name 'z'"),
        ({"a": 0.5, "b": 0.5}, 9, "2 images taken 4 times"),
    ],
)
def test_what_cannot_be_is_refused(targets, size, message):
    labels = table({"1": ("train", ["a", "b"]), "2": ("train", []), "3": ("test", ["z"])})
    with pytest.raises(DataError, match=message):
        balance_images(labels, targets, size=size, rng=np.random.default_rng(0))
