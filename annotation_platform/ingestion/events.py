"""Events of a landing bucket, through a queue of Amazon SQS: hints that something has landed.

Queues deliver twice, late, out of order or not at all, so nothing is believed but that a look is
worth while: what is there is what a listing says.
"""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from annotation_platform.errors import SettingsError

_MOST_BATCHES = 20
"""Ten messages each: a tick ends within seconds, what is left waits for the next."""


@dataclass(frozen=True)
class ChangeSignals:
    """What the queue said: keys that were written, and the handles by which to take it off."""

    keys: frozenset[str]
    handles: tuple[str, ...]


class LandingEvents:
    """An SQS queue that S3 sends the notifications of a bucket to.

    Args:
        url: of the queue, as SQS gives it; empty: there is none, and it never has a hint.
        landing: the landing zone, ``s3://bucket/prefix``; events elsewhere are no hints.
        client: for SQS; by default one by AWS's variables.
    """

    def __init__(self, url: str, landing: str, client: Any = None) -> None:
        self.url = url
        bucket, _, prefix = landing.removeprefix("s3://").partition("/")
        self._bucket, self._prefix = bucket, prefix
        self._client = client

    def receive(self) -> ChangeSignals:
        """Return the hints that wait, without taking them off: see `forget`.

        Test events, deletions, events of other places and what is no event at all are no hints,
        but are taken off all the same.
        """
        keys: set[str] = set()
        handles: list[str] = []
        for _ in range(_MOST_BATCHES if self.url else 0):
            messages = self._call("receive_message", MaxNumberOfMessages=10).get("Messages", [])
            for message in messages:
                handles.append(message["ReceiptHandle"])
                keys.update(self._created(message["Body"]))
            if len(messages) < 10:
                break
        return ChangeSignals(frozenset(keys), tuple(handles))

    def forget(self, hints: ChangeSignals) -> None:
        """Take hints off the queue, once what they led to is on record."""
        for start in range(0, len(hints.handles), 10):
            entries = [
                {"Id": str(number), "ReceiptHandle": handle}
                for number, handle in enumerate(hints.handles[start : start + 10])
            ]
            self._call("delete_message_batch", Entries=entries)

    def _created(self, body: str) -> set[str]:
        return {
            key
            for bucket, key in created_keys(body)
            if bucket == self._bucket and key.startswith(self._prefix)
        }

    def _call(self, method: str, **arguments: Any) -> dict[str, Any]:
        if self._client is None:
            retries = {"mode": "adaptive", "max_attempts": 8}
            settings = Config(retries=retries, connect_timeout=5, read_timeout=30)
            self._client = boto3.Session().client("sqs", config=settings)
        try:
            annotation: dict[str, Any] = getattr(self._client, method)(
                QueueUrl=self.url, **arguments
            )
        except (BotoCoreError, ClientError) as error:
            raise SettingsError(
                f"ANNOTATION_LANDING_QUEUE: the queue cannot be read: {error}. Check its URL and "
                "the account's rights, or leave the variable empty: listings find everything."
            ) from error
        return annotation


def created_keys(body: str) -> list[tuple[str, str]]:
    """Return bucket and key of the objects that a notification of S3 says were written.

    Keys come URL-encoded, and are decoded. A notification passed on by SNS is unwrapped. What is
    none, the test event among it, names nothing.
    """
    try:
        message = json.loads(body)
        if isinstance(message, dict) and "Message" in message:
            message = json.loads(message["Message"])
        records = message.get("Records", []) if isinstance(message, dict) else []
        return [
            (str(record["s3"]["bucket"]["name"]), unquote_plus(record["s3"]["object"]["key"]))
            for record in records
            if str(record["eventName"]).startswith("ObjectCreated:")
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
