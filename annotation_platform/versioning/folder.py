"""The text half of a version's folder: labels, canonical tables, COCO, the card.

Facts about content only: no times, no paths, no version number, nothing that changes by itself.
Equal training sets give equal bytes whatever the order of their rows, so DVC's digest of the
folder says whether anything changed.
"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from annotation_platform.errors import PublishError
from annotation_platform.formats.yolo import render_yolo
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import TrainingSet
from annotation_platform.versioning.audit import KEPT_TOGETHER, audit_folder
from annotation_platform.versioning.card import FolderFacts, render_card
from annotation_platform.versioning.label_tree import labels_root
from annotation_platform.versioning.reuse import (
    KEPT,
    LastVersion,
    find_reusable,
    is_in,
    no_version,
    render_coco_again,
    render_shards,
    shards_of,
)

__all__ = ["Folder", "FolderFacts", "ImageFile", "build_folder", "image_files"]


@dataclass(frozen=True)
class ImageFile:
    """One image of the folder, known by its MD5 since cleaning and not read again."""

    path: str  # within the folder
    image_id: str
    extension: str
    md5: str
    byte_size: int


@dataclass(frozen=True)
class Folder:
    """The content of a version: rendered files by path, images by MD5, and their counts.

    ``kept`` are the files that are as they were in the version before, path to MD5, images among
    them; they are neither in ``texts`` nor in ``images``. ``byte_size`` is that of all.
    """

    texts: dict[str, bytes]
    md5s: dict[str, str]  # of the texts, by path
    images: list[ImageFile]
    facts: FolderFacts
    labels_root: str  # of the tree of its labels, see label_tree.py
    byte_size: int
    kept: dict[str, str]
    audits: dict[str, int]


def build_folder(
    training_set: pd.DataFrame,
    ontology: Ontology,
    *,
    name: str,
    last: LastVersion | None = None,
    keep_together: Sequence[str] = (),
) -> Folder:
    """Return what a version of ``training_set`` consists of; the order of its rows is no matter.

    Beside the images: ``labels/`` and ``data.yaml`` (YOLO), ``coco/``, ``annotations/`` (Parquet,
    sharded by the first digit of the image id), and the card. With ``last``, the same files come of
    rendering what has changed since. ``keep_together`` names metadata whose equal values the audit
    looks for in two splits.

    Raises:
        PublishError: there are no images; an image has two splits or two contents; the ontology
            lacks a class or knows it under another id.
        TableError: it is no ``training_set`` table.
    """
    if training_set.empty:
        raise PublishError("the training set is empty: there is nothing to publish yet.")
    frame = _sorted(training_set)
    last = last or no_version(frame)
    stays = find_reusable(frame, last.training_set)
    if not stays.now.any():
        last = no_version(frame)
        stays = find_reusable(frame, last.training_set)
    changed, left = frame[~stays.now], last.training_set[~stays.before]
    _check(changed, frame[stays.now], ontology)
    dataset = Dataset.from_training_set(changed, ontology)
    shards = shards_of(changed) | shards_of(left)
    texts = {
        **render_yolo(dataset),
        **render_coco_again(frame, dataset, stays, last),
        **render_shards(frame, shards),
    }
    images = image_files(changed)
    # The labels of what left or changed are rendered as they were, for their sizes.
    gone = {path: len(data) for path, data in _yolo_labels(left, ontology).items()}
    gone |= {image.path: image.byte_size for image in image_files(left)}
    others = [path for path in last.texts if path in shards or not path.startswith(KEPT)]
    kept = dict(last.files)
    for path in [*gone, *others]:
        del kept[path]
    # Hashing leaves Python's lock: meanwhile what was rendered is looked at.
    with ThreadPoolExecutor(max_workers=1) as beside:
        hashing = beside.submit(_md5s, dict(texts))
        rooting = beside.submit(labels_root, frame)
        files = kept | {image.path: image.md5 for image in images} | dict.fromkeys(texts, "")
        audits = audit_folder(frame, files, texts, keep_together=keep_together)
        # The card is content, and what policy keeps together may change without it.
        of_content = {key: count for key, count in audits.items() if key != KEPT_TOGETHER}
        card = render_card(frame, ontology, of_content, name=name)
        md5s = hashing.result() | _md5s(card.texts)
    texts |= card.texts
    sizes = [*gone.values(), *(len(last.texts[path]) for path in others)]
    return Folder(
        texts=texts,
        md5s=md5s,
        images=images,
        facts=card.facts,
        labels_root=rooting.result(),
        byte_size=last.byte_size
        - sum(sizes)
        + sum(map(len, texts.values()))
        + sum(image.byte_size for image in images),
        kept=kept,
        audits=audits,
    )


def _md5s(texts: Mapping[str, bytes]) -> dict[str, str]:
    return {
        path: hashlib.md5(data, usedforsecurity=False).hexdigest() for path, data in texts.items()
    }


def image_files(frame: pd.DataFrame) -> list[ImageFile]:
    """Return the images of a training set, by path."""
    images = frame.drop_duplicates("image_id")
    names = ["split", "image_id", "extension", "stored_md5", "stored_bytes"]
    rows = zip(*(images[name].tolist() for name in names), strict=True)
    return sorted(
        (
            ImageFile(f"images/{split}/{image_id}.{extension}", image_id, extension, md5, size)
            for split, image_id, extension, md5, size in rows
        ),
        key=lambda file: file.path,
    )


def _sorted(training_set: pd.DataFrame) -> pd.DataFrame:
    """Return the training set by image and label; the same rows in any order give the same."""
    image, label = (pa.array(training_set[name]) for name in ("image_id", "label_id"))
    ascending = pc.or_(
        pc.less(image[:-1], image[1:]),
        pc.and_(pc.equal(image[:-1], image[1:]), pc.less(label[:-1], label[1:])),
    )
    # It comes sorted as a rule, and looking takes a tenth of the time.
    if pc.all(ascending, min_count=0).as_py():
        return training_set.reset_index(drop=True)
    return training_set.sort_values(["image_id", "label_id"], ignore_index=True)


def _check(changed: pd.DataFrame, kept: pd.DataFrame, ontology: Ontology) -> None:
    """Refuse what may not be published; what is kept was looked at when it was new."""
    changed = TrainingSet.check(changed)
    if is_in(kept["label_id"], changed["label_id"]).any():
        raise PublishError(
            "a label id is there twice, in two images. Rebuild training_set and publish again."
        )
    facts_of_image = ["split", "group_id", "extension", "stored_md5", "stored_bytes", "origin"]
    different = changed.groupby("image_id")[facts_of_image].nunique().gt(1).any(axis=1)
    if different.any():
        raise PublishError(
            f"image {different.idxmax()}: its rows name different splits, groups, contents or "
            "origins. "
            "Rebuild training_set and publish again."
        )
    boxes = changed[changed["class_name"].notna()]
    wrong = boxes["class_id"] != boxes["class_name"].map(ontology.id_of)
    if wrong.fillna(True).any():
        row = boxes[wrong.fillna(True)].iloc[0]
        raise PublishError(
            f"image {row['image_id']}: class {row['class_name']!r} with id {row['class_id']} is "
            "not in the ontology. Correct params.yaml or rebuild training_set."
        )


def _yolo_labels(frame: pd.DataFrame, ontology: Ontology) -> dict[str, bytes]:
    texts = render_yolo(Dataset.from_training_set(frame, ontology))
    return {path: data for path, data in texts.items() if path.startswith("labels/")}
