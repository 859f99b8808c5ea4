"""The lake in S3, on a server that speaks its protocol: the same behaviour as in a folder."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.awsrequest import AWSResponse

from annotation_platform.errors import DataError, SettingsError
from annotation_platform.storage.objects import LocalObjectStore
from annotation_platform.storage.s3 import Bucket, S3ObjectStore


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    if request.param == "folder":
        return LocalObjectStore(tmp_path / "lake")
    bucket = request.getfixturevalue("s3_bucket")
    return S3ObjectStore(Bucket(f"s3://{bucket}/some/lake"), tmp_path / "cache")


def test_what_is_written_is_read_listed_and_copied_alike(store):
    contents = {"a/b.bin": b"1", "a-b.bin": b"22", "a/é %2e.bin": b"333", "a/b/c": b""}
    for key, data in contents.items():
        store.put(key, data)
    assert list(store.list("a")) == ["a/b.bin", "a/b/c", "a/é %2e.bin"]
    assert {key: store.get(key) for key in contents} == contents
    assert store.local_path("a-b.bin").read_bytes() == b"22"
    store.put("a-b.bin", b"new")
    assert store.local_path("a-b.bin").read_bytes() == b"new"
    assert (store.exists("a/b.bin"), store.exists("a/none")) == (True, False)
    assert list(store.list("nowhere")) == []
    with pytest.raises(DataError, match="none"):
        store.get("none")
    with pytest.raises(DataError, match="must not lead out"):
        store.put("../outside", b"x")
    assert pickle.loads(pickle.dumps(store)).get("a/b.bin") == b"1"


def test_of_many_who_create_a_key_at_once_one_wins(store):
    contents = [str(number).encode() for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        won = list(pool.map(lambda data: store.create("manifests/round-0001.json", data), contents))
    assert sum(won) == 1
    assert store.get("manifests/round-0001.json") == contents[won.index(True)]


def test_more_objects_than_one_page_lists(s3_bucket, tmp_path):
    bucket = Bucket(f"s3://{s3_bucket}/many")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: bucket.put(f"{number:04d}", b""), range(1005)))
    assert [entry.key for entry in bucket.list()] == [f"{number:04d}" for number in range(1005)]


def test_what_is_wrong_with_the_account_is_said_without_its_secret(s3_bucket, monkeypatch):
    with pytest.raises(SettingsError, match=r"s3://nowhere.*NoSuchBucket"):
        Bucket("s3://nowhere/lake").check()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(SettingsError, match="Unable to locate credentials"):
        Bucket(f"s3://{s3_bucket}").check()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "CANARY-AWS-SECRET")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(SettingsError, match=r"127\.0\.0\.1:9") as caught:
        Bucket(f"s3://{s3_bucket}").check()
    assert "CANARY" not in str(caught.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:9")
    with pytest.raises(SettingsError, match="Set AWS_ENDPOINT_URL"):
        Bucket(f"s3://{s3_bucket}").check()


@pytest.mark.parametrize("url", ["s3://", "s3:///key", "http://bucket/key", "s3://bucket/a?b=c"])
def test_a_place_that_is_none_in_s3(url):
    with pytest.raises(SettingsError, match="s3://bucket/prefix"):
        Bucket(url)


def test_a_server_that_asks_to_slow_down_is_asked_again(s3_bucket):
    bucket = Bucket(f"s3://{s3_bucket}/busy")
    asked = []

    def refuse_every_third(request, **_):
        asked.append(request.method)
        if len(asked) % 3 == 1:
            return AWSResponse(request.url, 503, {}, Refusal("SlowDown"))
        return None

    bucket.client.meta.events.register("before-send.s3", refuse_every_third)
    for number in range(4):
        assert bucket.create(f"{number}", b"x")
    assert [bucket.get(entry.key) for entry in bucket.list()] == [b"x"] * 4
    assert len(asked) > 9


def test_a_conflict_is_tried_again_and_an_archived_object_stops_no_other(s3_bucket):
    bucket = Bucket(f"s3://{s3_bucket}/odd")
    refusals = [(409, "ConditionalRequestConflict"), None, (403, "InvalidObjectState")]

    def refuse(request, **_):
        status = refusals.pop(0)
        return status and AWSResponse(request.url, status[0], {}, Refusal(status[1]))

    bucket.client.meta.events.register("before-send.s3", refuse)
    assert bucket.create("a", b"x")
    with pytest.raises(DataError, match="InvalidObjectState"):
        bucket.get("a")


class Refusal:
    def __init__(self, code):
        self.code = code

    def stream(self, **_):
        yield f"<Error><Code>{self.code}</Code><Message>No.</Message></Error>".encode()
