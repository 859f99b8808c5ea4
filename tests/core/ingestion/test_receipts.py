"""What has landed, in the lake or in DynamoDB; and the Lambda function that writes it early."""

import importlib.util
import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest

from annotation_platform.errors import SettingsError
from annotation_platform.ingestion.lake import open_lake
from annotation_platform.ingestion.receipts import DynamoReceipts, LakeReceipts
from annotation_platform.schema.rounds import Arrival
from annotation_platform.schema.tables import RawImages
from tests.core.ingestion.conftest import form_round
from tests.invariants import check_account

LAMBDA = Path(__file__).parents[3] / "deploy" / "lambda_landing.py"


@pytest.fixture
def table(s3_bucket):
    boto3.client("dynamodb").create_table(
        TableName=s3_bucket,
        KeySchema=[{"AttributeName": "object", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "object", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return f"dynamodb://{s3_bucket}"


@pytest.fixture(params=["lake", "dynamodb"])
def receipts(request, lake):
    if request.param == "lake":
        return LakeReceipts(lake.store)
    return DynamoReceipts(request.getfixturevalue("table"), LakeReceipts(lake.store))


def test_of_many_who_write_a_receipt_at_once_one_counts_for_all(receipts):
    landed = Arrival("é/a.jpg", "1-1", 1)
    assert receipts.find(landed) is None
    each = [f"{number:064x}" for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        kept = set(pool.map(lambda digest: receipts.write(landed, digest), each))
    assert kept == {receipts.find(landed)}
    assert receipts.find(Arrival("é/a.jpg", "1-2", 1)) is None


def test_what_landed_before_there_was_a_table_is_known(lake, table):
    landed = Arrival("a.jpg", "1-1", 1)
    LakeReceipts(lake.store).write(landed, "0" * 64)
    assert DynamoReceipts(table, LakeReceipts(lake.store)).find(landed) == "0" * 64


def test_a_table_that_is_not_there_is_named(s3_bucket, lake):
    nowhere = LakeReceipts(lake.store)
    with pytest.raises(SettingsError, match=r"ANNOTATION_RECEIPTS.*none-such"):
        DynamoReceipts("dynamodb://none-such", nowhere).find(Arrival("a", "1", 1))
    with pytest.raises(SettingsError, match="dynamodb://table"):
        DynamoReceipts("dynamo://x", nowhere)


def test_events_thrice_and_shuffled_leave_what_the_round_would_store(
    s3_bucket, table, tmp_path, monkeypatch
):
    places = {"LANDING": f"s3://{s3_bucket}/in", "LAKE": f"s3://{s3_bucket}/lake"}
    for name, value in {**places, "RECEIPTS": table, "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(f"ANNOTATION_{name}", value)
    lake = open_lake(places["LAKE"], places["LANDING"], receipts=table, cache=tmp_path)
    names = [f"{number} ü.jpg" for number in range(4)]
    for name in names:
        lake.landing.put(name, name.encode())
    spec = importlib.util.spec_from_file_location("lambda_landing", LAMBDA)
    function = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(function)
    keys = [f"in/{name}".replace(" ", "+") for name in [*names, "gone.jpg"]] * 3
    random.Random(0).shuffle(keys)
    for key in keys:
        place = {"bucket": {"name": s3_bucket}, "object": {"key": key}}
        event = {"Records": [{"eventName": "ObjectCreated:Put", "s3": place}]}
        assert function.handler(json.loads(json.dumps(event)), None)["problems"] == {}
    # Sidecars may come after the event of their image.
    for name in names:
        lake.landing.put(name, name.encode(), sidecar=b'{"licence": "CC0"}')
    round_id = form_round(lake)
    for name in names:
        lake.landing.bucket.client.delete_object(Bucket=s3_bucket, Key=f"in/{name}")
    # The images are gone by now: they came through the events.
    raw = lake.ingest(round_id, maximum_bytes=10**9)
    assert raw["problem"].tolist() == [""] * 4
    assert set(raw["licence"]) == {"CC0"}
    lake.tables.write(RawImages, round_id, raw)
    assert check_account(lake).pending == 4
