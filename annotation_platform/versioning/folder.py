"""Render the text files of a version's folder: YOLO labels, Parquet tables, COCO files, the card.

The files depend on content only: they hold no times, no local paths and no version number. Equal
training sets give equal bytes whatever the order of their rows, so DVC's digest of the folder
changes exactly when the content does.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from annotation_platform.errors import PublishError
from annotation_platform.formats.yolo import render_yolo
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import Frame, TrainingSet
from annotation_platform.versioning.audit import KEPT_TOGETHER, audit_folder
from annotation_platform.versioning.card import FolderFacts, render_card
from annotation_platform.versioning.label_tree import labels_root
from annotation_platform.versioning.reuse import (
    REUSABLE,
    LastVersion,
    ReusableRows,
    find_reusable,
    is_in,
    no_version,
    published_columns,
    render_shards,
    shards_of,
    update_coco,
)

__all__ = ["Folder", "FolderFacts", "ImageFile", "build_folder", "image_files"]


@dataclass(frozen=True)
class ImageFile:
    """One image file of the folder; its MD5 is known from cleaning, so it is not read again."""

    path: str  # within the folder
    image_id: str
    extension: str
    md5: str
    byte_size: int


@dataclass(frozen=True)
class Folder:
    """The content of a version: rendered files by path, image files by MD5, and their counts.

    ``reused`` maps the paths of files that did not change since the previous version to their MD5,
    image files included; these are neither in ``texts`` nor in ``images``. ``byte_size`` is the
    size of all files.
    """

    texts: dict[str, bytes]
    md5s: dict[str, str]  # of the texts, by path
    images: list[ImageFile]
    facts: FolderFacts
    labels_root: str  # root of the Merkle tree of its labels, see label_tree.py
    byte_size: int
    reused: dict[str, str]
    audits: dict[str, int]


def build_folder(
    training_set: Frame[TrainingSet],
    ontology: Ontology,
    *,
    name: str,
    last: LastVersion | None = None,
    keep_together: Sequence[str] = (),
) -> Folder:
    """Return the content of a version of ``training_set``; the order of its rows has no effect.

    The files are the images, ``labels/`` and ``data.yaml`` (YOLO), ``coco/``, ``annotations/``
    (Parquet, sharded by the first digit of the image id) and the card. With ``last``, the previous
    version, only changes are rendered; the result is the same. ``keep_together`` goes to the audit.

    Raises:
        PublishError: there are no images; an image has two splits or two contents; the ontology
            lacks a class or lists it under another id.
        TableError: ``training_set`` does not have the declared columns.
    """
    if training_set.empty:
        raise PublishError("the training set is empty: there is nothing to publish yet.")
    whole = _sorted(training_set)
    frame = published_columns(whole)
    last, rows = _find_reusable(frame, last)
    changed, replaced = frame[~rows.now], last.training_set[~rows.before]
    _check(whole[~rows.now], frame[rows.now], ontology)
    dataset = Dataset.from_training_set(changed, ontology)
    shards = shards_of(changed) | shards_of(replaced)
    texts = {
        **render_yolo(dataset),
        **update_coco(frame, dataset, rows, last),
        **render_shards(frame, shards),
    }
    images = image_files(changed)
    replaced_sizes = _replaced_sizes(replaced, ontology, last, shards)
    reused = dict(last.files)
    for path in replaced_sizes:
        del reused[path]
    # Hashing releases Python's global lock, so the audit runs at the same time.
    with ThreadPoolExecutor(max_workers=1) as pool:
        hashing = pool.submit(_md5s, dict(texts))
        labels_hashing = pool.submit(labels_root, frame)
        files = reused | {image.path: image.md5 for image in images} | dict.fromkeys(texts, "")
        audits = audit_folder(frame, files, texts, keep_together=keep_together)
        # The card depends on content only, but ``keep_together`` is a part of the policy.
        of_content = {key: count for key, count in audits.items() if key != KEPT_TOGETHER}
        card = render_card(frame, ontology, of_content, name=name)
        md5s = hashing.result() | _md5s(card.texts)
    texts |= card.texts
    added = sum(map(len, texts.values())) + sum(image.byte_size for image in images)
    return Folder(
        texts=texts,
        md5s=md5s,
        images=images,
        facts=card.facts,
        labels_root=labels_hashing.result(),
        byte_size=last.byte_size - sum(replaced_sizes.values()) + added,
        reused=reused,
        audits=audits,
    )


def _find_reusable(
    frame: Frame[TrainingSet], last: LastVersion | None
) -> tuple[LastVersion, ReusableRows]:
    """Return the previous version, empty if nothing of it can be reused, and the reusable rows."""
    if last is not None:
        rows = find_reusable(frame, last.training_set)
        if rows.now.any():
            return last, rows
    last = no_version(frame)
    return last, find_reusable(frame, last.training_set)


def _replaced_sizes(
    replaced: Frame[TrainingSet], ontology: Ontology, last: LastVersion, shards: Collection[str]
) -> dict[str, int]:
    """Return path and size in bytes of the files of the previous version that are not reused."""
    # Old label files are rendered again only for their sizes.
    sizes = {path: len(data) for path, data in _yolo_labels(replaced, ontology).items()}
    sizes |= {image.path: image.byte_size for image in image_files(replaced)}
    return sizes | {
        path: len(data)
        for path, data in last.texts.items()
        if path in shards or not path.startswith(REUSABLE)
    }


def _md5s(texts: Mapping[str, bytes]) -> dict[str, str]:
    return {
        path: hashlib.md5(data, usedforsecurity=False).hexdigest() for path, data in texts.items()
    }


def image_files(frame: Frame[TrainingSet]) -> list[ImageFile]:
    """Return the image files of a training set, sorted by path."""
    images = frame.drop_duplicates(TrainingSet.image_id)
    columns = [
        *(TrainingSet.split, TrainingSet.image_id, TrainingSet.extension),
        *(TrainingSet.stored_md5, TrainingSet.stored_bytes),
    ]
    rows = zip(*(images[name].tolist() for name in columns), strict=True)
    return sorted(
        (
            ImageFile(f"images/{split}/{image_id}.{extension}", image_id, extension, md5, size)
            for split, image_id, extension, md5, size in rows
        ),
        key=lambda file: file.path,
    )


def _sorted(training_set: Frame[TrainingSet]) -> Frame[TrainingSet]:
    """Return the training set sorted by image and label."""
    keys = [TrainingSet.image_id, TrainingSet.label_id]
    image, label = (pa.array(training_set[name]) for name in keys)
    ascending = pc.or_(
        pc.less(image[:-1], image[1:]),
        pc.and_(pc.equal(image[:-1], image[1:]), pc.less(label[:-1], label[1:])),
    )
    # It is usually sorted already, and this test takes a tenth of the time of sorting.
    if pc.all(ascending, min_count=0).as_py():
        return training_set.reset_index(drop=True)
    return training_set.sort_values(keys, ignore_index=True)


def _check(changed: Frame[TrainingSet], reused: Frame[TrainingSet], ontology: Ontology) -> None:
    """Refuse rows that must not be published; reused rows were checked when they were new."""
    changed = TrainingSet.check(changed)
    if is_in(reused[TrainingSet.label_id], changed[TrainingSet.label_id]).any():
        raise PublishError(
            "two images have a label with the same id. Rebuild training_set and publish again."
        )
    facts_of_image = [
        *(TrainingSet.split, TrainingSet.group_id, TrainingSet.extension),
        *(TrainingSet.stored_md5, TrainingSet.stored_bytes, TrainingSet.origin),
    ]
    facts = changed.groupby(TrainingSet.image_id)[facts_of_image]
    different = facts.nunique().gt(1).any(axis=1)
    if different.any():
        raise PublishError(
            f"image {different.idxmax()}: its rows name different splits, groups, contents or "
            "origins. Rebuild training_set and publish again."
        )
    labels = changed[changed[TrainingSet.class_name].notna()]
    is_wrong = labels[TrainingSet.class_id] != labels[TrainingSet.class_name].map(ontology.id_of)
    if is_wrong.fillna(True).any():
        row = labels[is_wrong.fillna(True)].iloc[0]
        raise PublishError(
            f"image {row[TrainingSet.image_id]}: class {row[TrainingSet.class_name]!r} with id "
            f"{row[TrainingSet.class_id]} is not in the ontology. Correct params.yaml or rebuild "
            "training_set."
        )


def _yolo_labels(frame: Frame[TrainingSet], ontology: Ontology) -> dict[str, bytes]:
    texts = render_yolo(Dataset.from_training_set(frame, ontology))
    return {path: data for path, data in texts.items() if path.startswith("labels/")}
