"""Receipts of the landed objects that are in the lake, each written once, by the first process.

Receipts are in the lake, or in a DynamoDB table if S3's latency for small objects is too high.
"""

import hashlib
from typing import Any, Protocol
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from annotation_platform.errors import SettingsError
from annotation_platform.schema.rounds import Arrival
from annotation_platform.storage.aws import aws_client
from annotation_platform.storage.objects import ObjectStore


class Receipts(Protocol):
    """The SHA-256 of the landed objects that are in the lake, by object."""

    def find(self, landed: Arrival) -> str | None:
        """Return the digest of an object; None if it is not in the lake yet."""

    def write(self, landed: Arrival, digest: str) -> str:
        """Write a receipt unless there is one; return the digest of the first receipt."""

    def remove(self, landed: Arrival) -> None:
        """Delete the receipt of an object, for an erasure."""


class LakeReceipts:
    """Receipts as objects of the lake, each written by one conditional create."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def find(self, landed: Arrival) -> str | None:
        """Return the digest of an object; None if it is not in the lake yet."""
        key = _key(landed)
        return self._store.get(key).decode() if self._store.exists(key) else None

    def write(self, landed: Arrival, digest: str) -> str:
        """Write a receipt unless there is one; return the digest of the first receipt."""
        self._store.create(_key(landed), digest.encode())
        return self._store.get(_key(landed)).decode()

    def remove(self, landed: Arrival) -> None:
        """Delete the receipt of an object."""
        self._store.remove(_key(landed))


class DynamoReceipts:
    """Receipts as items of a DynamoDB table, each written by one conditional put.

    The table has the partition key ``object``, a string. Endpoint and account come from AWS's
    variables. Receipts from before the table existed are found in ``earlier``.
    """

    def __init__(self, url: str, earlier: Receipts, client: Any = None) -> None:
        parts = urlsplit(url)
        if parts.scheme != "dynamodb" or not parts.netloc or parts.path.strip("/"):
            raise SettingsError(
                f"ANNOTATION_RECEIPTS: {url!r} is not a table: set it to dynamodb://table."
            )
        self._table = parts.netloc
        self._earlier = earlier
        self._client = client

    def find(self, landed: Arrival) -> str | None:
        """Return the digest of an object; None if it is not in the lake yet."""
        item = self._item(landed)
        return self._earlier.find(landed) if item is None else item

    def write(self, landed: Arrival, digest: str) -> str:
        """Write a receipt unless there is one; return the digest of the first receipt."""
        fields = {"object": _name(landed), "key": landed.key, "digest": digest}
        try:
            self._call(
                "put_item",
                Item={name: {"S": value} for name, value in fields.items()},
                ConditionExpression="attribute_not_exists(#object)",
                ExpressionAttributeNames={"#object": "object"},
            )
        except ClientError:
            first = self._item(landed)
            if first is None:
                raise
            return first
        return digest

    def remove(self, landed: Arrival) -> None:
        """Delete the receipt of an object."""
        self._call("delete_item", Key={"object": {"S": _name(landed)}})
        self._earlier.remove(landed)

    def _item(self, landed: Arrival) -> str | None:
        key = {"object": {"S": _name(landed)}}
        item = self._call("get_item", Key=key, ConsistentRead=True).get("Item")
        return str(item["digest"]["S"]) if item else None

    def _call(self, method: str, **arguments: Any) -> dict[str, Any]:
        if self._client is None:
            self._client = aws_client("dynamodb")
        try:
            response: dict[str, Any] = getattr(self._client, method)(
                TableName=self._table, **arguments
            )
        except (BotoCoreError, ClientError) as error:
            if _is_lost_race(error):
                raise
            raise SettingsError(
                f"ANNOTATION_RECEIPTS: the table {self._table} cannot be used: {error}. Check its "
                "name, its partition key `object` and the account's rights."
            ) from error
        return response


def open_receipts(url: str, store: ObjectStore) -> Receipts:
    """Return the receipts of a lake: in the lake itself, or at ``dynamodb://table``."""
    in_lake = LakeReceipts(store)
    return DynamoReceipts(url, in_lake) if url else in_lake


def _is_lost_race(error: Exception) -> bool:
    code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
    return code == "ConditionalCheckFailedException"


def _name(landed: Arrival) -> str:
    return hashlib.sha256(f"{landed.key}\0{landed.stamp}".encode()).hexdigest()


def _key(landed: Arrival) -> str:
    name = _name(landed)
    return f"landed/{name[:2]}/{name}"
