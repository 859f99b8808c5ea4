"""The rows that CSV, JSON Lines and WebDataset share, gathered and checked one after the other.

``csv_jsonl.py`` says what is in them. What no ``Dataset`` holds is a FormatError that names the
row.
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
class Rows:
    """What rows or lines say, gathered and checked one after the other."""

    where: Path
    images: dict[str, dict[str, object]] = field(default_factory=dict)
    labels: list[dict[str, object]] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)

    def add(self, record: Any, line: int) -> None:
        """Add a row; one that no dataset holds is a FormatError."""
        if not isinstance(record, dict) or record.keys() - set(COLUMNS):
            raise self._bad(line, "unknown keys, or no object", f"Expected are {COLUMNS}.")
        image = self._image(record, line)
        image_id = str(image["image_id"])
        if self.images.setdefault(image_id, image) != image:
            problem = f"image {image_id!r} is another one than in an earlier row"
            raise self._bad(line, problem, "Say the same of it in each of its rows.")
        if record.keys() - set(IMAGE_COLUMNS):
            self.labels.append({"image_id": image_id, **self._label(record, line)})

    def dataset(self, ontology: Ontology | None) -> Dataset:
        """Return the dataset of all rows, with these classes, or those that the rows name."""
        if ontology is None:
            if not self.names:
                raise self._bad(0, "no class in it", f"Add {ONTOLOGY_FILE}.")
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
            raise self._bad(line, f"image id {image_id!r:.80} is no file name", "Rename it.")
        refuse_way_out(image_id, where=self.where, line=line)
        if not isinstance(file_name, str) or not isinstance(split, str):
            raise self._bad(line, "no file_name or no split", "Add them, if need be empty.")
        if file_name:
            refuse_way_out(file_name, where=self.where, line=line)
        if split and not is_plain_name(split):
            raise self._bad(line, f"split {split!r:.80} is no name of a folder", "Rename it.")
        if not all(type(side) is int and 0 <= side <= _MOST for side in (width, height)):
            problem = f"the size {width!r:.20} × {height!r:.20}"
            raise self._bad(line, problem, "Whole pixels are expected; 0 is unknown.")
        return image

    def _label(self, record: dict[str, Any], line: int) -> dict[str, object]:
        key, name = record.get("class_id"), record.get("class_name")
        if type(key) is not int or not 0 <= key <= _MOST_ID or not isinstance(name, str):
            raise self._bad(line, "a label without class_id and class_name", "Add them.")
        if self.names.setdefault(key, name) != name:
            problem = f"class {key} is {name!r} here and {self.names[key]!r} before"
            raise self._bad(line, problem, "Give each class one id.")
        shape, instance = record.get("shape", "box"), record.get("instance", "")
        said = [record.get(edge) for edge in BOX_COLUMNS]
        given = [value for value in said if value is not None]
        numbers = (
            finite_numbers(given) if all(type(each) in (int, float) for each in given) else None
        )
        if numbers is None or len(given) not in (0, len(said)):
            raise self._bad(line, f"the box {said!s:.80}", "Four numbers are expected.")
        box = numbers or [np.nan] * len(said)
        attributes = record.get("attributes", {})
        if not isinstance(instance, str) or not isinstance(attributes, dict):
            raise self._bad(line, "an instance or attributes that are none", "Correct them.")
        try:
            texts = {
                "geometry": json_text(record.get("geometry")),
                "attributes": json_text(attributes),
            }
            problem = label_problem(shape, box, texts["geometry"])
        except (ValueError, RecursionError) as error:
            raise self._bad(line, f"a number or text ({error})", "Correct it.") from error
        if problem:
            raise self._bad(line, f"a {shape!r:.40} {problem}", "Correct or remove it.")
        edges = dict(zip(BOX_COLUMNS, box, strict=True))
        return {"class_name": name, "shape": shape, "instance": instance, **edges, **texts}

    def _bad(self, line: int, problem: str, remedy: str) -> FormatError:
        return FormatError(str(self.where), line, problem, remedy)


def ontology_beside(file: Path) -> Ontology | None:
    """Return the classes of ``ontology.json`` in the folder of ``file``, None if there is none."""
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
    """Return the JSON of a line; one that is none, or says a key twice, is a FormatError."""
    try:
        return parse_json(line)
    except (ValueError, RecursionError) as error:
        problem = f"not JSON that can be used ({str(error)[:80]})"
        raise FormatError(str(where), number, problem, "Export it again.") from error


def parse_json(text: str) -> Any:
    """Return what a JSON text says.

    Raises:
        ValueError: it is none, says a key twice, or holds half a character.
        RecursionError: it is nested too deep.
    """
    value = json.loads(text, object_pairs_hook=_without_twins)
    if "\\ud" in text.lower():
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is said twice")
    return found


def json_text(value: Any) -> str:
    """Return the JSON of a geometry or of attributes."""
    if value in ({}, None):
        return ""
    if isinstance(value, dict) and set(value) == {"size", "counts"}:
        # In the order in which ``Label.mask`` says them.
        value = {"size": value["size"], "counts": value["counts"]}
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True)


def label_problem(shape: object, box: list[float], geometry: str) -> str:
    """Return what is wrong with a label, or nothing."""
    if shape not in WITH_CLASS:
        return "is no shape of a label"
    return SHAPES[str(shape)].problem(geometry, box)
