"""The evaluate command: the published figures, and one line for every error in a file."""

import json
import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from annotation_platform.cli.model import evaluate
from annotation_platform.errors import AnnotationPlatformError
from annotation_platform.settings import PROJECT_ROOT

COCOEVAL = (
    Path(os.environ.get("ANNOTATION_TEST_DATA", PROJECT_ROOT.parent / "shared" / "data"))
    / "cocoeval"
)
APP = typer.Typer()
APP.command()(evaluate)

TRUTH = {
    "images": [{"id": 1}, {"id": 2}],
    "categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}],
    "annotations": [
        {"id": 0, "image_id": 1, "category_id": 3, "bbox": [0, 0, 10, 10]},
        {"id": 1, "image_id": 2, "category_id": 3, "bbox": [0, 0, 10, 10]},
    ],
}
FOUND = [{"image_id": 1, "category_id": 3, "bbox": [0, 0, 10, 10], "score": 0.9}]


@pytest.fixture
def run(tmp_path):
    def with_files(truth, found, *more):
        paths = tmp_path / "truth.json", tmp_path / "found.json"
        for path, content in zip(paths, (truth, found), strict=True):
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return CliRunner().invoke(
            APP, ["--truth", str(paths[0]), "--predictions", str(paths[1]), *more]
        )

    return with_files


def printed_json(done):
    assert done.exit_code == 0, done.exception
    return json.loads(done.stdout.splitlines()[-1])


def test_the_published_example_has_its_figures_by_class_and_with_intervals():
    if not COCOEVAL.is_dir():
        pytest.skip(f"COCO's published example is not at {COCOEVAL}; set ANNOTATION_TEST_DATA.")
    results = COCOEVAL / "results" / "instances_val2014_fakebbox100_results.json"
    files = ["--truth", COCOEVAL / "instances_val2014_100.json", "--predictions", results]
    printed = printed_json(CliRunner().invoke(APP, [*map(str, files), "--json"]))
    published = {"ap": 0.505, "ap50": 0.697, "ap75": 0.573, "ar100": 0.595, "ar_large": 0.564}
    assert {name: printed[name] for name in published} == pytest.approx(published, abs=5e-4)
    low, high = printed["intervals"]["ap"]
    assert low < printed["ap"] < high
    assert (printed["images"], printed["annotations"]) == (100, 839)
    present = [one["ap"] for one in printed["per_class"].values() if one["ap"] is not None]
    assert sum(present) / len(present) == pytest.approx(printed["ap"])


def test_one_of_two_boxes_found_is_half_of_everything(run):
    # Precision 1 up to recall .5, which is 51 of 101 points; a box with the id 0 counts.
    printed = printed_json(run(TRUTH, FOUND, "--json"))
    assert printed["ap"] == printed["per_class"]["cat"]["ap50"] == pytest.approx(51 / 101)
    assert printed["ar100"] == pytest.approx(0.5)
    assert printed["ap_large"] is None
    assert list(printed["per_class"]) == ["cat"]
    shown = run(TRUTH, FOUND)
    assert "AP50" in shown.stdout
    assert "2 images, 2 annotations, 1 detections" in shown.stdout


def test_nothing_found_is_zero(run):
    assert printed_json(run(TRUTH, [], "--json"))["ap"] == 0


def test_no_truth_has_no_figure(run):
    assert printed_json(run({**TRUTH, "annotations": []}, FOUND, "--json"))["ap"] is None


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        pytest.param({"score": float("nan")}, "bbox", r"\[0\]: score is nan", id="NaN score"),
        pytest.param({"score": None}, "bbox", r"\[0\]: score is None", id="null score"),
        pytest.param({"image_id": 9}, "bbox", "image_id 9 is no image in the ground", id="image"),
        pytest.param({"image_id": "1"}, "bbox", "image_id is '1'", id="text for an id"),
        pytest.param({"category_id": 9}, "bbox", "category_id 9 is no category", id="category"),
        pytest.param({"bbox": [0, 0, 1]}, "bbox", r"bbox is \[0, 0, 1\], not", id="three sides"),
        pytest.param({"bbox": [0, 0, -1, 1]}, "bbox", "bbox is", id="turned inside out"),
        pytest.param({"bbox": [0, 0, 1e999, 1]}, "bbox", "bbox is", id="infinite"),
        pytest.param(
            {"segmentation": {"size": [9, 9], "counts": [3]}}, "segm", "segmentation is", id="runs"
        ),
        pytest.param(
            {"segmentation": {"size": [9, 9], "counts": "@@"}}, "segm", "segmentation is", id="text"
        ),
    ],
)
def test_the_error_names_an_unusable_detection(run, change, kind, message):
    outlines = [
        {**one, "area": 1, "segmentation": [[0, 0, 9, 0, 9, 9]]} for one in TRUTH["annotations"]
    ]
    done = run({**TRUTH, "annotations": outlines}, [{**FOUND[0], **change}], "--type", kind)
    assert isinstance(done.exception, AnnotationPlatformError)
    text = str(done.exception)
    assert "found.json" in text
    assert "\n" not in text
    with pytest.raises(AnnotationPlatformError, match=message):
        raise done.exception


@pytest.mark.parametrize(
    ("truth", "found", "more", "message"),
    [
        pytest.param([], FOUND, [], "truth.json: not a COCO file", id="a list as truth"),
        pytest.param("{", FOUND, [], "truth.json:1: not JSON", id="half a file"),
        pytest.param({**TRUTH, "images": 3}, FOUND, [], "no list 'images'", id="no images"),
        pytest.param(TRUTH, TRUTH, [], "found.json: not a COCO results file", id="truth twice"),
        pytest.param(TRUTH, FOUND, ["--type", "boxes"], "--type boxes: it is one of", id="kind"),
        pytest.param(TRUTH, FOUND, ["--type", "segm"], "truth.json: .*no segm", id="no outlines"),
        pytest.param(
            TRUTH | {"images": [{"id": n, "width": "wide", "height": 9} for n in (1, 2)]},
            FOUND,
            [],
            "records cannot be used: .*'width'",
            id="a text for a width",
        ),
        pytest.param(
            {**TRUTH, "images": [{"id": 1}, {"id": 1}]}, FOUND, [], "id 1 is taken", id="one id"
        ),
        pytest.param(
            {**TRUTH, "categories": [{"id": n, "name": "cat"} for n in (3, 4)]},
            FOUND,
            [],
            "two categories are called 'cat'",
            id="one name",
        ),
    ],
)
def test_files_of_a_wrong_form_are_refused(run, truth, found, more, message):
    done = run(truth, found, *more)
    assert isinstance(done.exception, AnnotationPlatformError)
    with pytest.raises(AnnotationPlatformError, match=message):
        raise done.exception


def test_a_detector_and_files_at_once_are_refused(tmp_path):
    done = CliRunner().invoke(APP, ["--truth", str(tmp_path), "--weights", str(tmp_path)])
    assert "give --truth and --predictions, or --data" in str(done.exception)
