"""What the files of a version say, read by nobody's code but this: ``audit.py`` compares it."""

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
from annotation_platform.schema.tables.shared import SPLITS

Codes = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

LABEL_FIELDS = [
    *("image_id", "split", "extension", "group_id", "width", "height", "other_metadata"),
    *("shape", "x1", "y1", "x2", "y2", "class_id", "class_name"),
]
"""The columns of a ``training_set`` that an audit looks at."""

_NEWLINE, _SPACE, _ZERO = b"\n 0"
_LONGEST_NUMBER = 9


@dataclass(frozen=True)
class Labels:
    """The labels of a version, sorted by image."""

    rows: pa.Table
    image: Codes  # of each row, the place of its image
    is_first: Flags  # of its image
    known: dict[str, tuple[Codes, pa.Array]] = field(default_factory=dict, repr=False)
    known_of_images: dict[str, pa.ChunkedArray] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, texts: Mapping[str, bytes]) -> "Labels":
        """Return what the Parquet files say."""
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
        ids = table["image_id"]
        is_first = np.concatenate([[True], pc.not_equal(ids[1:], ids[:-1]).to_numpy()])
        ids = ids.filter(pa.array(is_first))
        if not pc.all(pc.less(ids[:-1], ids[1:]), min_count=0).as_py():
            return cls.of(table.sort_by("image_id"))
        return cls(table, np.cumsum(is_first) - 1, is_first)

    def codes(self, name: str) -> tuple[Codes, pa.Array]:
        """Return each row's place among the values of a column, -1 if missing; and the values."""
        if name not in self.known:
            self.known[name] = codes_of(self.rows[name])
        return self.known[name]

    def of_images(self, name: str) -> pa.ChunkedArray:
        """Return what the first row of each image has in a column."""
        if name not in self.known_of_images:
            self.known_of_images[name] = self.rows[name].filter(pa.array(self.is_first))
        return self.known_of_images[name]

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """Return a column of numbers; a missing one is not a number."""
        return np.asarray(self.rows[name].to_numpy(), dtype=np.float64)

    def are(self, shapes: Collection[str]) -> Flags:
        """Return which rows are labels of these shapes."""
        codes, names = self.codes("shape")
        return np.array([*(name in shapes for name in names.to_pylist()), False])[codes]

    def beginning_with(self, prefix: str) -> int:
        """Return how many rows are of images whose id begins with ``prefix``."""
        is_one = pc.starts_with(self.of_images("image_id"), prefix).to_numpy()
        return int(is_one[self.image].sum())

    @property
    def splits_of_images(self) -> Codes:
        """The split of each image by its first row, as its place in ``SPLITS``; -1 for others."""
        codes, names = codes_of(self.of_images("split"))
        return np.array([*map(split_place, names.to_pylist()), -1], dtype=np.int64)[codes]

    @property
    def image_paths(self) -> pa.ChunkedArray:
        """Where the image of each image should be."""
        return _joined(self._stems("images"), self.of_images("extension"), ".")

    @property
    def text_paths(self) -> pa.ChunkedArray:
        """Where the YOLO text of each image should be."""
        return _joined(self._stems("labels"), "txt", ".")

    def _stems(self, folder: str) -> pa.ChunkedArray:
        return _joined(folder, self.of_images("split"), self.of_images("image_id"), "/")


@dataclass(frozen=True)
class DataYaml:
    """The classes of ``data.yaml`` in its order. One that it lacks stands after the last."""

    names: list[str]
    ids: list[int]

    @classmethod
    def read(cls, texts: Mapping[str, bytes]) -> "DataYaml":
        """Return what YOLO's file of classes says."""
        # In C where that is built in: ten times as fast.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            content = yaml.load(texts["data.yaml"], Loader=loader)
            names = [str(content["names"][place]) for place in range(len(content["names"]))]
            return cls(names, [int(each) for each in content["class_ids"]])
        except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise _unreadable("data.yaml", repr(error)) from error

    @property
    def unknown(self) -> int:
        """The place of classes that it lacks."""
        return len(self.names)

    def places(self, labels: Labels) -> Codes:
        """Return the place of each label's class; -1 where the label has none."""
        place = {name: number for number, name in enumerate(self.names)}
        codes, names = labels.codes("class_name")
        by_name = np.array([*(place.get(name, self.unknown) for name in names.to_pylist()), -1])[
            codes
        ]
        ids = np.array([*self.ids, np.nan, np.nan])[by_name]
        is_wrong = (by_name >= 0) & (ids != labels.numbers("class_id"))
        return np.where(is_wrong, self.unknown, by_name)

    def counted(self, places: Codes) -> Codes:
        """Return how often each place occurs, that of unknown classes last."""
        return np.bincount(places, minlength=len(self.names) + 1)


@dataclass(frozen=True)
class CocoFile:
    """A split's COCO file; file names and boxes by class are there if it was read whole."""

    images: int
    boxes: int
    file_names: frozenset[str] | None = None
    by_class: Codes | None = None

    @classmethod
    def scan(cls, texts: Mapping[str, bytes], split: str) -> "CocoFile":
        """Return the numbers alone, without parsing: a tenth of the time.

        A quote inside a JSON text is escaped, so what is searched for is found at keys only.
        """
        data = texts.get(f"coco/{split}.json", b"")
        images_end = data.find(b'"annotations":[')
        key = f'"file_name":"images/{split}/'.encode()
        return cls(data.count(key, 0, images_end), data.count(b'"bbox":[', images_end))

    @classmethod
    def read(cls, texts: Mapping[str, bytes], split: str, classes: DataYaml) -> "CocoFile":
        """Return everything; a box of an image that the file does not list is none."""
        path = f"coco/{split}.json"
        place = {class_id: number for number, class_id in enumerate(classes.ids)}
        try:
            content = orjson.loads(texts[path])
            names = {each["id"]: each["file_name"] for each in content["images"]}
            boxes = [
                place.get(each["category_id"], classes.unknown)
                for each in content["annotations"]
                if each["image_id"] in names
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise _unreadable(path, repr(error)) from error
        by_class = classes.counted(np.array(boxes, dtype=np.int64))
        return cls(len(names), len(boxes), frozenset(names.values()), by_class)

    def different_images(self, paths: pa.ChunkedArray) -> int:
        """Return how many of the images, or of its images, the other lacks."""
        if self.file_names is None:
            return abs(self.images - len(paths))
        return len(self.file_names.symmetric_difference(paths.to_pylist()))

    def different_boxes(self, expected: Codes) -> int:
        """Return how many boxes it has too many or too few, by class if it was read whole."""
        if self.by_class is None:
            return abs(self.boxes - int(expected.sum()))
        return int(np.abs(self.by_class - expected).sum())


def yolo_classes(texts: Iterable[bytes], classes: DataYaml) -> Codes:
    """Return the place of the class of every line; blank ones have none.

    The numbers at the beginnings of all lines are read together, digit by digit.
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
        # Every line ends with a newline, which is no digit: this never goes beyond it.
        at = np.asarray(at + is_reading, dtype=np.int64)
    is_known = (letters[at] == _SPACE) & (numbers < classes.unknown)
    return np.where(is_known, numbers, classes.unknown)


def rows_of_shards(texts: Mapping[str, bytes]) -> list[tuple[str, int]]:
    """Return for each Parquet file there the beginning of its images' ids and its rows."""
    return [
        (PurePosixPath(path).stem, pq.read_metadata(pa.BufferReader(data)).num_rows)
        for path, data in texts.items()
        if path.startswith("annotations/")
    ]


def split_place(name: str) -> int:
    """Return the place of a split in ``SPLITS``; -1 if it is none of them."""
    return SPLITS.index(name) if name in SPLITS else -1


def codes_of(column: pa.ChunkedArray) -> tuple[Codes, pa.Array]:
    """Return the place of each value of a column among the different ones, -1 if it is missing."""
    values = column.dictionary_encode().combine_chunks()
    indices = values.indices.fill_null(-1).to_numpy()
    return np.asarray(indices, dtype=np.int64), values.dictionary


def _joined(*texts: Any) -> pa.ChunkedArray:
    """Return texts side by side; the last one goes in between."""
    large = [each if isinstance(each, str) else each.cast(pa.large_string()) for each in texts]
    return pc.binary_join_element_wise(
        *(pa.scalar(each, pa.large_string()) if isinstance(each, str) else each for each in large)
    )


def _unreadable(path: str, reason: object) -> PublishError:
    return PublishError(f"{path}: it cannot be audited: {reason}. Publish the version again.")
