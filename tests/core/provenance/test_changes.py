import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.provenance.changes import CHANGE_COLUMNS, find_changes
from annotation_platform.schema.shapes import NOTHING, Label
from annotation_platform.schema.tables import TrainingSet
from tests.core.versioning.sets import row


def labels_of(rng, count):
    """Boxes that do not overlap, so that there is no doubt which one became which."""
    cells = rng.choice(12, count, replace=False)
    return [
        Label.box("ship", 16 * (cell % 4) + 2, 16 * (cell // 4) + 2, 16 * (cell % 4) + 12,
                  16 * (cell // 4) + 12)
        for cell in cells.tolist()
    ]  # fmt: skip


def table(images):
    """Return a training set of labels by image number, with the split of each."""
    rows = [
        row(number, at, label, split=split)
        for number, (labels, split) in images.items()
        for at, label in enumerate(labels or [NOTHING])
    ]
    frame = TrainingSet.from_rows(rows) if rows else TrainingSet.empty()
    return frame.sort_values(["image_id", "label_id"], ignore_index=True)


def image_id(number):
    return hashlib.sha256(f"image {number}".encode()).hexdigest()


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_what_was_planted_is_what_is_found(seed):
    rng = np.random.default_rng(seed)
    before = {n: (labels_of(rng, rng.integers(0, 6)), "train") for n in range(12)}
    now = {n: (list(labels), split) for n, (labels, split) in before.items()}
    planted = []
    for number in range(12):
        labels, _ = now[number]
        act = rng.choice(["stay", "gone", "moved", "lost", "found", "renamed", "shifted", "both"])
        if act == "gone":
            del now[number]
            planted += [("image_removed", "", number)] + [("label_removed", "", number)] * len(
                labels
            )
        elif act == "moved":
            now[number] = (labels, "test")
            planted.append(("image_moved", "", number))
        elif act == "lost" and labels:
            labels.pop(int(rng.integers(len(labels))))
            planted.append(("label_removed", "", number))
        elif act == "found":
            labels.insert(0, Label.box("ship", 60, 40, 63, 46))
            planted.append(("label_added", "", number))
        elif act in {"renamed", "shifted", "both"} and labels:
            at = int(rng.integers(len(labels)))
            old = labels[at]
            by = 0.0 if act == "renamed" else 1.5
            name = "ship" if act == "shifted" else "Würfel"
            labels[at] = Label.box(name, old.x1 + by, old.y1, old.x2 + by, old.y2)
            what = {"renamed": "class", "shifted": "place", "both": "class and place"}[act]
            planted.append(("label_changed", what, number))
    now[20] = (labels_of(rng, 2), "val")
    planted += [("image_added", "", 20)] + [("label_added", "", 20)] * 2
    changes = find_changes(table(before), table(now))
    assert changes.columns.tolist() == CHANGE_COLUMNS
    found = sorted(zip(changes["kind"], changes["what"], changes["image_id"], strict=True))
    assert found == sorted((kind, what, image_id(number)) for kind, what, number in planted)
    # The other way round the same things happened, the other way round.
    back = find_changes(table(now), table(before))["kind"].value_counts()
    there = changes["kind"].value_counts()
    mirrored = {"image_added": "image_removed", "label_added": "label_removed"}
    mirrored |= {"image_moved": "image_moved", "label_changed": "label_changed"}
    for one, other in mirrored.items():
        assert back.get(one, 0) == there.get(other, 0)


def changed(before, now):
    found = find_changes(table({0: (before, "train")}), table({0: (now, "train")}))
    return [(each.kind, each.what, each.iou) for each in found.itertuples()]


def test_labels_are_paired_by_place_not_by_their_number():
    a, b = Label.box("ship", 2, 2, 22, 22), Label.box("ship", 30, 2, 50, 22)
    assert changed([a, b], [b, a]) == []
    # Of two that could be the same, the one that overlaps more.
    near, far = Label.box("ship", 3, 2, 23, 22), Label.box("ship", 7, 2, 27, 22)
    found = find_changes(table({0: ([a], "train")}), table({0: ([far, near], "train")}))
    moved = found[found["kind"] == "label_changed"].iloc[0]
    assert moved["iou"] == pytest.approx(19 / 21)
    assert moved["label_id_now"].endswith("-1")
    assert (found["kind"] == "label_added").sum() == 1
    # Too far away to be the same.
    assert [kind for kind, _, _ in changed([a], [b])] == ["label_added", "label_removed"]


def test_a_label_that_is_there_twice_can_lose_one():
    a = Label.box("ship", 2, 2, 22, 22)
    assert [kind for kind, _, _ in changed([a, a], [a])] == ["label_removed"]


def test_choices_and_points_change_too():
    day, night = Label("choice", "ship"), Label("choice", "Würfel")
    assert changed([day], [night]) == [("label_changed", "class", 1.0)]
    here, there = Label.keypoint("buoy", 10, 10), Label.keypoint("buoy", 11, 10)
    ((kind, what, _),) = changed([here], [there])
    assert (kind, what) == ("label_changed", "place")
    away = Label.keypoint("buoy", 40, 40)
    assert [each[0] for each in changed([here], [away])] == ["label_added", "label_removed"]


def test_votes_are_told_apart_from_labels():
    box = Label.box("ship", 2, 2, 22, 22)
    before, now = table({0: ([box], "train")}), table({0: ([box], "train")})
    found = find_changes(before, now.assign(support=3, annotations=3))
    assert found[["kind", "what"]].to_numpy().tolist() == [["label_changed", "votes"]]


def test_nothing_against_something():
    nothing, something = (
        table({}),
        table({0: ([], "train"), 1: (labels_of(np.random.default_rng(0), 3), "val")}),
    )
    assert find_changes(something, something).empty
    kinds = find_changes(nothing, something)["kind"].value_counts().to_dict()
    assert kinds == {"image_added": 2, "label_added": 3}
