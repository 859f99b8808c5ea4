"""What should never be in a version, counted by code that neither drew its splits nor rendered it.

``audit_folder`` looks at a version about to be published: at its table as it goes into the shards,
at the paths of its files and at what was rendered for it. ``audit_files`` reads back everything
that a reader gets. Both find the same by the same names; what files say is in ``audited_files.py``.

===============================  ==================================================================
groups_in_two_splits             groups of near-duplicates with images in more than one split
contents_in_two_splits           contents, by MD5, of images in more than one split
kept_together_in_two_splits      values of metadata which the policy keeps together, of images in
                                 more than one split
boxes_outside_image              regions without area or with an edge outside their image; of a
                                 rotated box only the centre must be inside, a keypoint has no area
labels_not_in_data_yaml          labels whose class data.yaml lacks or has under another id, and
                                 lines of YOLO texts whose number it lacks
images_without_label_file        images without a YOLO text
label_files_without_image        YOLO texts without an image
images_in_some_formats_only      images that images, tables and COCO do not all have in a split
boxes_in_some_formats_only       boxes that tables, YOLO and COCO do not all have in a split
===============================  ==================================================================
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from annotation_platform.schema.shapes import AREAS, KEPT_WHOLE, POINTS, REGIONS
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
    split_place,
    yolo_classes,
)

KEPT_TOGETHER = "kept_together_in_two_splits"
"""The one count that depends on policy, and not on content alone."""


def audit_folder(
    frame: pd.DataFrame,
    files: Mapping[str, str],
    texts: Mapping[str, bytes],
    *,
    keep_together: Sequence[str] = (),
) -> dict[str, int]:
    """Return how often each thing that should never be is there, by name; all 0 where all is well.

    COCO's images and boxes are counted by split without reading them whole.

    Args:
        frame: the ``training_set`` table, sorted by image.
        files: every path of the version, of images with their MD5.
        texts: ``data.yaml``, all COCO files, and what else was rendered; YOLO texts and shards
            that are as in the version before were audited then.
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
    """Return what ``audit_folder`` does, having read every label in all three formats.

    It takes seconds for large versions. Arguments are the same, with all files that are no
    images among ``texts``; file names and classes in COCO are compared one by one.
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
    where = _Where.of(labels, files)
    class_places, regions = classes.places(labels), labels.are(REGIONS)
    row_splits = where.images[labels.image]
    yolo = _yolo_lines(texts, classes)
    are_read = _are_in(labels.text_paths, [path for path in texts if path.startswith("labels/")])
    if where.without_text:
        # What is not there at all says that there is nothing.
        are_read |= ~_are_in(labels.text_paths, where.texts)
    in_yolo = labels.are(AREAS) & are_read[labels.image]
    in_coco = _by_split(row_splits, class_places, regions, classes)
    return {
        "groups_in_two_splits": _in_two_splits(
            codes_of(labels.of_images("group_id"))[0], where.images
        ),
        "contents_in_two_splits": _in_two_splits(codes_of(where.md5s)[0], where.image_files),
        KEPT_TOGETHER: sum(
            _in_two_splits(_values(labels, name), where.images) for name in keep_together
        ),
        "boxes_outside_image": _outside(labels, regions),
        "labels_not_in_data_yaml": int((class_places == classes.unknown).sum() + yolo[:, -1].sum()),
        "images_without_label_file": where.without_text,
        "label_files_without_image": where.without_image_file,
        "images_in_some_formats_only": where.different
        + sum(
            file.different_images(where.paths.filter(pa.array(where.image_files == place)))
            for place, file in enumerate(coco)
        ),
        "boxes_in_some_formats_only": int(
            np.abs(yolo - _by_split(row_splits, class_places, in_yolo, classes)).sum()
        )
        + sum(file.different_boxes(row) for file, row in zip(coco, in_coco, strict=True)),
    }


@dataclass(frozen=True)
class _Where:
    """The split that each image lies in, and each image with it, as places in ``SPLITS``.

    An image lies where its image does, whatever the tables say; without one at -1.
    """

    paths: pa.Array
    md5s: pa.ChunkedArray
    texts: pa.Array  # paths of YOLO texts
    image_files: Codes
    images: Codes
    different: int  # images that the tables do not have there, and the other way round
    without_text: int
    without_image_file: int

    @classmethod
    def of(cls, labels: Labels, files: Mapping[str, str]) -> "_Where":
        names = pa.array(files.keys(), pa.large_string())
        is_image = pc.starts_with(names, "images/")
        paths = names.filter(is_image)
        md5s = pa.chunked_array([pa.array(files.values(), pa.large_string()).filter(is_image)])
        texts = names.filter(pc.starts_with(names, "labels/"))
        expected = labels.image_paths.combine_chunks()
        at = pc.index_in(paths, value_set=expected)
        if not at.null_count and len(paths) == len(expected):
            # The tables are right about every image, as they should be.
            images = labels.splits_of_images
            needed, splits, different = labels.text_paths, images[at.to_numpy()], 0
        else:
            needed = pc.replace_substring_regex(paths, r"^images/(.*)\.[^.]*$", r"labels/\1.txt")
            splits = _splits_by_path(paths)
            ids = pc.replace_substring_regex(paths, r"^.*/([^/]*)\.[^.]*$", r"\1")
            found = pc.index_in(labels.of_images("image_id"), value_set=ids)
            images = np.append(splits, -1)[pc.fill_null(found, -1).to_numpy()]
            different = int((~_are_in(paths, expected)).sum() + (~_are_in(expected, paths)).sum())
        have_text = _are_in(needed, texts)
        without_image_file = 0
        if len(texts) != have_text.sum():
            without_image_file = int((~_are_in(texts, needed)).sum())
        lacking = int((~have_text).sum())
        return cls(paths, md5s, texts, splits, images, different, lacking, without_image_file)


def _are_in(names: Any, others: Any) -> Flags:
    """Return which of the names are among the others."""
    if isinstance(others, list):
        others = pa.array(others, pa.large_string())
    if isinstance(others, pa.ChunkedArray):
        others = others.combine_chunks()
    return np.asarray(pc.is_in(names, value_set=others))


def _splits_by_path(paths: Any) -> Codes:
    """Return the split that a path names, as its place in ``SPLITS``; -1 for none of them."""
    return np.array([split_place(path.split("/")[1]) for path in paths.to_pylist()], np.int64)


def _yolo_lines(texts: Mapping[str, bytes], classes: DataYaml) -> Codes:
    """Return ``(splits, classes + 1)`` numbers of lines; unknown classes stand last."""
    by_split: defaultdict[str, list[bytes]] = defaultdict(list)
    for path, data in texts.items():
        if path.startswith("labels/"):
            by_split[path[7 : path.index("/", 7)]].append(data)
    return np.stack([classes.counted(yolo_classes(by_split[split], classes)) for split in SPLITS])


def _by_split(row_splits: Codes, places: Codes, chosen: Flags, classes: DataYaml) -> Codes:
    """Return ``(splits, classes + 1)`` numbers of the chosen labels, given the class of each."""
    return np.stack(
        [classes.counted(places[chosen & (row_splits == at)]) for at in range(len(SPLITS))]
    )


def _values(labels: Labels, name: str) -> Codes:
    """Return of each image the code of a column's value, or of a field of ``other_metadata``.

    What is neither text nor number is nothing that images could have in common, and has -1.
    """
    is_column = name in labels.rows.column_names
    codes, different = codes_of(labels.of_images(name if is_column else "other_metadata"))
    values = different.to_pylist()
    if not is_column:
        values = [orjson.loads(text).get(name) if text else None for text in values]
    code_of: dict[str | None, int] = {None: -1}
    new = [code_of.setdefault(_text(value), len(code_of)) for value in values]
    return np.array([*new, -1], dtype=np.int64)[codes]


def _text(value: Any) -> str | None:
    is_something = isinstance(value, str | int | float) and value not in {"", math.inf}
    return str(value) if is_something and str(value) != "nan" else None


def _in_two_splits(codes: Codes, splits: Codes) -> int:
    """Return how many codes occur with more than one split; -1 is neither code nor split."""
    occurs = np.zeros((int(codes.max(initial=-1)) + 2, len(SPLITS) + 1), bool)
    occurs[codes, splits] = True
    return int((occurs[:-1, :-1].sum(axis=1) > 1).sum())


def _outside(labels: Labels, regions: Flags) -> int:
    is_whole, is_point = labels.are(KEPT_WHOLE), labels.are(POINTS)
    is_fine = np.ones(len(regions), bool)
    for low_edge, high_edge, side in (("x1", "x2", "width"), ("y1", "y2", "height")):
        low, high = labels.numbers(low_edge), labels.numbers(high_edge)
        middle = (low + high) / 2
        # An edge that is no number is not inside.
        is_fine &= np.where(is_whole, middle, low) >= 0
        is_fine &= np.where(is_whole, middle, high) <= labels.numbers(side)
        is_fine &= (low < high) | is_point
    return int((regions & ~is_fine).sum())
