"""Where Label Studio gets the images of its tasks: a folder that it can read, or a private bucket.

Label Studio enforces no roles. Any member can create a storage record for any folder below the
server's document root, and have any bucket read with the account of any record. So to keep
originals from annotators, the server itself must not be able to reach them.
"""

import hashlib
import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import TypeAdapter

from annotation_platform.errors import LabelingError, SettingsError
from annotation_platform.labeling.backends.label_studio.http import (
    NUMBERED,
    LabelStudioHttp,
    RefusedError,
    UncertainError,
)
from annotation_platform.schema.keys import SHOWN, is_shown
from annotation_platform.storage.aws import s3_client
from annotation_platform.storage.s3 import Bucket, is_s3

_FOLDER, _LANDED = "images", "raw"
_BAD_REQUEST, _FORBIDDEN = 400, 403
_AMAZON = (".amazonaws.com", ".amazonaws.com.cn")

_FOLDERS = "/api/storages/localfiles/"
_BUCKETS = "/api/storages/s3/"


@dataclass(frozen=True)
class _FolderRecord:
    path: str | None


_FOLDER_RECORDS = TypeAdapter(list[_FolderRecord])
_BUCKET_RECORDS = TypeAdapter(list[dict[str, Any]])


class ImageSource(Protocol):
    """The images of a lake for Label Studio. Members see its images, strangers none."""

    def address(self, key: str) -> str:
        """Return the image address in tasks for the image under ``key``; never a secret."""

    def grant(self, http: LabelStudioHttp, project: int) -> None:
        """Let the server show this lake's images to members, in tasks of this project.

        Access is granted by a storage record of the project. It is created once, however often
        ``grant`` is called, and never synchronised, which would create a task for every image.

        Raises:
            LabelingError: the server cannot show them; the message gives the setting to change.
        """


def image_source(lake: str) -> ImageSource:
    """Return the source of a lake's images, from its path or its ``s3://bucket/prefix``."""
    return BucketImages(Bucket(lake)) if is_s3(lake) else FolderImages(Path(lake))


def shown_source(lake: str, shown: str, profile: str = "") -> ImageSource:
    """Return the source of masked images, from which the server cannot reach the originals.

    Args:
        lake: the place of the originals: a folder, or ``s3://bucket/prefix``.
        shown: the place of the masked images, likewise.
        profile: an AWS profile whose account reads ``shown``, if it is in S3, and not the lake.
    """
    source = BucketImages(Bucket(shown), profile) if is_s3(shown) else FolderImages(Path(shown))
    return MaskedImages(source, lake)


def private_endpoint() -> str:
    """Return the address of the S3 server in AWS's variables if it is a private address.

    Empty for Amazon and for public addresses. Label Studio connects to no loopback or private
    address in a storage record; only its own ``S3_ENDPOINT`` may be one.
    """
    endpoint = _endpoint(s3_client())
    return endpoint if _is_private(endpoint) else ""


class FolderImages:
    """Images in a folder of the machine that runs Label Studio.

    Args:
        lake: the folder whose ``images`` folder holds the images, as the *server* sees it; it must
            be the server's ``LOCAL_FILES_DOCUMENT_ROOT``.
    """

    def __init__(self, lake: Path) -> None:
        self.root = lake.expanduser().absolute()
        self._images = self.root / _FOLDER

    def address(self, key: str) -> str:
        """Return the server's own path of the image."""
        return f"/data/local-files/?d={quote(key)}"

    def grant(self, http: LabelStudioHttp, project: int) -> None:
        """Let the server show files of ``images``; see `ImageSource`."""
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
            # Sent twice, it creates two equivalent records.
            http.post(_FOLDERS, record, repeatable=True)
        except RefusedError as error:
            if error.status != 400:
                raise
            raise LabelingError(
                f"Label Studio cannot serve images from {self._images}: {error} "
                "Start it with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
                f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={self.root}."
            ) from error


class BucketImages:
    """Images in a private bucket: Label Studio fetches them and passes them on.

    It uses the account of this process, from AWS's variables, or that of an AWS profile. The
    account is sent once for each project and then stored; the server shows the secret to no member.
    An expired session or a replaced account needs the round to be published again.

    Label Studio checks the bucket of a request, not the prefix: a member can fetch *every* object
    of the bucket that the account may read. Where that matters, the lake's bucket should hold
    nothing else.
    """

    def __init__(self, bucket: Bucket, profile: str = "") -> None:
        self._bucket = bucket
        self._profile = profile

    def address(self, key: str) -> str:
        """Return the image's address in S3; browsers get a path of Label Studio's."""
        return f"{self._bucket.url}/{key}"

    def grant(self, http: LabelStudioHttp, project: int) -> None:
        """Let the server fetch objects of the bucket; see `ImageSource`."""
        account = self._account()
        endpoint = _endpoint(self._bucket.client)
        shown = {
            "title": _FOLDER,
            # The server returns no account data.
            "description": self.mark,
            "bucket": self._bucket.name,
            "prefix": urlsplit(self.address(_FOLDER)).path.strip("/"),
            "region_name": self._bucket.client.meta.region_name,
            # A private address is refused in a record, and must be the server's own S3_ENDPOINT.
            "s3_endpoint": "" if _is_private(endpoint) else endpoint,
            "presign": False,
            "use_blob_urls": True,
            "synchronizable": False,
        }
        records = http.read(_BUCKET_RECORDS, _BUCKETS, project=project)
        ours = [record for record in records if _same(record, shown, "bucket", "prefix")]
        if any(_same(record, shown, *shown) for record in ours):
            return
        record_id = http.shaped(NUMBERED, ours[0], _BUCKETS).id if ours else None
        body = {"project": project, **shown, **account}
        try:
            if record_id is not None:
                http.patch(f"{_BUCKETS}{record_id}", body)
            else:
                http.post(_BUCKETS, body)
        except (RefusedError, UncertainError) as error:
            # Without its cause: a server that repeats the request in its response repeats secrets.
            raise LabelingError(self._refusal(http, endpoint, error, account)) from None

    @property
    def mark(self) -> str:
        """The description of storage records, which identifies the account."""
        return f"account {_digest(self._account()['aws_access_key_id'])}"

    def can_read(self, other: Bucket) -> bool:
        """Return whether the account sent to the server can read the images of another bucket."""
        image = next(other.list(_FOLDER), None)
        if image is None:
            return False
        address = urlsplit(f"{other.url}/{image.key}")
        try:
            client = s3_client(attempts=2, profile=self._profile)
            client.head_object(Bucket=other.name, Key=address.path[1:])
        except ClientError as error:
            # Any other error than "forbidden" may be temporary.
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            return int(status) != _FORBIDDEN
        except BotoCoreError as error:
            raise SettingsError(f"{other.url}: S3 cannot be reached: {error}") from error
        return True

    def _account(self) -> dict[str, str]:
        """Return the credentials of this process as fields of a storage record."""
        try:
            found = boto3.Session(profile_name=self._profile or None).get_credentials()
            keys = found.get_frozen_credentials() if found else None
        except BotoCoreError as error:
            raise SettingsError(
                f"{self._bucket.url}: the AWS account cannot be read: {error}"
            ) from error
        if keys is None:
            raise SettingsError(
                f"{self._bucket.url}: no AWS account is set with which Label Studio could show "
                "images. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        return {
            "aws_access_key_id": keys.access_key,
            "aws_secret_access_key": keys.secret_key,
            "aws_session_token": keys.token or "",
        }

    def _refusal(
        self, http: LabelStudioHttp, endpoint: str, error: LabelingError, account: dict[str, str]
    ) -> str:
        if isinstance(error, RefusedError) and error.status == 403:
            reason = "it refuses (403), as it does for private addresses."
        elif any(value and value[:4] in str(error) for value in _secrets(account)):
            reason = "its response repeats secrets and is not shown."
        else:
            reason = str(error)
        text = f"Label Studio at {http.url} cannot show images of {self._bucket.url}: {reason}"
        if not endpoint:
            return f"{text} Its machine must be able to reach Amazon S3."
        return (
            f"{text} Its machine must be able to reach {endpoint}; if that is a private address, "
            f"start it with S3_ENDPOINT={endpoint}, because otherwise it connects to no private "
            "address (SSRF_PROTECTION_ENABLED). `annotation-platform up` does so."
        )


class MaskedImages:
    """Masked images, below the folder ``shown`` of a lake.

    Args:
        source: where the server gets them.
        lake: the place of the originals, which the server must not reach.
    """

    def __init__(self, source: FolderImages | BucketImages, lake: str) -> None:
        self._source = source
        self._lake = lake

    def address(self, key: str) -> str:
        """Return the image address in tasks; an original has none."""
        if not is_shown(key):
            raise ValueError(f"{key} is an original")
        return self._source.address(key.removeprefix(f"{SHOWN}/"))

    def grant(self, http: LabelStudioHttp, project: int) -> None:
        """Let the server show these images, unless it can reach originals; see `ImageSource`."""
        if is_s3(self._lake):
            self._refuse_bucket(http, Bucket(self._lake))
        else:
            self._refuse_folder(http, project, Path(self._lake).expanduser().absolute())
        self._source.grant(http, project)

    def _refuse_folder(self, http: LabelStudioHttp, project: int, lake: Path) -> None:
        for folder in (lake / _FOLDER, lake / _LANDED):
            record = {"project": project, "path": str(folder)}
            try:
                # Creates nothing: validates whether any member could create such a record.
                http.post(f"{_FOLDERS}validate", record, repeatable=True)
            except RefusedError as error:
                if error.status != _BAD_REQUEST:
                    raise
            else:
                raise LabelingError(
                    f"Label Studio at {http.url} can reach {folder}, so every annotator could"
                    " see the originals; nothing was published. Restart"
                    " `annotation-platform up`, or start a server of your own with"
                    f" LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={self._root(lake)}."
                )

    def _root(self, lake: Path) -> Path:
        """Return the document root that the server should have."""
        return self._source.root if isinstance(self._source, FolderImages) else lake / SHOWN

    def _refuse_bucket(self, http: LabelStudioHttp, lake: Bucket) -> None:
        if isinstance(self._source, BucketImages) and self._source.can_read(lake):
            raise LabelingError(
                f"Label Studio would be sent an account that reads {lake.url}, so every"
                " annotator could see the originals; nothing was published. Set"
                " ANNOTATION_SHOWN_PROFILE to an AWS profile whose account may read only"
                f" {self._source.address(_FOLDER)}."
            )
        harmless = self._source.mark if isinstance(self._source, BucketImages) else ""
        reaching = [
            str(project["title"])
            for project in http.pages("/api/projects/", include="id,title")
            for record in http.read(_BUCKET_RECORDS, _BUCKETS, project=project["id"])
            if record.get("bucket") == lake.name and record.get("description") != harmless
        ]
        if reaching:
            raise LabelingError(
                f"Label Studio at {http.url} holds accounts that read {lake.url}, in its projects"
                f" {', '.join(reaching)}, so every annotator could see the originals; nothing"
                " was published. When these projects are finished, delete their source storages"
                " (Settings, Cloud Storage) and publish again: their images are then not shown"
                " any more, and their annotations stay."
            )


def _endpoint(client: Any) -> str:
    """Return the address of a client's S3 server; empty for Amazon's."""
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
