"""What goes out to a vendor, and that nothing comes back but what was asked for."""

import hashlib
import json
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from annotation_platform.errors import (
    DataError,
    FormatError,
    LabelingError,
    NotReadyError,
    SettingsError,
)
from annotation_platform.labeling.backends.protocol import LabelingBackend
from annotation_platform.labeling.backends.regions import shown_regions
from annotation_platform.labeling.backends.registry import decode
from annotation_platform.labeling.backends.simulated import SimulatedLabeling
from annotation_platform.labeling.backends.vendor.backend import VendorLabeling
from annotation_platform.labeling.backends.vendor.package import write_package
from annotation_platform.labeling.backends.vendor.returns import import_annotations, read_returned
from annotation_platform.schema.annotations import Canvas
from annotation_platform.schema.ontology import LabelClass, Ontology
from annotation_platform.schema.shapes import UNSURE
from annotation_platform.storage.objects import LocalObjectStore
from annotation_platform.storage.s3 import Bucket, S3ObjectStore
from tests.core.labeling.outside import (
    HEIGHT,
    LATER,
    NOON,
    ONTOLOGY,
    ROUND,
    WIDTH,
    boxes,
    consensus_of,
    fill_in,
    image_id,
    in_pixels,
    make_copies,
    proposal,
    put_images,
    what_people_say,
)

BOX = (10.0, 20.0, 60.0, 80.0)


@pytest.fixture
def store(tmp_path):
    return LocalObjectStore(tmp_path / "lake")


@pytest.fixture
def labeling(store):
    return VendorLabeling(store)


def publish(labeling, store, replicas, ontology=ONTOLOGY):
    put_images(store, 10)
    return labeling.publish(ROUND, ontology, replicas)


def exported(labeling, store, out, *, vendor="acme", form="label-studio"):
    manifest = labeling.make_package(ROUND, vendor=vendor)
    write_package(manifest, labeling.replicas(ROUND), store, out, form=form)
    return manifest


def template(out):
    with zipfile.ZipFile(out) as archive:
        return json.loads(archive.read("answers.json"))


def annotated(entry, *corners, who="7", at=NOON, **changes):
    times = {"finished_at": at.isoformat(), "lead_time_seconds": 9.5}
    return {**entry, **times, "annotator": who, "result": boxes(*corners), **changes}


def returned(tmp_path, content, name="back.json"):
    path = tmp_path / name
    path.write_text(json.dumps(content))
    return read_returned(path)


@pytest.fixture
def package(labeling, store, tmp_path):
    """A round of two images with two assignments each, exported; its answers to be filled in."""
    publish(labeling, store, make_copies(2, 2))
    exported(labeling, store, tmp_path / "out.zip")
    return template(tmp_path / "out.zip")


def take(labeling, tmp_path, package, *entries, now=LATER, **options):
    content = {**package, "answers": list(entries)}
    return import_annotations(labeling, returned(tmp_path, content), now=now, **options)


def problems(done):
    return [f"{each.where}: {each.problem}" for each in done.problems]


def test_publishing_again_adds_what_is_missing_and_changes_nothing_else(labeling, store):
    client: LabelingBackend = labeling
    half = publish(client, store, make_copies(2, 2)[:3])
    whole = publish(client, store, [replace(c, width=9) for c in make_copies(2, 2)])
    assert {assignment: whole[assignment] for assignment in half} == half
    assert len(set(whole.values())) == 4
    assert [replica.width for replica in labeling.replicas(ROUND)] == [WIDTH, WIDTH, WIDTH, 9]
    assert client.annotators() == []
    assert client.collect("round-0009") == []
    assert client.progress(ROUND).annotations == 0


def test_blind_places_go_out_without_proposals_and_annotations_say_what_they_began_from(
    labeling, store, tmp_path
):
    seen, without_predictions = make_copies(1, 2)
    shown = replace(seen, weights_sha256="a" * 64, pre_annotations=(proposal(*BOX),))
    publish(labeling, store, [shown, replace(without_predictions, without_predictions=True)])
    manifest = exported(labeling, store, tmp_path / "out.zip")
    (region,) = manifest.assignments[0].pre_annotations
    assert region["value"] == boxes(BOX)[0]["value"]
    assert manifest.assignments[1].pre_annotations == []
    package = template(tmp_path / "out.zip")
    one, two = package["answers"]
    take(labeling, tmp_path, package, annotated(one, BOX), annotated(two, BOX, who="8"))
    submissions = {each.assignment: each for each in labeling.collect(ROUND)}
    assert (submissions[1].pre_annotations, submissions[1].weights_sha256) == (
        shown_regions(shown.pre_annotations),
        "a" * 64,
    )
    assert (submissions[2].pre_annotations, submissions[2].weights_sha256) == (
        shown_regions(()),
        "",
    )
    exported(labeling, store, tmp_path / "pybossa", form="pybossa")
    tasks = json.loads((tmp_path / "pybossa" / "tasks.json").read_text())
    assert [task["info"]["places"] for task in tasks] == [[1], [2]]


def test_reviews_stay_in_the_house(labeling, store):
    with pytest.raises(LabelingError, match="another back end"):
        publish(labeling, store, make_copies(1, 1, purpose="review"))


@pytest.mark.parametrize("form", ["label-studio", "coco", "pybossa"])
def test_a_package_is_the_same_bytes_each_time_and_tells_no_secret(labeling, store, tmp_path, form):
    replicas = make_copies(3, 2, purpose="gold", expertise="ships")
    publish(labeling, store, [replace(replica, assignee="ada@example.org") for replica in replicas])
    first = exported(labeling, store, tmp_path / "a.zip", form=form)
    assert exported(labeling, store, tmp_path / "b.zip", form=form) == first
    data = (tmp_path / "a.zip").read_bytes()
    assert data == (tmp_path / "b.zip").read_bytes()
    assert b"gold" not in data
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        # In the zip's own bytes, an "@" may be part of a length or a checksum.
        assert not any("@" in name or b"@" in archive.read(name) for name in archive.namelist())
        manifest = json.loads(archive.read("manifest.json"))
        for assignment in manifest["places"]:
            image = archive.read(assignment["image"])
            assert hashlib.sha256(image).hexdigest() == assignment["image_sha256"]
            assert image == store.get(assignment["image"])
        readme = archive.read("README.txt").decode()
    assert len(manifest["places"]) == 6
    assert manifest["ontology"]["guidelines"] in readme.replace("\n  ", "\n")
    assert all(name in readme for name in ONTOLOGY.names)
    folder = tmp_path / "folder"
    exported(labeling, store, folder, form=form)
    inside = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert inside == set(zipfile.ZipFile(tmp_path / "a.zip").namelist())


def test_a_package_is_whole_or_not_there(labeling, store, tmp_path):
    with pytest.raises(NotReadyError, match="label_tasks"):
        labeling.make_package(ROUND, vendor="acme")
    publish(labeling, store, make_copies(2, 1))
    with pytest.raises(SettingsError, match="vendor"):
        labeling.make_package(ROUND, vendor="ada@example.org")
    manifest = exported(labeling, store, tmp_path / "out.zip")
    with pytest.raises(DataError, match="--out"):
        exported(labeling, store, tmp_path / "out.zip")
    # An image that is not the one whose digest was taken must not go out under it.
    store.put(f"images/{image_id(1)}.jpg", b"other pixels")
    for name in ("half.zip", "half"):
        with pytest.raises(DataError, match="changed"):
            write_package(manifest, labeling.replicas(ROUND), store, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lake", "out.zip"]


@pytest.mark.parametrize("way", ["zip", "folder", "file"])
def test_the_same_annotations_give_the_same_consensus_as_in_the_house(
    labeling, store, tmp_path, way
):
    replicas = make_copies(6, 3)
    drawn = what_people_say(replicas)
    house = SimulatedLabeling(tmp_path / "house.sqlite")
    ids = house.publish(ROUND, ONTOLOGY, replicas)
    for each in drawn:
        house.submit(
            ids[each.task_id, each.assignment],
            each.author,
            in_pixels(each.result),
            each.seconds,
            now=each.ended_at,
        )
    publish(labeling, store, replicas)
    exported(labeling, store, tmp_path / "out.zip")
    annotations = json.dumps(fill_in(template(tmp_path / "out.zip"), drawn))
    back = tmp_path / "back"
    if way == "file":
        back.write_text(annotations)
    else:
        exported(labeling, store, back)
        (back / "answers.json").write_text(annotations)
    if way == "zip":
        # As people pack it: the folder itself, and deflated.
        members = [(path.relative_to(tmp_path).as_posix(), path.read_bytes())
                   for path in back.rglob("*") if path.is_file()]  # fmt: skip
        back = zipped(tmp_path / "back.zip", members)
    done = import_annotations(labeling, read_returned(back), now=LATER)
    assert (done.stored, done.known, done.unannotated, done.problems) == (18, 0, 0, [])
    mine, labels = consensus_of(labeling, replicas)
    theirs, house_labels = consensus_of(house, replicas)
    assert len(mine) > 6
    assert mine.equals(theirs)
    assert labels.equals(house_labels)


def test_importing_a_file_twice_changes_nothing_and_a_corrected_one_makes_a_revision(
    labeling, package, tmp_path
):
    first, second, *open_ = package["answers"]
    entries = [annotated(first, BOX), annotated(second, who="8"), *open_]
    done = take(labeling, tmp_path, package, *entries)
    assert (done.stored, done.known, done.unannotated) == (2, 0, 2)
    stamp, before = labeling.change_token(ROUND), labeling.collect(ROUND)
    again = take(labeling, tmp_path, package, *entries, now=LATER + timedelta(hours=1))
    assert (again.stored, again.known) == (0, 2)
    assert labeling.change_token(ROUND) == stamp
    assert labeling.collect(ROUND) == before

    # The vendor mends a box and leaves the times alone.
    mended = [annotated(first, (0, 0, 5, 5)), *entries[1:]]
    assert take(labeling, tmp_path, package, *mended).stored == 1
    assert labeling.change_token(ROUND) != stamp
    was, now = (
        next(s for s in all_ if s.assignment == 1) for all_ in (before, labeling.collect(ROUND))
    )
    assert (now.annotation, now.author, now.created_at) == (was.annotation, "acme:7", NOON)
    assert now.updated_at > was.updated_at
    assert now.payload.content == boxes((0, 0, 5, 5))
    # An old file that is imported again undoes no correction.
    assert take(labeling, tmp_path, package, *entries).stored == 0
    assert next(s for s in labeling.collect(ROUND) if s.assignment == 1) == now


def test_an_annotation_says_what_it_said_and_people_of_two_vendors_are_never_the_same(
    labeling, store, package, tmp_path
):
    first, second, third, fourth = package["answers"]
    began = {"started_at": "2026-05-01T13:59:00+02:00", "lead_time_seconds": None}
    take(
        labeling, tmp_path, package,
        annotated(first, BOX, **began),
        annotated(second, who="", skipped=True, result=None),
        annotated(third, who="9", unsure=True, result=None, finished_at=None),
        annotator="kim",
    )  # fmt: skip
    one, skip, unsure = labeling.collect(ROUND)
    assert (one.author, one.created_at, one.lead_time_seconds) == ("acme:7", NOON, 60.0)
    assert one.payload.content == boxes(BOX)
    assert (skip.author, skip.skipped, skip.payload.content) == ("acme:kim", True, [])
    assert unsure.created_at == LATER
    decoded = decode(unsure.payload, Canvas(WIDTH, HEIGHT, ONTOLOGY))
    assert decoded.labels == [UNSURE]
    assert labeling.progress(ROUND).annotations == 3

    exported(labeling, store, tmp_path / "other.zip", vendor="bolt")
    other = template(tmp_path / "other.zip")
    take(labeling, tmp_path, other, annotated(other["answers"][0]), annotated(fourth, BOX))
    assert {each.author for each in labeling.collect(ROUND)} >= {"acme:7", "bolt:7"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"task_id": "round-0001/labels/x"}, "labels/x' is not in", id="task"),
        pytest.param({"place": 3}, "place 3 of task", id="place"),
        pytest.param({"place": "1"}, "place: ", id="place that is text"),
        pytest.param({"image_sha256": "0" * 64}, "SHA-256", id="hash"),
        pytest.param({"width": HEIGHT, "height": WIDTH}, "240 × 320 pixels", id="size"),
        pytest.param({"result": boxes(BOX, class_name="ship")}, "ship", id="class"),
        pytest.param({"result": boxes((5, 5, 5, 9))}, "no area", id="no area"),
        pytest.param({"result": [{"type": "ellipselabels"}]}, "ellipse", id="shape"),
        pytest.param({"result": ["boat"]}, "expected an object", id="no region"),
        pytest.param({"result": "boat"}, "result: ", id="no list"),
        pytest.param({"annotator": ""}, "--annotator", id="no annotator"),
        pytest.param({"annotator": "ada@example.org"}, "e-mail", id="address"),
        pytest.param({"annotator": "a\nb"}, "person's id", id="line break"),
        pytest.param({"finished_at": "yesterday"}, "not a time", id="no time"),
        pytest.param({"finished_at": "2026-07-01T00:00:00"}, "future", id="future"),
        pytest.param(
            {"started_at": "2026-05-02T00:00:00Z"}, "finished before it was started", id="order"
        ),
        pytest.param({"lead_time_seconds": -1}, "lead_time_seconds: ", id="seconds"),
        pytest.param({"skipped": True}, "is skipped but has regions", id="skip with regions"),
    ],
)
def test_what_was_not_asked_for_is_refused_and_named_and_nothing_is_stored(
    labeling, package, tmp_path, change, message
):
    first, second, *_ = package["answers"]
    wrong, right = {**annotated(first, BOX), **change}, annotated(second, BOX, who="8")
    done = take(labeling, tmp_path, package, right, wrong)
    (problem,) = problems(done)
    assert problem.startswith("back.json: answers[1]: ")
    assert message in problem
    assert done.stored == 0
    assert labeling.collect(ROUND) == []
    done = take(labeling, tmp_path, package, right, wrong, skip_wrong=True)
    assert (done.stored, len(done.problems)) == (1, 1)
    assert [each.author for each in labeling.collect(ROUND)] == ["acme:8"]


def test_an_annotation_given_twice_in_one_file_is_refused(labeling, package, tmp_path):
    first = package["answers"][0]
    done = take(labeling, tmp_path, package, annotated(first, BOX), annotated(first))
    assert "answers[0] too" in problems(done)[0]


def test_a_further_package_may_leave_out_what_is_annotated(labeling, store, package, tmp_path):
    first, second, *open_ = package["answers"]
    skip = annotated(second, who="8", skipped=True)
    take(labeling, tmp_path, package, annotated(first, BOX), skip)
    again = labeling.make_package(ROUND, vendor="acme", only_open=True)
    asked = [(each["task_id"], each["place"]) for each in [second, *open_]]
    assert [(each.task_id, each.assignment) for each in again.assignments] == asked
    rest = [annotated(each, who=str(n)) for n, each in enumerate(package["answers"], start=20)]
    take(labeling, tmp_path, package, *rest)
    with pytest.raises(NotReadyError, match="every vendor assignment"):
        labeling.make_package(ROUND, vendor="acme", only_open=True)


def test_the_classes_are_those_of_the_day_of_the_export(labeling, store, package, tmp_path):
    first, second, *_ = package["answers"]
    later = Ontology(classes=(*ONTOLOGY.classes, LabelClass(id=9, name="ferry")))
    publish(labeling, store, make_copies(2, 2), later)
    ferry = {"result": boxes(BOX, class_name="ferry")}
    assert "ferry" in problems(take(labeling, tmp_path, package, annotated(first, **ferry)))[0]
    exported(labeling, store, tmp_path / "new.zip")
    new = template(tmp_path / "new.zip")
    assert new["package"] != package["package"]
    assert take(labeling, tmp_path, new, annotated(first, **ferry)).stored == 1
    # Answers to the older package are still welcome.
    assert take(labeling, tmp_path, package, annotated(second, BOX, who="8")).stored == 1


@pytest.mark.parametrize(
    ("package_id", "message"),
    [
        pytest.param("round-0001-0123456789abcdef", "was not exported", id="unknown"),
        pytest.param("../../etc/passwd", "is not a package id", id="a path"),
        pytest.param("", "--package", id="none"),
    ],
)
def test_an_unknown_package_is_refused_even_if_nothing_is_annotated(
    labeling, package, tmp_path, package_id, message
):
    content = {**package, "package": package_id}
    with pytest.raises(DataError, match=message):
        import_annotations(labeling, returned(tmp_path, content), now=LATER)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("{", "back.json:1", id="no JSON"),
        pytest.param('{"answers": [NaN]}', "NaN", id="NaN"),
        pytest.param("[" * 100 + "]" * 100, "deep", id="nested"),
        pytest.param("[]", "not a JSON object", id="a list"),
        pytest.param(
            '{"package": "round-0001-0123456789abcdef"}',
            "the list of answers is missing",
            id="bare",
        ),
    ],
)
def test_files_that_hold_no_annotations_are_refused_whole(tmp_path, text, message):
    (tmp_path / "back.json").write_text(text)
    with pytest.raises(FormatError, match=message):
        read_returned(tmp_path / "back.json")


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def test_archives_and_folders_that_reach_outside_are_refused_whole(labeling, package, tmp_path):
    annotations = json.dumps({**package, "answers": [annotated(package["answers"][0], BOX)]})
    link = zipfile.ZipInfo("images/link.jpg")
    link.external_attr = 0o120777 << 16
    evil = {
        "leads out": [("answers.json", annotations), ("../answers.json", annotations)],
        "is a link": [("answers.json", annotations), (link, "/etc/passwd")],
        "ratio|times": [("answers.json", annotations), ("images/bomb", bytes(20_000_000))],
        "in the archive twice": [("answers.json", annotations), ("./answers.json", annotations)],
        "found none": [("answer.json", annotations)],
        "found a/answers.json and b/": [
            ("a/answers.json", annotations),
            ("b/answers.json", annotations),
        ],
    }
    for number, (message, members) in enumerate(evil.items()):
        with pytest.raises(DataError, match=message):
            read_returned(zipped(tmp_path / f"{number}.zip", members))
    (tmp_path / "secret").write_text(annotations)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "answers.json").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match=r"answers\.json"):
        read_returned(folder)
    (folder / "answers.json").unlink()
    os.mkfifo(folder / "answers.json")
    with pytest.raises(DataError, match="regular"):
        read_returned(folder)


def test_a_image_that_comes_back_changed_is_refused(labeling, package, tmp_path):
    annotations = json.dumps({**package, "answers": [annotated(package["answers"][0], BOX)]})
    members = [("answers.json", annotations), (package["answers"][0]["image"], b"repainted")]
    back = read_returned(zipped(tmp_path / "back.zip", members))
    (problem,) = import_annotations(labeling, back, now=LATER).problems
    assert "byte for byte" in problem.problem
    assert labeling.collect(ROUND) == []


def coco(manifest, images, annotations, **more):
    return {
        "images": [
            {"id": n, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for n, name in enumerate(images)
        ],
        "categories": [{"id": n + 1, "name": name} for n, name in enumerate(ONTOLOGY.names)],
        "annotations": [
            {"id": n, "image_id": image, "category_id": category, "bbox": list(box)}
            for n, (image, category, box) in enumerate(annotations)
        ],
        **more,
    }


def test_a_coco_file_is_one_annotation_of_each_image_it_lists(labeling, store, tmp_path):
    publish(labeling, store, make_copies(3, 2))
    manifest = exported(labeling, store, tmp_path / "out.zip", form="coco")
    names = [Path(f"export/{assignment.image}").name for assignment in manifest.assignments][::2]
    info = {"info": {"package": manifest.package}}
    content = coco(manifest, names[:2], [(0, 2, (10, 20, 50, 60))], **info)
    for person in ("kim", "lee", "mia"):
        done = import_annotations(
            labeling, returned(tmp_path, content), annotator=person, now=LATER
        )
        assert done.stored == 2
    again = import_annotations(labeling, returned(tmp_path, content), annotator="kim", now=LATER)
    assert (again.stored, again.known) == (0, 2)
    submissions = labeling.collect(ROUND)
    # Two assignments for two people; annotations of the third one are kept but do not count.
    assert sorted((each.author, each.assignment) for each in submissions) == [
        ("acme:kim", 1), ("acme:kim", 1), ("acme:lee", 2), ("acme:lee", 2),
        ("acme:mia", 2), ("acme:mia", 2),
    ]  # fmt: skip
    crowd = coco(manifest, names, [(0, 2, (10, 20, 50, 60))], **info)
    crowd["annotations"][0]["iscrowd"] = 1
    (problem,) = returned(tmp_path, crowd).problems
    assert "annotations[0]" in problem.where
    canvas = Canvas(WIDTH, HEIGHT, ONTOLOGY)
    drawn = {
        label.class_name for each in submissions for label in decode(each.payload, canvas).labels
    }
    assert drawn == {ONTOLOGY.names[1]}
    assert {each.payload.codec for each in submissions} == {"vendor-coco/1"}

    bare = coco(manifest, names[:1], [])
    with pytest.raises(DataError, match="--package"):
        returned(tmp_path, bare)
    (tmp_path / "back.json").write_text(json.dumps(coco(manifest, ["other.jpg"], [])))
    back = read_returned(tmp_path / "back.json", package=manifest.package)
    (problem,) = import_annotations(labeling, back, annotator="kim", now=LATER).problems
    assert "image 'other.jpg' is not in the package" in problem.problem


def test_coco_is_refused_for_what_is_no_box(labeling, store, tmp_path):
    shape = LabelClass(id=0, name="coast", shape="polygon")
    publish(labeling, store, make_copies(1, 1), Ontology(classes=[shape]))
    with pytest.raises(SettingsError, match="coast"):
        exported(labeling, store, tmp_path / "out.zip", form="coco")
    assert not (tmp_path / "out.zip").exists()


def test_a_lake_in_a_bucket_will_do(s3_bucket, tmp_path):
    store = S3ObjectStore(Bucket(f"s3://{s3_bucket}/lake"), tmp_path / "cache")
    labeling = VendorLabeling(store)
    publish(labeling, store, make_copies(2, 1))
    exported(labeling, store, tmp_path / "out.zip")
    package = template(tmp_path / "out.zip")
    for _ in range(2):
        take(labeling, tmp_path, package, *(annotated(each, BOX) for each in package["answers"]))
    assert [each.payload.content for each in labeling.collect(ROUND)] == [boxes(BOX)] * 2
    assert labeling.progress(ROUND).annotations == 2


def test_imports_at_the_same_moment_lose_nothing_and_store_nothing_twice(labeling, store, tmp_path):
    publish(labeling, store, make_copies(8, 1))
    exported(labeling, store, tmp_path / "out.zip")
    package = template(tmp_path / "out.zip")
    entries = [annotated(entry, BOX) for entry in package["answers"]]
    files = [
        returned(tmp_path, {**package, "answers": entries[n % 4 : n % 4 + 5]}, f"{n}.json")
        for n in range(12)
    ]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda back: import_annotations(labeling, back, now=LATER), files))
    assert len(labeling.collect(ROUND)) == 8
    assert {each.updated_at for each in labeling.collect(ROUND)} == {NOON}


def test_what_lies_in_the_lake_is_for_this_user_alone(labeling, package, tmp_path, store):
    take(labeling, tmp_path, package, annotated(package["answers"][0], BOX))
    for key in store.list("handoff"):
        assert store.local_path(key).stat().st_mode & 0o077 == 0
