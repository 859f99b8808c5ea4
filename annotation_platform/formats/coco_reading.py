"""COCO files as they are read: whatever says boxes, outlines, run lengths, points or classes."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from annotation_platform.errors import FormatError
from annotation_platform.formats.files import (
    finite_numbers,
    image_ids,
    make_dataset,
    make_ontology,
    read_json,
    refuse_link,
    refuse_way_out,
)
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import POINTS, Label
from annotation_platform.schema.shapes.raster import (
    checked,
    counts_from_text,
    extent,
    text_from_counts,
)
from annotation_platform.schema.tables.shared import SPLITS

_MOST_PIXELS = 10**9
_MOST_MASKED = 2**32
_NAMED = re.compile(r"(instances|person_keypoints|stuff|labels)_(train|val|test)(\d{4})?")
_ROBOFLOW = "_annotations.coco.json"
_TURNED = "rotated_box"
"""The key of a geometry of ours that COCO lacks."""

_SAYS_WHERE = {"bbox", _TURNED, "segmentation", "keypoints", "caption", "segments_info"}
_HIDDEN = 1


@dataclass(frozen=True)
class _File:
    """A file of a dataset, its split, and the folder that its images' names begin in."""

    path: Path
    split: str
    folder: str = ""


@dataclass(frozen=True)
class _Category:
    """A class, and the names of the points that its objects have."""

    name: str
    points: tuple[str, ...]


_Row = dict[str, object]


def read_coco(path: Path) -> Dataset:
    """Return the dataset of one COCO file, or of a folder (or its ``coco`` or ``annotations``).

    A file called train.json, val.json or test.json gives its images that split, and so does one
    that is called as COCO's own (``instances_val2017.json``); any other, none. A folder without
    such files may be one as Roboflow exports it, with a folder for each split.
    ``file_name`` stays as written, folders included; ``image_id`` is the shortest form of it that
    tells all images apart (see ``files.image_ids``).

    An annotation is a rotated box, if it has the key ``rotated_box``; else a polygon or a mask
    with the box around that, if it has a segmentation; else its ``bbox`` as it stands, those
    without area included; crowds have the attribute ``crowd``. Its labelled points are labels of
    their own, of the same ``instance``; one point under its own name, and no extent, is just that
    point. Points without a name are numbered. A file whose annotations say nowhere where they are
    holds choices. Points whose name is no category get ids behind those of the categories.

    Raises:
        FormatError: a file is no COCO file, or a link out of the folder, or says what cannot be
            used, or names an image outside its folder.
    """
    for file in _coco_files(path):
        if path.is_dir():
            refuse_link(file.path, path)
    dataset = _read(path)
    for name in dataset.images["file_name"]:
        refuse_way_out(name, where=path)
    return dataset


def _read(path: Path) -> Dataset:
    categories: dict[int, _Category] = {}
    images: list[_Row] = []
    labels: list[_Row] = []
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
    """Return the boxes of what ``read_coco`` reads, and those around outlines; crowds are none.

    Images may be named as they were wherever the labels were made, and files may be links, as
    they are in a checkout of DVC's: the caller matches images by name, and knows the folder.
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
                f"it has files of several kinds ({', '.join(sorted(kinds))}), which say the same "
                "images' labels in several ways",
                "Name one file, or put those of one kind into a folder of their own.",
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
    raise FormatError(str(path), 0, "no .json file in it", "Name a COCO file or its folder.")


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


def _categories(data: dict[str, Any], file: Path) -> dict[int, _Category]:
    found: dict[int, _Category] = {}
    for number, entry in enumerate(data["categories"]):
        place = f"categories[{number}]"
        key, name = _whole(entry, "id", place, file), _string(entry, "name", place, file)
        points = entry.get("keypoints") or []
        if not isinstance(points, list) or not all(isinstance(each, str) for each in points):
            raise _bad_field(file, place, "keypoints", points, "a list of names")
        category = _Category(name, tuple(points))
        if found.setdefault(key, category) != category:
            raise FormatError(str(file), 0, f"{place} uses id {key} again", "Give it its own id.")
    return found


def _unite(categories: dict[int, _Category], key: int, category: _Category, file: Path) -> None:
    known = categories.setdefault(key, category)
    if known.name != category.name:
        raise FormatError(
            str(file),
            0,
            f"category {key} is {category.name!r} here and {known.name!r} in another file",
            "Give each class one id.",
        )
    # Each file counts its points by its own list.
    categories[key] = category


def _ontology(categories: dict[int, _Category], labels: list[_Row], path: Path) -> Ontology:
    names = {key: category.name for key, category in categories.items()}
    used = {str(label["class_name"]) for label in labels if label["shape"] in POINTS}
    listed = dict.fromkeys(name for key in sorted(categories) for name in categories[key].points)
    more = [*listed, *sorted(used - listed.keys())]
    for name in more:
        if name not in names.values():
            names[max(names) + 1] = name
    return make_ontology(names, where=path)


def _read_images(data: dict[str, Any], file: Path, images: list[_Row]) -> dict[object, int]:
    row_of: dict[object, int] = {}
    for number, entry in enumerate(data["images"]):
        place = f"images[{number}]"
        name = _string(entry, "file_name", place, file)
        row_of[_whole(entry, "id", place, file)] = len(images)
        images.append(
            {
                "file_name": name,
                "width": _side(entry, "width", place, file),
                "height": _side(entry, "height", place, file),
            }
        )
    if len(row_of) != len(data["images"]):
        raise FormatError(str(file), 0, "two images have the same id", "Give each its own id.")
    return row_of


def _read_annotations(
    data: dict[str, Any],
    file: Path,
    row_of: dict[object, int],
    images: list[_Row],
    categories: dict[int, _Category],
) -> Iterator[_Row]:
    entries = data["annotations"]
    is_placed = any(isinstance(each, dict) and _SAYS_WHERE & each.keys() for each in entries)
    seen: set[object] = set()
    for number, entry in enumerate(entries):
        place = f"annotations[{number}]"
        image = _whole(entry, "image_id", place, file)
        category = _whole(entry, "category_id", place, file)
        if image not in row_of:
            raise _unlisted(file, f"{place} is on image {image}", "image")
        if category not in categories:
            raise _unlisted(file, f"{place} has category {category}", "category")
        key = entry.get("id")
        if isinstance(key, int) and key in seen:
            problem = f"{place} has the id {key} of another annotation"
            raise FormatError(str(file), 0, problem, "Give each its own id.")
        seen.add(key if isinstance(key, int) else None)
        row = row_of[image]
        try:
            found = (
                list(_labels(entry, categories[category], images[row], number))
                if is_placed
                else [{"class_name": categories[category].name, "shape": "choice"}]
            )
        except _EntryError as error:
            raise FormatError(
                str(file), 0, f"{place} has {error}", "Correct or remove the annotation."
            ) from error
        yield from ({"row": row, **label} for label in found)


def _unlisted(file: Path, problem: str, what: str) -> FormatError:
    return FormatError(
        str(file),
        0,
        f"{problem}, which is not listed",
        f"Add the {what}, or correct or remove the annotation.",
    )


class _EntryError(ValueError):
    """An annotation says what cannot be used: which, and what was expected."""


def _labels(entry: dict[str, Any], category: _Category, image: _Row, number: int) -> Iterator[_Row]:
    """Yield the rows of one annotation: its outline, and its points."""
    points = list(_points(entry, category))
    attributes = _attributes(entry)
    said = entry.get("instance", "")
    if not isinstance(said, str | int):
        raise _EntryError(f"instance {said!r:.80}, expected a text")
    segmentation = entry.get("segmentation")
    is_bare = not segmentation and not entry.get(_TURNED)
    box = finite_numbers(entry["bbox"]) if _is_four(entry.get("bbox")) else None
    if is_bare and box and len(points) == 1 and box[2:] == [0, 0]:
        label, hidden = points[0]
        if label.class_name == category.name:
            yield _row(label, str(said), {**attributes, **hidden})
            return
    instance = str(said) or (f"{entry.get('id', number)}" if points else "")
    if entry.get("iscrowd"):
        attributes["crowd"] = 1
    yield _row(_outline(entry, category.name, image), instance, attributes)
    for label, hidden in points:
        yield _row(label, instance, hidden)


def _row(label: Label, instance: str, attributes: dict[str, Any]) -> _Row:
    try:
        text = json.dumps(attributes, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise _EntryError(f"attributes that no other file could hold ({error})") from error
    row: _Row = {key: getattr(label, key) for key in ["class_name", *BOX_COLUMNS]}
    row |= {"shape": label.shape, "geometry": label.geometry, "instance": instance}
    return row | {"attributes": text if attributes else ""}


def _attributes(entry: dict[str, Any]) -> dict[str, Any]:
    attributes = entry.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise _EntryError(f"attributes {attributes!r:.80}, expected an object")
    return dict(attributes)


def _is_four(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4


def _outline(entry: dict[str, Any], name: str, image: _Row) -> Label:
    if _TURNED in entry:
        return _rotated_box(entry[_TURNED], name, image)
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, dict):
        return _mask(segmentation, name, image)
    if segmentation and segmentation != [[]]:
        return _polygon(segmentation, name)
    box = entry.get("bbox")
    numbers = finite_numbers(box) if isinstance(box, list) and len(box) == 4 else None
    if numbers is None or numbers[2] < 0 or numbers[3] < 0:
        raise _EntryError(f"bbox {box!r:.80}, expected [x, y, width, height]")
    x, y, width, height = numbers
    return Label.box(name, x, y, x + width, y + height)


def _rotated_box(said: object, name: str, image: _Row) -> Label:
    numbers = finite_numbers(said) if isinstance(said, list) and len(said) == 5 else None
    if numbers is None or numbers[2] < 0 or numbers[3] < 0:
        raise _EntryError(f"rotated_box {said!r:.80}, expected [x, y, width, height, degrees]")
    label = Label.rotated_box(name, *numbers)
    # What reaches outside has the box around what is seen of it.
    seen = [[label.x1, label.y1], [label.x2, label.y2]]
    (x1, y1), (x2, y2) = np.clip(np.array(seen), 0, _size(image)).tolist()
    return replace(label, x1=x1, y1=y1, x2=x2, y2=y2)


def _size(image: _Row) -> tuple[int, int]:
    return int(str(image["width"])), int(str(image["height"]))


def _polygon(segmentation: object, name: str) -> Label:
    outlines = []
    for outline in segmentation if isinstance(segmentation, list) else [None]:
        numbers = finite_numbers(outline) if isinstance(outline, list) else None
        if numbers is None or len(numbers) < 6 or len(numbers) % 2:
            raise _EntryError(
                f"an outline {outline!r:.80} in its segmentation, expected three points or more"
            )
        outlines.append(numbers)
    return Label.polygon(name, outlines)


def _mask(runs: dict[str, Any], name: str, image: _Row) -> Label:
    width, height = _size(image)
    if runs.get("size") != [height, width]:
        raise _EntryError(
            f"a mask of size {runs.get('size')!r:.40}, expected its image's {[height, width]}"
        )
    if width * height >= _MOST_MASKED:
        raise _EntryError(f"a mask of {width} × {height} pixels, more than 32 bits can count")
    said = runs.get("counts")
    if not isinstance(said, str) and not _are_lengths(said, width * height):
        raise _EntryError("a mask whose counts are no list of run lengths, nor their text")
    try:
        counts = counts_from_text(said) if isinstance(said, str) else np.array(said, np.int64)
        counts = checked(counts, width=width, height=height)
    except ValueError as error:
        raise _EntryError(f"a mask that is none: {error}") from error
    text = text_from_counts(counts, width=width, height=height)
    geometry = json.dumps({"size": [height, width], "counts": text})
    return Label("mask", name, geometry, *extent(counts, height=height))


def _are_lengths(said: object, most: int) -> bool:
    return isinstance(said, list) and all(type(each) is int and 0 <= each <= most for each in said)


def _points(entry: dict[str, Any], category: _Category) -> Iterator[tuple[Label, dict[str, Any]]]:
    """Yield the labelled points, and whether each is hidden."""
    said = entry.get("keypoints") or []
    numbers = finite_numbers(said) if isinstance(said, list) else None
    if numbers is None or len(numbers) % 3:
        raise _EntryError(f"keypoints {said!r:.80}, expected x, y and visibility of each")
    names: Sequence[str] = category.points
    for place in range(len(numbers) // 3):
        x, y, seen = numbers[3 * place : 3 * place + 3]
        if seen:
            name = names[place] if place < len(names) else f"{category.name} {place + 1}"
            yield Label.keypoint(name, x, y), {"hidden": 1} if seen == _HIDDEN else {}


def _whole(entry: object, key: str, place: str, file: Path) -> int:
    value = entry.get(key) if isinstance(entry, dict) else None
    if isinstance(value, bool) or not (
        isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    ):
        raise _bad_field(file, place, key, value, "a whole number")
    return int(value)


def _side(entry: object, key: str, place: str, file: Path) -> int:
    value = _whole(entry, key, place, file)
    if not 1 <= value < _MOST_PIXELS:
        raise _bad_field(file, place, key, value, "a number of pixels")
    return value


def _string(entry: object, key: str, place: str, file: Path) -> str:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, str) or not value:
        raise _bad_field(file, place, key, value, "text")
    return value


def _bad_field(file: Path, place: str, key: str, value: object, wanted: str) -> FormatError:
    problem = f"{place} has {key} {value!r}, expected {wanted}"
    return FormatError(str(file), 0, problem, "Correct the entry or export the file again.")
