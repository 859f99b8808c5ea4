"""An image under a second key, in stores of every kind."""

import pytest

from annotation_platform.errors import DataError
from annotation_platform.storage.audited import AccessLog, AccessLoggedStore
from annotation_platform.storage.mounted import MountedStore
from annotation_platform.storage.objects import LocalObjectStore
from annotation_platform.storage.s3 import Bucket, S3ObjectStore


@pytest.fixture(params=["a folder", "S3", "S3 with a folder elsewhere", "with an audit log"])
def store(request, tmp_path):
    folder = LocalObjectStore(tmp_path / "folder")
    if request.param == "a folder":
        return folder
    if request.param == "with an audit log":
        return AccessLoggedStore(folder, AccessLog(tmp_path / "audit", dict))
    bucket = request.getfixturevalue("s3_bucket")
    s3 = S3ObjectStore(Bucket(f"s3://{bucket}/lake"), tmp_path / "cache")
    return s3 if request.param == "S3" else MountedStore(s3, "shown", folder)


def test_a_copy_is_the_same_and_takes_the_place_of_nothing(store):
    store.put("images/é one.jpg", b"one")
    store.put("images/two.jpg", b"two")
    store.copy("images/é one.jpg", "shown/images/copy.jpg")
    store.copy("images/two.jpg", "shown/images/copy.jpg")
    assert store.get("shown/images/copy.jpg") == b"one"
    assert list(store.list("shown")) == ["shown/images/copy.jpg"]
    assert list(store.list("shown/images")) == ["shown/images/copy.jpg"]
    with pytest.raises(DataError, match=r"images/none\.jpg"):
        store.copy("images/none.jpg", "shown/images/none.jpg")
    assert not store.exists("shown/images/none.jpg")
    store.put("images/é one.jpg", b"another")
    assert store.get("shown/images/copy.jpg") == b"one"
