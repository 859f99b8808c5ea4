"""What `ingest` does: every source ends in the landing zone, and sending again does no harm."""

import io
import json
import tarfile
import zipfile
from datetime import UTC, datetime

import pytest

from annotation_platform.demo.scenes import draw_batch
from annotation_platform.errors import DataError
from annotation_platform.ingestion.downloads import Downloads
from annotation_platform.ingestion.labels import read_labels
from annotation_platform.ingestion.landing_zone import open_landing_zone
from annotation_platform.ingestion.send import send
from annotation_platform.ingestion.sidecars import ImportedBox, read_sidecar
from annotation_platform.policy import CleaningPolicy

LIMITS = {"downloads": Downloads([], maximum_bytes=1000), "policy": CleaningPolicy()}
FILES = {"day/a.jpg": b"a", "day/b.jpg": b"b", "c.jpg": b"c"}


def landed(place):
    listing = place.list(now=datetime.now(UTC)).objects
    return {item.key: place.read(item) for item in listing}


def as_folder(files, path):
    for name, data in files.items():
        (path / "camera" / name).parent.mkdir(parents=True, exist_ok=True)
        (path / "camera" / name).write_bytes(data)
    return str(path / "camera")


def as_zip(files, path):
    with zipfile.ZipFile(path / "camera.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return str(path / "camera.zip")


def as_tar(files, path):
    with tarfile.open(path / "camera.tar.gz", "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return str(path / "camera.tar.gz")


@pytest.mark.parametrize("source", [as_folder, as_zip, as_tar])
def test_files_keep_their_layout_and_are_sent_once(source, tmp_path, any_lake):
    place = any_lake.landing
    given = source(FILES, tmp_path)
    assert (send(given, place, **LIMITS).copied) == 3
    assert landed(place) == {f"camera/{name}": data for name, data in FILES.items()}
    again = send(given, place, **LIMITS)
    assert (again.copied, again.known) == (0, 3)
    # Another camera with the same names takes nothing away.
    other = tmp_path / "other"
    other.mkdir()
    assert send(source({"c.jpg": b"other"}, other), place, **LIMITS).copied == 1
    assert sorted(landed(place).values()) == [b"a", b"b", b"c", b"other"]


def test_a_list_brings_files_objects_and_metadata_and_names_its_bad_lines(tmp_path, any_lake):
    (tmp_path / "near.jpg").write_bytes(b"near")
    rows = ["path,licence,latitude,longitude,pier", "near.jpg,CC0,53.5,9.9,4", "gone.jpg,,,,"]
    rows += ["http://10.0.0.1/x.jpg,,,,", "near2.jpg,,91,0,"]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    sent = send(str(tmp_path / "list.csv"), any_lake.landing, **LIMITS)
    assert sent.copied == 1
    assert sorted(each.where.rpartition(":")[2] for each in sent.problems) == ["3", "4", "5"]
    (item,) = any_lake.landing.list(now=datetime.now(UTC)).objects
    sidecar = json.loads(any_lake.landing.read_sidecar(item.sidecar))
    assert (sidecar["licence"], sidecar["latitude"], sidecar["pier"]) == ("CC0", 53.5, "4")


def test_a_prefix_in_s3_is_a_source_too_sidecars_included(s3_bucket, lake):
    there = open_landing_zone(f"s3://{s3_bucket}/drone")
    there.put("day/a.jpg", b"a", sidecar=b'{"licence": "CC0"}')
    assert send(there.address, lake.landing, **LIMITS).copied == 1
    (item,) = lake.landing.list(now=datetime.now(UTC)).objects
    assert (item.key, item.sidecar) == ("drone/day/a.jpg", "drone/day/a.jpg.json")


def test_labels_go_with_their_images_and_those_without_one_are_named(tmp_path, lake):
    sound = draw_batch(1, 1, seed=0).files
    given = as_folder({f"images/{name}": data for name, data in sound.items()}, tmp_path)
    name, other = next(iter(sound)), "missing.jpg"
    boxes = [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 30, 40], "area": 1200}]
    images = [
        {"id": n, "file_name": each, "width": 320, "height": 240}
        for n, each in enumerate([name, other], start=1)
    ]
    coco = {"images": images, "annotations": boxes, "categories": [{"id": 7, "name": "boat"}]}
    (tmp_path / "camera" / "instances.json").write_text(json.dumps(coco))
    labels = read_labels(tmp_path / "camera" / "instances.json")
    sent = send(given, lake.landing, **LIMITS, labels=labels)
    assert [other in each.problem for each in sent.problems] == [True]
    listing = lake.landing.list(now=datetime.now(UTC)).objects
    assert len(listing) == sent.copied == len(sound)
    (item,) = [each for each in listing if each.key.endswith(name)]
    said = read_sidecar(lake.landing.read_sidecar(item.sidecar)).labels
    assert said.origin == "coco:instances.json"
    assert said.boxes == (ImportedBox("boat", 1.0, 2.0, 31.0, 42.0),)


def test_what_would_never_land_is_named(tmp_path, lake):
    given = as_zip({"a.jpg.part": b"half", "b.jpg": b"b"}, tmp_path)
    sent = send(given, lake.landing, **LIMITS)
    assert (sent.copied, [each.where for each in sent.problems]) == (1, ["camera/a.jpg.part"])


def test_nothing_to_send_is_said(tmp_path, lake):
    for given in (tmp_path / "nowhere", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(DataError, match=given.name):
            send(str(given), lake.landing, **LIMITS)
