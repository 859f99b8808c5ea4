"""Reading of COCO files: boxes, outlines, run lengths, keypoints and choices."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from annotation_platform.errors import FormatError
from annotation_platform.formats.coco_annotations import (
    POSITION_KEYS,
    Category,
    DatasetRow,
    EntryError,
    labels_of_annotation,
)
from annotation_platform.formats.files import (
    image_ids,
    make_dataset,
    make_ontology,
    read_json,
    refuse_link,
    refuse_way_out,
)
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import POINTS
from annotation_platform.schema.tables.shared import SPLITS

_MOST_PIXELS = 10**9
_NAMED = re.compile(r"(instances|person_keypoints|stuff|labels)_(train|val|test)(\d{4})?")
_ROBOFLOW = "_annotations.coco.json"


@dataclass(frozen=True)
class _File:
    """A file of a dataset, its split, and the prefix that its images' file names lack."""

    path: Path
    split: str
    folder: str = ""


def read_coco(path: Path) -> Dataset:
    """Return the dataset of one COCO file, or of a folder (or its ``coco`` or ``annotations``).

    The images of train.json, val.json or test.json have that split, and so do those of files
    named as in COCO itself (``instances_val2017.json``); images of other files have none. A folder
    without such files may be a Roboflow export, with a folder for each split.
    ``file_name`` is the name in the file, folders included; ``image_id`` is its shortest form that
    is unique (see ``files.image_ids``).

    An annotation with the key ``rotated_box`` is a rotated box; with a segmentation, a polygon or
    a mask, with the enclosing box of that; otherwise its unchanged ``bbox``, even without area.
    Crowds have the attribute ``crowd``. Labelled keypoints are labels of their own with the same
    ``instance``; an annotation without extent that has one keypoint, named as its category, is
    that keypoint alone. Keypoints without a name are numbered. In a file whose annotations all
    lack a position, annotations are choices. Keypoints without a category get ids above those of
    the categories.

    Raises:
        FormatError: a file is not a COCO file, is a link out of the folder, has an unusable value,
            or names an image outside its folder.
    """
    for file in _coco_files(path):
        if path.is_dir():
            refuse_link(file.path, path)
    dataset = _read(path)
    for name in dataset.images["file_name"]:
        refuse_way_out(name, where=path)
    return dataset


def _read(path: Path) -> Dataset:
    categories: dict[int, Category] = {}
    images: list[DatasetRow] = []
    labels: list[DatasetRow] = []
    for file in _coco_files(path):
        data = _load(file.path)
        for key, category in _categories(data, file.path).items():
            _unite(categories, key, category, file.path)
        first = len(images)
        row_of = _read_images(data, file.path, images)
        for image in images[first:]:
            image["split"] = file.split
            image["file_name"] = f"{file.folder}{image['file_name']}"
        labels.extend(_read_annotations(data, file.path, row_of, images, categories))
    ids = image_ids([str(image["file_name"]) for image in images], where=path)
    for image, image_id in zip(images, ids, strict=True):
        image["image_id"] = image_id
    for label in labels:
        label["image_id"] = ids[label.pop("row")]  # type: ignore[call-overload]
    return make_dataset(images, labels, _ontology(categories, labels, path))


def read_coco_boxes(path: Path) -> Dataset:
    """Return the boxes, and enclosing boxes of outlines, that ``read_coco`` reads; without crowds.

    File names of images may lead anywhere, because the caller matches images by name. Files may be
    links, as in a DVC checkout.
    """
    dataset = _read(path)
    is_crowd = dataset.labels["attributes"].map(
        lambda text: bool(text) and bool(json.loads(text).get("crowd"))
    )
    return replace(dataset, labels=dataset.labels[~is_crowd.astype(bool)]).boxes()


def _coco_files(path: Path) -> list[_File]:
    if not path.is_dir():
        return [_File(path, _split(path))]
    for folder in (path / "coco", path / "annotations", path):
        files = sorted(folder.glob("*.json"))
        kinds = {named[1] for file in files if (named := _NAMED.fullmatch(file.stem))}
        if len(kinds) > 1:
            raise FormatError(
                str(folder),
                0,
                f"it has files of several kinds ({', '.join(sorted(kinds))}) with different labels "
                "of the same images",
                "Name one file, or put the files of one kind into a separate folder.",
            )
        if files:
            return [_File(file, _split(file)) for file in files]
    files = sorted(path.glob(f"*/{_ROBOFLOW}"))
    if files:
        splits = [file.parent.name.replace("valid", "val") for file in files]
        return [
            _File(file, split if split in SPLITS else "", f"{file.parent.name}/")
            for file, split in zip(files, splits, strict=True)
        ]
    raise FormatError(
        str(path), 0, "no .json file in the folder", "Name a COCO file or its folder."
    )


def _split(file: Path) -> str:
    named = _NAMED.fullmatch(file.stem)
    split = named[2] if named else file.stem
    return split if split in SPLITS else ""


def _load(file: Path) -> dict[str, Any]:
    data = read_json(file)
    wanted = ("images", "annotations", "categories")
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in wanted):
        raise FormatError(
            str(file),
            0,
            "not a COCO detection file: it lacks images, annotations or categories",
            "Export the labels as COCO with boxes.",
        )
    return data


def _categories(data: dict[str, Any], file: Path) -> dict[int, Category]:
    found: dict[int, Category] = {}
    for number, entry in enumerate(data["categories"]):
        location = f"categories[{number}]"
        key, name = _whole(entry, "id", location, file), _string(entry, "name", location, file)
        points = entry.get("keypoints") or []
        if not isinstance(points, list) or not all(isinstance(each, str) for each in points):
            raise _bad_field(file, location, "keypoints", points, "a list of names")
        category = Category(name, tuple(points))
        if found.setdefault(key, category) != category:
            raise FormatError(
                str(file), 0, f"{location} uses id {key} again", "Give it its own id."
            )
    return found


def _unite(categories: dict[int, Category], key: int, category: Category, file: Path) -> None:
    known = categories.setdefault(key, category)
    if known.name != category.name:
        raise FormatError(
            str(file),
            0,
            f"category {key} is {category.name!r} here and {known.name!r} in another file",
            "Give each class one id.",
        )
    # Keypoints of a file are numbered by that file's own list.
    categories[key] = category


def _ontology(categories: dict[int, Category], labels: list[DatasetRow], path: Path) -> Ontology:
    names = {key: category.name for key, category in categories.items()}
    used = {str(label["class_name"]) for label in labels if label["shape"] in POINTS}
    listed = dict.fromkeys(name for key in sorted(categories) for name in categories[key].points)
    more = [*listed, *sorted(used - listed.keys())]
    for name in more:
        if name not in names.values():
            names[max(names) + 1] = name
    return make_ontology(names, where=path)


def _read_images(data: dict[str, Any], file: Path, images: list[DatasetRow]) -> dict[object, int]:
    row_of: dict[object, int] = {}
    for number, entry in enumerate(data["images"]):
        location = f"images[{number}]"
        name = _string(entry, "file_name", location, file)
        row_of[_whole(entry, "id", location, file)] = len(images)
        images.append(
            {
                "file_name": name,
                "width": _side(entry, "width", location, file),
                "height": _side(entry, "height", location, file),
            }
        )
    if len(row_of) != len(data["images"]):
        raise FormatError(str(file), 0, "two images have the same id", "Give each its own id.")
    return row_of


def _read_annotations(
    data: dict[str, Any],
    file: Path,
    row_of: dict[object, int],
    images: list[DatasetRow],
    categories: dict[int, Category],
) -> Iterator[DatasetRow]:
    entries = data["annotations"]
    has_positions = any(isinstance(each, dict) and POSITION_KEYS & each.keys() for each in entries)
    seen: set[object] = set()
    for number, entry in enumerate(entries):
        location = f"annotations[{number}]"
        image = _whole(entry, "image_id", location, file)
        category = _whole(entry, "category_id", location, file)
        if image not in row_of:
            raise _unlisted(file, f"{location} is on image {image}", "image")
        if category not in categories:
            raise _unlisted(file, f"{location} has category {category}", "category")
        key = entry.get("id")
        if isinstance(key, int) and key in seen:
            problem = f"{location} has the id {key} of another annotation"
            raise FormatError(str(file), 0, problem, "Give each its own id.")
        seen.add(key if isinstance(key, int) else None)
        row = row_of[image]
        try:
            found = (
                list(labels_of_annotation(entry, categories[category], images[row], number))
                if has_positions
                else [{"class_name": categories[category].name, "shape": "choice"}]
            )
        except EntryError as error:
            raise FormatError(
                str(file), 0, f"{location} has {error}", "Correct or remove the annotation."
            ) from error
        yield from ({"row": row, **label} for label in found)


def _unlisted(file: Path, problem: str, noun: str) -> FormatError:
    return FormatError(
        str(file),
        0,
        f"{problem}, which is not listed",
        f"Add the {noun}, or correct or remove the annotation.",
    )


def _whole(entry: object, key: str, location: str, file: Path) -> int:
    value = entry.get(key) if isinstance(entry, dict) else None
    if isinstance(value, bool) or not (
        isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    ):
        raise _bad_field(file, location, key, value, "a whole number")
    return int(value)


def _side(entry: object, key: str, location: str, file: Path) -> int:
    value = _whole(entry, key, location, file)
    if not 1 <= value < _MOST_PIXELS:
        raise _bad_field(file, location, key, value, "a number of pixels")
    return value


def _string(entry: object, key: str, location: str, file: Path) -> str:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, str) or not value:
        raise _bad_field(file, location, key, value, "a string")
    return value


def _bad_field(file: Path, location: str, key: str, value: object, wanted: str) -> FormatError:
    problem = f"{location} has {key} {value!r}, expected {wanted}"
    return FormatError(str(file), 0, problem, "Correct the entry or export the file again.")
