"""Read the files of a version for ``audit.py``, without the code that rendered them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from annotation_platform.errors import PublishError
from annotation_platform.schema.tables import TrainingSet
from annotation_platform.schema.tables.shared import SPLITS

Codes = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

LABEL_FIELDS = [
    *(TrainingSet.image_id, TrainingSet.split, TrainingSet.extension, TrainingSet.group_id),
    *(TrainingSet.width, TrainingSet.height, TrainingSet.other_metadata, TrainingSet.shape),
    *(TrainingSet.x1, TrainingSet.y1, TrainingSet.x2, TrainingSet.y2),
    *(TrainingSet.class_id, TrainingSet.class_name),
]
"""The columns of a training set that an audit reads."""

_NEWLINE, _SPACE, _ZERO = b"\n 0"
_LONGEST_NUMBER = 9


@dataclass(frozen=True)
class Labels:
    """The labels of a version, sorted by image."""

    rows: pa.Table
    image: Codes  # index of the image of each row
    is_first: Flags  # whether a row is the first of its image
    cached: dict[str, tuple[Codes, pa.Array]] = field(default_factory=dict, repr=False)
    cached_of_images: dict[str, pa.ChunkedArray] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, texts: Mapping[str, bytes]) -> "Labels":
        """Return the rows of the Parquet files.

        Raises:
            PublishError: there is no Parquet file, or one cannot be read.
        """
        tables = []
        for path, data in texts.items():
            if path.startswith("annotations/"):
                try:
                    tables.append(pq.read_table(pa.BufferReader(data)))
                except (pa.ArrowException, OSError) as error:
                    raise _unreadable(path, error) from error
        if not tables:
            raise _unreadable("annotations/", "it has no tables")
        return cls.of(pa.concat_tables(tables))

    @classmethod
    def of(cls, table: pa.Table) -> "Labels":
        """Return the rows of a ``training_set`` table."""
        ids = table[TrainingSet.image_id]
        is_first = np.concatenate([[True], pc.not_equal(ids[1:], ids[:-1]).to_numpy()])
        ids = ids.filter(pa.array(is_first))
        if not pc.all(pc.less(ids[:-1], ids[1:]), min_count=0).as_py():
            return cls.of(table.sort_by(TrainingSet.image_id))
        return cls(table, np.cumsum(is_first) - 1, is_first)

    def codes(self, name: str) -> tuple[Codes, pa.Array]:
        """Return each row's index among the values of a column, -1 if missing; and the values."""
        if name not in self.cached:
            self.cached[name] = codes_of(self.rows[name])
        return self.cached[name]

    def of_images(self, name: str) -> pa.ChunkedArray:
        """Return the value of a column in the first row of each image."""
        if name not in self.cached_of_images:
            self.cached_of_images[name] = self.rows[name].filter(pa.array(self.is_first))
        return self.cached_of_images[name]

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """Return a column of numbers; a missing value is NaN."""
        return np.asarray(self.rows[name].to_numpy(), dtype=np.float64)

    def are(self, shapes: Collection[str]) -> Flags:
        """Return which rows are labels of these shapes."""
        codes, names = self.codes(TrainingSet.shape)
        return np.array([*(name in shapes for name in names.to_pylist()), False])[codes]

    def beginning_with(self, prefix: str) -> int:
        """Return the number of rows of images whose id begins with ``prefix``."""
        begins = pc.starts_with(self.of_images(TrainingSet.image_id), prefix).to_numpy()
        return int(begins[self.image].sum())

    @property
    def splits_of_images(self) -> Codes:
        """The split in the first row of each image, as its index in ``SPLITS``; else -1."""
        codes, names = codes_of(self.of_images(TrainingSet.split))
        return np.array([*map(split_index, names.to_pylist()), -1], dtype=np.int64)[codes]

    @property
    def image_paths(self) -> pa.ChunkedArray:
        """The expected path of each image file."""
        return _joined(self._stems("images"), self.of_images(TrainingSet.extension), ".")

    @property
    def text_paths(self) -> pa.ChunkedArray:
        """The expected path of each YOLO label file."""
        return _joined(self._stems("labels"), "txt", ".")

    def _stems(self, folder: str) -> pa.ChunkedArray:
        split, image_id = self.of_images(TrainingSet.split), self.of_images(TrainingSet.image_id)
        return _joined(folder, split, image_id, "/")


@dataclass(frozen=True)
class DataYaml:
    """The classes of ``data.yaml`` in its order; unknown classes have the position after them."""

    names: list[str]
    ids: list[int]

    @classmethod
    def read(cls, texts: Mapping[str, bytes]) -> "DataYaml":
        """Return the classes of ``data.yaml``; a PublishError if it cannot be read."""
        # The loader in C, where PyYAML has it, is ten times as fast.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            content = yaml.load(texts["data.yaml"], Loader=loader)
            names = [str(content["names"][number]) for number in range(len(content["names"]))]
            return cls(names, [int(each) for each in content["class_ids"]])
        except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise _unreadable("data.yaml", repr(error)) from error

    @property
    def unknown(self) -> int:
        """The position of classes that the file lacks."""
        return len(self.names)

    def positions(self, labels: Labels) -> Codes:
        """Return the position of each label's class; -1 for a label without a class."""
        position = {name: number for number, name in enumerate(self.names)}
        codes, names = labels.codes(TrainingSet.class_name)
        of_names = [position.get(name, self.unknown) for name in names.to_pylist()]
        by_name = np.array([*of_names, -1])[codes]
        ids = np.array([*self.ids, np.nan, np.nan])[by_name]
        is_wrong = (by_name >= 0) & (ids != labels.numbers(TrainingSet.class_id))
        return np.where(is_wrong, self.unknown, by_name)

    def count(self, positions: Codes) -> Codes:
        """Return how often each position occurs; the last is that of unknown classes."""
        return np.bincount(positions, minlength=len(self.names) + 1)


@dataclass(frozen=True)
class CocoFile:
    """A split's COCO file; ``file_names`` and ``by_class`` are known only if it was parsed."""

    images: int
    boxes: int
    file_names: frozenset[str] | None = None
    by_class: Codes | None = None

    @classmethod
    def scan(cls, texts: Mapping[str, bytes], split: str) -> "CocoFile":
        """Return only the counts, without parsing, in a tenth of the time.

        Quotes inside a JSON string are escaped, so the searched bytes occur at keys only.
        """
        data = texts.get(f"coco/{split}.json", b"")
        images_end = data.find(b'"annotations":[')
        key = f'"file_name":"images/{split}/'.encode()
        return cls(data.count(key, 0, images_end), data.count(b'"bbox":[', images_end))

    @classmethod
    def read(cls, texts: Mapping[str, bytes], split: str, classes: DataYaml) -> "CocoFile":
        """Return the parsed file; boxes of images that it does not list are ignored."""
        path = f"coco/{split}.json"
        position = {class_id: number for number, class_id in enumerate(classes.ids)}
        try:
            content = orjson.loads(texts[path])
            names = {each["id"]: each["file_name"] for each in content["images"]}
            boxes = [
                position.get(each["category_id"], classes.unknown)
                for each in content["annotations"]
                if each["image_id"] in names
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise _unreadable(path, repr(error)) from error
        by_class = classes.count(np.array(boxes, dtype=np.int64))
        return cls(len(names), len(boxes), frozenset(names.values()), by_class)

    def different_images(self, paths: pa.ChunkedArray) -> int:
        """Return how many of the paths the file lacks, plus how many of its images they lack."""
        if self.file_names is None:
            return abs(self.images - len(paths))
        return len(self.file_names.symmetric_difference(paths.to_pylist()))

    def different_boxes(self, expected: Codes) -> int:
        """Return how many boxes are excess or missing, counted by class if it was parsed."""
        if self.by_class is None:
            return abs(self.boxes - int(expected.sum()))
        return int(np.abs(self.by_class - expected).sum())


def yolo_classes(texts: Iterable[bytes], classes: DataYaml) -> Codes:
    """Return the position of the class of every line that is not blank.

    The numbers at the starts of all lines are parsed together, one digit at a time.
    """
    letters = np.frombuffer(b"\n".join([*texts, b""]), np.uint8)
    ends = np.flatnonzero(letters == _NEWLINE)
    starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
    at = np.asarray(starts[ends > starts], dtype=np.int64)
    numbers: Codes = np.zeros(len(at), np.int64)
    is_reading: Flags = np.ones(len(at), bool)
    for _ in range(_LONGEST_NUMBER):
        digits = letters[at].astype(np.int64) - _ZERO
        is_reading = is_reading & (digits >= 0) & (digits <= 9)
        if not is_reading.any():
            break
        numbers = np.where(is_reading, numbers * 10 + digits, numbers)
        # Every line ends with a newline, which is not a digit, so this stops there.
        at = np.asarray(at + is_reading, dtype=np.int64)
    is_known = (letters[at] == _SPACE) & (numbers < classes.unknown)
    return np.where(is_known, numbers, classes.unknown)


def rows_of_shards(texts: Mapping[str, bytes]) -> list[tuple[str, int]]:
    """Return for each Parquet file the common prefix of its image ids and its number of rows."""
    return [
        (PurePosixPath(path).stem, pq.read_metadata(pa.BufferReader(data)).num_rows)
        for path, data in texts.items()
        if path.startswith("annotations/")
    ]


def split_index(name: str) -> int:
    """Return the index of a split in ``SPLITS``; -1 if it is none of them."""
    return SPLITS.index(name) if name in SPLITS else -1


def codes_of(column: pa.ChunkedArray) -> tuple[Codes, pa.Array]:
    """Return the index of each value among the distinct ones, -1 if missing; and those."""
    values = column.dictionary_encode().combine_chunks()
    indices = values.indices.fill_null(-1).to_numpy()
    return np.asarray(indices, dtype=np.int64), values.dictionary


def _joined(*texts: Any) -> pa.ChunkedArray:
    """Return the texts joined row by row; the last argument is the separator."""
    large = [each if isinstance(each, str) else each.cast(pa.large_string()) for each in texts]
    return pc.binary_join_element_wise(
        *(pa.scalar(each, pa.large_string()) if isinstance(each, str) else each for each in large)
    )


def _unreadable(path: str, reason: object) -> PublishError:
    return PublishError(f"{path}: cannot be audited: {reason}. Publish the version again.")
