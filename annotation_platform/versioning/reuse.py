"""What of the version before need not be rendered again.

Both training sets are sorted by image, so one walk over their columns says which images are as
they were, with all that is known of them. A version grows by a percent at a time: this makes the
cost of the next one that of the change, but for what lists everything.
"""

import hashlib
import io
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from annotation_platform.formats.coco import render_coco
from annotation_platform.formats.coco_lines import Flags, Taken, splice_coco
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.shapes import POINTS, REGIONS
from annotation_platform.storage.table_files import table_parquet
from annotation_platform.versioning.manifest import Manifest
from annotation_platform.versioning.remote import DvcRemote

_SHARDS, _OF_IMAGES = "annotations/", ("images/", "labels/")
KEPT = (*_OF_IMAGES, _SHARDS)
"""Where files lie that can be taken over from the version before."""

_PACKAGES = ["jinja2", "numpy", "orjson", "pandas", "pyarrow", "pyyaml"]
_READERS = 16
_RENDERERS = ["formats", "schema", "storage", "versioning"]


@dataclass(frozen=True)
class LastVersion:
    """The version before, rendered by this very code and under the same ontology.

    ``texts`` holds the content of all its files but images and YOLO labels, by path.
    """

    training_set: pd.DataFrame  # sorted by image and label
    files: Mapping[str, str]  # path to MD5
    byte_size: int
    texts: Mapping[str, bytes]


@dataclass(frozen=True)
class Stays:
    """Which rows belong to images that are in both versions and alike: of now, and of before."""

    now: Flags
    before: Flags


def no_version(training_set: pd.DataFrame) -> LastVersion:
    """Return the version before the first: one with the columns of ``training_set``, and empty."""
    return LastVersion(training_set.iloc[:0], {}, 0, {})


def last_version(
    remote: DvcRemote, before: Manifest, files: Mapping[str, str], ontology_digest: str
) -> LastVersion | None:
    """Return the version before as one that files can be taken over from.

    None if another code rendered it, or under another ontology: its files would be others today.

    Raises:
        PublishError: the remote has lost one of its files, or it is damaged.
    """
    if (before.rendering, before.ontology_digest) != (rendering_digest(), ontology_digest):
        return None

    paths = [path for path in files if not path.startswith(_OF_IMAGES)]
    with ThreadPoolExecutor(max_workers=_READERS) as pool:
        contents = pool.map(
            lambda path: remote.read_whole(files[path], f"{path} of {before.tag}"), paths
        )
        texts = dict(zip(paths, contents, strict=True))
        shards = [io.BytesIO(texts[path]) for path in sorted(paths) if path.startswith(_SHARDS)]
        tables = list(pool.map(pd.read_parquet, shards))
    return LastVersion(pd.concat(tables, ignore_index=True), files, before.folder_bytes, texts)


@cache
def rendering_digest() -> str:
    """Return the SHA-256 of the code and of the packages that render a version.

    Files that another code rendered are never taken over: the content of a version depends on its
    training set, not on the versions before it.
    """
    package = Path(__file__).parent.parent
    paths = sorted(
        path
        for folder in _RENDERERS
        for path in (package / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    )
    code = {path.relative_to(package).as_posix(): _sha256(path.read_bytes()) for path in paths}
    packages = {name: version(name) for name in _PACKAGES}
    return _sha256(json.dumps([code, packages], sort_keys=True).encode())


def find_reusable(now: pd.DataFrame, before: pd.DataFrame) -> Stays:
    """Return which rows of two training sets belong to images of which nothing has changed.

    Both are sorted by image and label. Tables with other columns or types have nothing in common;
    where all of ``now`` stays, its first image does not count.
    """
    new, old = _arrow(now), _arrow(before)
    if not len(new) or not len(old) or new.schema != old.schema:
        return Stays(np.zeros(len(new), dtype=bool), np.zeros(len(old), dtype=bool))
    (new_ids, new_counts), (old_ids, old_counts) = _images(new), _images(old)
    place = old_ids.get_indexer(new_ids)
    paired = place >= 0
    paired[paired] = new_counts[paired] == old_counts[place[paired]]
    other = np.zeros(len(old_ids), dtype=bool)
    other[place[paired]] = True
    if paired.any():
        starts = np.cumsum(new_counts[paired]) - new_counts[paired]
        # In both, the rows of paired images come in the same order.
        rows = np.repeat(paired, new_counts), np.repeat(other, old_counts)
        alike = np.logical_and.reduceat(_equal_rows(new, rows[0], old, rows[1]), starts)
        other[place[paired]] = alike
        paired[paired] = alike
    if paired.all():
        # Something must be left to render: files of no image would have no splits.
        other[place[0]] = paired[0] = False
    return Stays(np.repeat(paired, new_counts), np.repeat(other, old_counts))


def render_coco_again(
    frame: pd.DataFrame, changed: Dataset, stays: Stays, last: LastVersion
) -> dict[str, bytes]:
    """Return the COCO files of ``frame``: ``changed`` rendered, between the lines of what stays."""
    shapes = [frame["shape"], last.training_set["shape"]]
    # What a category says of its keypoints stands in the annotations of all its objects.
    if not stays.now.any() or any(is_in(each, POINTS).any() for each in shapes):
        return render_coco(Dataset.from_training_set(frame, changed.ontology))
    before = _lines(last.training_set, stays.before)
    now = _lines(frame, stays.now)
    files = {}
    for path, data in render_coco(changed).items():
        taken = [Taken(*both) for both in zip(before(path), now(path), strict=True)]
        files[path] = splice_coco(last.texts[path], data, *taken)
    return files


def shards_of(frame: pd.DataFrame) -> set[str]:
    """Return the paths of the Parquet files that hold these images."""
    return {f"{_SHARDS}{digit}.parquet" for digit in frame["image_id"].str[0].unique()}


def render_shards(frame: pd.DataFrame, wanted: Collection[str]) -> dict[str, bytes]:
    """Return those of the Parquet files of ``frame`` that are wanted and not empty."""
    # Sorted by image, so each digit is one stretch.
    rows = frame["image_id"].str[0].value_counts().sort_index()
    whole = pa.Table.from_pandas(frame, preserve_index=False)
    pieces = {
        f"{_SHARDS}{digit}.parquet": whole.slice(end - count, count)
        for digit, count, end in zip(rows.index, rows, rows.cumsum(), strict=True)
    }
    pieces = {path: piece for path, piece in pieces.items() if path in wanted}
    with ThreadPoolExecutor() as pool:
        return dict(zip(pieces, pool.map(table_parquet, pieces.values()), strict=True))


def is_in(values: "pd.Series[str]", wanted: "Sequence[str] | pd.Series[str]") -> Flags:
    """Return which texts are among those wanted; a tenth of the time that pandas takes."""
    found = pc.is_in(pa.array(values), value_set=pa.array(wanted, type=pa.large_string()))
    return np.asarray(found.to_numpy(zero_copy_only=False))


def _lines(frame: pd.DataFrame, stay: Flags) -> Callable[[str], tuple[Flags, Flags]]:
    """Return what says for a split's COCO file which of its images, and annotations, stay."""
    is_first = ~frame["image_id"].duplicated().to_numpy()
    is_region = is_in(frame["shape"], REGIONS)

    def of(path: str) -> tuple[Flags, Flags]:
        here = is_in(frame["split"], [Path(path).stem])
        return stay[here & is_first], stay[here & is_region]

    return of


def _arrow(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)


def _images(table: pa.Table) -> tuple["pd.Index[str]", npt.NDArray[np.intp]]:
    """Return the ids of the images, in order, and the rows of each."""
    ids = table["image_id"].combine_chunks()
    starts = np.flatnonzero(pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)) + 1
    starts = np.concatenate([[0], starts])
    return pd.Index(ids.take(pa.array(starts)).to_pandas()), np.diff(starts, append=len(ids))


def _equal_rows(left: pa.Table, of_left: Flags, right: pa.Table, of_right: Flags) -> Flags:
    """Return which of the chosen rows agree in every column; two missing values agree."""
    alike = np.ones(int(of_left.sum()), dtype=bool)
    for name in left.column_names:
        # One column at a time: chosen rows of all of them would be a second copy of both tables.
        a, b = _chosen(left[name], of_left), _chosen(right[name], of_right)
        if pa.types.is_floating(a.type):
            # 0.0 and -0.0 are equal, and are written differently.
            signs = [np.signbit(each.to_numpy(zero_copy_only=False)) for each in (a, b)]
            alike &= np.equal(*signs)
        if not a.equals(b):
            missing = pc.and_(pc.is_null(a), pc.is_null(b))
            alike &= pc.or_(pc.fill_null(pc.equal(a, b), False), missing).to_numpy()
    return alike


def _chosen(column: pa.ChunkedArray, rows: Flags) -> pa.ChunkedArray:
    return column if rows.all() else column.filter(pa.array(rows))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
