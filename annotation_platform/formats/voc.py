"""Pascal VOC: one XML file of boxes per image, in pixels.

Coordinates are edges, as labelImg, CVAT and datumaro write them: a box around the first pixel is
``0 0 1 1``. With ``one_based`` they follow the original challenge and supervision: the first and
the last pixel of the box, counted from one, so that the same box is ``1 1 1 1``. Edges become
``x1 + 1, y1 + 1, x2, y2``, with fractions down to a millionth of a pixel. A file does not record
its convention: read with the convention of writing, edges are exact; with the other, a pixel off.

Reading loses parts and actions of objects, and everything not listed here. Writing loses
(``voc_losses`` counts it) all shapes other than upright boxes, the grouping of labels into objects,
and attributes except ``difficult``, ``truncated``, ``occluded`` and ``pose``. Class ids are written
in a comment of ``labelmap.txt``. ``<depth>`` is always 3 and ``<segmented>`` 0: both are unknown.
"""

import json
import re
from itertools import pairwise
from xml.sax.saxutils import escape

import numpy as np
import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.formats.files import (
    check_image_ids,
    class_ids,
    split_names,
)
from annotation_platform.formats.losses import BOXES_ONLY, box_losses, class_losses
from annotation_platform.formats.voc_reading import (
    CLASS_IDS,
    FLAGS,
    IMAGE_FOLDER,
    NO_POSE,
    VocFile,
    read_voc,
    read_voc_file,
)
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS

__all__ = ["VocFile", "read_voc", "read_voc_file", "render_voc", "voc_losses"]

HOLDS = BOXES_ONLY
"""Shapes that this format holds; other areas become their enclosing boxes."""

_DECIMALS = 6
# Characters that XML 1.0 excludes; and blanks at either end, which reading would trim.
_NOT_IN_XML = re.compile("[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|^\\s|\\s$")


def render_voc(dataset: Dataset, *, one_based: bool = False) -> dict[str, bytes]:
    """Return the VOC files of ``dataset`` by relative path.

    The files are ``Annotations/<image_id>.xml``, also for images without a box; the image ids of
    each split in ``ImageSets/Main/<split>.txt`` (``trainval.txt`` without splits); and the classes
    in ``labelmap.txt``, as datumaro reads them. ``<filename>`` is the dataset's ``file_name``,
    without the leading ``JPEGImages/`` that VOC implies. Equal datasets give equal bytes,
    regardless of the order of their rows.

    Raises:
        DataError: a class, its image or a position is unknown; a name is not valid for a file or
            for XML.
    """
    class_ids(dataset)
    check_image_ids(dataset)
    images = dataset.images.sort_values("image_id", ignore_index=True)
    names = images["image_id"].tolist()
    classes = sorted(dataset.ontology.classes, key=lambda one: one.id)
    lines = [f"{one.name}:::\n" for one in classes]
    ids = " ".join(str(one.id) for one in classes)
    files = {"labelmap.txt": f"{CLASS_IDS} {ids}\n{''.join(lines)}".encode()}
    for split in split_names(images["split"]):
        rows = images.loc[images["split"] == split, "image_id"].tolist()
        path = f"ImageSets/Main/{split or 'trainval'}.txt"
        files[path] = "".join(f"{name}\n" for name in rows).encode()
    heads = _heads(images)
    objects = _objects(dataset.boxes().labels, names, one_based=one_based)
    for name, head, found in zip(names, heads, objects, strict=True):
        files[f"Annotations/{name}.xml"] = f"{head}{found}</annotation>\n".encode()
    return files


def _xml(text: str) -> str:
    if _NOT_IN_XML.search(text):
        raise DataError(
            f"{text!r} begins or ends with a blank, or has a character that XML lacks. Rename it."
        )
    return escape(text)


def _heads(images: pd.DataFrame) -> list[str]:
    columns = [images[name].tolist() for name in ("file_name", "width", "height")]
    return [
        f"<annotation>\n\t<filename>{_xml(name.removeprefix(IMAGE_FOLDER))}</filename>\n"
        f"\t<size>\n\t\t<width>{width}</width>\n\t\t<height>{height}</height>\n"
        "\t\t<depth>3</depth>\n\t</size>\n\t<segmented>0</segmented>\n"
        for name, width, height in zip(*columns, strict=True)
    ]


def _objects(labels: pd.DataFrame, names: list[str], *, one_based: bool) -> list[str]:
    """Return the objects of each image as text."""
    image = pd.Index(names).get_indexer(pd.Index(labels["image_id"]))
    edges = labels[BOX_COLUMNS].to_numpy(dtype=np.float64).round(_DECIMALS)
    if not np.isfinite(edges).all():
        row = int(np.flatnonzero(~np.isfinite(edges).all(axis=1))[0])
        raise DataError(f"image {names[image[row]]}: a box has no position. Correct the label.")
    # The text of an object before its box depends only on class and attributes.
    kinds = labels["class_name"] + "\n" + labels["attributes"]
    kind, texts = pd.factorize(kinds, sort=True)
    heads = [_object_head(*text.split("\n", 1)) for text in texts.tolist()]
    order = np.lexsort([*edges.T[::-1], kind, image])
    # Adding zero turns -0.0 into 0.0: the two would be written differently.
    edges = edges[order] + ([1.0, 1.0, 0.0, 0.0] if one_based else 0.0)
    # Formatting one long text is faster than many. Many readers require 12, not 12.000000.
    text = "%.6f," * edges.size % tuple(edges.ravel().tolist())
    numbers = text.replace(".000000,", ",").split(",")
    rows = zip(kind[order].tolist(), *(numbers[n:-1:4] for n in range(4)), strict=True)
    written = [
        f"{heads[number]}{x1}</xmin>\n\t\t\t<ymin>{y1}</ymin>\n\t\t\t<xmax>{x2}</xmax>\n"
        f"\t\t\t<ymax>{y2}</ymax>\n\t\t</bndbox>\n\t</object>\n"
        for number, x1, y1, x2, y2 in rows
    ]
    ends = np.cumsum(np.bincount(image, minlength=len(names))).tolist()
    return ["".join(written[start:end]) for start, end in pairwise([0, *ends])]


def _object_head(name: str, attributes: str) -> str:
    values = json.loads(attributes) if attributes else {}
    flags = "".join(f"\t\t<{flag}>{int(bool(values.get(flag)))}</{flag}>\n" for flag in FLAGS)
    pose = _xml(str(values.get("pose") or NO_POSE))
    return (
        f"\t<object>\n\t\t<name>{_xml(name)}</name>\n\t\t<pose>{pose}</pose>\n{flags}"
        "\t\t<bndbox>\n\t\t\t<xmin>"
    )


def voc_losses(dataset: Dataset) -> list[str]:
    """Return one sentence with a count for each kind of content that writing loses or changes."""
    return [*box_losses(dataset, held=(*FLAGS, "pose")), *class_losses(dataset)]
