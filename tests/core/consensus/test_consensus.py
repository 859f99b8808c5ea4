import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.consensus.agreement import pairwise_agreement, pooled_f1
from annotation_platform.consensus.matching import cluster_boxes, match_boxes
from annotation_platform.consensus.resolve import resolve_consensus
from annotation_platform.demo.annotators import annotation_rng, make_people, simulate_annotation
from annotation_platform.demo.scenes import draw_batch
from annotation_platform.schema.ontology import LabelClass, Ontology
from annotation_platform.schema.shapes import NOTHING, UNSURE, Label

IMAGE = "a" * 64
ONTOLOGY = Ontology(
    classes=(
        LabelClass(id=0, name="cat"),
        LabelClass(id=1, name="dog"),
        LabelClass(id=2, name="road", shape="polygon"),
        LabelClass(id=3, name="day", shape="choice"),
        LabelClass(id=4, name="night", shape="choice"),
    )
)
NAMES = ["shape", "class_name", "x1", "y1", "x2", "y2", "geometry"]


def labels_table(annotations, image=IMAGE):
    """Return the labels of one image as a table, from ``{annotator: [labels]}``."""
    same = {"round_id": "round-0001", "task_id": f"round-0001/boxes/{image}", "image_id": image}
    rows = [
        {**same, "annotator": person, **{name: getattr(label, name) for name in NAMES}}
        for person, labels in annotations.items()
        for label in labels or [NOTHING]
    ]
    return pd.DataFrame(rows, columns=[*same, "annotator", *NAMES])


def boxes_table(annotations, image=IMAGE):
    """Return the boxes of one image as a table, from ``{annotator: [(class, box)]}``."""
    return labels_table(
        {
            person: [Label.box(name, *box) for name, box in boxes]
            for person, boxes in annotations.items()
        },
        image,
    )


def many(annotations, images):
    """Return the same annotations of this number of images."""
    return pd.concat(
        [labels_table(annotations, f"{n:064x}") for n in range(images)], ignore_index=True
    )


def test_three_people_round_one_object_give_the_median_box_and_the_majority_class():
    labels = resolve_consensus(
        boxes_table(
            {
                "ada": [("cat", (10, 10, 50, 50))],
                "ben": [("cat", (12, 10, 50, 52))],
                "cam": [("dog", (11, 13, 56, 50))],
            }
        )
    ).labels
    row = labels.iloc[0]
    assert row[["x1", "y1", "x2", "y2"]].tolist() == [11, 10, 50, 50]
    assert (row["class_name"], row["support"], row["annotations"]) == ("cat", 3, 3)
    assert row["class_agreement"] == pytest.approx(2 / 3)
    assert row["disputed"]


def test_an_object_that_one_of_three_saw_is_turned_down_and_counted():
    consensus = resolve_consensus(
        boxes_table(
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
        boxes_table(
            {
                "ada": [("cat", (0, 0, 9, 9))],
                "ben": [("cat", (20, 0, 29, 9))],
                "cam": [("cat", (40, 0, 49, 9))],
            }
        )
    ).labels.iloc[0]
    assert (row["shape"], row["support"], row["disputed"]) == ("none", 0, True)


def test_an_image_that_all_found_empty_keeps_a_row():
    consensus = resolve_consensus(boxes_table({"ada": [], "ben": [], "cam": []}))
    assert consensus.labels["shape"].tolist() == ["none"]
    assert not consensus.labels["disputed"].any()
    assert consensus.mean_agreement == 1.0


def test_one_annotation_is_taken_as_it_is():
    consensus = resolve_consensus(
        boxes_table({"ada": [("cat", (1, 2, 3, 4)), ("dog", (1, 2, 3, 5))]})
    )
    assert sorted(consensus.labels["class_name"]) == ["cat", "dog"]
    assert np.isnan(consensus.mean_agreement)


def test_neighbours_that_overlap_stay_two_objects():
    pair = [("cell", (0, 0, 20, 20)), ("cell", (6, 0, 26, 20))]
    labels = resolve_consensus(boxes_table(dict.fromkeys(["ada", "ben", "cam"], pair))).labels
    assert sorted(labels["x1"]) == [0, 6]


def test_matching_takes_the_best_total_and_only_pairs_above_the_threshold():
    a = np.array([[0, 0, 10, 10], [4, 0, 14, 10]], dtype=float)
    b = np.array([[4, 0, 14, 10], [0, 0, 10, 10], [50, 50, 60, 60]], dtype=float)
    assert sorted(match_boxes(a, b, iou_threshold=0.5)) == [(0, 1), (1, 0)]
    assert match_boxes(a[:0], b, iou_threshold=0.5) == []
    # The threshold itself is enough: the lower half of a square overlaps it by exactly 0.5.
    half = np.array([[0, 5, 10, 10]], dtype=float)
    assert match_boxes(a[:1], half, iou_threshold=0.5) == [(0, 0)]
    assert match_boxes(a[:1], half, iou_threshold=0.51) == []


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


@settings(max_examples=30, deadline=None)
@given(people, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(annotations, random):
    table = boxes_table(annotations)
    order = list(range(len(table)))
    random.shuffle(order)
    first = resolve_consensus(table).labels
    second = resolve_consensus(table.iloc[order].reset_index(drop=True)).labels
    pd.testing.assert_frame_equal(first, second)


@given(people)
def test_each_group_has_one_box_per_annotator_and_every_box_is_in_one_group(annotations):
    owners = [person for person, boxes in annotations.items() for _ in boxes]
    boxes = np.array([box for drawn in annotations.values() for _, box in drawn], dtype=float)
    groups = cluster_boxes(boxes.reshape(-1, 4), owners, iou_threshold=0.5)
    assert sorted(position for group in groups for position in group) == list(range(len(owners)))
    assert all(len({owners[i] for i in group}) == len(group) for group in groups)


@settings(max_examples=20, deadline=None)
@given(people, st.permutations(["ada", "ben", "cam", "dee"]))
def test_the_names_of_the_people_do_not_matter(annotations, others):
    renamed = dict(zip(["ada", "ben", "cam", "dee"], others, strict=True))
    first = resolve_consensus(boxes_table(annotations)).labels
    second = resolve_consensus(
        boxes_table({renamed[who]: boxes for who, boxes in annotations.items()})
    ).labels
    pd.testing.assert_frame_equal(first, second)


def a_round_of_every_shape(names, rng):
    """Return what three people say of some images: regions of all shapes, and choices."""
    tables = []
    for number in range(12):
        annotations = {}
        for who in names:
            x, y = 100 + rng.normal(size=2) * 3
            pixels = np.zeros((200, 200), dtype=bool)
            pixels[int(y) : int(y) + 30, int(x) : int(x) + 40] = True
            drawn = [
                Label.box("cat", x, y, x + 60, y + 50),
                Label.rotated_box("cat", x, y, 60, 20, 30 + rng.normal() * 4),
                Label.polygon("road", [[x, y, x + 50, y, x + 55, y + 40, x, y + 50]]),
                Label.mask("sky", pixels),
                Label.keypoint("eye", x, y),
                Label.choice(str(rng.choice(["day", "night"]))),
            ]
            annotations[who] = [label for label in drawn if rng.random() > 0.2]
        tables.append(labels_table(annotations, f"{number:064x}"))
    return pd.concat(tables, ignore_index=True)


def test_labels_of_every_shape_come_out_the_same_whatever_order_and_names_people_have():
    table = a_round_of_every_shape(["ada", "ben", "cam"], np.random.default_rng(2))
    images = pd.DataFrame({"image_id": table["image_id"].unique(), "width": 200, "height": 200})
    first = resolve_consensus(table, images=images)
    assert set(first.labels["shape"]) >= {"box", "rotated_box", "polygon", "mask", "keypoint"}
    renamed = table.assign(annotator=table["annotator"].map({"ada": "z", "ben": "a", "cam": "m"}))
    shuffled = renamed.sample(frac=1, random_state=5, ignore_index=True)
    second = resolve_consensus(shuffled, images=images)
    numbers = ["x1", "y1", "x2", "y2", "mean_iou"]
    pd.testing.assert_frame_equal(
        first.labels.drop(columns="geometry"), second.labels.drop(columns="geometry"), rtol=1e-6
    )
    assert (first.labels["geometry"] == second.labels["geometry"]).mean() > 0.9
    assert first.labels.loc[first.labels["shape"] == "box", numbers].notna().all(axis=None)
    kinds = ["image_id", "kind", "label_id", "settled"]
    pd.testing.assert_frame_equal(first.conflicts[kinds], second.conflicts[kinds])


def test_every_shape_and_the_image_itself_are_resolved_side_by_side():
    ring = [0, 0, 60, 0, 60, 60, 0, 60]
    annotations = {
        "ada": [Label.box("cat", 10, 10, 50, 50), Label.choice("day")],
        "ben": [Label.box("cat", 10, 10, 50, 52), Label.polygon("road", [ring])],
        "cam": [Label.choice("day"), Label.polygon("road", [ring])],
    }
    labels = resolve_consensus(labels_table(annotations), ontology=ONTOLOGY).labels
    assert labels[["shape", "class_name", "support"]].to_numpy().tolist() == [
        ["polygon", "road", 2],
        ["box", "cat", 2],
        ["choice", "day", 2],
    ]
    assert labels["geometry"].tolist()[1:] == ["", ""]
    assert labels["label_id"].tolist() == [f"{IMAGE}:{n:04d}" for n in range(3)]
    assert labels.loc[2, ["x1", "mean_iou"]].isna().all()


def test_of_one_choice_the_most_chosen_class_stands_and_of_many_each_by_itself():
    annotations = {
        "ada": [Label.choice("day"), Label.choice("night")],
        "ben": [Label.choice("night")],
        "cam": [Label.choice("night")],
    }
    one = resolve_consensus(labels_table(annotations), ontology=ONTOLOGY)
    assert one.labels[["class_name", "support"]].to_numpy().tolist() == [["night", 3]]
    # An annotator who chose two classes votes for the presence of a class, not for either.
    assert one.labels["class_agreement"].tolist() == [pytest.approx(2 / 3)]
    many_allowed = ONTOLOGY.model_copy(update={"choose": "many"})
    for ontology in (many_allowed, None):
        several = resolve_consensus(labels_table(annotations), ontology=ontology)
        assert several.labels[["class_name", "support"]].to_numpy().tolist() == [["night", 3]]
        assert several.rejected == 1


def test_who_is_unsure_holds_a_place_and_votes_for_nothing():
    cat = [Label.box("cat", 10, 10, 50, 50)]
    labels = resolve_consensus(labels_table({"ada": cat, "ben": cat, "cam": [UNSURE, *cat]})).labels
    assert labels[["support", "annotations", "disputed"]].to_numpy().tolist() == [[2, 3, False]]
    all_unsure = resolve_consensus(labels_table({"ada": [UNSURE], "ben": [UNSURE]})).labels
    assert all_unsure[["shape", "support", "disputed"]].to_numpy().tolist() == [["unsure", 2, True]]


def test_of_two_people_one_is_enough_for_an_object_but_it_is_disputed():
    cat = Label.box("cat", 10, 10, 50, 50)
    # Also in a round in which one of the two is a little better.
    rounds = [many({"ada": [cat], "ben": [cat]}, 30), labels_table({"ada": [], "ben": [cat]})]
    labels = resolve_consensus(pd.concat(rounds, ignore_index=True)).labels
    alone = labels[labels["image_id"] == IMAGE]
    assert alone[["shape", "support", "disputed"]].to_numpy().tolist() == [["box", 1, True]]


def test_good_people_outweigh_a_careless_majority():
    cat, junk = Label.box("cat", 10, 10, 50, 50), Label.box("cat", 100, 100, 140, 140)
    tables = []
    for number in range(60):
        # Dee and eve are careless by turns: often they miss the cat, often they see what is not.
        careless = {"dee": number % 2, "eve": number % 3 == 0}
        annotations = {who: [cat] for who in ("ada", "ben", "cam")}
        annotations |= {who: [junk] if bad else [cat] for who, bad in careless.items()}
        tables.append(labels_table(annotations, f"{number:064x}"))
    tables.append(labels_table({"ada": [cat], "dee": [junk], "eve": [junk]}))
    labels = resolve_consensus(pd.concat(tables, ignore_index=True)).labels
    last = labels[labels["image_id"] == IMAGE]
    assert last["x1"].tolist() == [10]
    given_quality = pd.DataFrame({"annotator": ["ada", "dee", "eve"], "quality": [0.98, 0.6, 0.6]})
    labels = resolve_consensus(tables[-1], quality=given_quality).labels
    assert labels["x1"].tolist() == [10]
    assert resolve_consensus(tables[-1]).labels["x1"].tolist() == [100]


def test_whoever_draws_precisely_says_where_the_edges_are():
    rng = np.random.default_rng(7)
    deviation = {"ada": 1.0, "ben": 6.0, "cam": 6.0}
    tables, truth = [], []
    for number in range(150):
        box = rng.uniform(50, 200, 2).repeat(2)[[0, 2, 1, 3]] + [0, 0, 90, 80]
        drawn = {
            who: [("cat", box + rng.normal(size=4) * sigma)] for who, sigma in deviation.items()
        }
        tables.append(boxes_table(drawn, f"{number:064x}"))
        truth.append(box)
    labels = resolve_consensus(pd.concat(tables, ignore_index=True)).labels
    off = labels[["x1", "y1", "x2", "y2"]].to_numpy() - truth
    # A plain median of the three is off by about 2.6 pixels, ada alone by 1.
    assert np.sqrt((off**2).mean()) < 1.8


def test_level_votes_go_to_the_class_whose_size_the_object_has():
    small, large = (10, 10, 30, 30), (100, 100, 200, 200)
    tables = [
        boxes_table(
            {who: [("cat", small), ("dog", large)] for who in ("ada", "ben")}, f"{number:064x}"
        )
        for number in range(20)
    ]
    mixed_up = {"ada": [("dog", small), ("dog", large)], "ben": [("cat", small), ("cat", large)]}
    labels = resolve_consensus(
        pd.concat([*tables, boxes_table(mixed_up)], ignore_index=True)
    ).labels
    last = labels[labels["image_id"] == IMAGE]
    assert last["class_name"].tolist() == ["cat", "dog"]
    assert last["disputed"].all()


def test_level_votes_of_which_nothing_more_is_known_do_not_fall_by_the_alphabet():
    chosen = []
    for number in range(30):
        image = f"{number:064x}"
        pair = {"ada": [Label.choice("day")], "ben": [Label.choice("night")]}
        consensus = resolve_consensus(labels_table(pair, image), ontology=ONTOLOGY)
        chosen += consensus.labels["class_name"].tolist()
        assert consensus.conflicts["kind"].tolist() == ["class", "tied"]
    assert 5 < chosen.count("day") < 25


def test_a_class_outside_the_ontology_counts_for_the_object_and_never_names_it():
    box = (10, 10, 50, 50)
    two = {"ada": [("cat", box)], "ben": [("kat", box)], "cam": [("kat", box)]}
    row = resolve_consensus(boxes_table(two), ontology=ONTOLOGY).labels.iloc[0]
    assert (row["class_name"], row["support"]) == ("cat", 3)
    assert row["class_agreement"] == pytest.approx(1 / 3)
    unresolved = resolve_consensus(boxes_table({"ada": [("kat", box)]}), ontology=ONTOLOGY)
    assert unresolved.labels["shape"].tolist() == ["none"]
    assert unresolved.rejected == 1


def test_a_round_without_annotations_has_an_empty_consensus():
    consensus = resolve_consensus(labels_table({}))
    assert consensus.labels.empty
    assert consensus.conflicts.empty
    assert np.isnan(consensus.mean_agreement)


def test_agreement_of_half_matching_annotations_is_worked_out_by_hand():
    table = boxes_table(
        {
            "ada": [("cat", (0, 0, 10, 10)), ("cat", (20, 0, 30, 10))],
            "ben": [("cat", (0, 0, 10, 10)), ("dog", (20, 0, 30, 10))],
        }
    )
    # One of two boxes matches on either side: F1 = 2 * 1 / (2 + 2).
    assert pairwise_agreement(table) == pytest.approx(0.5)
    empty = table[table["annotator"] == "absent"]
    assert pooled_f1(empty, empty) == 1.0


def test_agreement_counts_regions_of_the_same_shape_and_choices_and_leaves_out_the_unsure():
    ring = [0, 0, 60, 0, 60, 60, 0, 60]
    annotations = {
        "ada": [Label.polygon("road", [ring]), Label.choice("day")],
        "ben": [
            Label.polygon("road", [ring]),
            Label.choice("night"),
            Label.box("cat", 0, 0, 60, 60),
        ],
        "cam": [UNSURE],
    }
    # One of five labels matches on either side: F1 = 2 * 1 / 5.
    assert pairwise_agreement(labels_table(annotations)) == pytest.approx(0.4)


def test_consensus_of_three_beats_every_one_of_its_people():
    truth = draw_batch(1, 25, seed=3).truth
    crowd = make_people(4, seed=1)
    tables, alone = [], {person.name: [] for person in crowd}
    for number, row in enumerate(truth.images.to_dict("records")):
        real = truth.labels[truth.labels["image_id"] == row["image_id"]]
        annotations = {}
        for person in crowd:
            given_annotation = simulate_annotation(
                person,
                real,
                width=row["width"],
                height=row["height"],
                ontology=truth.ontology,
                rng=annotation_rng(person, row["image_id"]),
            )
            annotations[person.name] = given_annotation.labels
        asked = [person.name for person in crowd if person is not crowd[number % 4]]
        table = labels_table({name: annotations[name] for name in asked}, image=row["image_id"])
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
