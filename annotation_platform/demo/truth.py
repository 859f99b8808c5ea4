"""Images of the user with their ground truth, for a demo on real photographs."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.formats.coco import read_coco_boxes
from annotation_platform.formats.files import IMAGE_SUFFIXES
from annotation_platform.formats.voc import read_voc
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS, as_boxes, box_areas
from annotation_platform.schema.ontology import Ontology


@dataclass(frozen=True)
class Truth:
    """The ground truth of the images in a folder.

    In ``dataset`` an ``image_id`` is the SHA-256 of the file's bytes, as in the platform, and
    ``file_name`` is relative to the folder; the ontology's classes are numbered from the most
    frequent one. ``problems`` has one sentence for each image, box or file that was left out.
    """

    dataset: Dataset
    problems: tuple[str, ...]


def read_truth(images: Path, truth: Path) -> Truth:
    """Return the ground truth of the images in a folder.

    Args:
        images: folder of images; its subfolders are included.
        truth: folder of Pascal VOC ``*.xml`` files (subfolders included), one such file, a COCO
            ``.json`` file, or a folder of them.

    Returns:
        Every image that has an entry, with or without boxes. Boxes without area, entries without
        an image, images without an entry and repeated images are left out and named.

    Raises:
        DataError: a folder is missing, unreadable or empty, the ground truth has neither format,
            or it names no image of the folder.
    """
    image_paths = _image_paths(images)
    read, problems = _read(images, truth, image_paths)
    by_name = _by_name(image_paths)
    found, missing = {}, []
    for image_id, name in zip(read.images["image_id"], read.images["file_name"], strict=True):
        image_name = name if name in image_paths else by_name.get(Path(name).name, "")
        if image_name:
            found[image_id] = image_name
        else:
            missing.append(name)
    if not found:
        raise DataError(
            f"{truth}: names no image of {images}, but {_some(missing)}. "
            "Pass the folder that holds these images as --images."
        )
    if missing:
        problems.append(f"{truth}: {len(missing)} images are not in {images}: {_some(missing)}")
    unknown = sorted(set(image_paths) - set(found.values()))
    if unknown:
        problems.append(f"{images}: {len(unknown)} images have no ground truth: {_some(unknown)}")
    return _by_content(read, found, image_paths, problems)


def _image_paths(images: Path) -> dict[str, Path]:
    """Return the images of a folder by their name relative to it."""
    if not images.is_dir():
        raise DataError(f"{images}: no such folder. Pass the folder of images as --images.")
    try:
        next(images.iterdir(), None)
        files = [path for path in images.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES]
    except OSError as error:
        raise DataError(
            f"{images}: {error.strerror or 'cannot be read'}. Check the folder's permissions."
        ) from error
    if not files:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(
            f"{images}: no images in it ({suffixes}). Pass the folder of images as --images."
        )
    return {path.relative_to(images).as_posix(): path for path in sorted(files)}


def _by_name(image_paths: dict[str, Path]) -> dict[str, str]:
    """Return the images by their file name, without names that occur in several folders."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in image_paths:
        groups[Path(name).name].append(name)
    return {last: names[0] for last, names in groups.items() if len(names) == 1}


def _read(images: Path, truth: Path, image_paths: dict[str, Path]) -> tuple[Dataset, list[str]]:
    """Return the ground truth as its format gives it, and the problems found."""
    if not truth.exists():
        raise DataError(
            f"{truth}: no such file or folder. "
            "Pass a folder of VOC files or a COCO .json as --truth."
        )
    if truth.is_file() and truth.suffix.lower() != ".xml":
        return read_coco_boxes(truth), []
    files = [truth] if truth.is_file() else sorted(truth.glob("*.xml"))
    if not files:
        files = sorted(truth.rglob("*.xml"))
    if not files:
        return read_coco_boxes(truth), []
    # A VOC file is named like its image; files of images in other folders are skipped.
    stems = {Path(name).stem for name in image_paths}
    ours = [path for path in files if path.stem in stems]
    others = [path.name for path in files if path.stem not in stems]
    if not ours:
        raise DataError(
            f"{truth}: names no image of {images}, but {_some(others)}. "
            "Pass the folder that holds these images as --images."
        )
    # VOC names an image without its folder; if all images are in one folder, it is that one.
    named = {path.stem for path in ours}
    folders = {path.parent for path in image_paths.values() if path.stem in named}
    reading = read_voc(ours, folders.pop() if len(folders) == 1 else images)
    problems = list(reading.problems)
    if others:
        problems.append(f"{truth}: {len(others)} files have no image in {images}: {_some(others)}")
    return reading.dataset, problems


def _by_content(
    read: Dataset, found: dict[str, str], image_paths: dict[str, Path], problems: list[str]
) -> Truth:
    """Return the ground truth by the digests of the images' bytes."""
    digests: dict[str, str] = {}
    first: dict[str, str] = {}
    for image_id, name in found.items():
        digest = _sha256(image_paths[name])
        if digest in first:
            problems.append(
                f"{name}: the same bytes as {first[digest]}, whose ground truth is used"
            )
        else:
            first[digest] = name
            digests[image_id] = digest
    labels = read.labels[read.labels["image_id"].isin(digests)]
    flat = box_areas(as_boxes(labels[BOX_COLUMNS].to_numpy())) <= 0
    problems += [
        f"{found[image_id]}: a box of class {name!r} has no area"
        for image_id, name in zip(labels["image_id"][flat], labels["class_name"][flat], strict=True)
    ]
    labels = labels[~flat]
    listed = read.images[read.images["image_id"].isin(digests)]
    return Truth(
        dataset=Dataset(
            images=listed.assign(
                file_name=listed["image_id"].map(found), image_id=listed["image_id"].map(digests)
            ).reset_index(drop=True),
            labels=labels.assign(image_id=labels["image_id"].map(digests)).reset_index(drop=True),
            ontology=_most_frequent_first(labels["class_name"], read.ontology),
        ),
        problems=tuple(problems),
    )


def _most_frequent_first(class_names: "pd.Series[str]", ontology: Ontology) -> Ontology:
    counts = class_names.value_counts().to_dict()
    return Ontology.from_names(
        sorted(ontology.names, key=lambda name: (-counts.get(name, 0), name))
    )


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror or 'cannot be read'}. Check the file's permissions."
        ) from error


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
