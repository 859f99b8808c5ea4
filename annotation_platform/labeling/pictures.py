"""Where Label Studio gets the pictures of its tasks: a folder it can read, or a private bucket."""

import hashlib
import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import boto3
from botocore.exceptions import BotoCoreError
from pydantic import TypeAdapter

from annotation_platform.errors import LabelingError, SettingsError
from annotation_platform.labeling.label_studio_http import (
    LabelStudioHttp,
    RefusedError,
    UncertainError,
)
from annotation_platform.storage.s3 import Bucket, is_s3, s3_client

_FOLDER = "images"
_AMAZON = (".amazonaws.com", ".amazonaws.com.cn")

_FOLDERS = "/api/storages/localfiles/"
_BUCKETS = "/api/storages/s3/"


@dataclass(frozen=True)
class _FolderRecord:
    path: str | None


@dataclass(frozen=True)
class _Made:
    id: int


_FOLDER_RECORDS = TypeAdapter(list[_FolderRecord])
_BUCKET_RECORDS = TypeAdapter(list[dict[str, Any]])
_MADE = TypeAdapter(_Made)


class PicturePlace(Protocol):
    """A lake as Label Studio sees it. Members are shown its pictures, strangers nothing."""

    def address(self, key: str) -> str:
        """Return what a task holds to show the picture under ``key``; never a secret."""

    def grant(self, http: LabelStudioHttp, project: int) -> None:
        """Let the server show this lake's pictures to members, in tasks of this project.

        What grants it is a storage record of the project. It is made once, however often it is
        asked for, and never synchronised, which would make a task of every picture.

        Raises:
            LabelingError: the server cannot show them; what its administrator must set is said.
        """


def picture_place(lake: str) -> PicturePlace:
    """Return the place of a lake's pictures, from its path or its ``s3://bucket/prefix``."""
    return BucketPictures(Bucket(lake)) if is_s3(lake) else FolderPictures(Path(lake))


def private_endpoint() -> str:
    """Return the address of the S3 server that AWS's variables name if it is a private one.

    Empty for Amazon and wherever else the internet reaches. Label Studio connects to no loopback
    or private address that a storage record names; only its own ``S3_ENDPOINT`` may be one.
    """
    endpoint = _endpoint(s3_client())
    return endpoint if _is_private(endpoint) else ""


class FolderPictures:
    """Pictures in a folder of the machine that Label Studio runs on.

    Args:
        lake: The folder whose ``images`` folder holds the pictures, as the *server* sees it; it
            must be the server's ``LOCAL_FILES_DOCUMENT_ROOT``.
    """

    def __init__(self, lake: Path) -> None:
        self._images = lake.expanduser().absolute() / _FOLDER

    def address(self, key: str) -> str:
        """Return the server's own path of the picture."""
        return f"/data/local-files/?d={quote(key)}"

    def grant(self, http: LabelStudioHttp, project: int) -> None:
        """Let the server show files of ``images``; see `PicturePlace`."""
        records = http.read(_FOLDER_RECORDS, _FOLDERS, project=project)
        if any(record.path and Path(record.path) == self._images for record in records):
            return
        record = {
            "project": project,
            "title": _FOLDER,
            "path": str(self._images),
            "use_blob_urls": True,
        }
        try:
            # Sent twice it makes two records that grant the same.
            http.post(_FOLDERS, record, repeatable=True)
        except RefusedError as error:
            if error.status != 400:
                raise
            raise LabelingError(
                f"Label Studio cannot serve pictures from {self._images}: {error} "
                "Start it with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
                f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={self._images.parent}."
            ) from error


class BucketPictures:
    """Pictures in a bucket that stays closed: Label Studio fetches them and passes them on.

    It does so with the account of this process, by AWS's variables, which it is sent once for each
    project and then keeps; it shows the secret to nobody. A session that ends, or an account that
    is replaced, ends the showing until the round is published again.

    Label Studio looks at the bucket of what it is asked for, not at the prefix: a member can fetch
    *every* object of the bucket that the account may read. Where that matters, the lake's bucket
    should hold nothing else.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def address(self, key: str) -> str:
        """Return the picture's place in S3; Label Studio shows the browser a path of its own."""
        return f"{self._bucket.url}/{key}"

    def grant(self, http: LabelStudioHttp, project: int) -> None:
        """Let the server fetch objects of the bucket; see `PicturePlace`."""
        account = self._account()
        endpoint = _endpoint(self._bucket.client)
        shown = {
            "title": _FOLDER,
            # A replaced account is known by it, although the server tells nothing of accounts.
            "description": f"account {_digest(account['aws_access_key_id'])}",
            "bucket": self._bucket.name,
            "prefix": urlsplit(self.address(_FOLDER)).path.strip("/"),
            "region_name": self._bucket.client.meta.region_name,
            # A private one is refused in a record, and is the server's own S3_ENDPOINT.
            "s3_endpoint": "" if _is_private(endpoint) else endpoint,
            "presign": False,
            "use_blob_urls": True,
            "synchronizable": False,
        }
        records = http.read(_BUCKET_RECORDS, _BUCKETS, project=project)
        ours = [record for record in records if _same(record, shown, "bucket", "prefix")]
        if any(_same(record, shown, *shown) for record in ours):
            return
        there = http.shaped(_MADE, ours[0], _BUCKETS).id if ours else None
        body = {"project": project, **shown, **account}
        try:
            if there is not None:
                http.patch(f"{_BUCKETS}{there}", body)
            else:
                http.post(_BUCKETS, body)
        except (RefusedError, UncertainError) as error:
            # Cut off from its cause: a server that repeats what it was sent would repeat secrets.
            raise LabelingError(self._why(http, endpoint, error, account)) from None

    def _account(self) -> dict[str, str]:
        """Return the credentials of this process as a storage record has them."""
        try:
            found = boto3.Session().get_credentials()
            keys = found.get_frozen_credentials() if found else None
        except BotoCoreError as error:
            raise SettingsError(
                f"{self._bucket.url}: no AWS account can be had: {error}"
            ) from error
        if keys is None:
            raise SettingsError(
                f"{self._bucket.url}: there is no AWS account by which Label Studio could show "
                "pictures. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        return {
            "aws_access_key_id": keys.access_key,
            "aws_secret_access_key": keys.secret_key,
            "aws_session_token": keys.token or "",
        }

    def _why(
        self, http: LabelStudioHttp, endpoint: str, error: LabelingError, account: dict[str, str]
    ) -> str:
        if isinstance(error, RefusedError) and error.status == 403:
            said = "it refuses (403), as it does where an address is private to it."
        elif any(value and value[:4] in str(error) for value in _secrets(account)):
            said = "its answer repeats what it was sent and is not shown."
        else:
            said = str(error)
        text = f"Label Studio at {http.url} cannot show pictures of {self._bucket.url}: {said}"
        if not endpoint:
            return f"{text} It must reach Amazon S3 from where it runs."
        return (
            f"{text} It must reach {endpoint} from where it runs; where that is a private address, "
            f"its administrator must start it with S3_ENDPOINT={endpoint}, because otherwise it "
            "connects to none (SSRF_PROTECTION_ENABLED). `annotation-platform up` does so itself."
        )


def _endpoint(client: Any) -> str:
    """Return the address of the S3 server that a client goes to; empty for Amazon's own."""
    address = str(client.meta.endpoint_url)
    return "" if (urlsplit(address).hostname or "").endswith(_AMAZON) else address


def _is_private(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname
    if not host:
        return False
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return any(not ipaddress.ip_address(entry[4][0]).is_global for entry in found)


def _same(record: dict[str, Any], shown: dict[str, Any], *keys: str) -> bool:
    return all((record.get(key) or "") == (shown[key] or "") for key in keys)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _secrets(account: dict[str, str]) -> tuple[str, str]:
    return account["aws_secret_access_key"], account["aws_session_token"]
