import numpy as np
import pytest

from annotation_platform.selection.uncertainty import (
    BOX_MEASURES,
    binary_entropy,
    box_uncertainty,
    classification_uncertainty,
    expected_objects,
)

# The first image has a sure box and a coin toss, the second nothing, the third what is no number.
IMAGES = np.array([0, 0, 2, 2])
SCORES = np.array([1.0, 0.5, 0.25, np.nan])
QUARTER = 2 - 0.75 * np.log2(3)  # entropy of 1/4, in bits


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("expected_errors", [0.5, 0.0, 0.25]),
        ("mean_entropy", [0.5, 0.0, QUARTER]),
        ("max_entropy", [1.0, 0.0, QUARTER]),
        ("sum_entropy", [1.0, 0.0, QUARTER]),
        ("least_confidence", [0.0, 1.0, 0.75]),
        ("ambiguous_boxes", [1.0, 0.0, 1.0]),
    ],
)
def test_each_measure_of_boxes_by_hand(measure, expected):
    assert measure in BOX_MEASURES
    found = box_uncertainty(IMAGES, SCORES, 3, measure=measure)
    assert found == pytest.approx(expected)


def test_the_expected_errors_are_those_that_happen():
    rng = np.random.default_rng(1)
    right = rng.beta(0.7, 0.7, 40_000)
    images = rng.integers(0, 400, len(right))
    happened = (rng.random(len(right)) < right) != (right >= 0.5)
    expected = box_uncertainty(images, right, 400, measure="expected_errors")
    # The standard deviation of the sum is below sqrt(40,000) / 2 = 100.
    assert expected.sum() == pytest.approx(happened.sum(), abs=400)


def test_no_bits_are_in_what_is_sure():
    assert binary_entropy(np.array([0.0, 1.0, 0.5])).tolist() == [0.0, 0.0, 1.0]


def test_each_measure_of_choices_by_hand():
    even, sure = [0.25] * 4, [1.0, 0.0, 0.0, 0.0]
    unequal = [0.5, 0.25, 0.25, 0.0]
    rows = np.array([even, sure, unequal])
    assert classification_uncertainty(rows, measure="entropy") == pytest.approx([2.0, 0.0, 1.5])
    assert classification_uncertainty(rows, measure="least_confidence") == pytest.approx(
        [0.75, 0.0, 0.5]
    )
    unsound = np.array([[np.nan, 0.5]])
    for measure in ("entropy", "least_confidence"):
        assert np.isnan(classification_uncertainty(unsound, measure=measure)).all()


def test_objects_are_expected_by_class():
    dog, cat = 0, 1
    classes = np.array([cat, dog, cat, cat])
    found = expected_objects(IMAGES, SCORES, classes, 3, class_count=2)
    assert found.tolist() == [[0.5, 1.0], [0.0, 0.0], [0.0, 0.25]]
