"""Events of a landing bucket from a queue of Amazon SQS: signals that objects have arrived.

Queues deliver twice, late, out of order or not at all, so an event only triggers a listing, and
the listing decides.
"""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from botocore.exceptions import BotoCoreError, ClientError

from annotation_platform.errors import SettingsError
from annotation_platform.storage.aws import aws_client

_MOST_BATCHES = 20
"""Batches of ten messages: a tick ends within seconds; the rest waits for the next tick."""


@dataclass(frozen=True)
class ArrivalSignals:
    """Messages of the queue: the written keys, and the handles to delete the messages."""

    keys: frozenset[str]
    handles: tuple[str, ...]


class LandingEvents:
    """An SQS queue to which S3 sends the notifications of a bucket.

    Args:
        url: SQS's address of the queue; empty: there is no queue, and no signal.
        landing: the landing zone, ``s3://bucket/prefix``; events outside it are not signals.
        client: for SQS; by default one configured by AWS's variables.
    """

    def __init__(self, url: str, landing: str, client: Any = None) -> None:
        self.url = url
        bucket, _, prefix = landing.removeprefix("s3://").partition("/")
        self._bucket, self._prefix = bucket, prefix
        self._client = client

    def receive(self) -> ArrivalSignals:
        """Return the waiting signals without deleting them; see `acknowledge`.

        Test events, deletions, events outside the landing zone and other messages are not
        signals, but their handles are returned, so they are deleted too.
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
        return ArrivalSignals(frozenset(keys), tuple(handles))

    def acknowledge(self, signals: ArrivalSignals) -> None:
        """Delete messages from the queue, after their effect is recorded."""
        for start in range(0, len(signals.handles), 10):
            entries = [
                {"Id": str(number), "ReceiptHandle": handle}
                for number, handle in enumerate(signals.handles[start : start + 10])
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
            self._client = aws_client("sqs", attempts=9)
        try:
            response: dict[str, Any] = getattr(self._client, method)(QueueUrl=self.url, **arguments)
        except (BotoCoreError, ClientError) as error:
            raise SettingsError(
                f"ANNOTATION_LANDING_QUEUE: the queue cannot be read: {error}. Check its URL and "
                "the account's rights, or leave the variable empty: listings find all objects."
            ) from error
        return response


def created_keys(body: str) -> list[tuple[str, str]]:
    """Return bucket and key of the written objects in a notification of S3.

    The URL-encoded keys are decoded. A notification forwarded by SNS is unwrapped. Any other
    message, such as the test event, gives an empty list.
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
