"""Events of a bucket are hints: sent thrice, shuffled, some lost, and still each object once."""

import json
import random
from datetime import UTC, datetime, timedelta

import boto3
import pytest

from annotation_platform.errors import SettingsError
from annotation_platform.ingestion.events import LandingEvents, created_keys
from annotation_platform.ingestion.watch import watch_landing_zone
from annotation_platform.policy import RoundPolicy

POLICY = RoundPolicy(
    minimum_images=1, settle_seconds=0, maximum_wait_seconds=60, listing_seconds=300
)


class Queues:
    """The queue that the bucket sends to, and one that receives what a bad network leaves."""

    def __init__(self, bucket):
        self.sqs = boto3.client("sqs")
        self.sent = self.sqs.create_queue(QueueName=f"{bucket}-sent")["QueueUrl"]
        self.received = self.sqs.create_queue(QueueName=f"{bucket}-received")["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=self.sent, AttributeNames=["QueueArn"])
        target = {"QueueArn": arn["Attributes"]["QueueArn"], "Events": ["s3:ObjectCreated:*"]}
        boto3.client("s3").put_bucket_notification_configuration(
            Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [target]}
        )

    def drain(self, queue):
        bodies = []
        while messages := self.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get(
            "Messages", []
        ):
            bodies += [message["Body"] for message in messages]
            for message in messages:
                self.sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return bodies

    def deliver(self, rng, *, lost):
        """Pass on every message thrice, but of some of them none; in any order."""
        bodies = [body for body in self.drain(self.sent) if rng.random() >= lost] * 3
        rng.shuffle(bodies)
        for body in bodies:
            self.sqs.send_message(QueueUrl=self.received, MessageBody=body)


@pytest.fixture
def queues(s3_bucket):
    return Queues(s3_bucket)


class Watcher:
    """A sensor's memory between its ticks, and a clock of its own."""

    def __init__(self, lake, events):
        self.lake, self.events = lake, events
        self.now = datetime.now(UTC) + timedelta(seconds=1)
        self.list_at = None

    def tick(self, *, after=3.0):
        self.now += timedelta(seconds=after)
        watched = watch_landing_zone(
            self.lake, self.events, POLICY, list_at=self.list_at, now=self.now
        )
        self.list_at = watched.list_at
        return watched.waits_for


def taken(lake):
    return [
        (item.key, item.stamp)
        for key in lake.manifests.rounds()
        for item in lake.manifests.read(key)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_after_a_reconciling_listing_the_rounds_hold_what_the_bucket_holds(
    s3_lake, s3_bucket, queues, seed
):
    rng = random.Random(seed)
    watcher = Watcher(s3_lake, LandingEvents(queues.received, s3_lake.landing.address))
    bucket = s3_lake.landing.bucket
    ever = set()
    for _ in range(12):
        name = rng.choice(["a.jpg", "b/ü +&.jpg", "c%20d.jpg", "0.jpg", "late/a.jpg"])
        if rng.random() < 0.2:
            bucket.client.delete_object(Bucket=s3_bucket, Key=f"landing/{name}")
        else:
            bucket.put(name, bytes([rng.randrange(4)]))
        queues.deliver(rng, lost=0.1)
        if rng.random() < 0.7:
            watcher.tick()
        if rng.random() < 0.2:
            watcher.list_at = None  # the cursor was lost, or rolled back
        ever.update((item.key, item.stamp) for item in s3_lake.landed(now=watcher.now).objects)
    watcher.tick(after=301)
    now = [(item.key, item.stamp) for item in s3_lake.landed(now=watcher.now).objects]
    assert len(taken(s3_lake)) == len(set(taken(s3_lake)))
    assert set(now) <= set(taken(s3_lake)) <= ever
    assert queues.drain(queues.received) == []


def test_without_an_event_the_bucket_is_listed_only_when_due(s3_lake, queues):
    watcher = Watcher(s3_lake, LandingEvents(queues.sent, s3_lake.landing.address))
    assert "among 0 landed" in watcher.tick()
    assert watcher.tick() == "No event; the next listing is in 297 s."
    # An event of another place, and one of a deletion, are no reason to look.
    queues.sqs.send_message(QueueUrl=queues.sent, MessageBody='{"Event": "s3:TestEvent"}')
    s3_lake.store.put("tables/x.parquet", b"")
    assert watcher.tick() == "No event; the next listing is in 294 s."
    s3_lake.landing.bucket.put("a.jpg", b"a")
    watcher.tick()
    assert s3_lake.manifests.rounds() == ["round-0001"]


def test_a_recorded_event_is_read_and_anything_else_is_no_event():
    record = {
        "eventName": "ObjectCreated:CompleteMultipartUpload",
        "s3": {"bucket": {"name": "b"}, "object": {"key": "in/a+b%2B%C3%BC.jpg"}},
    }
    removed = {**record, "eventName": "ObjectRemoved:Delete"}
    body = json.dumps({"Records": [record, removed]})
    assert created_keys(body) == [("b", "in/a b+ü.jpg")]
    assert created_keys(json.dumps({"Type": "Notification", "Message": body})) == created_keys(body)
    for other in ("", "null", "[]", '{"Records": [{}]}', '{"Records": 3}', '{"Message": 3}'):
        assert created_keys(other) == []


def test_a_queue_that_is_not_there_is_named(s3_bucket, s3_server, s3_lake):
    events = LandingEvents(f"{s3_server}/123456789012/none", s3_lake.landing.address)
    with pytest.raises(SettingsError, match="ANNOTATION_LANDING_QUEUE"):
        events.receive()
