"""Classes, keypoints and task of a YOLO folder, from ``data.yaml`` or a list of names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from annotation_platform.errors import FormatError
from annotation_platform.formats.files import make_ontology, read_text, refuse_link
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import ShapeName

YoloTask = Literal["detect", "segment", "obb", "pose"]

_DRAWN_AS: dict[str, ShapeName] = {"segment": "polygon", "obb": "rotated_box"}


@dataclass(frozen=True)
class YoloClasses:
    """Classes of ``data.yaml``: names and ids by class number, keypoints, and the task if given."""

    path: Path
    names: list[str]
    ids: list[int]
    task: YoloTask | None = None
    points: dict[int, list[str]] = field(default_factory=dict)
    """The names of the keypoints of each class."""
    point_ids: dict[str, int] = field(default_factory=dict)
    per_point: int = 0
    """Numbers per keypoint: 2, or 3 with visibility."""
    number_of_points: int = 0

    def ontology(self, task: YoloTask) -> Ontology:
        """Return the ontology, with the shape that a task's lines give each class.

        Raises:
            FormatError: the names or ids are not those of an ontology.
        """
        names = dict(zip(self.ids, self.names, strict=True))
        if task == "pose":
            names |= {key: name for name, key in self.point_ids.items()}
        ontology = make_ontology(names, where=self.path)
        drawn = _DRAWN_AS.get(task, "box")
        points = self.point_ids.keys() - set(self.names) if task == "pose" else set()
        shaped = [
            one.model_copy(update={"shape": "keypoint" if one.name in points else drawn})
            for one in ontology.classes
        ]
        return ontology.model_copy(update={"classes": tuple(shaped)})


def read_yolo_classes(folder: Path) -> YoloClasses:
    """Return the classes of ``data.yaml``; without that file, of ``classes.txt`` or ``obj.names``.

    Raises:
        FormatError: the file is missing, is not YAML, or its names, ids or keypoints do not match.
    """
    path = folder / "data.yaml"
    for other in ("classes.txt", "obj.names"):
        if not path.exists() and (folder / other).is_file():
            refuse_link(folder / other, folder)
            lines = [line.strip() for line in read_text(folder / other).splitlines()]
            found = [name for name in lines if name]
            return YoloClasses(folder / other, found, list(range(len(found))))
    refuse_link(path, folder)
    try:
        data = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # Also impossible dates, numbers of thousands of digits, thousands of nested brackets.
        raise FormatError(str(path), 0, "not YAML", "Correct the file.") from error
    names = data.get("names") if isinstance(data, dict) else None
    ordered = _ordered_names(names)
    if ordered is None:
        raise FormatError(
            str(path), 0, "no class names, numbered from 0", "Add `names: {0: first, 1: second}`."
        )
    ids = data.get("class_ids", list(range(len(ordered))))
    if not _are_whole(ids) or len(ids) != len(ordered) or len(set(ids)) != len(ids):
        raise FormatError(
            str(path), 0, "class_ids does not match names", "Give one id per name, or none."
        )
    if data.get("kpt_shape") is not None:
        return _with_keypoints(data, path, ordered, ids)
    task = data.get("task")
    known = task if isinstance(task, str) and task in {"detect", "segment", "obb"} else None
    return YoloClasses(path, ordered, ids, known)  # type: ignore[arg-type]


def _with_keypoints(data: Mapping[str, Any], path: Path, names: list[str], ids: Any) -> YoloClasses:
    shape = data["kpt_shape"]
    if not _are_whole(shape) or len(shape) != 2 or shape[0] > 10_000 or shape[1] not in (2, 3):
        problem = "kpt_shape is not a number of keypoints and 2 or 3"
        raise FormatError(str(path), 0, problem, "Write `kpt_shape: [17, 3]`.")
    given = data.get("kpt_names")
    if given is None:
        given = [f"keypoint {number}" for number in range(shape[0])]
    of_class = given if isinstance(given, dict) else dict.fromkeys(range(len(names)), given)
    points = {number: _ordered_names(of_class.get(number)) for number in range(len(names))}
    every: dict[str, None] = {}
    for kinds in points.values():
        if kinds is None or len(kinds) != shape[0] or len(set(kinds)) != len(kinds):
            problem = f"kpt_names lacks {shape[0]} different names for each class"
            raise FormatError(str(path), 0, problem, "Correct them, or remove kpt_names.")
        every |= dict.fromkeys(kinds)
    new = [name for name in every if name not in names]
    numbers = data.get("kpt_class_ids")
    if numbers is None:
        known = dict(zip(names, ids, strict=True))
        fresh = iter(range(max(ids, default=-1) + 1, max(ids, default=-1) + 1 + len(new)))
        numbers = [known[name] if name in known else next(fresh) for name in every]
    class_of = dict(zip(ids, names, strict=True))
    is_consistent = (
        _are_whole(numbers)
        and len(set(numbers)) == len(numbers) == len(every)
        and all(class_of.get(key, name) == name for key, name in zip(numbers, every, strict=True))
    )
    if not is_consistent:
        problem = "kpt_class_ids does not match kpt_names"
        raise FormatError(str(path), 0, problem, "Give one id per name, or none.")
    return YoloClasses(
        path,
        names,
        ids,
        "pose",
        {number: kinds or [] for number, kinds in points.items()},
        dict(zip(every, numbers, strict=True)),
        shape[1],
        shape[0],
    )


def _ordered_names(names: object) -> list[str] | None:
    """Return names numbered from 0, or None. Nested names are refused: YAML can make them huge."""
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        return None
    numbered = sorted(names, key=str) == sorted(range(len(names)), key=str)
    if not numbered or any(isinstance(name, list | dict | set) for name in names.values()):
        return None
    return [str(names[number]) for number in range(len(names))]


def _are_whole(values: object) -> bool:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < 2**53 for value in values
    )
