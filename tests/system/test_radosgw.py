"""The lake on a real S3 server that checks signatures: Debian's radosgw."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier

import boto3
import httpx
import pytest

from annotation_platform.catalog.query import run_query
from annotation_platform.errors import DataError, SettingsError
from annotation_platform.ingestion.landing_zone import S3LandingZone
from annotation_platform.storage.s3 import Bucket
from tests.pipeline.conftest import open_platform
from tests.pipeline.test_lake_in_s3 import same_bytes_in_a_folder_and_in
from tests.system.radosgw import INSTALL, missing_programs, running_radosgw

pytestmark = pytest.mark.long
THREADS = 8


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if missing := missing_programs():
        pytest.skip(f"A real S3 server needs {', '.join(missing)}: {INSTALL}")
    with running_radosgw(tmp_path_factory.mktemp("radosgw")) as server:
        yield server


@pytest.fixture(autouse=True)
def bucket(server, monkeypatch):
    """A bucket, the environment set as a user would."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
    name = f"pictures-{uuid.uuid4().hex[:8]}"
    boto3.Session().client("s3").create_bucket(Bucket=name)
    return name


@pytest.mark.parametrize(
    ("variable", "code"),
    [
        ("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"),
        ("AWS_ACCESS_KEY_ID", "InvalidAccessKeyId"),
    ],
)
def test_a_wrong_account_is_refused_and_the_variable_named(bucket, monkeypatch, variable, code):
    monkeypatch.setenv(variable, "CANARY-AWS-SECRET")
    with pytest.raises(SettingsError, match=rf"{code}.*{variable}") as caught:
        Bucket(f"s3://{bucket}/lake").check()
    assert "CANARY" not in str(caught.value)


def test_nothing_is_shown_without_a_signature(server, bucket):
    Bucket(f"s3://{bucket}").put("private.jpg", b"a face")
    assert httpx.get(f"{server.endpoint}/{bucket}/private.jpg").status_code == 403
    assert httpx.get(f"{server.endpoint}/{bucket}").status_code == 403


def test_of_many_who_create_a_key_at_once_one_wins(bucket):
    lake = Bucket(f"s3://{bucket}/lake")
    for attempt in range(10):
        key, start = f"manifests/{attempt}.json", Barrier(THREADS)

        def create(number, key=key, start=start):
            start.wait()
            return lake.create(key, str(number).encode())

        with ThreadPoolExecutor(THREADS) as pool:
            won = list(pool.map(create, range(THREADS)))
        assert sum(won) == 1
        assert lake.get(key) == str(won.index(True)).encode()


def test_what_was_overwritten_since_it_was_listed_is_not_read(bucket):
    place = S3LandingZone(Bucket(f"s3://{bucket}/landing"))
    for name in ("a b+ü.jpg", "x/%20.jpg"):
        place.put(name, b"old")
    first, second = place.list(now=datetime.now(UTC)).objects
    place.bucket.put(first.key, b"new")
    with pytest.raises(DataError, match="replaced since it was listed"):
        place.read(first)
    assert place.read(second) == b"old"


def test_more_objects_than_one_page_lists(bucket):
    many = Bucket(f"s3://{bucket}/many")
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda number: many.put(f"{number:04d}", b""), range(1005)))
    assert [entry.key for entry in many.list()] == [f"{number:04d}" for number in range(1005)]


def test_a_round_leaves_the_same_bytes_as_in_a_folder(tmp_path, bucket):
    same_bytes_in_a_folder_and_in(bucket, tmp_path)


def test_the_catalog_is_queried_where_it_is(tmp_path, bucket):
    with open_platform(tmp_path, lake=f"s3://{bucket}/asked") as platform:
        platform.land(1)
        platform.start_round()
        found = run_query(platform.lake, "SELECT count(*) AS n FROM images").to_pydict()
    assert found == {"n": [8]}
