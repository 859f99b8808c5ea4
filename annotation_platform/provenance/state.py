"""A published version with its labels, its policy, and all tables that they were made from."""

from collections.abc import Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from annotation_platform.errors import DataError
from annotation_platform.policy import Policy, parse_policy
from annotation_platform.provenance.rebuilding.inputs import Inputs, read_inputs
from annotation_platform.schema.tables import RawImages, Table, TrainingSet, table_named
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.lineage import TableInputs, input_key
from annotation_platform.storage.table_files import TableFile
from annotation_platform.versioning.contents import labels_of_image, version_labels
from annotation_platform.versioning.git import Git, Registry, as_git
from annotation_platform.versioning.manifest import Manifest
from annotation_platform.versioning.registry import read_manifest, remote_of, unknown_version


@dataclass(frozen=True)
class VersionState:
    """A version and, if the lake holds them, its inputs.

    Labels are read from the lake if it holds them, otherwise from the remote, with the same result.
    ``shared`` caches rows of tables that are inputs of several versions.
    """

    tag: str
    manifest: Manifest
    policy: Policy
    inputs: Inputs | None = field(repr=False)  # None: not stored, or no lake is given
    lake: Lake | None = field(repr=False)
    registry: Git = field(repr=False)
    remote_url: str = field(repr=False)
    shared: dict[Hashable, pd.DataFrame] = field(repr=False)

    @cached_property
    def labels(self) -> pd.DataFrame:
        """Its ``training_set``, sorted by image and label."""
        if self.inputs is not None:
            found = self.table("training_set", self.training_round)
        else:
            remote = remote_of(self.registry, self.tag, self.remote_url)
            files = remote.read_folder(self.manifest.folder_md5)
            found = version_labels(remote, files, where=self.tag)
        return found.sort_values(["image_id", "label_id"], ignore_index=True)

    @property
    def training_round(self) -> str:
        """The round whose ``training_set`` it is; empty if unknown."""
        return self.inputs.training_set.partition("/")[2] if self.inputs else ""

    def labels_about(
        self, images: Collection[str], columns: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Return the rows of its ``training_set`` about images, or only some columns."""
        if self.inputs is None:
            found = self.labels[self.labels[TrainingSet.image_id].isin(images)]
            return found[list(columns)] if columns else found
        # The stored rows are sorted.
        return self._read("training_set", self.training_round, images, columns)

    def labels_of(self, image_id: str) -> pd.DataFrame:
        """Return the rows of its ``training_set`` about one image; no rows if it has none."""
        if self.inputs is not None:
            found = self.rows("training_set", self.training_round, image_id)
        else:
            remote = remote_of(self.registry, self.tag, self.remote_url)
            files = remote.read_folder(self.manifest.folder_md5)
            found = labels_of_image(remote, files, image_id, where=self.tag)
        return found.sort_values("label_id", ignore_index=True)

    def inputs_of(self, name: str, round_id: str) -> TableInputs | None:
        """Return the inputs of a derived table; None if they are unknown."""
        made = self.inputs.made.get(f"{name}/{round_id}") if self.inputs else None
        return made.made_of if made else None

    def known_inputs_of(self, table: type[Table], round_id: str) -> TableInputs:
        """Return the inputs of a derived table; a DataError if they are unknown."""
        inputs = self.inputs_of(table.table_name, round_id)
        if inputs is None:
            raise DataError(
                f"{self.tag}: the inputs of {table.table_name} of {round_id} were not stored, or "
                "not in this lake. Set ANNOTATION_LAKE to the lake that it was published from."
            )
        return inputs

    def rounds(self, name: str) -> list[str]:
        """Return the rounds of a table among the inputs of the version, in order."""
        keys = self.inputs.tables if self.inputs else ()
        return sorted(key.partition("/")[2] for key in keys if key.startswith(f"{name}/"))

    def digests(self, name: str, round_id: str) -> set[str]:
        """Return the digests of a table among the inputs of the version."""
        return self.inputs.tables.get(f"{name}/{round_id}", set()) if self.inputs else set()

    def table(self, name: str, round_id: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return an input table of the version; empty if it is not one of its inputs."""
        return self._read(name, round_id, columns=columns)

    def distinct(self, name: str, round_id: str, columns: Sequence[str]) -> pd.DataFrame:
        """Return the distinct rows of columns of a table, cached in ``shared``."""
        key = (name, *sorted(self.digests(name, round_id)), *columns)
        if key not in self.shared:
            self.shared[key] = self.table(name, round_id, columns).drop_duplicates()
        return self.shared[key]

    def rows(self, name: str, round_id: str, image_id: str) -> pd.DataFrame:
        """Return the rows of an input table about one image."""
        return self._read(name, round_id, [image_id])

    def landed_in(self, image_id: str) -> list[str]:
        """Return the rounds in whose input tables an image landed, in order."""
        name, found = RawImages.table_name, []
        for round_id in self.rounds(name):
            for digest in self.digests(name, round_id):
                with _readable(digest):
                    ids = self._file(name, digest).arrow([RawImages.image_id]).column(0)
                if pc.index(ids, image_id).as_py() >= 0:
                    found.append(round_id)
                    break
        return found

    def _file(self, name: str, digest: str) -> TableFile:
        assert self.lake is not None
        data = self.lake.tables.lineage.load(digest)
        return TableFile(table_named(name), data, input_key(digest))

    def _read(
        self,
        name: str,
        round_id: str,
        images: Collection[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        digests = sorted(self.digests(name, round_id)) if self.lake else []
        frames = [self._part(name, digest, images, columns) for digest in digests]
        if not frames:
            empty = table_named(name).empty()
            return empty[list(columns)] if columns else empty
        return pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]

    def _part(
        self,
        name: str,
        digest: str,
        images: Collection[str] | None,
        columns: Sequence[str] | None,
    ) -> pd.DataFrame:
        # The digest proves that the file is the one that was validated when it was written.
        with _readable(digest):
            only = None if images is None else ("image_id", images)
            return self._file(name, digest).frame(columns or None, only=only)


@contextmanager
def _readable(digest: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"inputs/{digest}.parquet: cannot be read ({error}).") from error


def read_state(
    registry: Registry,
    tag: str,
    *,
    remote_url: str = "",
    lake: Lake | None = None,
    shared: dict[Hashable, pd.DataFrame] | None = None,
) -> VersionState:
    """Return a published version.

    Args:
        registry: the registry with the versions.
        tag: tag such as ``training-set@v1.2.0``.
        remote_url: location of the files; empty: the location that the version records.
        lake: the lake that it was published from, if available.
        shared: cache to share with other versions.

    Raises:
        PublishError: there is no such version.
        DataError: its inputs in the lake are damaged.
    """
    git = as_git(registry)
    manifest = read_manifest(git, tag)
    params = git.read(tag, "params.yaml")
    if params is None:
        raise unknown_version(git, tag)
    inputs = None
    if (
        lake is not None
        and manifest.inputs
        and lake.tables.lineage.holds(manifest.inputs, kind="json")
    ):
        inputs = read_inputs(lake, manifest.inputs, where=tag)
    return VersionState(
        tag=tag,
        manifest=manifest,
        policy=parse_policy(params.decode(), where=f"{tag}: params.yaml"),
        inputs=inputs,
        lake=lake if inputs is not None else None,
        registry=git,
        remote_url=remote_url,
        shared={} if shared is None else shared,
    )
