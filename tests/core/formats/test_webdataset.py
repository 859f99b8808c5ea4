"""WebDataset: shards hold complete datasets in the same bytes; hostile shards are refused."""

import contextlib
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotation_platform.errors import FormatError
from annotation_platform.formats.webdataset import (
    read_webdataset,
    unpack_images,
    write_webdataset,
)
from annotation_platform.schema.dataset import Dataset
from tests.core.formats.every_shape import datasets
from tests.core.formats.test_csv_jsonl import as_records, dataset_of

LINE = {"image_id": "a", "file_name": "a.png", "split": "", "width": 9, "height": 9,
        "class_id": 1, "class_name": "cat", "x1": 1, "y1": 2, "x2": 3, "y2": 4}  # fmt: skip


def images_of(dataset, folder):
    """Write some bytes for each image, and return the files by image id."""
    found = {}
    for number, image_id in enumerate(dataset.images["image_id"]):
        path = folder / f"{number}.JPG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_id.encode() * (number + 1))
        found[image_id] = path
    return found


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(dataset=datasets(), name=st.sampled_from(["{}", "a.b/{}", "Bild 猫 {}", "%2E{}.x"]),
       seed=st.integers(0, 99))  # fmt: skip
def test_everything_comes_back_and_the_bytes_are_the_same(tmp_path_factory, dataset, name, seed):
    folder = tmp_path_factory.mktemp("shards")
    dataset = Dataset(
        dataset.images.assign(image_id=dataset.images["image_id"].map(name.format)),
        dataset.labels.assign(image_id=dataset.labels["image_id"].map(name.format)),
        dataset.ontology,
    )
    image_files = images_of(dataset, folder / "images")
    shuffled = Dataset(
        dataset.images.sample(frac=1.0, random_state=seed),
        dataset.labels.sample(frac=1.0, random_state=seed),
        dataset.ontology,
    )
    write_webdataset(dataset, folder / "one", image_files=image_files)
    write_webdataset(shuffled, folder / "two", image_files=image_files)
    assert contents(folder / "one") == contents(folder / "two")
    back = read_webdataset(folder / "one")
    assert as_records(back) == as_records(dataset)
    assert back.ontology == dataset.ontology
    unpacked = unpack_images(folder / "one", folder / "unpacked")
    assert {key: path.read_bytes() for key, path in unpacked.items()} == {
        key: path.read_bytes() for key, path in image_files.items()
    }


def contents(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).digest() for path in folder.iterdir()}


def test_a_sample_is_an_image_and_the_json_of_its_labels(tmp_path):
    dataset = dataset_of(image_id="a.1", split="val")
    write_webdataset(dataset, tmp_path, image_files=images_of(dataset, tmp_path / "images"))
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["ontology.json", "val-000000.tar"]
    with tarfile.open(tmp_path / "val-000000.tar") as tar:
        members = tar.getmembers()
        records = json.load(tar.extractfile("a%2E1.json"))
    assert [member.name for member in members] == ["a%2E1.jpg", "a%2E1.json"]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {
        (0, 0, 0, "", "", 0o644)
    }
    assert records == [
        {"image_id": "a.1", "file_name": "a.png", "split": "val", "width": 60, "height": 40}
    ]


def test_only_a_shard_of_one_large_image_exceeds_its_size(tmp_path):
    dataset = dataset_of()
    images = [dataset.images.assign(image_id=f"{n:02d}", split="") for n in range(20)]
    many = Dataset(pd.concat(images), dataset.labels, dataset.ontology)
    path = tmp_path / "small.png"
    path.write_bytes(bytes(1000))
    large = tmp_path / "large.png"
    large.write_bytes(bytes(20_000))
    image_files = dict.fromkeys(many.images["image_id"], path) | {"07": large}
    write_webdataset(many, tmp_path / "out", image_files=image_files, shard_bytes=10_240)
    shards = sorted((tmp_path / "out").glob("*.tar"))
    # An image and its labels are 1,536 and 1,024 bytes: four a shard, the large one alone.
    numbers = []
    for shard in shards:
        with tarfile.open(shard) as tar:
            numbers.append(len(tar.getnames()) // 2)
    assert shards[0].name == "unsplit-000000.tar"
    assert numbers == [4, 3, 1, 4, 4, 4]
    assert len(read_webdataset(tmp_path / "out").images) == 20


def shard(path: Path, *members, form="w"):
    """Write a tar of ``(name, bytes)`` or of members as they are."""
    with tarfile.open(path, form) as tar:
        for each in members:
            if isinstance(each, tarfile.TarInfo):
                tar.addfile(each, io.BytesIO(bytes(each.size)))
            else:
                member = tarfile.TarInfo(each[0])
                member.size = len(each[1])
                tar.addfile(member, io.BytesIO(each[1]))
    return path


def special(name, kind, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


LABELS = json.dumps([LINE]).encode()


@pytest.mark.parametrize(
    ("members", "says"),
    [
        pytest.param([special("a.png", tarfile.SYMTYPE, "/etc/passwd")], "a link", id="link"),
        pytest.param([special("a.png", tarfile.LNKTYPE, "b")], "a link", id="hard link"),
        pytest.param([special("a", tarfile.CHRTYPE)], "a device", id="device"),
        pytest.param([special("a", tarfile.FIFOTYPE)], "a device", id="pipe"),
        pytest.param([("../a.json", LABELS)], "leads out of the folder", id="way out"),
        pytest.param([("a/../../a.json", LABELS)], "leads out of the folder", id="way round"),
        pytest.param([("/tmp/a.json", LABELS)], "absolute", id="absolute"),
        pytest.param([("a\\..\\b.json", LABELS)], "leads out", id="backslashes"),
        pytest.param([("a.json", LABELS), ("a.json", LABELS)], "is repeated", id="twice"),
        pytest.param(
            [("a.json", LABELS), ("b.json", LABELS), ("a.png", b"")], "not together", id="apart"
        ),
        pytest.param([("a.png", b"")], r"no 'a\.json' in the shard", id="no labels"),
        pytest.param([("a.json", b"[")], "not JSON that can be used", id="broken off"),
        pytest.param([("a.json", b"[" * 100_000)], "not JSON that can be used", id="deep"),
        pytest.param([("a.json", b"\xff")], "not UTF-8", id="no text"),
        pytest.param([("a.json", b"{}")], "not a list of the labels of one image", id="no list"),
        pytest.param(
            [("a.json", json.dumps([{**LINE, "file_name": "../x"}]).encode())],
            "leads out of the folder",
            id="file name",
        ),
        pytest.param([], "no class in the file", id="empty"),
    ],
)
def test_a_hostile_shard_is_refused_and_nothing_is_written_outside(tmp_path, members, says):
    shard(tmp_path / "train-000000.tar", *members)
    with pytest.raises(FormatError, match=says):
        read_webdataset(tmp_path)
    place = tmp_path / "in" / "here"
    with contextlib.suppress(FormatError):
        unpack_images(tmp_path, place)
    outside = {path.name for path in tmp_path.iterdir()} - {"in"}
    assert outside == {"train-000000.tar"}


def test_an_invalid_or_truncated_tar_is_refused(tmp_path):
    path = tmp_path / "train-000000.tar"
    shard(path, ("a.json", LABELS), ("b.json", LABELS))
    whole = path.read_bytes()
    for cut in (100, 512, 700, 1024, 1600, 2048):
        path.write_bytes(whole[:cut])
        with pytest.raises(FormatError, match=r"its end is missing|not a tar file|beyond the file"):
            read_webdataset(tmp_path)
    # A bomb: compressed, it is a thousandth of what it holds.
    shard(path, ("a.json", b" " * 10**7), form="w:gz")
    with pytest.raises(FormatError, match="not a tar file"):
        read_webdataset(tmp_path)


def test_an_invalid_size_is_refused(tmp_path):
    path = shard(tmp_path / "train-000000.tar", ("a.txt", LABELS))
    data = bytearray(path.read_bytes())
    for size in (b"\xff" * 12, b"\x80" + b"\0" * 5 + b"\x7f" * 6):  # below zero, and 140 TB
        data[124:136] = size
        data[148:156] = b" " * 8
        data[148:156] = b"%06o\0 " % sum(data[:512])
        path.write_bytes(data)
        with pytest.raises(FormatError, match=r"beyond the file|not a tar file"):
            read_webdataset(tmp_path)


def test_a_sparse_file_is_refused(tmp_path):
    member = tarfile.TarInfo("a.json")
    member.size = 0
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0",
                          "GNU.sparse.name": "a.json",
                          "GNU.sparse.realsize": str(10**15)}  # fmt: skip
    path = tmp_path / "train-000000.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member)
    with pytest.raises(FormatError, match=r"sparse|not a tar file|beyond"):
        read_webdataset(tmp_path)


def test_a_link_as_shard_is_refused(tmp_path):
    (tmp_path / "a.tar").symlink_to("/etc/passwd")
    with pytest.raises(FormatError, match="a link out of"):
        read_webdataset(tmp_path)
