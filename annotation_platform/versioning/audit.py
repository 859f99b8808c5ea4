"""Count defects of a version, independently of the code that drew its splits and rendered it.

``audit_folder`` audits a version before it is published: the table that goes into the shards, the
paths of the files and the rendered files. ``audit_files`` audits a published version by reading
everything that a reader gets. Both count the same defects under the same names;
``audited_files.py`` reads the files.

===============================  ==================================================================
groups_in_two_splits             duplicate groups with images in more than one split
contents_in_two_splits           contents, by MD5, of images in more than one split
kept_together_in_two_splits      values of metadata that the policy keeps together but that belong
                                 to images in more than one split
boxes_outside_image              regions without area or with an edge outside their image; only the
                                 centre of a rotated box must be inside, a keypoint has no area
labels_not_in_data_yaml          labels whose class data.yaml lacks or lists under another id, and
                                 lines of YOLO label files whose class number it lacks
images_without_label_file        images without a YOLO label file
label_files_without_image        YOLO label files without an image
images_in_some_formats_only      images of a split that image files, tables and COCO do not all have
boxes_in_some_formats_only       boxes of a split that tables, YOLO and COCO do not all have
===============================  ==================================================================
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from annotation_platform.schema.shapes import AREAS, KEPT_WHOLE, POINTS, REGIONS
from annotation_platform.schema.tables import Frame, TrainingSet
from annotation_platform.schema.tables.shared import SPLITS
from annotation_platform.versioning.audited_files import (
    LABEL_FIELDS,
    CocoFile,
    Codes,
    DataYaml,
    Flags,
    Labels,
    codes_of,
    rows_of_shards,
    split_index,
    yolo_classes,
)

KEPT_TOGETHER = "kept_together_in_two_splits"
"""The only count that depends on the policy and not on the content alone."""


def audit_folder(
    frame: Frame[TrainingSet],
    files: Mapping[str, str],
    texts: Mapping[str, bytes],
    *,
    keep_together: Sequence[str] = (),
) -> dict[str, int]:
    """Return the number of defects of each kind by name; all are 0 for a sound version.

    The images and boxes of COCO files are counted by split without parsing the files.

    Args:
        frame: the training set, sorted by image.
        files: every path of the version; the values for image paths are their MD5.
        texts: ``data.yaml``, all COCO files and all other rendered files. YOLO label files and
            shards that did not change since the previous version were audited with that version.
        keep_together: columns, or fields of ``other_metadata``, whose equal values share a split.

    Raises:
        PublishError: a file is missing or cannot be read.
    """
    classes = DataYaml.read(texts)
    columns = [name for name in frame if name in {*LABEL_FIELDS, *keep_together}]
    labels = Labels.of(pa.Table.from_pandas(frame[columns], preserve_index=False))
    coco = [CocoFile.scan(texts, split) for split in SPLITS]
    found = _audit(labels, files, texts, classes, coco, keep_together)
    found["boxes_in_some_formats_only"] += sum(
        abs(rows - labels.beginning_with(prefix)) for prefix, rows in rows_of_shards(texts)
    )
    return found


def audit_files(
    files: Mapping[str, str], texts: Mapping[str, bytes], *, keep_together: Sequence[str] = ()
) -> dict[str, int]:
    """Return the counts of ``audit_folder`` after reading every label in all three formats.

    This takes seconds for a large version. The arguments are the same, but ``texts`` holds all
    files that are not images; file names and classes in COCO are compared one by one.
    """
    classes = DataYaml.read(texts)
    coco = [CocoFile.read(texts, split, classes) for split in SPLITS]
    return _audit(Labels.read(texts), files, texts, classes, coco, keep_together)


def _audit(
    labels: Labels,
    files: Mapping[str, str],
    texts: Mapping[str, bytes],
    classes: DataYaml,
    coco: Sequence[CocoFile],
    keep_together: Sequence[str],
) -> dict[str, int]:
    image_files = _ImageFiles.of(labels, files)
    table_splits, file_splits = image_files.table_splits, image_files.file_splits
    class_positions, regions = classes.positions(labels), labels.are(REGIONS)
    row_splits = table_splits[labels.image]
    yolo = _yolo_lines(texts, classes)
    are_read = _are_in(labels.text_paths, [path for path in texts if path.startswith("labels/")])
    if image_files.without_text:
        # A missing label file counts as a file without boxes.
        are_read |= ~_are_in(labels.text_paths, image_files.texts)
    in_yolo = labels.are(AREAS) & are_read[labels.image]
    in_coco = _by_split(row_splits, class_positions, regions, classes)
    return {
        "groups_in_two_splits": _in_two_splits(
            codes_of(labels.of_images(TrainingSet.group_id))[0], table_splits
        ),
        "contents_in_two_splits": _in_two_splits(codes_of(image_files.md5s)[0], file_splits),
        KEPT_TOGETHER: sum(
            _in_two_splits(_values(labels, name), table_splits) for name in keep_together
        ),
        "boxes_outside_image": _outside(labels, regions),
        "labels_not_in_data_yaml": int(
            (class_positions == classes.unknown).sum() + yolo[:, -1].sum()
        ),
        "images_without_label_file": image_files.without_text,
        "label_files_without_image": image_files.texts_without_image,
        "images_in_some_formats_only": image_files.different
        + sum(
            file.different_images(image_files.paths.filter(pa.array(file_splits == split)))
            for split, file in enumerate(coco)
        ),
        "boxes_in_some_formats_only": int(
            np.abs(yolo - _by_split(row_splits, class_positions, in_yolo, classes)).sum()
        )
        + sum(file.different_boxes(row) for file, row in zip(coco, in_coco, strict=True)),
    }


@dataclass(frozen=True)
class _ImageFiles:
    """The image files of a version, and the split of each as its index in ``SPLITS``.

    The path of an image file decides the split of an image, not the tables; an image without a
    file has the split -1.
    """

    paths: pa.Array
    md5s: pa.ChunkedArray
    texts: pa.Array  # paths of YOLO label files
    file_splits: Codes  # of each image file
    table_splits: Codes  # of each image of the tables
    different: int  # files at a path that the tables do not give, and images without such a file
    without_text: int
    texts_without_image: int

    @classmethod
    def of(cls, labels: Labels, files: Mapping[str, str]) -> "_ImageFiles":
        names = pa.array(files.keys(), pa.large_string())
        is_image = pc.starts_with(names, "images/")
        paths = names.filter(is_image)
        md5s = pa.chunked_array([pa.array(files.values(), pa.large_string()).filter(is_image)])
        texts = names.filter(pc.starts_with(names, "labels/"))
        expected = labels.image_paths.combine_chunks()
        at = pc.index_in(paths, value_set=expected)
        if not at.null_count and len(paths) == len(expected):
            # The usual case: the tables agree with every path.
            table_splits = labels.splits_of_images
            needed, file_splits, different = labels.text_paths, table_splits[at.to_numpy()], 0
        else:
            needed = pc.replace_substring_regex(paths, r"^images/(.*)\.[^.]*$", r"labels/\1.txt")
            file_splits = _splits_by_path(paths)
            ids = pc.replace_substring_regex(paths, r"^.*/([^/]*)\.[^.]*$", r"\1")
            found = pc.index_in(labels.of_images(TrainingSet.image_id), value_set=ids)
            table_splits = np.append(file_splits, -1)[pc.fill_null(found, -1).to_numpy()]
            different = int((~_are_in(paths, expected)).sum() + (~_are_in(expected, paths)).sum())
        have_text = _are_in(needed, texts)
        without_image = 0
        if len(texts) != have_text.sum():
            without_image = int((~_are_in(texts, needed)).sum())
        return cls(
            paths=paths,
            md5s=md5s,
            texts=texts,
            file_splits=file_splits,
            table_splits=table_splits,
            different=different,
            without_text=int((~have_text).sum()),
            texts_without_image=without_image,
        )


def _are_in(names: Any, others: Any) -> Flags:
    """Return which of the names are among the others."""
    if isinstance(others, list):
        others = pa.array(others, pa.large_string())
    if isinstance(others, pa.ChunkedArray):
        others = others.combine_chunks()
    return np.asarray(pc.is_in(names, value_set=others))


def _splits_by_path(paths: Any) -> Codes:
    """Return the split in each path as its index in ``SPLITS``; -1 if it is none of them."""
    return np.array([split_index(path.split("/")[1]) for path in paths.to_pylist()], np.int64)


def _yolo_lines(texts: Mapping[str, bytes], classes: DataYaml) -> Codes:
    """Return ``(splits, classes + 1)`` numbers of lines; the last column is unknown classes."""
    by_split: defaultdict[str, list[bytes]] = defaultdict(list)
    for path, data in texts.items():
        if path.startswith("labels/"):
            by_split[path[7 : path.index("/", 7)]].append(data)
    return np.stack([classes.count(yolo_classes(by_split[split], classes)) for split in SPLITS])


def _by_split(row_splits: Codes, positions: Codes, chosen: Flags, classes: DataYaml) -> Codes:
    """Return ``(splits, classes + 1)`` numbers of the chosen labels, given the class of each."""
    return np.stack(
        [classes.count(positions[chosen & (row_splits == split)]) for split in range(len(SPLITS))]
    )


def _values(labels: Labels, name: str) -> Codes:
    """Return for each image the code of a column's value, or of a field of ``other_metadata``.

    A value that is neither text nor number cannot be shared between images; its code is -1.
    """
    is_column = name in labels.rows.column_names
    column = name if is_column else TrainingSet.other_metadata
    codes, different = codes_of(labels.of_images(column))
    values = different.to_pylist()
    if not is_column:
        values = [orjson.loads(text).get(name) if text else None for text in values]
    code_of: dict[str | None, int] = {None: -1}
    new = [code_of.setdefault(_text(value), len(code_of)) for value in values]
    return np.array([*new, -1], dtype=np.int64)[codes]


def _text(value: Any) -> str | None:
    is_known = isinstance(value, str | int | float) and value not in {"", math.inf}
    return str(value) if is_known and str(value) != "nan" else None


def _in_two_splits(codes: Codes, splits: Codes) -> int:
    """Return how many codes occur with more than one split; -1 counts as neither."""
    occurs = np.zeros((int(codes.max(initial=-1)) + 2, len(SPLITS) + 1), bool)
    occurs[codes, splits] = True
    return int((occurs[:-1, :-1].sum(axis=1) > 1).sum())


def _outside(labels: Labels, regions: Flags) -> int:
    """Return how many regions are not inside their image, see the table above."""
    is_whole, is_point = labels.are(KEPT_WHOLE), labels.are(POINTS)
    is_inside = np.ones(len(regions), bool)
    for low_edge, high_edge, side in (
        (TrainingSet.x1, TrainingSet.x2, TrainingSet.width),
        (TrainingSet.y1, TrainingSet.y2, TrainingSet.height),
    ):
        low, high = labels.numbers(low_edge), labels.numbers(high_edge)
        middle = (low + high) / 2
        # A comparison with NaN is false, so a missing edge counts as outside.
        is_inside &= np.where(is_whole, middle, low) >= 0
        is_inside &= np.where(is_whole, middle, high) <= labels.numbers(side)
        is_inside &= (low < high) | is_point
    return int((regions & ~is_inside).sum())
