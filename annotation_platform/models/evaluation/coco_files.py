"""COCO ground-truth and results files, read and validated for evaluation."""

import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from annotation_platform.errors import FormatError
from annotation_platform.formats.files import read_json
from annotation_platform.models.evaluation.coco_metrics import Kind
from annotation_platform.schema.shapes.raster import counts_from_text

_FORMS: dict[str, str] = {
    "bbox": "bbox: [x, y, width, height]",
    "segm": "segmentation: outlines, or run lengths with size and counts",
    "keypoints": "keypoints: x, y and visibility of COCO's 17 points, 51 numbers",
}
_LONGEST_TEXT = 60
_SIZE = ("id", "width", "height")
_USED = ("image_id", "category_id", "bbox", "segmentation", "keypoints", "num_keypoints")


def read_truth(path: Path, kind: Kind) -> dict[str, Any]:
    """Return the content of a COCO ground-truth file, as far as evaluation needs it.

    A missing ``iscrowd`` is 0, a missing ``area`` that of the box, as other tools write it.

    Raises:
        FormatError: it is not a COCO file, an id or a category name occurs twice, or an annotation
            has an unknown image or category, or lacks the geometry that ``kind`` compares.
    """
    data = read_json(path)
    if not isinstance(data, dict):
        raise _error(path, "", "not a COCO file: no object with images", "Name the ground truth.")
    for key in ("images", "categories", "annotations"):
        if not isinstance(data.get(key), list):
            raise _error(path, "", f"not a COCO file: no list {key!r}", "Name the ground truth.")
    images = _ids(path, data["images"], "images")
    categories = _ids(path, data["categories"], "categories")
    names = [str(one.get("name", one["id"])) for one in data["categories"]]
    for name in names:
        if names.count(name) > 1:
            problem = f"two categories are called {name!r:.{_LONGEST_TEXT}}"
            raise _error(path, "", problem, "Rename one of them.")
    annotations = []
    for number, one in enumerate(data["annotations"]):
        location = f"annotations[{number}]"
        _check(path, location, one, kind, images, categories, source="in this file")
        _check_area(path, location, one, kind)
        box_area = one["bbox"][2] * one["bbox"][3] if "bbox" in one else 0.0
        facts = {"iscrowd": one.get("iscrowd", 0), "area": _area(one, box_area)}
        annotations.append(_used_keys(one) | facts)
    sizes = [{key: one[key] for key in _SIZE if key in one} for one in data["images"]]
    named = zip(data["categories"], names, strict=True)
    return {
        "images": sizes,
        "categories": [{"id": one["id"], "name": name} for one, name in named],
        "annotations": annotations,
    }


def read_results(path: Path, kind: Kind, truth: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the records of a COCO results file, possibly none.

    Raises:
        FormatError: it is not a results file, or a record has an image or category that is not in
            ``truth``, no finite score, or lacks the geometry that ``kind`` compares.
    """
    records = read_json(path)
    if not isinstance(records, list):
        problem = "not a COCO results file: no list of detections"
        raise _error(path, "", problem, "Name the file that holds [{image_id, category_id, …}].")
    images = {one["id"] for one in truth["images"]}
    categories = {one["id"] for one in truth["categories"]}
    for number, one in enumerate(records):
        location = f"[{number}]"
        _check(path, location, one, kind, images, categories, source="in the ground truth")
        if not _is_number(one.get("score")):
            raise _error(
                path, location, _mismatch(one, "score", "a finite number"), "Predict again."
            )
    return [_used_keys(one) | {"score": one["score"]} for one in records]


def _used_keys(one: dict[str, Any]) -> dict[str, Any]:
    """Return the keys that the figures depend on; other keys are not checked."""
    return {key: one[key] for key in _USED if key in one}


def _ids(path: Path, entries: list[Any], key: str) -> set[int]:
    found: set[int] = set()
    for number, one in enumerate(entries):
        location = f"{key}[{number}]"
        if not isinstance(one, dict) or not _is_whole(one.get("id")):
            raise _error(path, location, _mismatch(one, "id", "a whole number"), "Export it again.")
        if one["id"] in found:
            raise _error(path, location, f"the id {one['id']} is taken", "Make the ids unique.")
        found.add(one["id"])
    return found


def _check(
    path: Path,
    location: str,
    one: Any,
    kind: Kind,
    images: Collection[int],
    categories: Collection[int],
    *,
    source: str,
) -> None:
    if not isinstance(one, dict):
        raise _error(path, location, "not an object with image_id and category_id", "Correct it.")
    for key, known in (("image_id", images), ("category_id", categories)):
        if not _is_whole(one.get(key)):
            raise _error(path, location, _mismatch(one, key, "a whole number"), "Correct it.")
        if one[key] not in known:
            noun = key.removesuffix("_id")
            problem = f"{key} {one[key]} is no {noun} {source}"
            raise _error(path, location, problem, "Give files of the same data set.")
    if not _VALID[kind](one):
        key, _, form = _FORMS[kind].partition(": ")
        raise _error(
            path, location, _mismatch(one, key, form), "Correct it, or choose the kind with --type."
        )


def _check_area(path: Path, location: str, one: dict[str, Any], kind: Kind) -> None:
    if "area" in one and not (_is_number(one["area"]) and one["area"] >= 0):
        raise _error(path, location, _mismatch(one, "area", "square pixels"), "Correct it.")
    if one.get("iscrowd", 0) not in (0, 1):
        raise _error(path, location, _mismatch(one, "iscrowd", "0 or 1"), "Correct it.")
    if "area" not in one and (kind != "bbox" or not _is_box(one)):
        # Size classes depend on the area of the outline, which the box does not determine.
        raise _error(
            path, location, _mismatch(one, "area", "square pixels"), "Export it with areas."
        )


def _area(one: dict[str, Any], of_box: float) -> float:
    return float(one.get("area", of_box))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _are_numbers(values: object) -> bool:
    return isinstance(values, list) and all(map(_is_number, values))


def _is_box(one: dict[str, Any]) -> bool:
    box = one.get("bbox")
    return isinstance(box, list) and len(box) == 4 and _are_numbers(box) and min(box[2:]) >= 0


def _is_outline(one: dict[str, Any]) -> bool:
    segmentation = one.get("segmentation")
    if isinstance(segmentation, dict):
        size = segmentation.get("size")
        if not isinstance(size, list) or len(size) != 2 or not all(map(_is_whole, size)):
            return False
        return _are_runs(segmentation.get("counts"), pixels=size[0] * size[1])
    return isinstance(segmentation, list) and all(
        _are_numbers(ring) and len(ring) >= 6 and len(ring) % 2 == 0 for ring in segmentation
    )


def _are_runs(counts: object, *, pixels: int) -> bool:
    """Return whether run lengths cover this number of pixels; damaged ones would match nothing."""
    if isinstance(counts, str):
        try:
            counts = counts_from_text(counts).tolist()
        except ValueError:
            return False
    if not isinstance(counts, list) or not all(_is_whole(one) and one >= 0 for one in counts):
        return False
    return sum(counts) == pixels


def _are_points(one: dict[str, Any]) -> bool:
    # The similarity of keypoints is defined by the labelling precision of each of these 17.
    points = one.get("keypoints")
    return isinstance(points, list) and _are_numbers(points) and len(points) == 51


_VALID: dict[str, Callable[[dict[str, Any]], bool]] = {
    "bbox": _is_box,
    "segm": _is_outline,
    "keypoints": _are_points,
}


def _mismatch(one: object, key: str, expected: str) -> str:
    if not isinstance(one, dict) or key not in one:
        return f"no {key}: {expected} is required"
    text = repr(one[key])
    text = text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
    return f"{key} is {text}, not {expected}"


def _error(path: Path, location: str, problem: str, remedy: str) -> FormatError:
    where = f"{path}: {location}" if location else str(path)
    return FormatError(where, 0, problem, remedy)
