"""Pybossa's exports: JSON and every CSV that Pybossa has written say the same."""

import json
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.errors import DataError, FormatError
from annotation_platform.labeling.backends.pybossa.exports import read_pybossa
from annotation_platform.labeling.backends.pybossa.rows import read_rows
from annotation_platform.labeling.backends.registry import decode
from annotation_platform.labeling.backends.simulated import SimulatedLabeling
from annotation_platform.labeling.backends.vendor.backend import VendorLabeling
from annotation_platform.labeling.backends.vendor.package import write_package
from annotation_platform.labeling.backends.vendor.returns import import_annotations
from annotation_platform.schema.annotations import Canvas
from annotation_platform.schema.ontology import LabelClass, Ontology
from annotation_platform.schema.shapes import UNSURE, Label
from annotation_platform.storage.objects import LocalObjectStore
from tests.core.labeling.outside import (
    HEIGHT,
    LATER,
    NOON,
    ONTOLOGY,
    ROUND,
    WIDTH,
    as_flat_csv,
    as_json,
    as_old_csv,
    as_shown_csv,
    boxes,
    consensus_of,
    in_pixels,
    in_pybossa,
    make_copies,
    put_images,
    what_people_say,
)

EXPORTS = {"json": as_json, "csv": as_flat_csv, "fork csv": as_shown_csv, "old csv": as_old_csv}
PACKS = {
    "regions": lambda result: result,
    "under result": lambda result: {"result": result, "browser": "Netscape"},
    "JSON text": json.dumps,
    "JSON text under answer": lambda result: {"answer": json.dumps(result)},
}


@pytest.fixture
def labeling(tmp_path):
    return VendorLabeling(LocalObjectStore(tmp_path / "lake"))


def handed_off(labeling, tmp_path, replicas, ontology=ONTOLOGY):
    """Return the tasks as Pybossa imports them."""
    store = LocalObjectStore(tmp_path / "lake")
    put_images(store, 10)
    labeling.publish(ROUND, ontology, replicas)
    manifest = labeling.make_package(ROUND, vendor="crowd")
    out = tmp_path / "out"
    url = "https://images.example.org/round"
    write_package(manifest, copies_of(labeling), store, out, form="pybossa", images_url=url)
    return json.loads((out / "tasks.json").read_bytes())


def copies_of(labeling):
    return labeling.replicas(ROUND)


def written(tmp_path, tasks, runs, export=as_json):
    paths = []
    for kind, rows in (("task", tasks), ("task_run", runs)):
        path = tmp_path / f"export_{kind}"
        path.write_bytes(rows if isinstance(rows, bytes) else export(rows, kind))
        paths.append(path)
    return paths


@pytest.mark.parametrize(
    ("export", "pack"),
    [
        ("json", "regions"),
        ("csv", "regions"),
        ("csv", "JSON text"),
        ("fork csv", "under result"),
        ("old csv", "JSON text under answer"),
    ],
)
def test_any_export_gives_the_consensus_of_the_house(labeling, tmp_path, export, pack):
    replicas = make_copies(6, 3)
    drawn = what_people_say(replicas)
    house = SimulatedLabeling(tmp_path / "house.sqlite")
    ids = house.publish(ROUND, ONTOLOGY, replicas)
    for each in drawn:
        task = ids[each.task_id, each.assignment]
        result = in_pixels(each.result)
        house.submit(task, each.author, result, each.seconds, now=each.ended_at)
    tasks = handed_off(labeling, tmp_path, replicas)
    rows, runs = in_pybossa(tasks, drawn, pack=PACKS[pack])
    paths = written(tmp_path, rows, runs, EXPORTS[export])
    done = import_annotations(labeling, read_pybossa(*paths), now=LATER)
    assert (done.stored, done.problems) == (18, [])
    mine, labels = consensus_of(labeling, replicas)
    theirs, house_labels = consensus_of(house, replicas)
    assert mine.equals(theirs)
    assert labels.equals(house_labels)
    # To the digit: what came as CSV is known when it comes as JSON.
    paths = written(tmp_path, rows, runs)
    assert import_annotations(labeling, read_pybossa(*paths), now=LATER).known == 18


numbers = st.integers(0, 100) | st.floats(0, 100, allow_subnormal=False)
# A carriage return breaks the CSV that pandas writes for Pybossa: such a line is reported.
names = st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1)
regions = st.fixed_dictionaries(
    {
        "id": names,
        "type": st.just("rectanglelabels"),
        "from_name": st.just("label"),
        "original_width": st.just(WIDTH),
        "value": st.fixed_dictionaries(
            {"x": numbers, "y": numbers, "rectanglelabels": st.lists(names, max_size=2)}
        )
        | st.fixed_dictionaries(
            {
                "points": st.lists(st.lists(numbers, min_size=2, max_size=2), max_size=3),
                "closed": st.booleans(),
            }
        ),
    },
    optional={"score": numbers, "parentID": st.none() | names},
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(regions, max_size=3), min_size=1, max_size=4),
    st.sampled_from([name for name in EXPORTS if name != "json"]),
    st.sampled_from(list(PACKS)),
)
def test_csv_and_json_of_the_same_annotations_are_the_same_rows(annotations, export, pack):
    runs = [{"id": n, "info": PACKS[pack](result)} for n, result in enumerate(annotations, start=1)]
    from_json, _ = read_rows(as_json(runs, "task_run"), "json")
    from_csv, problems = read_rows(EXPORTS[export](runs, "task_run"), "csv")
    assert problems == []
    assert [row.values["info"] for row in from_csv] == [row.values["info"] for row in from_json]


def test_people_times_and_places_come_through(labeling, tmp_path):
    tasks = handed_off(labeling, tmp_path, make_copies(2, 2))
    assert [task["n_answers"] for task in tasks] == [2, 2]
    rows, _ = in_pybossa(tasks, [])
    run = {"created": "2026-05-01T11:59:30", "finish_time": "2026-05-01T12:00:00", "info": []}
    who = [{"user_id": 12}, {"user_ip": "127.0.0.3"}, {"external_uid": "007"}, {"user_id": 12}]
    runs = [
        {**run, **names, "id": number, "task_id": 101} for number, names in enumerate(who, start=1)
    ]
    runs[3] |= {"finish_time": "2026-05-01T12:30:00", "created": None}
    for export in EXPORTS.values():
        back = read_pybossa(*written(tmp_path, rows, runs, export))
        assert [each.annotator for each in back.annotations] == [
            "user-12", "ip-127.0.0.3", "external-007", "user-12",
        ]  # fmt: skip
        assert [each.lead_time_seconds for each in back.annotations] == [30, 30, 30, 0]
        assert {each.finished_at for each in back.annotations[:3]} == {NOON}
    assert import_annotations(labeling, back, now=LATER).stored == 4
    submissions = {(each.author, each.assignment) for each in labeling.collect(ROUND)}
    # Two assignments; who comes later shares the last one, who comes again shares their own.
    assert submissions == {
        ("crowd:user-12", 1),
        ("crowd:ip-127.0.0.3", 2),
        ("crowd:external-007", 2),
    }


def test_a_skip_holds_no_place_and_a_choice_is_one(labeling, tmp_path):
    ontology = Ontology(classes=[LabelClass(id=0, name="calm", shape="choice"),
                                 LabelClass(id=1, name="7", shape="choice")])  # fmt: skip
    tasks = handed_off(labeling, tmp_path, make_copies(1, 4), ontology)
    rows, _ = in_pybossa(tasks, [])
    infos = [{"skipped": True}, {"choice": "calm"}, {"label": "7"}, "calm", {"unsure": True}]
    runs = [
        {"id": n, "task_id": 101, "user_id": n, "finish_time": f"2026-05-01T12:00:0{n}",
         "info": info}
        for n, info in enumerate(infos)
    ]  # fmt: skip
    for export in EXPORTS.values():
        done = import_annotations(
            labeling, read_pybossa(*written(tmp_path, rows, runs, export)), now=LATER
        )
        assert done.problems == []
    submissions = sorted(labeling.collect(ROUND), key=lambda each: each.created_at)
    assert [(each.assignment, each.skipped) for each in submissions] == [
        (1, True), (1, False), (2, False), (3, False), (4, False),
    ]  # fmt: skip
    assert {each.payload.codec for each in submissions} == {"pybossa/1"}
    canvas = Canvas(WIDTH, HEIGHT, ontology)
    read = [[] if each.skipped else decode(each.payload, canvas).labels for each in submissions]
    calm, seven = Label.choice("calm"), Label.choice("7")
    assert read == [[], [calm], [seven], [calm], [UNSURE]]


def test_wrong_rows_are_named_by_line_and_the_right_ones_can_be_taken(labeling, tmp_path):
    tasks = handed_off(labeling, tmp_path, make_copies(2, 1))
    rows, _ = in_pybossa(tasks, [])
    rows[1]["info"]["task_id"] = "round-0001/labels/unknown"
    rows.append({"id": 9, "info": {"question": "whose?"}})
    other = {"package": rows[0]["info"]["package"]}
    rows.append({"id": 10, "info": other})
    runs = "\n".join(
        [
            "id,task_id,user_id,finish_time,info",
            "1,101,1,2026-05-01T12:00:00,[]",
            "2,101,2",
            "3,999,3,2026-05-01T12:00:00,[]",
            "4,102,4,2026-05-01T12:00:00,[]",
            "5,9,5,2026-05-01T12:00:00,[]",
            "6,101,6,noon,[]",
            "7,101,7,2026-05-01T12:00:00,{'result': [1}",
            "eight,101,8,2026-05-01T12:00:00,[]",
            "9,10,9,2026-05-01T12:00:00,[]",
            '10,101,10,2026-05-01T12:00:00,"[]"x',
            "11,101,,2026-05-01T12:00:00,[]",
        ]
    )
    back = read_pybossa(*written(tmp_path, rows, runs.encode()))
    done = import_annotations(labeling, back, now=LATER)
    assert (done.stored, labeling.collect(ROUND)) == (0, [])
    problems = {each.where: each.problem for each in done.problems}
    expected = {
        3: "3 cells, but the header has 5",
        4: "task 999: it is not among the tasks",
        5: "labels/unknown' is not in the package",
        6: "task 9: it was not exported from here",
        7: "'noon' is not a time",
        8: "is not an annotation",
        9: "not a number",
        10: "is missing",
        11: "check the quotes",
        12: "names no annotator",
    }
    assert set(problems) == {f"export_task_run:{line}" for line in expected}
    for line, words in expected.items():
        assert words in problems[f"export_task_run:{line}"]
    done = import_annotations(labeling, back, skip_wrong=True, now=LATER)
    assert done.stored == 1
    assert [each.author for each in labeling.collect(ROUND)] == ["crowd:user-1"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"name,age\n", "no id column", id="another table"),
        pytest.param(b"id,id,info\n", "two columns", id="a column twice"),
        pytest.param(b"id\n\xff\n", ":2: not UTF-8", id="not UTF-8"),
        pytest.param(b"", "no id column", id="empty"),
        pytest.param(b'{"id": 1}', "not a list", id="one object"),
        pytest.param(b"[" * 3000 + b"]" * 3000, "cannot be used|can be used", id="nested"),
    ],
)
def test_files_that_are_no_export_are_refused_whole(tmp_path, data, message):
    with pytest.raises(FormatError, match=message):
        read_pybossa(*written(tmp_path, data, b"[]"))


def test_the_zip_that_pybossa_hands_out_will_do(labeling, tmp_path):
    tasks = handed_off(labeling, tmp_path, make_copies(1, 1))
    rows, runs = in_pybossa(tasks, what_people_say(make_copies(1, 1)))
    paths = []
    for kind, content in (("task", rows), ("task_run", runs)):
        path = tmp_path / f"7_ships_{kind}_csv.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"ships_{kind}.csv", as_flat_csv(content, kind))
            archive.writestr(f"ships_{kind}_info_only.csv", "result\n")
        paths.append(path)
    assert import_annotations(labeling, read_pybossa(*paths), now=LATER).stored == 1
    with zipfile.ZipFile(paths[0], "a") as archive:
        archive.writestr("../evil.csv", "id\n")
    with pytest.raises(DataError, match="leads out"):
        read_pybossa(*paths)


def test_a_mask_of_a_hundred_thousand_runs_fits_into_a_cell(tmp_path):
    mask = [{"type": "brushlabels", "value": {"format": "rle", "rle": list(range(100_000))}}]
    runs = [{"id": 1, "task_id": 1, "info": mask}]
    data = as_shown_csv(runs, "task_run")
    assert len(data) > 500_000
    assert read_rows(data, "csv")[0][0].values["info"] == mask


def test_boxes_of_a_class_that_was_not_asked_for_are_refused(labeling, tmp_path):
    tasks = handed_off(labeling, tmp_path, make_copies(1, 1))
    (annotation,) = what_people_say(make_copies(1, 1))
    rows, runs = in_pybossa(tasks, [annotation])
    runs[0]["info"] = boxes((1, 1, 9, 9), class_name="whale")
    rows[0]["info"]["image_sha256"] = "0" * 64
    (hash_, region) = import_annotations(
        labeling, read_pybossa(*written(tmp_path, rows, runs)), now=LATER
    ).problems
    assert "SHA-256" in hash_.problem
    assert "whale" in region.problem
