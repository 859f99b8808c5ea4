"""Reading of Hugging Face imagefolders; ``imagefolder.py`` describes the format."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from annotation_platform.errors import DataError, FormatError
from annotation_platform.formats.files import (
    IMAGE_SUFFIXES,
    check_image_ids,
    files_under,
    image_ids,
    image_row,
    image_size,
    make_dataset,
    make_ontology,
    read_text,
    refuse_link,
    refuse_way_out,
)
from annotation_platform.formats.rows import ONTOLOGY_FILE, ontology_next_to, parse_line
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import Ontology

METADATA = "metadata.jsonl"

_MOST_PIXELS = 10**9


def read_imagefolder(folder: Path) -> Dataset:
    """Return the dataset of an imagefolder, with metadata or with class folders.

    Subfolders are splits if they contain metadata or folders (``valid`` and ``validation`` are
    val); otherwise they are classes, and there are no splits. Class ids are those of
    ``ontology.json`` or of the metadata, else positions in alphabetical order. ``file_name`` is
    relative to ``folder``. Sizes that metadata lack are read from the images.

    Raises:
        FormatError: a line is not metadata, or names an image outside its folder; a link out of
            the folder; a repeated image.
    """
    ontology = ontology_next_to(folder / METADATA)
    files = files_under(folder, folder, {".jsonl"})
    tables = [path for path in files if path.name == METADATA]
    if tables:
        return _read_tables(folder, tables, ontology)
    return _read_class_folders(folder, ontology)


def _read_class_folders(folder: Path, ontology: Ontology | None) -> Dataset:
    found = [
        (path, path.relative_to(folder).parts)
        for path in files_under(folder, folder, IMAGE_SUFFIXES)
    ]
    loose = [parts[0] for _, parts in found if len(parts) < 2]
    if loose or not found:
        image = f"the image {loose[0]!r} is in no folder" if loose else "no image in a folder"
        problem = f"no {METADATA}, and {image} of its class"
        raise FormatError(str(folder), 0, problem, "Name the folder above the classes.")
    known = set(ontology.names) if ontology else set()
    # Known classes decide, because image ids may contain folders too.
    is_split = all(len(parts) > 2 for _, parts in found) and not (
        known and all(parts[0] in known for _, parts in found)
    )
    images: list[dict[str, object]] = []
    labels: list[dict[str, object]] = []
    keys = [PurePosixPath(*parts[1 + is_split :]).with_suffix("").as_posix() for _, parts in found]
    names = [path.relative_to(folder).as_posix() for path, _ in found]
    ids = keys if len(set(keys)) == len(keys) else image_ids(names, where=folder)
    for (path, parts), image_id, name in zip(found, ids, names, strict=True):
        split = _split(parts[0]) if is_split else ""
        images.append(image_row(image_id, name, split, image_size(path)))
        labels.append(
            {"image_id": image_id, "class_name": parts[is_split], "shape": "choice"}
            | dict.fromkeys(BOX_COLUMNS, np.nan)
        )
    return make_dataset(images, labels, _ontology(ontology, labels, {}, folder))


def _split(name: str) -> str:
    return {"valid": "val", "validation": "val"}.get(name, name)


def _ontology(
    known: Ontology | None, labels: list[dict[str, object]], ids: dict[int, str], where: Path
) -> Ontology:
    used = {str(label["class_name"]) for label in labels}
    if known is None:
        without_id = sorted(used - set(ids.values()))
        first = max(ids, default=-1) + 1
        numbered = ids | dict(enumerate(without_id, start=first))
        if not numbered:
            raise FormatError(str(where), 0, "no class in the folder", f"Add {ONTOLOGY_FILE}.")
        return make_ontology(numbered, where=where)
    missing = sorted(used - set(known.names))
    wrong = [name for key, name in ids.items() if known.id_of.get(name) != key]
    if missing or wrong:
        problem = f"{ONTOLOGY_FILE} lacks the class {(missing or wrong)[0]!r}, or has another id"
        raise FormatError(str(where), 0, problem, f"Correct it, or remove {ONTOLOGY_FILE}.")
    return known


def _read_tables(folder: Path, tables: list[Path], ontology: Ontology | None) -> Dataset:
    images: list[dict[str, object]] = []
    labels: list[tuple[int, dict[str, object]]] = []
    given: list[str] = []
    ids: dict[int, str] = {}
    for table in tables:
        for number, record in _records(table):
            image = _image(record, folder, table, number)
            labels += [(len(images), row) for row in _labels(record, ids, ontology, table, number)]
            images.append(image)
            given.append(str(record.get("image_id", "")))
    if not all(given) or len(set(given)) < len(given):
        given = image_ids([str(image["file_name"]) for image in images], where=folder)
    rows = [{**row, "image_id": given[index]} for index, row in labels]
    dataset = make_dataset(
        [{**image, "image_id": key} for image, key in zip(images, given, strict=True)],
        rows,
        _ontology(ontology, rows, ids, folder),
    )
    _check_read(dataset, folder)
    return dataset


def _check_read(dataset: Dataset, folder: Path) -> None:
    try:
        check_image_ids(dataset)
    except DataError as error:
        raise FormatError(str(folder), 0, str(error), "Correct its metadata.") from error


def _records(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(read_text(table, newline="").split("\n"), start=1):
        if line.strip():
            record = parse_line(line, table, number)
            if not isinstance(record, dict):
                raise FormatError(str(table), number, "not a JSON object", "Export it again.")
            yield number, record


def _image(record: dict[str, Any], folder: Path, table: Path, line: int) -> dict[str, object]:
    name, image_id = record.get("file_name"), record.get("image_id", "x")
    if not isinstance(name, str) or not isinstance(image_id, str):
        raise FormatError(
            str(table), line, "no file_name, or an image_id that is not a string", "Correct it."
        )
    refuse_way_out(name, where=table, line=line)
    refuse_way_out(image_id, where=table, line=line)
    path = table.parent / name
    if path.exists():
        refuse_link(path, folder)
    size = record.get("width"), record.get("height")
    if size == (None, None):
        if not path.is_file():
            problem = f"no image {name[:200]!r} in its folder, and no width and height"
            raise FormatError(str(table), line, problem, "Add the image or its size.")
        size = image_size(path)
    if not all(type(side) is int and 0 <= side <= _MOST_PIXELS for side in size):
        raise FormatError(str(table), line, f"the size {size!r:.40}", "Whole pixels are expected.")
    subfolder = table.parent.relative_to(folder)
    return {
        "file_name": (subfolder / name).as_posix(),
        "split": _split(subfolder.parts[0]) if subfolder.parts else "",
        "width": size[0],
        "height": size[1],
    }


def _labels(
    record: dict[str, Any],
    ids: dict[int, str],
    ontology: Ontology | None,
    table: Path,
    line: int,
) -> Iterator[dict[str, object]]:
    objects, choices = record.get("objects") or {}, record.get("choices") or []
    if not isinstance(objects, dict) or not _are_texts(choices):
        problem = "objects that are not an object, or choices that are not a list of names"
        raise FormatError(str(table), line, problem, "Correct the line.")
    boxes: Any = objects.get("bbox", [])
    classes: Any = objects.get("categories", objects.get("category", []))
    keys: Any = objects.get("ids")
    if _are_ids(classes):
        keys, classes = classes, [_name(key, ontology) for key in classes]
    if keys is None and isinstance(boxes, list):
        keys = [None] * len(boxes)
    elif not _are_ids(keys):
        raise FormatError(str(table), line, "ids that are not whole numbers", "Correct the line.")
    if not (_are_texts(classes) and _are_boxes(boxes) and len(boxes) == len(classes) == len(keys)):
        problem = "objects without a bbox of four numbers and a category each"
        raise FormatError(str(table), line, problem, "Correct the line.")
    for (x, y, width, height), name, key in zip(boxes, classes, keys, strict=True):
        if key is not None and ids.setdefault(key, name) != name:
            problem = f"class {key} is {name!r} here and {ids[key]!r} before"
            raise FormatError(str(table), line, problem, "Give each class one id.")
        edges = [x, y, round(x + width, 9), round(y + height, 9)]
        yield {"class_name": name, **dict(zip(BOX_COLUMNS, map(float, edges), strict=True))}
    for name in choices:
        yield {"class_name": name, "shape": "choice", **dict.fromkeys(BOX_COLUMNS, np.nan)}


def _name(key: int, ontology: Ontology | None) -> str:
    names = {one.id: one.name for one in ontology.classes} if ontology else {}
    return names.get(key, str(key))


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) and each for each in value)


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(
        type(each) is int and 0 <= each <= 10**18 for each in value
    )


def _are_boxes(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(box, list)
        and len(box) == 4
        and all(
            type(side) in (int, float) and -_MOST_PIXELS <= side <= _MOST_PIXELS for side in box
        )
        and min(box[2:]) >= 0
        for box in value
    )
