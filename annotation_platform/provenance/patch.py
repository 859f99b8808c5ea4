"""The difference between two versions as a file, and the newer one made of it and the older one.

A patch is a Parquet file of the rows that are new or other; what goes, and which versions it leads
between, stands in the file's own metadata. Images are not in it: they are named by their MD5,
and have to be had from the remote.
"""

import io
import json
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from annotation_platform.errors import DataError
from annotation_platform.formats.files import write_files
from annotation_platform.provenance.state import VersionState
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import TrainingSet
from annotation_platform.storage.table_files import read_table
from annotation_platform.versioning.folder import build_folder
from annotation_platform.versioning.git import Git
from annotation_platform.versioning.objects import FolderObjects, name_objects
from annotation_platform.versioning.registry import read_manifest
from annotation_platform.versioning.remote import DvcRemote
from annotation_platform.versioning.reuse import find_reusable

_KEY = b"annotation-platform patch"
_FORMAT = 1
_READERS = 16

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Patch:
    """What leads from one version to another.

    Attributes:
        before: tag of the version that it is for.
        before_md5: of the folder of that version.
        now: tag of the version that comes of it.
        now_md5: of that one's folder.
        dataset: the folder's name.
        ontology: of that version.
        gone: the ids of labels that are no more, or are other ones.
        rows: of the ``training_set``: those that are new, or other ones.
    """

    before: str
    before_md5: str
    now: str
    now_md5: str
    dataset: str
    ontology: Ontology
    gone: tuple[str, ...]
    rows: pd.DataFrame

    def to_bytes(self) -> bytes:
        """Return the patch as a file. Equal patches give equal bytes."""
        about = {
            "format": _FORMAT,
            "before": self.before,
            "before_md5": self.before_md5,
            "now": self.now,
            "now_md5": self.now_md5,
            "dataset": self.dataset,
            "ontology": self.ontology.model_dump(mode="json"),
            "gone": self.gone,
        }
        table = pa.Table.from_pandas(self.rows, preserve_index=False)
        known = {**(table.schema.metadata or {}), _KEY: json.dumps(about, sort_keys=True).encode()}
        sink = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(known), sink, compression="zstd")
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str) -> "Patch":
        """Return the patch in a file; anything else is a DataError naming ``where``."""
        try:
            table = pq.read_table(pa.BufferReader(data))
            about: dict[str, Any] = json.loads((table.schema.metadata or {})[_KEY])
            is_known = about.pop("format") == _FORMAT
            ontology = Ontology.model_validate(about.pop("ontology"))
            gone = tuple(map(str, about.pop("gone")))
            names = {name: str(about[name]) for name in ("before", "now", "dataset")}
            digests = {name: str(about[name]) for name in ("before_md5", "now_md5")}
        except (
            *(pa.ArrowException, OSError, KeyError, TypeError, ValueError, AttributeError),
        ) as error:
            raise DataError(
                f"{where}: is no patch. `annotation-platform version diff V1 V2 --patch FILE` "
                "writes one."
            ) from error
        if not is_known:
            raise DataError(f"{where}: a patch of later code. Update the platform and try again.")
        rows = read_table(TrainingSet, data, where=where)
        return cls(**names, **digests, ontology=ontology, gone=gone, rows=rows)


def make_patch(before: VersionState, now: VersionState) -> Patch:
    """Return what leads from one version to another.

    Raises:
        DataError: the newer one was rendered by other code, so nobody could make its files here.
    """
    stays = find_reusable(now.labels, before.labels)
    patch = Patch(
        before=before.tag,
        before_md5=before.manifest.folder_md5,
        now=now.tag,
        now_md5=now.manifest.folder_md5,
        dataset=now.manifest.dataset,
        ontology=now.policy.ontology,
        gone=tuple(before.labels.loc[~stays.before, "label_id"]),
        rows=now.labels[~stays.now].reset_index(drop=True),
    )
    apply_patch(before, patch)
    return patch


def apply_patch(before: VersionState, patch: Patch) -> FolderObjects:
    """Return the files of the newer version, to the byte; images by their MD5.

    Raises:
        DataError: the patch is for another version, or comes to other files than it says.
    """
    if before.manifest.folder_md5 != patch.before_md5:
        raise DataError(
            f"the patch leads from {patch.before} ({patch.before_md5}) to {patch.now}, and "
            f"{before.tag} is {before.manifest.folder_md5}. Apply it to the version it is for."
        )
    labels = before.labels[~before.labels["label_id"].isin(patch.gone)]
    parts = [part for part in (labels, patch.rows) if not part.empty] or [patch.rows]
    frame = pd.concat(parts, ignore_index=True)[list(TrainingSet.columns)]
    folder = build_folder(TrainingSet.check(frame), patch.ontology, name=patch.dataset)
    made = name_objects(folder, _nowhere)
    if made.md5 != patch.now_md5:
        raise DataError(
            f"{patch.now}: its files come out as {made.md5} and were published as "
            f"{patch.now_md5}: other code rendered them. Use that of the version's commit."
        )
    return made


def require_published(patch: Patch, registry: Git, *, where: str) -> None:
    """Check that a patch leads to the version that was published under its tag, if any was.

    Args:
        patch: the patch.
        registry: where the versions are.
        where: what errors call the patch: the path of its file.

    Raises:
        DataError: the published version has other files.
    """
    if patch.now in registry.tags("*@v*") and (
        read_manifest(registry, patch.now).folder_md5 != patch.now_md5
    ):
        raise DataError(f"{where}: does not lead to {patch.now} as it was published.")


def write_folder(
    made: FolderObjects, remote: DvcRemote, out: Path, *, progress: Progress | None = None
) -> None:
    """Write the files of a version into a new folder, its images from the remote.

    Raises:
        DataError: there is something under the folder's name, or a file would lie outside of it.
        PublishError: the remote lacks an image, or it is damaged there.
    """
    if out.exists():
        raise DataError(f"{out}: is there already. Name a folder that is not.")
    # A patch comes from anywhere, and the names of files follow from what it says.
    strange = [path for path in made.files if ".." in PurePosixPath(path).parts or path[:1] == "/"]
    if strange:
        raise DataError(f"{strange[0]!r} would lie outside of {out}: nothing was written.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as place:
        draft = Path(place) / "folder"
        _write(made, remote, draft, progress)
        draft.rename(out)


def _write(made: FolderObjects, remote: DvcRemote, out: Path, progress: Progress | None) -> None:
    images = {path: name for path, name in made.files.items() if name in made.images}
    texts = {path: made.texts[name] for path, name in made.files.items() if name in made.texts}
    contents = {path: source.content for path, source in texts.items()}
    write_files({path: data for path, data in contents.items() if isinstance(data, bytes)}, out)
    for folder in {(out / path).parent for path in images}:
        folder.mkdir(parents=True, exist_ok=True)

    def fetch(path: str) -> None:
        (out / path).write_bytes(remote.read_intact(images[path], path))

    with ThreadPoolExecutor(_READERS) as pool:
        for number, _ in enumerate(pool.map(fetch, images), start=1):
            if progress is not None:
                progress(number, len(images))


def _nowhere(image_id: str, extension: str) -> Path:
    return Path(f"{image_id}.{extension}")
