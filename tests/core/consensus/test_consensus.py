import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.consensus.agreement import f1_score, pairwise_agreement, pooled_f1
from annotation_platform.consensus.matching import cluster_boxes, match_boxes
from annotation_platform.consensus.resolve import resolve_consensus
from annotation_platform.demo.annotators import answer, answer_rng, make_people
from annotation_platform.demo.scenes import draw_batch
from annotation_platform.schema.tables import make_table

IMAGE = "a" * 64


def said(answers, image=IMAGE):
    """Return the human_labels of one image; ``answers`` maps a person to (class, box) pairs."""
    rows = []
    for place, (person, boxes) in enumerate(answers.items(), start=1):
        same = {
            "round_id": "round-0001",
            "task_id": f"round-0001/boxes/{image}",
            "image_id": image,
            "place": place,
            "answer_id": f"{image[:4]}-{person}",
            "revision": "b" * 64,
            "annotator": person,
            "lead_time_seconds": 1.0,
            "submitted_at": pd.Timestamp("2026-01-01", tz="UTC"),
            "weights_sha256": "",
            "changed": True,
            "refused_regions": 0,
        }
        for number, (name, box) in enumerate(boxes):
            corners = dict(zip(["x1", "y1", "x2", "y2"], map(float, box), strict=True))
            label = {"label_id": f"{same['answer_id']}-{number}", "shape": "box"}
            rows.append({**same, **label, "class_name": name, **corners})
        if not boxes:
            blank = dict.fromkeys(["class_name", "x1", "y1", "x2", "y2"])
            rows.append({**same, "label_id": f"{same['answer_id']}-none", "shape": "none", **blank})
    return make_table("human_labels", rows)


def test_three_people_round_one_object_give_the_median_box_and_the_majority_class():
    labels = resolve_consensus(
        said(
            {
                "ada": [("cat", (10, 10, 50, 50))],
                "ben": [("cat", (12, 10, 50, 52))],
                "cam": [("dog", (11, 13, 56, 50))],
            }
        )
    ).labels
    row = labels.iloc[0]
    assert row[["x1", "y1", "x2", "y2"]].tolist() == [11, 10, 50, 50]
    assert (row["class_name"], row["support"], row["answers"]) == ("cat", 3, 3)
    assert row["class_agreement"] == pytest.approx(2 / 3)
    assert row["disputed"]


def test_an_object_that_one_of_three_saw_is_turned_down_and_counted():
    consensus = resolve_consensus(
        said(
            {
                "ada": [("cat", (10, 10, 50, 50)), ("cat", (100, 100, 120, 120))],
                "ben": [("cat", (10, 10, 50, 50))],
                "cam": [("cat", (10, 10, 50, 50))],
            }
        )
    )
    assert len(consensus.labels) == 1
    assert (consensus.rejected, consensus.disputed) == (1, 0)


def test_three_who_see_three_different_things_are_not_three_who_saw_nothing():
    row = resolve_consensus(
        said(
            {
                "ada": [("cat", (0, 0, 9, 9))],
                "ben": [("cat", (20, 0, 29, 9))],
                "cam": [("cat", (40, 0, 49, 9))],
            }
        )
    ).labels.iloc[0]
    assert (row["shape"], row["support"], row["disputed"]) == ("none", 0, True)


def test_an_image_that_all_found_empty_keeps_a_row():
    consensus = resolve_consensus(said({"ada": [], "ben": [], "cam": []}))
    assert consensus.labels["shape"].tolist() == ["none"]
    assert not consensus.labels["disputed"].any()
    assert consensus.mean_agreement == 1.0


def test_one_answer_is_taken_as_it_is():
    consensus = resolve_consensus(said({"ada": [("cat", (1, 2, 3, 4)), ("dog", (1, 2, 3, 5))]}))
    assert sorted(consensus.labels["class_name"]) == ["cat", "dog"]
    assert np.isnan(consensus.mean_agreement)


def test_neighbours_that_overlap_stay_two_objects():
    pair = [("cell", (0, 0, 20, 20)), ("cell", (6, 0, 26, 20))]
    labels = resolve_consensus(said(dict.fromkeys(["ada", "ben", "cam"], pair))).labels
    assert sorted(labels["x1"]) == [0, 6]


def test_matching_takes_the_best_total_and_only_pairs_above_the_threshold():
    a = np.array([[0, 0, 10, 10], [4, 0, 14, 10]], dtype=float)
    b = np.array([[4, 0, 14, 10], [0, 0, 10, 10], [50, 50, 60, 60]], dtype=float)
    assert sorted(match_boxes(a, b, iou_threshold=0.5)) == [(0, 1), (1, 0)]
    assert match_boxes(a[:0], b, iou_threshold=0.5) == []


people = st.dictionaries(
    st.sampled_from(["ada", "ben", "cam", "dee"]),
    st.lists(
        st.tuples(
            st.sampled_from(["cat", "dog"]),
            st.tuples(st.integers(0, 12), st.integers(0, 12)).map(
                lambda corner: (*corner, corner[0] + 10, corner[1] + 8)
            ),
        ),
        max_size=4,
    ),
    min_size=1,
)


@settings(max_examples=60, deadline=None)
@given(people, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(answers, random):
    table = said(answers)
    order = list(range(len(table)))
    random.shuffle(order)
    first = resolve_consensus(table).labels
    second = resolve_consensus(table.iloc[order].reset_index(drop=True)).labels
    pd.testing.assert_frame_equal(first, second)


@given(people)
def test_nobody_stands_twice_in_a_group_and_every_box_stands_in_one(answers):
    owners = [person for person, boxes in answers.items() for _ in boxes]
    boxes = np.array([box for said in answers.values() for _, box in said], dtype=float)
    groups = cluster_boxes(boxes.reshape(-1, 4), owners, iou_threshold=0.5)
    assert sorted(position for group in groups for position in group) == list(range(len(owners)))
    assert all(len({owners[i] for i in group}) == len(group) for group in groups)


def test_agreement_of_half_matching_answers_is_worked_out_by_hand():
    table = said(
        {
            "ada": [("cat", (0, 0, 10, 10)), ("cat", (20, 0, 30, 10))],
            "ben": [("cat", (0, 0, 10, 10)), ("dog", (20, 0, 30, 10))],
        }
    )
    # One of two boxes matches on either side: F1 = 2 * 1 / (2 + 2).
    assert pairwise_agreement(table) == pytest.approx(0.5)
    empty = table[table["annotator"] == "nobody"]
    assert f1_score(empty, empty) == 1.0


def test_consensus_of_three_beats_every_one_of_its_people():
    truth = draw_batch(1, 25, seed=3).truth
    crowd = make_people(4, seed=1)
    tables, alone = [], {person.name: [] for person in crowd}
    for number, row in enumerate(truth.images.to_dict("records")):
        real = truth.labels[truth.labels["image_id"] == row["image_id"]]
        answers = {}
        for person in crowd:
            given_answer = answer(
                person,
                real,
                width=row["width"],
                height=row["height"],
                ontology=truth.ontology,
                rng=answer_rng(person, row["image_id"]),
            )
            answers[person.name] = [
                (box.class_name, (box.x1, box.y1, box.x2, box.y2)) for box in given_answer.boxes
            ]
        asked = [person.name for person in crowd if person is not crowd[number % 4]]
        table = said({name: answers[name] for name in asked}, image=row["image_id"])
        tables.append(table)
        for name in asked:
            own = table[(table["annotator"] == name) & (table["shape"] == "box")]
            alone[name].append(own)
    merged = resolve_consensus(pd.concat(tables, ignore_index=True)).labels
    together = pooled_f1(merged[merged["shape"] == "box"], truth.labels)
    singles = []
    for frames in alone.values():
        own = pd.concat(frames)
        seen = truth.labels[truth.labels["image_id"].isin(set(own["image_id"]))]
        singles.append(pooled_f1(own, seen))
    assert together > max(singles)
    assert together > 0.95
