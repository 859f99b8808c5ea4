"""COCO detection files: one JSON per split, pixels as ``x y width height``.

Reading loses nothing but crowd regions and segmentation masks; writing loses the ontology's
colours, guidelines and order (classes come back ordered by id) and names images by file only.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from annotation_platform.errors import DataError, FormatError
from annotation_platform.formats.files import (
    class_ids,
    finite_numbers,
    image_ids,
    make_dataset,
    make_ontology,
    read_json,
    split_names,
    write_files,
)
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.tables import SPLITS

_XYWH = ["x", "y", "w", "h"]
_DECIMALS = 6
_MOST_PIXELS = 10**9


def write_coco(dataset: Dataset, folder: Path) -> None:
    """Write ``coco/<split>.json`` under ``folder``; see ``render_coco``."""
    write_files(render_coco(dataset), folder)


def render_coco(dataset: Dataset) -> dict[str, bytes]:
    """Return the COCO files of ``dataset`` by relative path: ``coco/<split>.json``.

    Train, val and test are always there, if need be empty; a dataset without splits gives
    ``coco/annotations.json``. Category ids are the ontology's; image and annotation ids are
    52 bits of a hash of their content, so they stay the same from version to version and fit
    a double. Equal datasets give equal bytes, whatever the order of their rows.
    """
    dataset = dataset.boxes()
    images = dataset.images.sort_values("image_id", ignore_index=True)
    images["id"] = _content_ids(images["image_id"], "image")
    annotations = _annotations(dataset).merge(
        images[["image_id", "id", "split"]].rename(columns={"id": "coco_image"}), on="image_id"
    )
    categories = [
        {"id": one.id, "name": one.name, "supercategory": ""}
        for one in sorted(dataset.ontology.classes, key=lambda one: one.id)
    ]
    files = {}
    for split in split_names(images["split"]):
        content = {
            "images": _image_entries(images[images["split"] == split]),
            "annotations": _annotation_entries(annotations[annotations["split"] == split]),
            "categories": categories,
        }
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        files[f"coco/{split or 'annotations'}.json"] = text.encode() + b"\n"
    return files


def _annotations(dataset: Dataset) -> pd.DataFrame:
    labels = dataset.labels.assign(class_id=class_ids(dataset))
    # Adding zero turns a rounded -0.0 into 0.0: the two would be written differently.
    labels["x"] = labels["x1"].round(_DECIMALS) + 0.0
    labels["y"] = labels["y1"].round(_DECIMALS) + 0.0
    labels["w"] = (labels["x2"] - labels["x1"]).round(_DECIMALS) + 0.0
    labels["h"] = (labels["y2"] - labels["y1"]).round(_DECIMALS) + 0.0
    content = ["image_id", "class_id", *_XYWH]
    labels = labels.sort_values(content, ignore_index=True)
    # Two equal boxes on one image are told apart by a running number.
    labels["copy"] = labels.groupby(content).cumcount()
    columns = [labels[name].tolist() for name in [*content, "copy"]]
    keys = ["/".join(map(str, values)) for values in zip(*columns, strict=True)]
    return labels.assign(id=_content_ids(keys, "annotation"))


def _content_ids(keys: Iterable[str], what: str) -> list[int]:
    ids = [int(hashlib.sha256(key.encode()).hexdigest()[:13], 16) for key in keys]
    if len(set(ids)) != len(ids):
        raise DataError(f"two {what}s have the same COCO id. Is an {what} listed twice?")
    return ids


def _image_entries(images: pd.DataFrame) -> list[dict[str, object]]:
    names = ["id", "file_name", "width", "height"]
    columns = [images[name].tolist() for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _annotation_entries(annotations: pd.DataFrame) -> list[dict[str, object]]:
    columns = [annotations[name].tolist() for name in ["id", "coco_image", "class_id", *_XYWH]]
    return [
        {
            "id": key,
            "image_id": image,
            "category_id": category,
            "bbox": [x, y, w, h],
            "area": round(w * h, _DECIMALS),
            "iscrowd": 0,
        }
        for key, image, category, x, y, w, h in zip(*columns, strict=True)
    ]


def read_coco(path: Path) -> Dataset:
    """Return the dataset of one COCO file, or of a folder (or its ``coco`` or ``annotations``).

    A file called train.json, val.json or test.json gives its images that split; any other, none.
    ``file_name`` stays as written, folders included; ``image_id`` is the shortest form of it that
    tells all images apart (see ``files.image_ids``). Crowd regions are left out: they are no
    objects. Boxes are returned as they stand, those without area included.
    """
    categories: dict[int, str] = {}
    images: list[dict[str, object]] = []
    labels: list[dict[str, object]] = []
    for file in _coco_files(path):
        data = _load(file)
        for category, name in _categories(data, file).items():
            if categories.setdefault(category, name) != name:
                raise FormatError(
                    str(file),
                    0,
                    f"category {category} is {name!r} here and "
                    f"{categories[category]!r} in another file",
                    "Give each class one id.",
                )
        first = len(images)
        row_of = _read_images(data, file, images)
        labels.extend(_read_annotations(data, file, row_of, categories))
        for image in images[first:]:
            image["split"] = file.stem if file.stem in SPLITS else ""
    ids = image_ids([str(image["file_name"]) for image in images], where=path)
    for image, image_id in zip(images, ids, strict=True):
        image["image_id"] = image_id
    for label in labels:
        label["image_id"] = ids[label.pop("row")]  # type: ignore[call-overload]
    return make_dataset(images, labels, make_ontology(categories, where=path))


def _coco_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    for folder in (path / "coco", path / "annotations", path):
        files = sorted(folder.glob("*.json"))
        if files:
            return files
    raise FormatError(str(path), 0, "no .json file in it", "Name a COCO file or its folder.")


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


def _categories(data: dict[str, Any], file: Path) -> dict[int, str]:
    found: dict[int, str] = {}
    for number, entry in enumerate(data["categories"]):
        place = f"categories[{number}]"
        key, name = _whole(entry, "id", place, file), _string(entry, "name", place, file)
        if found.setdefault(key, name) != name:
            raise FormatError(str(file), 0, f"{place} uses id {key} again", "Give it its own id.")
    return found


def _read_images(
    data: dict[str, Any], file: Path, images: list[dict[str, object]]
) -> dict[object, int]:
    row_of: dict[object, int] = {}
    for number, entry in enumerate(data["images"]):
        place = f"images[{number}]"
        row_of[_whole(entry, "id", place, file)] = len(images)
        images.append(
            {
                "file_name": _string(entry, "file_name", place, file),
                "width": _side(entry, "width", place, file),
                "height": _side(entry, "height", place, file),
            }
        )
    if len(row_of) != len(data["images"]):
        raise FormatError(str(file), 0, "two images have the same id", "Give each its own id.")
    return row_of


def _read_annotations(
    data: dict[str, Any], file: Path, row_of: dict[object, int], categories: dict[int, str]
) -> Iterable[dict[str, object]]:
    for number, entry in enumerate(data["annotations"]):
        place = f"annotations[{number}]"
        image = _whole(entry, "image_id", place, file)
        category = _whole(entry, "category_id", place, file)
        if image not in row_of:
            raise FormatError(
                str(file),
                0,
                f"{place} is on image {image}, which is not listed",
                "Add the image or remove the annotation.",
            )
        if category not in categories:
            raise FormatError(
                str(file),
                0,
                f"{place} has category {category}, which is not listed",
                "Add the category or correct the annotation.",
            )
        if entry.get("iscrowd"):
            continue
        box = entry.get("bbox")
        numbers = finite_numbers(box) if isinstance(box, list) and len(box) == 4 else None
        if numbers is None or numbers[2] < 0 or numbers[3] < 0:
            raise FormatError(
                str(file),
                0,
                f"{place} has bbox {box}, expected [x, y, width, height]",
                "Correct or remove the annotation.",
            )
        x, y, width, height = numbers
        yield {
            "row": row_of[image],
            "class_name": categories[category],
            "x1": x,
            "y1": y,
            "x2": x + width,
            "y2": y + height,
        }


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
