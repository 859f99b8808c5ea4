"""The objects of a version's folder in DVC: names, sources of their content, and the upload."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from annotation_platform.versioning.folder import Folder, FolderFacts, ImageFile
from annotation_platform.versioning.manifest import Manifest
from annotation_platform.versioning.remote import DvcRemote, folder_object
from annotation_platform.versioning.uploading import InBucket, Source

IMAGE_PATH = re.compile(r"images/(?P<split>[^/]+)/(?P<image>.+)\.(?P<extension>[^./]+)")
"""The path of an image file in a version."""

ImagePath = Callable[[str, str], Path | InBucket]
"""Returns the stored file of an image, given its id and extension."""


@dataclass(frozen=True)
class FolderObjects:
    """A folder as DVC stores it, and the source of the content of each object."""

    md5: str  # name of DVC's folder object
    files: dict[str, str]  # path to MD5
    byte_size: int
    facts: FolderFacts
    labels_root: str
    audits: dict[str, int]
    texts: dict[str, Source] = field(repr=False)  # by MD5, the folder object included
    images: dict[str, ImageFile] = field(repr=False)  # by MD5
    image_path: ImagePath = field(repr=False)

    @property
    def names(self) -> set[str]:
        """The MD5 of every object that is not reused, that of the folder included."""
        return {*self.texts, *self.images}

    @property
    def boxes_by_split(self) -> dict[str, dict[str, int]]:
        """The number of boxes by split and class."""
        return {
            split: {one.name: one.boxes[split] for one in self.facts.classes}
            for split in self.facts.images
        }

    def source(self, name: str) -> Source:
        """Return the source of an object's content."""
        if name in self.texts:
            return self.texts[name]
        image = self.images[name]
        return Source(self.image_path(image.image_id, image.extension), f"image {image.image_id}")


def name_objects(content: Folder, image_path: ImagePath) -> FolderObjects:
    """Return the objects of a folder; ``image_path`` returns the stored files of its images."""
    files = content.reused | content.md5s
    files |= {image.path: image.md5 for image in content.images}
    texts = {content.md5s[path]: Source(data, path) for path, data in content.texts.items()}
    name, data = folder_object(files)
    texts[name] = Source(data, "the folder object")
    return FolderObjects(
        md5=name,
        files=files,
        byte_size=content.byte_size,
        facts=content.facts,
        labels_root=content.labels_root,
        audits=content.audits,
        texts=texts,
        images={image.md5: image for image in content.images},
        image_path=image_path,
    )


def upload_objects(remote: DvcRemote, folder: FolderObjects, present: set[str]) -> int:
    """Upload the objects of a folder that the remote lacks, and return the number of files.

    Objects in ``present`` are not looked up: those of the previous version were verified when they
    were uploaded.
    """
    missing = remote.missing(folder.names - present)
    files = {name: folder.source(name) for name in missing if name != folder.md5}
    remote.upload(files)
    # The folder object comes last, because it implies that all its files are in the remote.
    if folder.md5 in missing:
        remote.upload({folder.md5: folder.source(folder.md5)})
    return len(files)


def pointer_text(manifest: Manifest) -> str:
    """Return the content of the ``.dvc`` file that points at a version's folder."""
    return (
        f"outs:\n- md5: {manifest.folder_md5}\n  size: {manifest.folder_bytes}\n"
        f"  nfiles: {manifest.folder_files}\n  hash: md5\n  path: {manifest.dataset}\n"
    )
