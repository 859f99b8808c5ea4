"""Findings, missed boxes, and agreement with annotators."""

import numpy as np
import pandas as pd
import pytest

from annotation_platform.errors import DataError
from annotation_platform.models.detection.detector import PREDICTION_COLUMNS
from annotation_platform.models.evaluation.agreement import agreement_drop, model_agreement
from annotation_platform.models.evaluation.findings import (
    image_weights,
    images_to_relabel,
    missed_boxes,
    model_errors,
)
from annotation_platform.schema.dataset import IMAGE_COLUMNS, LABEL_COLUMNS, Dataset
from annotation_platform.schema.ontology import Ontology

A, B = "a" * 64, "b" * 64
ROUND = "round-0001"
ONTOLOGY = Ontology.from_names(["cat", "dog"])


def dataset(*labels, images=(A, B)):
    return Dataset(
        pd.DataFrame([[i, f"{i}.jpg", "test", 200, 200] for i in images], columns=IMAGE_COLUMNS),
        pd.DataFrame(labels, columns=LABEL_COLUMNS),
        ONTOLOGY,
    )


def predictions(*rows):
    frame = pd.DataFrame(rows, columns=PREDICTION_COLUMNS)
    return frame.astype({"score": float, **dict.fromkeys(("x1", "y1", "x2", "y2"), float)})


def findings(truth, *rows):
    found = model_errors(ROUND, truth, predictions(*rows), minimum_score=0.5)
    return found.sort_values("rank")


CAT = [A, "cat", 0, 0, 10, 10]


@pytest.mark.parametrize(
    ("prediction", "kind", "iou"),
    [
        pytest.param([A, "dog", 0, 0, 10, 10], "classification", 1.0, id="another class"),
        pytest.param([A, "cat", 0, 0, 10, 4], "localization", 0.4, id="too small"),
        pytest.param([A, "dog", 0, 0, 10, 4], "both", 0.4, id="both"),
        pytest.param([A, "cat", 100, 100, 110, 110], "background", None, id="elsewhere"),
        pytest.param([B, "cat", 0, 0, 10, 10], "background", None, id="on an empty image"),
    ],
)
def test_every_kind_of_wrong_box_is_identified(prediction, kind, iou):
    found = findings(dataset(CAT), [*prediction, 0.9])
    wrong = found[found["kind"] != "missed"].iloc[0]
    assert wrong["kind"] == kind
    assert wrong["score"] == 0.9
    if iou is None:
        assert pd.isna(wrong["iou"])
    else:
        assert wrong["iou"] == pytest.approx(iou)
        assert wrong["true_class"] == "cat"
    # An object with a wrong class or location was detected, so it is not a miss too.
    assert (found["kind"] == "missed").any() == (kind not in ("classification", "localization"))


def test_the_best_box_finds_the_object_and_the_next_is_a_duplicate():
    found = findings(dataset(CAT), [A, "cat", 0, 0, 10, 9, 0.6], [A, "cat", 0, 0, 10, 10, 0.8])
    assert list(found["kind"]) == ["duplicate"]
    assert (found["score"].iloc[0], found["iou"].iloc[0]) == (0.6, pytest.approx(0.9))


def test_hidden_predictions_are_not_errors_but_objects_can_be_missed():
    found = findings(dataset(CAT), [A, "cat", 0, 0, 10, 10, 0.4])
    assert list(found["kind"]) == ["missed"]
    assert found["iou"].iloc[0] == 0


def test_the_worst_come_first():
    truth = dataset(CAT, [B, "dog", 0, 0, 50, 50])
    boxes = [[A, "cat", 100, 100, 110, 110, 0.6], [B, "cat", 100, 100, 110, 110, 0.9]]
    found = findings(truth, *boxes)
    assert list(found["kind"]) == ["background", "background", "missed", "missed"]
    assert list(found["score"].dropna()) == [0.9, 0.6]
    assert list(found["image_id"]) == [B, A, B, A]


def test_no_errors_give_an_empty_table():
    assert findings(dataset(CAT), [A, "cat", 0, 0, 10, 10, 0.9]).empty


def test_images_are_weighted_by_their_share_of_missed_boxes():
    truth = dataset(CAT, [A, "cat", 50, 50, 60, 60], [B, "dog", 0, 0, 10, 10])
    found = predictions([A, "cat", 0, 0, 10, 10, 0.9], [B, "cat", 0, 0, 10, 10, 0.9])
    missed = missed_boxes(ROUND, "c" * 64, truth, found, minimum_score=0.5)
    # One of two cats of A; the only dog of B, where a cat was predicted.
    assert list(zip(missed["image_id"], missed["class_name"], strict=True)) == [
        (A, "cat"),
        (B, "dog"),
    ]
    assert list(missed["nearest_iou"]) == [0, 0]
    assert image_weights(missed, strength=2.0) == {A: 2.0, B: 3.0}
    assert image_weights(missed.iloc[:0]) == {}


def test_images_to_relabel_are_ordered_by_findings_with_reasons():
    truth = dataset(CAT, [B, "dog", 0, 0, 10, 10])
    found = findings(truth, [B, "cat", 100, 100, 120, 120, 0.9])
    assert images_to_relabel(found) == {
        B: "the model disagrees: 1 missed, 1 background",
        A: "the model disagrees: 1 missed",
    }
    assert list(images_to_relabel(found, most=1)) == [B]
    assert list(images_to_relabel(found, kinds=["background"])) == [B]
    with pytest.raises(DataError, match="no kind of finding 'typo'"):
        images_to_relabel(found, kinds=["typo"])


def annotators(*rows, blind=False):
    """Return human labels: rows of image, class and box, or an image without objects."""
    table = [
        {
            "image_id": row[0],
            "annotation_id": f"annotation of {row[0][0]}",
            "shape": "box" if len(row) > 1 else "none",
            "without_predictions": blind,
            "purpose": "label",
            **dict(zip(LABEL_COLUMNS[1:], row[1:], strict=False)),
        }
        for row in rows
    ]
    columns = [*LABEL_COLUMNS, "annotation_id", "shape", "without_predictions", "purpose"]
    return pd.DataFrame(table, columns=columns).astype({"without_predictions": bool})


def test_agreement_counts_by_class_and_separates_annotations_without_predictions():
    predicted = predictions(
        [A, "cat", 0, 0, 10, 10, 0.9],
        [A, "dog", 50, 50, 60, 60, 0.9],
        [B, "cat", 0, 0, 10, 10, 0.9],
        [B, "cat", 0, 0, 10, 10, 0.1],  # not shown
    ).assign(weights_sha256="c" * 64, shape="box", prediction_id="")
    found = model_agreement(
        ROUND,
        predicted,
        annotators(CAT, [A, "cat", 80, 80, 90, 90], [B]),
        annotators(CAT, blind=True),
        ontology=ONTOLOGY,
        minimum_score=0.5,
    ).set_index(["annotations", "class_name"])
    # One pair; three predictions and two labels. Without predictions: only A, two and one.
    assert found.loc[("consensus", ""), "f1"] == pytest.approx(2 * 1 / (3 + 2))
    assert found.loc[("consensus", "cat"), "f1"] == pytest.approx(2 * 1 / (2 + 2))
    assert found.loc[("consensus", "dog"), "f1"] == 0
    assert found.loc[("without_predictions", ""), "f1"] == pytest.approx(2 * 1 / (2 + 1))
    assert list(found["images"].loc["consensus"].unique()) == [2]


def history(*values, error=0.02):
    rows = [
        {
            "round_id": f"round-{number:04d}",
            "class_name": "",
            "annotations": "consensus",
            "f1": value,
            "f1_low": value - 1.96 * error,
            "f1_high": value + 1.96 * error,
        }
        for number, value in enumerate(values, start=1)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("values", "dropped"),
    [
        pytest.param([0.8, 0.8, 0.6], True, id="far down"),
        pytest.param([0.8, 0.8, 0.79], False, id="a little down"),
        pytest.param([0.6, 0.7, 0.8], False, id="up"),
        pytest.param([0.2, 0.8, 0.8, 0.8, 0.7], True, id="only three rounds back count"),
        pytest.param([0.8], False, id="one round"),
        pytest.param([], False, id="none"),
    ],
)
def test_a_drop_is_reported_beyond_its_interval(values, dropped):
    columns = ["round_id", "class_name", "annotations", "f1", "f1_low", "f1_high"]
    found = agreement_drop(history(*values).reindex(columns=columns))
    assert found.dropped is dropped
    assert found.sentence.endswith(".")


def test_chance_alone_is_seldom_reported_as_a_drop():
    rng = np.random.default_rng(0)
    drops = [agreement_drop(history(*rng.normal(0.8, 0.02, 4))).dropped for _ in range(400)]
    # One-sided at 0.05; three standard errors of 400 draws above that are 0.083.
    assert np.mean(drops) < 0.083
