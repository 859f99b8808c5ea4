"""Where versions are published, and where their images come from."""

from dataclasses import dataclass, field
from pathlib import Path

from annotation_platform.registry_address import parse_address
from annotation_platform.schema.keys import image_key
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.s3 import is_s3
from annotation_platform.versioning.git import Git
from annotation_platform.versioning.mirror import open_registry
from annotation_platform.versioning.objects import ImagePath
from annotation_platform.versioning.uploading import InBucket


@dataclass(frozen=True)
class VersionStore:
    """Where versions go: a git repository, a DVC remote, and the source tree that made them."""

    registry: str | Path = field(repr=False)  # path or address; there may be a secret in it
    remote_url: str
    source_root: Path
    mirrors: Path  # folder of the copies of registries behind an address

    @property
    def shown(self) -> str:
        """The registry, without any secret: what people clone."""
        return parse_address(self.registry).shown

    def open(self) -> Git:
        """Return the registry, brought up to date if it is behind an address."""
        return open_registry(self.registry, self.mirrors)


def image_source(lake: Lake) -> ImagePath:
    """Return the locator of images: within S3, one bucket can copy them to another."""

    def find(image_id: str, extension: str) -> Path | InBucket:
        url = lake.store.url(image_key(image_id, extension))
        if is_s3(url):
            return InBucket(url, lambda: lake.image_path(image_id, extension))
        return Path(url)

    return find
