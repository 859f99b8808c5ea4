import contextlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from annotation_platform.errors import DataError
from annotation_platform.models.detector import PREDICTION_COLUMNS, empty_predictions
from annotation_platform.models.evaluation import (
    Evaluation,
    average_precisions,
    decide_promotion,
    evaluate,
)
from annotation_platform.schema.dataset import IMAGE_COLUMNS, LABEL_COLUMNS, Dataset
from annotation_platform.schema.ontology import Ontology
from annotation_platform.settings import PROJECT_ROOT

COCOEVAL = (
    Path(os.environ.get("ANNOTATION_TEST_DATA", PROJECT_ROOT.parent / "shared" / "data"))
    / "cocoeval"
)


def dataset(labels, images=("a", "b"), classes=("cat", "dog")):
    return Dataset(
        pd.DataFrame([[i, f"{i}.jpg", "test", 100, 100] for i in images], columns=IMAGE_COLUMNS),
        pd.DataFrame(labels, columns=LABEL_COLUMNS),
        Ontology.from_names(list(classes)),
    )


def predictions(*rows):
    return pd.DataFrame(rows, columns=PREDICTION_COLUMNS)


def test_average_precision_worked_out_by_hand():
    truth = dataset([["a", "cat", 0, 0, 10, 10], ["b", "cat", 0, 0, 10, 10]])
    found = predictions(
        ["a", "cat", 0, 0, 10, 10, 0.9],  # right
        ["a", "cat", 50, 50, 60, 60, 0.8],  # nothing is there
        ["b", "cat", 0, 0, 10, 8, 0.7],  # IoU 0.8
    )
    result = evaluate(truth, found)
    # Recall points 0, .01, …, 1: precision 1 up to recall .5 (51 points), then 2/3 (50 points).
    half = (51 * 1 + 50 * 2 / 3) / 101
    # At the thresholds .5, .55, …, .8 the third is right; at .85, .9 and .95 it is not.
    assert result.map50 == pytest.approx(half)
    assert result.map == pytest.approx((7 * half + 3 * 51 / 101) / 10)
    assert result.per_class == {"cat": pytest.approx(half)}
    assert result.images == 2


def test_a_class_without_truth_is_left_out_of_the_mean():
    truth = dataset([["a", "cat", 0, 0, 10, 10]])
    found = predictions(["a", "cat", 0, 0, 10, 10, 0.9], ["b", "dog", 0, 0, 10, 10, 0.9])
    assert evaluate(truth, found).map50 == pytest.approx(1.0)
    assert set(evaluate(truth, found).per_class) == {"cat"}


def test_a_class_that_is_never_found_counts_as_zero():
    truth = dataset([["a", "cat", 0, 0, 10, 10], ["a", "dog", 20, 0, 30, 10]])
    result = evaluate(truth, predictions(["a", "cat", 0, 0, 10, 10, 0.9]))
    assert result.map50 == pytest.approx(0.5)
    assert result.per_class == {"cat": pytest.approx(1.0), "dog": 0.0}


def test_true_boxes_without_area_cannot_be_missed():
    truth = dataset([["a", "cat", 0, 0, 10, 10], ["b", "cat", 5, 5, 5, 9]])
    assert evaluate(truth, predictions(["a", "cat", 0, 0, 10, 10, 0.9])).map50 == pytest.approx(1)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        pytest.param([["a", "cat", 0, 0, 9, 9]], empty_predictions(), id="nothing found"),
        pytest.param([], predictions(["a", "cat", 0, 0, 9, 9, 0.5]), id="nothing to find"),
        pytest.param([], empty_predictions(), id="neither"),
    ],
)
def test_nothing_gives_zero(labels, found):
    result = evaluate(dataset(labels), found)
    assert (result.map50, result.map, result.images) == (0.0, 0.0, 2)


def test_the_order_of_the_predictions_does_not_matter():
    truth = dataset([["a", "cat", 0, 0, 10, 10], ["b", "dog", 0, 0, 10, 10]])
    found = predictions(
        ["a", "dog", 0, 0, 9, 9, 0.3],
        ["b", "dog", 0, 0, 9, 9, 0.3],
        ["b", "dog", 0, 0, 10, 9, 0.2],
        ["a", "cat", 0, 0, 10, 9, 0.9],
    )
    assert evaluate(truth, found) == evaluate(truth, found.iloc[::-1])


def test_predictions_of_other_images_are_refused():
    with pytest.raises(DataError, match="1 predicted images are not in the test set, first z"):
        evaluate(dataset([]), predictions(["z", "cat", 0, 0, 1, 1, 0.5]))


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(DataError, match="not a number"):
        evaluate(dataset([]), predictions(["a", "cat", 0, 0, 1, 1, float("nan")]))


def test_evaluating_prints_nothing(capsys):
    evaluate(dataset([["a", "cat", 0, 0, 10, 10]]), predictions(["a", "cat", 0, 0, 10, 10, 0.9]))
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def coco_files():
    if not COCOEVAL.is_dir():
        pytest.skip(f"COCO's published example is not at {COCOEVAL}; set ANNOTATION_TEST_DATA.")
    results = COCOEVAL / "results" / "instances_val2014_fakebbox100_results.json"
    truth = json.loads((COCOEVAL / "instances_val2014_100.json").read_text())
    return truth, json.loads(results.read_text())


def test_the_figures_are_those_that_coco_publishes(coco_files):
    precisions = average_precisions(*coco_files).values()
    # results/val2014_fake_eval_res.txt, bbox: AP 0.505, AP at 0.5 0.697.
    assert np.mean([one.over_thresholds for one in precisions]) == pytest.approx(0.505, abs=5e-4)
    assert np.mean([one.at_half for one in precisions]) == pytest.approx(0.697, abs=5e-4)


def test_a_dataset_gives_the_figures_that_pycocotools_gives_without_crowds(coco_files):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, results = coco_files
    truth["annotations"] = [one for one in truth["annotations"] if not one["iscrowd"]]
    for one in [*truth["annotations"], *results]:
        # Sixteenths of a pixel, so that corners turn into sides and back without rounding.
        one["bbox"] = [round(value * 16) / 16 for value in one["bbox"]]
    names = {one["id"]: one["name"] for one in truth["categories"]}

    def row(one):
        x, y, w, h = one["bbox"]
        return [f"{one['image_id']:07d}", names[one["category_id"]], x, y, x + w, y + h]

    ours = evaluate(
        dataset(
            [row(one) for one in truth["annotations"]],
            images=[f"{one['id']:07d}" for one in truth["images"]],
            classes=names.values(),
        ),
        predictions(*([*row(one), one["score"]] for one in results)),
    )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        theirs = COCOeval(coco, coco.loadRes(results), "bbox")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    assert (ours.map, ours.map50) == pytest.approx(tuple(theirs.stats[:2]), abs=1e-9)
    assert ours.images == 100


def evaluation(map50, images=30):
    return Evaluation(map50=map50, map=map50 / 2, per_class={}, images=images)


@pytest.mark.parametrize(
    ("new", "old", "promoted"),
    [
        pytest.param(evaluation(0.1), None, True, id="the first"),
        pytest.param(evaluation(0.8), evaluation(0.7), True, id="better"),
        pytest.param(evaluation(0.7), evaluation(0.7), True, id="as good"),
        pytest.param(evaluation(0.699), evaluation(0.7), False, id="worse"),
    ],
)
def test_a_model_is_promoted_unless_it_is_worse(new, old, promoted):
    decision = decide_promotion(new, old)
    assert decision.promoted is promoted
    assert f"{new.map50:.3f}" in decision.reason
    assert "30 test images" in decision.reason


def test_models_tested_on_different_images_are_not_compared():
    with pytest.raises(DataError, match="on 30 images, the promoted one on 25"):
        decide_promotion(evaluation(0.9), evaluation(0.7, images=25))
