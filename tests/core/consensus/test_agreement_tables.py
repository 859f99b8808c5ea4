import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.consensus.agreement_tables import (
    agreement,
    agreement_by_class,
)
from annotation_platform.consensus.kappa import krippendorff_alpha
from annotation_platform.consensus.units import (
    NOT_DRAWN,
    classification_units,
    region_units,
    voting_rows,
)

BOX = ["x1", "y1", "x2", "y2"]


def labels_table(*annotations):
    """Return human labels of ``(image, person, labels)``; a label is (class, box) or a choice."""
    rows = []
    for image, person, labels in annotations:
        same = {"task_id": f"task {image}", "image_id": image, "annotator": person}
        same["annotation_id"] = f"{image}-{person}"
        for label in labels or ["none"]:
            shape, name, box = label if isinstance(label, tuple) else (label, None, None)
            corners = dict(zip(BOX, map(float, box or [np.nan] * 4), strict=True))
            rows.append({**same, "shape": shape, "class_name": name, **corners})
    return pd.DataFrame(rows)


def box(name, *corners):
    return ("box", name, corners)


def choice(name):
    return ("choice", name, None)


# Ada and Ben both draw A (IoU 80/120 = 2/3) and B (the same box, but Ben calls it dog); only Ada
# draws C. On the second image Ada, Ben and Cam find nothing.
PAIR = labels_table(
    (
        "one",
        "ada",
        [box("cat", 0, 0, 10, 10), box("cat", 50, 0, 60, 10), box("dog", 90, 0, 99, 9)],
    ),
    ("one", "ben", [box("cat", 0, 0, 10, 10), box("dog", 50, 2, 60, 12)]),
    ("two", "ada", []),
    ("two", "ben", []),
    ("two", "cam", []),
)


def test_objects_become_units_that_everybody_asked_rates():
    units = region_units(voting_rows(PAIR))
    rated = units.pivot_table(index="unit", columns="annotator", values="label", aggfunc="first")
    assert sorted(map(tuple, rated.to_numpy())) == [
        ("cat", "cat"),
        ("cat", "dog"),
        ("dog", NOT_DRAWN),
    ]


def test_agreement_by_class_is_worked_out_by_hand():
    table = agreement_by_class(PAIR).set_index("class_name")
    # Cat: one object by both, of three labels. Dog: none by both, of two labels.
    assert table["labels"].tolist() == [3, 2]
    assert table["f1"].tolist() == pytest.approx([2 / 3, 0.0])
    assert table.loc["cat", "mean_iou"] == pytest.approx(1.0)
    assert np.isnan(table.loc["dog", "mean_iou"])
    # Cat or not, three units of two: yes yes, yes no, no no. Disagreement 1/3, by chance among six
    # values, three yes, 2 * 3 * 3 / 30 = 3/5, so 1 - (1/3) / (3/5) = 4/9.
    assert table.loc["cat", "alpha"] == pytest.approx(4 / 9)


def test_agreement_in_all_is_worked_out_by_hand():
    found = agreement(PAIR)
    assert found.units == 3
    assert found.f1 == pytest.approx(2 * 1 / 5)
    assert found.mean_iou == pytest.approx(1.0)
    # cat cat, cat dog, dog none: disagreement 2/3; values cat 3, dog 2, none 1 of six, so by
    # chance 1 - (6 + 2) / 30 = 11/15 and alpha = 1 - (2/3) / (11/15) = 1/11.
    assert found.alpha == pytest.approx(1 / 11)
    # Classes alone: cat cat, cat dog; disagreement 1/2, by chance 1/2.
    assert found.class_alpha == pytest.approx(0.0)


def test_boxes_that_overlap_in_part_count_with_their_overlap():
    table = labels_table(
        ("one", "ada", [box("cat", 0, 0, 10, 10)]), ("one", "ben", [box("cat", 0, 2, 10, 12)])
    )
    assert agreement(table).mean_iou == pytest.approx(80 / 120)


def test_choices_agree_like_any_nominal_label():
    table = labels_table(
        *(
            (str(image), person, [choice(name)])
            for person, names in {"ada": "ccdd", "ben": "ccdc", "cam": "cddd"}.items()
            for image, name in enumerate(names)
        )
    )
    plain = pd.DataFrame(
        {"task": table["image_id"], "worker": table["annotator"], "label": table["class_name"]}
    )
    found = agreement(table)
    assert found.alpha == found.class_alpha == pytest.approx(krippendorff_alpha(plain))
    assert np.isnan(found.mean_iou)
    # Image by image 3, 1, 3 and 1 of three pairs agree; each pair has two labels.
    assert found.f1 == pytest.approx(8 / 12)


def test_several_choices_of_an_annotation_agree_class_by_class_and_as_a_set():
    table = labels_table(
        ("one", "ada", [choice("wet"), choice("dark")]), ("one", "ben", [choice("wet")])
    )
    by_class = agreement_by_class(table).set_index("class_name")["f1"]
    assert by_class.to_dict() == pytest.approx({"dark": 0.0, "wet": 1.0})
    assert sorted(classification_units(voting_rows(table))["label"]) == ["dark + wet", "wet"]


def test_an_unsure_annotation_is_no_vote_at_all():
    sure = labels_table(
        ("one", "ada", [box("cat", 0, 0, 9, 9)]), ("one", "ben", [box("cat", 0, 0, 9, 9)])
    )
    unsure = labels_table(("one", "cam", ["unsure", box("dog", 0, 0, 9, 9)]))
    pd.testing.assert_frame_equal(
        agreement_by_class(pd.concat([sure, unsure], ignore_index=True)), agreement_by_class(sure)
    )


def test_points_near_each_other_are_one_object_and_other_shapes_go_by_their_box():
    table = labels_table(
        ("one", "ada", [("keypoint", "eye", (100, 100, 100, 100))]),
        ("one", "ben", [("keypoint", "eye", (104, 97, 104, 97))]),
        ("two", "ada", [("polygon", "cat", (0, 0, 10, 10))]),
        ("two", "ben", [("mask", "cat", (0, 0, 10, 10))]),
    )
    assert agreement(table).f1 == 1.0


def test_nothing_to_compare_gives_missing_numbers_and_no_error():
    alone = labels_table(("one", "ada", [box("cat", 0, 0, 9, 9)]))
    empty = alone.iloc[:0]
    for table in (alone, empty):
        found = agreement(table)
        assert np.isnan([found.f1, found.mean_iou, found.alpha, found.class_alpha]).all()
    assert agreement_by_class(alone)["f1"].isna().all()
    assert agreement_by_class(empty).empty


people = st.lists(
    st.tuples(
        st.sampled_from(["one", "two"]),
        st.sampled_from(["ada", "ben", "cam"]),
        st.lists(
            st.tuples(
                st.just("box"),
                st.sampled_from(["cat", "dog"]),
                st.tuples(st.integers(0, 9), st.integers(0, 9)).map(
                    lambda at: (*at, at[0] + 9, at[1] + 7)
                ),
            ),
            max_size=3,
        ),
    ),
    unique_by=lambda annotation: annotation[:2],
    min_size=1,
)


@settings(max_examples=15, deadline=None)
@given(people, st.randoms(use_true_random=False))
def test_order_does_not_matter(annotations, random):
    table = labels_table(*annotations)
    order = list(range(len(table)))
    random.shuffle(order)
    shuffled = table.iloc[order].reset_index(drop=True)
    pd.testing.assert_frame_equal(agreement_by_class(table), agreement_by_class(shuffled))
    assert agreement(table).alpha == pytest.approx(agreement(shuffled).alpha, nan_ok=True)
