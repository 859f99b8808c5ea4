"""A bucket in S3, at any endpoint, as an object store.

Endpoint and account come from AWS's own variables: ``AWS_ENDPOINT_URL`` for a server other than
Amazon's, ``AWS_DEFAULT_REGION``, ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``,
``AWS_PROFILE``.
"""

import hashlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError
from pyarrow import fs

from annotation_platform.errors import DataError, SettingsError
from annotation_platform.storage.aws import s3_client
from annotation_platform.storage.files import write_file
from annotation_platform.storage.objects import checked_key

_MISSING = {"NoSuchKey", "404", "NotFound"}
_LOST_RACE = {"PreconditionFailed", "412"}
_CONFLICT = {"ConditionalRequestConflict", "409"}
_CREATE_ATTEMPTS = 6
_UNREADABLE = {"InvalidObjectState", "InvalidRequest"}
"""Archived, or encrypted with a key of the customer's; other objects may be readable."""
_REMEDIES = {
    "NoSuchBucket": "Create the bucket, or correct its name.",
    "AccessDenied": "Give the account the rights to list, read and write this bucket.",
    "403": "Give the account the rights to list, read and write this bucket.",
    "InvalidAccessKeyId": "Check AWS_ACCESS_KEY_ID.",
    "SignatureDoesNotMatch": "Check AWS_SECRET_ACCESS_KEY.",
    "ExpiredToken": "The session has expired: renew AWS_SESSION_TOKEN.",
    "AuthorizationHeaderMalformed": "Check AWS_DEFAULT_REGION.",
    "PermanentRedirect": "Check AWS_DEFAULT_REGION.",
}


def is_s3(url: str) -> bool:
    """Return whether an address is one in S3, and not a folder."""
    return url.startswith("s3://")


@dataclass(frozen=True)
class S3Entry:
    """One object. ``etag`` changes with the content; it is not an MD5.

    ``age_seconds`` is the time since it was written, by the server's clock.
    """

    key: str
    etag: str
    byte_size: int
    age_seconds: float


class Bucket:
    """The objects under one prefix of a bucket, with translated errors.

    A problem of the server, the account or the bucket is a SettingsError that names the address
    and the variable to check, never its value; a missing object is a DataError. A bucket can be
    pickled: the copy takes its account from its own environment.
    """

    def __init__(self, url: str, client: Any = None) -> None:
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
            raise SettingsError(f"{url!r} is not an address in S3: pass s3://bucket/prefix.")
        self.name = parts.netloc
        prefix = parts.path.strip("/")
        self.url = f"s3://{self.name}/{prefix}".rstrip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._client = client
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Bucket, (self.url,)

    @property
    def client(self) -> Any:
        """The client, created when it is first needed."""
        with self._lock:
            if self._client is None:
                self._client = s3_client()
            return self._client

    def check(self) -> None:
        """Raise a SettingsError, without retries, if the bucket cannot be listed."""
        with self._explained():
            s3_client(attempts=1).list_objects_v2(Bucket=self.name, Prefix=self._prefix, MaxKeys=1)

    def list(self, folder: str = "") -> Iterator[S3Entry]:
        """Yield the objects in ``folder`` and below it, in byte order of their keys."""
        prefix = self._prefix + (f"{folder.strip('/')}/" if folder else "")
        with self._explained():
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.name, Prefix=prefix
            )
            for page in pages:
                for entry in page.get("Contents", ()):
                    yield S3Entry(
                        key=entry["Key"].removeprefix(self._prefix),
                        etag=entry["ETag"].strip('"'),
                        byte_size=int(entry["Size"]),
                        age_seconds=_age(entry["LastModified"], page),
                    )

    def get(self, key: str, *, etag: str = "", maximum_bytes: int = 0) -> bytes:
        """Return the bytes under ``key``; a DataError if ``etag`` is given and does not match.

        An object of more than ``maximum_bytes``, if that is not 0, is a DataError and is not read.
        """
        with self._explained(key):
            condition = {"IfMatch": f'"{etag}"'} if etag else {}
            response = self.client.get_object(Bucket=self.name, Key=self._prefix + key, **condition)
            size = int(response["ContentLength"])
            if maximum_bytes and size > maximum_bytes:
                response["Body"].close()
                raise DataError(f"{key}: has {size} bytes, at most {maximum_bytes} are allowed")
            data: bytes = response["Body"].read()
        return data

    def put(self, key: str, data: bytes) -> None:
        """Write ``data`` under ``key``, replacing any earlier object."""
        with self._explained(key):
            self.client.put_object(Bucket=self.name, Key=self._prefix + key, Body=data)

    def create(self, key: str, data: bytes) -> bool:
        """Write ``data`` under ``key`` if it is free; return whether this call wrote it.

        If the reply to a write is lost, the repeated request finds the key taken: False may also
        mean that this call wrote it, so callers must not conclude that another one did.
        """
        for attempt in range(_CREATE_ATTEMPTS):
            code = self._create(key, data)
            if code not in _CONFLICT:
                return not code
            # A concurrent writer may still fail.
            time.sleep(0.05 * 2**attempt)
        raise SettingsError(
            f"{self.url}/{key}: concurrent writes conflicted {_CREATE_ATTEMPTS} times. Try again "
            "later."
        )

    def copy(self, source: str, target: str) -> None:
        """Copy ``source`` to ``target`` within S3, unless ``target`` exists."""
        if self.head(target) is not None:
            return
        with self._explained(source):
            self.client.copy_object(
                Bucket=self.name,
                Key=self._prefix + target,
                CopySource={"Bucket": self.name, "Key": self._prefix + source},
            )

    def _create(self, key: str, data: bytes) -> str:
        """Return the error code of a refused creation; empty if the object was created."""
        with self._explained(key):
            try:
                self.client.put_object(
                    Bucket=self.name, Key=self._prefix + key, Body=data, IfNoneMatch="*"
                )
            except ClientError as error:
                if _code(error) in _LOST_RACE | _CONFLICT:
                    return _code(error)
                raise
        return ""

    def remove(self, key: str, *, newest: bool = True) -> None:
        """Delete every version of an object and every delete marker.

        Without ``newest`` the current version is kept. A bucket without versioning has one version.
        """
        name = self._prefix + key
        with self._explained(key):
            pages = self.client.get_paginator("list_object_versions").paginate(
                Bucket=self.name, Prefix=name
            )
            doomed = [
                {"Key": name, "VersionId": each["VersionId"]}
                for page in pages
                for each in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
                if each["Key"] == name and (newest or not each["IsLatest"])
            ]
            for each in doomed:
                self.client.delete_object(Bucket=self.name, **each)

    def remove_content(
        self, may_match: Callable[[str, int], bool], matches: Callable[[bytes], bool]
    ) -> int:
        """Delete every version, current or not, with matching bytes; return their number.

        An earlier version does not become current through it.

        Args:
            may_match: returns whether to read the bytes of a version, from its key and size.
            matches: returns whether bytes match.
        """
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        with self._explained():
            pages = self.client.get_paginator("list_object_versions").paginate(
                Bucket=self.name, Prefix=self._prefix
            )
            for page in pages:
                for each in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                    found[each["Key"]].append(each)
        removed = 0
        for name, versions in found.items():
            doomed = [
                each
                for each in versions
                # A delete marker has no bytes.
                if "Size" in each
                and may_match(name.removeprefix(self._prefix), each["Size"])
                and matches(self._version(name, each["VersionId"]))
            ]
            self._remove_versions(name, versions, doomed)
            removed += len(doomed)
        return removed

    def _version(self, name: str, version: str) -> bytes:
        with self._explained(name.removeprefix(self._prefix)):
            response = self.client.get_object(Bucket=self.name, Key=name, VersionId=version)
            data: bytes = response["Body"].read()
        return data

    def _remove_versions(
        self, name: str, versions: Sequence[dict[str, Any]], doomed: Sequence[dict[str, Any]]
    ) -> None:
        others = [each for each in versions if "Size" in each and each not in doomed]
        with self._explained(name.removeprefix(self._prefix)):
            if others and any(each["IsLatest"] for each in doomed):
                self.client.delete_object(Bucket=self.name, Key=name)
            for each in doomed if others or not doomed else versions:
                self.client.delete_object(Bucket=self.name, Key=name, VersionId=each["VersionId"])

    def head(self, key: str) -> S3Entry | None:
        """Return the properties of an object; None if it does not exist."""
        with self._explained(key):
            try:
                found = self.client.head_object(Bucket=self.name, Key=self._prefix + key)
            except ClientError as error:
                if _code(error) in _MISSING:
                    return None
                raise
        etag, size = found["ETag"].strip('"'), int(found["ContentLength"])
        return S3Entry(key, etag, size, _age(found["LastModified"], found))

    @contextmanager
    def _explained(self, key: str = "") -> Iterator[None]:
        address = f"{self.url}/{key}" if key else self.url
        try:
            yield
        except ClientError as error:
            code = _code(error)
            if key and code in _MISSING:
                raise DataError(f"{address}: there is no such object.") from error
            if code in _LOST_RACE:
                raise DataError(f"{address}: replaced since it was listed.") from error
            if key and code in _UNREADABLE:
                raise DataError(f"{address}: S3 does not return it ({code}).") from error
            remedy = _REMEDIES.get(code, "Try again, and check the server's log.")
            raise SettingsError(f"{address}: S3 refused the request ({code}). {remedy}") from error
        except BotoCoreError as error:
            # Messages of botocore name endpoints and variables, never their secret values.
            text = " ".join(str(error).split())
            raise SettingsError(
                f"{address}: S3 cannot be used: {text}. Check AWS_ENDPOINT_URL, "
                "AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            ) from error


class S3ObjectStore:
    """A prefix of a bucket as an object store, with a folder for local copies.

    Args:
        bucket: the lake's root.
        cache: the folder of the copies for `local_path`. Images never change under their key, so
            their copies are reused; other objects are downloaded each time.
    """

    def __init__(self, bucket: Bucket, cache: Path) -> None:
        self.bucket = bucket
        self._cache = cache

    def put(self, key: str, data: bytes) -> None:
        """Write ``data`` under ``key``, replacing any earlier object, in one step."""
        self.bucket.put(checked_key(key), data)

    def create(self, key: str, data: bytes, *, private: bool = False) -> bool:  # noqa: ARG002
        """Write ``data`` under ``key`` if it is free; return whether this call wrote it.

        The bucket's policy decides who may read it; objects are never made public.
        """
        return self.bucket.create(checked_key(key), data)

    def copy(self, source: str, target: str) -> None:
        """Copy ``source`` to ``target`` within S3, unless ``target`` exists."""
        self.bucket.copy(checked_key(source), checked_key(target))

    def get(self, key: str) -> bytes:
        """Return the bytes under ``key``; a missing key is a DataError."""
        return self.bucket.get(checked_key(key))

    def exists(self, key: str) -> bool:
        """Return whether there is an object under ``key``."""
        return self.bucket.head(checked_key(key)) is not None

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys in the folder ``prefix`` and below it, sorted."""
        return (entry.key for entry in self.bucket.list(checked_key(prefix)))

    def remove(self, key: str) -> None:
        """Delete every version of the object under ``key``, and its local copy."""
        self.bucket.remove(checked_key(key))
        self._copy_of(key).unlink(missing_ok=True)

    def purge(self, key: str) -> None:
        """Delete every version except the current one, and the local copy."""
        self.bucket.remove(checked_key(key), newest=False)
        self._copy_of(key).unlink(missing_ok=True)

    def local_path(self, key: str) -> Path:
        """Return a file on this machine with the bytes under ``key``."""
        path = self._copy_of(key)
        if not (key.startswith("images/") and path.is_file()):
            write_file(path, self.get(key))
        return path

    def _copy_of(self, key: str) -> Path:
        folder = hashlib.sha256(self.bucket.url.encode()).hexdigest()[:16]
        return self._cache / folder / checked_key(key)

    def url(self, key: str) -> str:
        """Return the address of the object under ``key``."""
        return f"{self.bucket.url}/{checked_key(key)}"

    def arrow_filesystem(self) -> tuple[fs.FileSystem, str]:
        """Return Arrow's file system with the same endpoint and account, and the root in it."""
        import boto3

        meta = self.bucket.client.meta
        account = boto3.Session().get_credentials()
        keys = account.get_frozen_credentials() if account else None
        filesystem = fs.S3FileSystem(
            access_key=keys.access_key if keys else None,
            secret_key=keys.secret_key if keys else None,
            session_token=keys.token if keys else None,
            region=meta.region_name,
            endpoint_override=meta.endpoint_url,
        )
        return filesystem, self.bucket.url.removeprefix("s3://")


def _age(modified_at: datetime, response: dict[str, Any]) -> float:
    date = response["ResponseMetadata"]["HTTPHeaders"].get("date")
    now = parsedate_to_datetime(date) if date else datetime.now(UTC)
    return max(0.0, (now - modified_at).total_seconds())


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))
