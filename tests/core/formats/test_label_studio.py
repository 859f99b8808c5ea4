"""Reading of Label Studio's JSON export: labels, and problems of bad tasks."""

import json
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.errors import FormatError
from annotation_platform.formats.label_studio.reading import image_path, read_label_studio
from annotation_platform.formats.label_studio.results import write_result
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.shapes import Label

DATA = Path(os.environ.get("ANNOTATION_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))
NO_DATA = f"the public test data are not at {DATA}; set ANNOTATION_TEST_DATA to run this"


def region(class_name="cat", *, x=10.0, y=10.0, width=20.0, height=20.0, **changes):
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0}
    return {
        "id": "r1",
        "type": "rectanglelabels",
        "original_width": 64,
        "original_height": 48,
        "image_rotation": 0,
        "value": {**value, "rectanglelabels": [class_name]},
        **changes,
    }


def annotation(*regions, updated="2026-01-01T00:00:00Z", **changes):
    times = {"created_at": "2026-01-01T00:00:00Z", "updated_at": updated}
    return {"id": 1, "result": list(regions), "was_cancelled": False, **times, **changes}


def task(number, *annotations, image=None):
    data = {"image": image or f"s3://bucket/set/{number}.jpg"}
    return {"id": number, "data": data, "annotations": list(annotations), "predictions": [7]}


def read(tmp_path, *tasks, only_boxes=True):
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    return read_label_studio(path, only_boxes=only_boxes)


SOUND = task(1, annotation(region()))


def test_rectangles_in_percent_become_boxes_in_pixels(tmp_path):
    found = read(tmp_path, SOUND)
    assert found.problems == ()
    assert found.dataset.images.iloc[0].tolist() == ["1", "set/1.jpg", "", 64, 48]
    # 10 and 30 percent of 64, and of 48.
    assert found.dataset.labels[BOX_COLUMNS].iloc[0].tolist() == pytest.approx(
        [6.4, 4.8, 19.2, 14.4]
    )
    assert found.dataset.ontology.id_of == {"cat": 0}


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("s3://bucket/a/b c#1.jpg", "a/b c#1.jpg"),
        ("gs://bucket/b.jpg", "b.jpg"),
        ("/data/local-files/?d=set%201/img000.jpg", "set 1/img000.jpg"),
        (
            "http://host:15000/priv1/imgs/img001.jpg?Signature=1vm%2B&Expires=17",
            "priv1/imgs/img001.jpg",
        ),
        ("https://host/%C3%BC.jpg", "ü.jpg"),
        ("/data/upload/29/0a1b2c3d-example.png", "example.png"),
        ("/data/upload/29/example.png", "example.png"),
        ("https://host/data/upload/29/deadbeef-a-b.png", "a-b.png"),
        ("deadbeef-a.png", "deadbeef-a.png"),
        ("folder/a.png", "folder/a.png"),
        ("data:image/png;base64,AAAA", ""),
        ("http://[broken", ""),
    ],
)
def test_an_address_gives_the_path_of_its_image(address, path):
    assert image_path(address) == path


def test_an_empty_annotation_counts_and_a_skip_or_a_prediction_does_not(tmp_path):
    empty, skipped = task(2, annotation()), task(3, annotation(region(), was_cancelled=True))
    found = read(tmp_path, SOUND, empty, skipped, task(4))
    assert found.dataset.images["file_name"].tolist() == ["set/1.jpg", "set/2.jpg"]
    # Label Studio stores the size of an image only in its regions.
    assert found.dataset.images["width"].tolist() == [64, 0]
    assert set(found.dataset.labels["image_id"]) == {"1"}
    assert found.problems == ()


def test_of_several_annotations_the_one_updated_last_counts(tmp_path):
    annotations = [
        annotation(region("early"), updated="2026-01-01T00:00:00Z"),
        annotation(region("late"), updated="2026-01-03T01:00:00+02:00"),
        annotation(region("skip"), updated="2026-01-09T00:00:00Z", was_cancelled=True),
        annotation(region("middle"), updated="2026-01-02T22:00:00Z"),
    ]
    found = read(tmp_path, task(1, *annotations))
    assert found.dataset.labels["class_name"].tolist() == ["late"]
    assert "several annotations" in found.problems[0]


def test_annotations_of_the_whole_image_are_ignored(tmp_path):
    choice = {"id": "c1", "type": "choices", "value": {"choices": ["ok"]}}
    found = read(tmp_path, task(1, annotation(choice, region())))
    assert len(found.dataset.labels) == 1
    assert found.problems == ()


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (task(2, annotation(region(x=1000.0))), "entirely outside"),
        (task(2, annotation(region(x=90.0))), "percent outside"),
        (task(2, annotation(region(width=-3.0))), "no area"),
        (task(2, annotation(region(height=0.0))), "no area"),
        (task(2, annotation(region(x="10"))), "not a usable number"),
        (task(2, annotation(region(x=10**400))), "not a usable number"),
        (task(2, annotation(region(x=float("nan")))), "not a usable number"),
        (task(2, annotation(region(type="brushlabels"))), "type 'brushlabels' is not used here"),
        (task(2, annotation(region(), {"type": "polygonlabels", "id": "p"})), "drawn on images"),
        (task(2, annotation(region(image_rotation=90))), "turned by 90"),
        (task(2, annotation(region(original_width=10**400))), "has the size"),
        (task(2, annotation(region(original_height=None))), "has the size"),
        (task(2, annotation(region(), region(original_width=65, id="r2"))), "different sizes"),
        (task(2, annotation(region("x" * 101))), "is not in the ontology"),
        (task(2, annotation("region")), "has the size"),
        (task(2, annotation(result={})), "no list of regions"),
        (task(2, 17), "not a list of objects"),
        (task(2, annotation(region()), image="s3://bucket/../../etc/passwd"), "not a file name"),
        (task(2, annotation(region()), image="data:image/png;base64,AA"), "not a file name"),
        ({**task(2, annotation(region())), "data": {"text": "a"}}, "the image's address"),
    ],
)
def test_a_task_that_cannot_be_used_is_left_out_whole_and_named(tmp_path, bad, says):
    found = read(tmp_path, SOUND, bad)
    assert found.dataset.images["file_name"].tolist() == ["set/1.jpg"]
    assert len(found.dataset.labels) == 1
    (problem,) = found.problems
    assert "export.json: task 2 is left out: " in problem
    assert says in problem


def test_changes_are_reported(tmp_path):
    value = region()["value"]
    turned = region(value={**value, "rotation": 90})
    within_a_pixel = region(x=-1.0)
    found = read(
        tmp_path,
        task(1, annotation(turned)),
        task(2, annotation(within_a_pixel)),
        task(3, annotation(region(), region())),
    )
    assert len(found.dataset.labels) == 3
    problems = " ".join(found.problems)
    for words in ("the box around it is taken", "clipped at its edge", "1 repeated regions"):
        assert words in problems


def test_two_tasks_on_one_image_are_both_left_out(tmp_path):
    twins = [task(number, annotation(region()), image="s3://b/same.jpg") for number in (2, 3)]
    found = read(tmp_path, SOUND, *twins)
    assert found.dataset.images["file_name"].tolist() == ["set/1.jpg"]
    assert "task 2 and task 3 are left out" in found.problems[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "export.json:1: not JSON"),
        ("[" * 100_000, "not JSON that can be used"),
        ('[{"id": "\\ud800", "annotations": []}]', "not JSON that can be used"),
        ("{}", "not a JSON export of Label Studio"),
        ("[]", "not a JSON export of Label Studio"),
        ('[{"image": "a.jpg", "box": []}]', "not as JSON-MIN"),
        (json.dumps([task(1, annotation())]), "no rectangle with a class"),
        (json.dumps([task(1, annotation(region(width=0.0)))]), "no task with a usable label"),
    ],
)
def test_an_error_in_another_file_names_the_problem(tmp_path, text, says):
    path = tmp_path / "export.json"
    path.write_text(text)
    with pytest.raises(FormatError, match=says):
        read_label_studio(path, only_boxes=True)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["cat", "ü"]), st.floats(0, 900), st.floats(0, 400)),
        min_size=1,
        max_size=5,
    )
)
def test_predictions_of_the_platform_are_read_back(tmp_path_factory, corners):
    boxes = [Label.box(name, x, y, x + 50, y + 60) for name, x, y in corners]
    path = tmp_path_factory.mktemp("export") / "export.json"
    path.write_text(json.dumps([task(1, annotation(*write_result(boxes, 1000, 500)))]))
    found = read_label_studio(path)
    assert found.problems == ()
    assert found.dataset.labels["class_name"].tolist() == [box.class_name for box in boxes]
    expected = [edge for box in boxes for edge in (box.x1, box.y1, box.x2, box.y2)]
    assert found.dataset.labels[BOX_COLUMNS].to_numpy().ravel() == pytest.approx(expected, abs=1e-6)


@pytest.mark.skipif(not DATA.is_dir(), reason=NO_DATA)
def test_hostile_tasks_end_as_required(tmp_path):
    with tarfile.open(DATA / "evil.tar.gz") as archive:
        tasks = json.load(archive.extractfile("evil/ls_export_bad.json"))
    for each in tasks:  # all are on one image there; here each has its own
        each["data"]["image"] = f"s3://b/{each['id']}.jpg"
    found = read(tmp_path, *tasks)
    kept = set(found.dataset.images["image_id"].astype(int))
    # 3 reaches ten percent outside; 15 is outside its image; 20's class is in no ontology.
    assert kept == {1, 8, 9, 12, 14, 15, 18, 19, 20}
    named = {
        number for number in range(1, 23) if any(f"task {number} " in p for p in found.problems)
    }
    assert named == {2, 3, 4, 5, 6, 7, 10, 11, 16, 17, 21, 22}
    noted = {number for number in kept if any(f"task {number}:" in p for p in found.problems)}
    assert noted == {8, 18}
    assert "worker@example.com" not in str(found)


@pytest.mark.skipif(not DATA.is_dir(), reason=NO_DATA)
def test_exports_of_a_real_server_are_read():
    folder = DATA / "label_studio_samples"
    found = read_label_studio(folder / "export_JSON.json")
    assert found.dataset.images["file_name"].tolist()[0] == "set1/img000.jpg"
    assert set(found.dataset.labels["class_name"]) <= {"Cat", "Dog"}
    with pytest.raises(FormatError, match="not as JSON-MIN"):
        read_label_studio(folder / "export_JSON_MIN.json")
    ui = read_label_studio(folder / "export_ui_project.json")
    assert "set1/img000.jpg" not in set(ui.dataset.images["file_name"])  # it was skipped
