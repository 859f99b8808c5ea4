import contextlib
import copy
import io
import json
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from annotation_platform.errors import DataError
from annotation_platform.models.detection.detector import PREDICTION_COLUMNS, empty_predictions
from annotation_platform.models.evaluation.coco_metrics import coco_figures
from annotation_platform.models.evaluation.evaluation import evaluate
from annotation_platform.models.evaluation.matches import drawn_figures, mean_over_classes
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
def test_no_predictions_or_no_truth_give_zero(labels, found):
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


def test_scores_that_are_not_finite_are_refused():
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


def pycocotools(truth, results, kind):
    """Return the twelve figures of pycocotools, and AP50 by category id."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    at_half = run.eval["precision"][0, :, :, 0, -1]
    return run.stats, dict(zip(run.params.catIds, at_half.mean(axis=0), strict=True))


def assert_same_figures(truth, results, kind="bbox"):
    ours = coco_figures(truth, results, kind)
    stats, at_half = pycocotools(truth, results, kind)
    expected = [math.nan if value == -1 else value for value in stats]
    assert list(ours.overall.values()) == pytest.approx(expected, abs=1e-9, nan_ok=True)
    for category, figures in ours.per_class.items():
        if at_half[category] > -1:
            assert figures["ap50"] == pytest.approx(at_half[category], abs=1e-9)


# val2014_fake_eval_res.txt of cocodataset/cocoapi.
PUBLISHED = {
    "bbox": [0.505, 0.697, 0.573, 0.586, 0.519, 0.501, 0.387, 0.594, 0.595, 0.640, 0.566, 0.564],
    "segm": [0.320, 0.562, 0.299, 0.387, 0.310, 0.327, 0.268, 0.415, 0.417, 0.469, 0.377, 0.381],
}


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_figures_equal_those_of_coco_and_pycocotools(coco_files, kind):
    truth, _ = coco_files
    name = f"instances_val2014_fake{kind}100_results.json"
    results = json.loads((COCOEVAL / "results" / name).read_text())
    found = coco_figures(truth, results, kind).overall
    # Published with three digits; the rest is compared with pycocotools itself.
    assert list(found.values()) == pytest.approx(PUBLISHED[kind], abs=5e-4)
    assert_same_figures(truth, results, kind)


def scene(seed, *, images=30, classes=4, ties=False):
    """Return COCO records with crowds, empty images, sizes of all kinds and many detections."""
    rng = np.random.default_rng(seed)
    annotations, results = [], []

    def box():
        side = np.exp(rng.uniform(np.log(5), np.log(250), 2))
        return [*rng.uniform(0, 640 - side), *side]

    for image in range(1, images + 1):
        objects = [] if rng.random() < 0.2 else [box() for _ in range(rng.poisson(6))]
        drawn = [int(rng.integers(1, classes)) for _ in objects]  # the last class never occurs
        for corners, category in zip(objects, drawn, strict=True):
            facts = {"id": len(annotations) + 1, "image_id": image, "category_id": category}
            area = corners[2] * corners[3] * rng.uniform(0.4, 1)
            crowd = int(rng.random() < 0.1)
            annotations.append({**facts, "bbox": corners, "area": area, "iscrowd": crowd})
        for _ in range(int(rng.choice([0, 20, 250]))):  # more than the 100 that count
            near = objects and rng.random() < 0.6
            chosen = int(rng.integers(len(objects))) if near else 0
            corners = np.array(objects[chosen]) * rng.normal(1, 0.1, 4) if near else np.array(box())
            category = drawn[chosen] if near else int(rng.integers(1, classes + 1))
            score = rng.random()
            results.append(
                {
                    "image_id": image,
                    "category_id": category,
                    "bbox": np.abs(corners).tolist(),
                    "score": round(score, 1) if ties else score,
                }
            )
    names = [{"id": number, "name": f"class {number}"} for number in range(1, classes + 1)]
    image_files = [{"id": number, "width": 640, "height": 640} for number in range(1, images + 1)]
    return {"images": image_files, "categories": names, "annotations": annotations}, results


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_figures_of_drawn_scenes_equal_those_of_pycocotools(seed, ties):
    assert_same_figures(*scene(seed, ties=ties))


def test_figures_of_keypoints_equal_those_of_pycocotools():
    truth, _ = scene(7)
    rng = np.random.default_rng(7)
    results = []
    for one in truth["annotations"]:
        x, y, width, height = one["bbox"]
        points = np.column_stack([rng.uniform(x, x + width, 17), rng.uniform(y, y + height, 17)])
        visibility = rng.integers(0, 3, 17)
        one["keypoints"] = np.column_stack([points, visibility]).ravel().tolist()
        one["num_keypoints"] = int((visibility > 0).sum())
        moved = points + rng.normal(0, 0.03 * math.sqrt(width * height), points.shape)
        found = {name: one[name] for name in ("image_id", "category_id")}
        points = np.column_stack([moved, np.ones(17)]).ravel().tolist()
        results.append({**found, "keypoints": points, "score": float(rng.random())})
    assert_same_figures(truth, results, "keypoints")


def test_counting_each_image_once_gives_the_figures():
    for seed in range(3):
        figures = coco_figures(*scene(seed, ties=True))
        once = np.ones((1, 30), dtype=np.int64)
        drawn = drawn_figures(figures.matches, once)
        assert mean_over_classes(drawn.ap)[0] == pytest.approx(figures.overall["ap"])
        assert mean_over_classes(drawn.ap50)[0] == pytest.approx(figures.overall["ap50"])


def test_counting_an_image_twice_equals_a_copy_of_it():
    truth, results = scene(1)
    weights = np.random.default_rng(5).integers(0, 3, 30)
    again = {"images": [], "categories": truth["categories"], "annotations": []}
    found = []
    for image, times in enumerate(weights, start=1):
        for _ in range(times):
            number = len(again["images"]) + 1
            again["images"].append({"id": number, "width": 640, "height": 640})
            for records, copies in ((truth["annotations"], again["annotations"]), (results, found)):
                copies += [
                    {**one, "image_id": number} for one in records if one["image_id"] == image
                ]
    drawn = drawn_figures(coco_figures(truth, results).matches, weights[None])
    expected = coco_figures(again, found).overall
    assert mean_over_classes(drawn.ap)[0] == pytest.approx(expected["ap"])
    assert mean_over_classes(drawn.ap50)[0] == pytest.approx(expected["ap50"])


def test_figures_of_a_dataset_equal_those_of_pycocotools_without_crowds(coco_files):
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
    theirs, _ = pycocotools(truth, results, "bbox")
    assert (ours.map, ours.map50) == pytest.approx(tuple(theirs[:2]), abs=1e-9)
    assert ours.images == 100
