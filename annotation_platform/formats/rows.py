"""Rows that CSV, JSON Lines and WebDataset share, collected and checked one by one.

``csv_jsonl.py`` describes them. A row that a ``Dataset`` cannot hold is a FormatError that names
the row.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from annotation_platform.errors import FormatError
from annotation_platform.formats.files import (
    finite_numbers,
    is_plain_name,
    make_dataset,
    make_ontology,
    read_json,
    refuse_link,
    refuse_way_out,
)
from annotation_platform.schema.dataset import IMAGE_COLUMNS, Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import SHAPES, WITH_CLASS

COLUMNS = (
    *IMAGE_COLUMNS,
    "class_id",
    "class_name",
    "shape",
    *BOX_COLUMNS,
    "geometry",
    "instance",
    "attributes",
)
ONTOLOGY_FILE = "ontology.json"

_MOST = 10**9
_MOST_ID = 10**18


@dataclass
class DatasetRows:
    """Images, labels and classes of rows or lines, collected and checked one by one."""

    where: Path
    images: dict[str, dict[str, object]] = field(default_factory=dict)
    labels: list[dict[str, object]] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)

    def add(self, record: Any, line: int) -> None:
        """Add a row; one that a dataset cannot hold is a FormatError."""
        if not isinstance(record, dict) or record.keys() - set(COLUMNS):
            raise self._bad(line, "unknown keys, or not an object", f"Expected are {COLUMNS}.")
        image = self._image(record, line)
        image_id = str(image["image_id"])
        if self.images.setdefault(image_id, image) != image:
            problem = f"image {image_id!r} differs from an earlier row"
            raise self._bad(line, problem, "Give an image the same values in each of its rows.")
        if record.keys() - set(IMAGE_COLUMNS):
            self.labels.append({"image_id": image_id, **self._label(record, line)})

    def dataset(self, ontology: Ontology | None) -> Dataset:
        """Return the dataset of all rows, with this ontology or the classes that the rows name.

        Raises:
            FormatError: the rows name no class, or one that differs from the ontology.
        """
        if ontology is None:
            if not self.names:
                raise self._bad(0, "no class in the file", f"Add {ONTOLOGY_FILE}.")
            ontology = make_ontology(self.names, where=self.where)
        known = {one.id: one.name for one in ontology.classes}
        for key, name in self.names.items():
            if known.get(key) != name:
                problem = f"class {key} is {name!r} here and {known.get(key)!r} in the ontology"
                raise self._bad(0, problem, f"Correct one, or remove {ONTOLOGY_FILE}.")
        return make_dataset(list(self.images.values()), self.labels, ontology)

    def _image(self, record: dict[str, Any], line: int) -> dict[str, object]:
        image = {name: record.get(name) for name in IMAGE_COLUMNS}
        image_id, file_name, split, width, height = image.values()
        if (
            not isinstance(image_id, str)
            or {"", ".", ".."} & set(image_id.split("/"))
            or any(sign in image_id for sign in "\0\r\n")
        ):
            raise self._bad(line, f"image id {image_id!r:.80} is not a file name", "Rename it.")
        refuse_way_out(image_id, where=self.where, line=line)
        if not isinstance(file_name, str) or not isinstance(split, str):
            raise self._bad(line, "no file_name or no split", "Add them; they may be empty.")
        if file_name:
            refuse_way_out(file_name, where=self.where, line=line)
        if split and not is_plain_name(split):
            raise self._bad(line, f"split {split!r:.80} is not a folder name", "Rename it.")
        if not all(type(side) is int and 0 <= side <= _MOST for side in (width, height)):
            problem = f"the size {width!r:.20} × {height!r:.20}"
            raise self._bad(line, problem, "Whole pixels are expected; 0 means unknown.")
        return image

    def _label(self, record: dict[str, Any], line: int) -> dict[str, object]:
        key, name = record.get("class_id"), record.get("class_name")
        if type(key) is not int or not 0 <= key <= _MOST_ID or not isinstance(name, str):
            raise self._bad(line, "a label without class_id and class_name", "Add them.")
        if self.names.setdefault(key, name) != name:
            problem = f"class {key} is {name!r} here and {self.names[key]!r} before"
            raise self._bad(line, problem, "Give each class one id.")
        shape, instance = record.get("shape", "box"), record.get("instance", "")
        edges = [record.get(edge) for edge in BOX_COLUMNS]
        given = [value for value in edges if value is not None]
        numbers = (
            finite_numbers(given) if all(type(each) in (int, float) for each in given) else None
        )
        if numbers is None or len(given) not in (0, len(edges)):
            raise self._bad(line, f"the box {edges!s:.80}", "Four numbers are expected.")
        box = numbers or [np.nan] * len(edges)
        attributes = record.get("attributes", {})
        if not isinstance(instance, str) or not isinstance(attributes, dict):
            problem = "an instance that is not a string, or attributes that are not an object"
            raise self._bad(line, problem, "Correct them.")
        try:
            texts = {
                "geometry": json_text(record.get("geometry")),
                "attributes": json_text(attributes),
            }
            problem = label_problem(shape, box, texts["geometry"])
        except (ValueError, RecursionError) as error:
            raise self._bad(line, f"an invalid number or text ({error})", "Correct it.") from error
        if problem:
            raise self._bad(line, f"a {shape!r:.40} {problem}", "Correct or remove it.")
        return {
            "class_name": name,
            "shape": shape,
            "instance": instance,
            **dict(zip(BOX_COLUMNS, box, strict=True)),
            **texts,
        }

    def _bad(self, line: int, problem: str, remedy: str) -> FormatError:
        return FormatError(str(self.where), line, problem, remedy)


def ontology_next_to(file: Path) -> Ontology | None:
    """Return the classes of ``ontology.json`` in the folder of ``file``; None if it is missing.

    Raises:
        FormatError: the file is not an ontology, or is a link out of the folder.
    """
    path = file.parent / ONTOLOGY_FILE
    refuse_link(path, file.parent)
    if not path.is_file():
        return None
    try:
        return Ontology.model_validate(read_json(path))
    except ValidationError as error:
        problem = f"its classes cannot be used ({error.errors()[0]['msg']})"
        raise FormatError(str(path), 0, problem, "Correct it, or remove it.") from error


def parse_line(line: str, where: Path, number: int) -> Any:
    """Return the value of a JSON line; invalid JSON, or a repeated key, is a FormatError."""
    try:
        return parse_json(line)
    except (ValueError, RecursionError) as error:
        problem = f"not JSON that can be used ({str(error)[:80]})"
        raise FormatError(str(where), number, problem, "Export it again.") from error


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: the text is not JSON, repeats a key, or contains half a surrogate pair.
        RecursionError: the text is nested too deep.
    """
    value = json.loads(text, object_pairs_hook=_without_twins)
    if "\\ud" in text.lower():
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is repeated")
    return found


def json_text(value: Any) -> str:
    """Return the JSON text of a geometry or of attributes; empty for none."""
    if value in ({}, None):
        return ""
    if isinstance(value, dict) and set(value) == {"size", "counts"}:
        # In the order of keys that ``Label.mask`` uses.
        value = {"size": value["size"], "counts": value["counts"]}
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True)


def label_problem(shape: object, box: list[float], geometry: str) -> str:
    """Return what is wrong with a label, as the end of a sentence; empty for a valid one."""
    if shape not in WITH_CLASS:
        return "is not a label shape"
    return SHAPES[str(shape)].problem(geometry, box)
