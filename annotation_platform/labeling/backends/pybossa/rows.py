"""Rows of PyBossa's exports: JSON as it is, CSV unflattened; the same data give the same rows.

CSV files are flattened in three ways (from the exporters of Scifabric/pybossa and of Bloomberg's
fork of it):

- PyBossa since 2017 joins keys and positions with one underscore, ``info_0_value_x``, with the
  package flatten_json; pandas writes the table, so whole numbers may be ``640.0``.
- Bloomberg's fork writes ``task_run__info`` as a Python literal, and its keys again as
  ``task_run__info__key``.
- PyBossa before 2015 wrote ``task_run__info`` likewise, and keys as ``task_runinfo__key``.

A CSV cell does not distinguish an empty text from null, nor 640 from 640.0: both are the same
here, whichever file they come from.
"""

import ast
import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from annotation_platform.errors import FormatError
from annotation_platform.labeling.backends.vendor.annotations import (
    AnnotationProblem,
    load_json,
    parse_json,
)

_PREFIXES = ("task_run__", "taskrun__", "task__")
_INFO_PREFIXES = ("task_runinfo__", "taskruninfo__", "taskinfo__")
# Names that contain the underscore with which PyBossa joins keys.
_JOINED = frozenset(
    {
        ("task", "id"), ("image", "id"), ("image", "sha256"), ("image", "url"), ("from", "name"),
        ("to", "name"), ("original", "width"), ("original", "height"), ("image", "rotation"),
    }
)  # fmt: skip
_NUMBERS = frozenset(
    {
        "x", "y", "width", "height", "rotation", "radiusX", "radiusY", "score", "original_width",
        "original_height", "image_rotation", "rle", "points", "vertices", "place", "places",
    }
)  # fmt: skip
_FLAGS = {"True": True, "False": False, "true": True, "false": False}
_TRUTHS = frozenset({"skipped", "unsure", "closed"})
_PACKED = (("info",), ("info", "result"), ("info", "answer"))
"""Keys under which presenters and exporters may pack a whole annotation as text."""

_DEEPEST = 40

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Row:
    """One task or task run, and its position in the file."""

    where: str
    values: dict[str, Any]


def read_rows(data: bytes, name: str) -> tuple[list[Row], list[AnnotationProblem]]:
    """Return the rows of an export, and the unreadable rows with their lines.

    Values are those of JSON; nulls and empty texts in objects are left out.

    Raises:
        FormatError: the file is not an export.
    """
    start = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    return _json_rows(data, name) if start in {b"[", b"{"} else _csv_rows(data, name)


def _json_rows(data: bytes, name: str) -> tuple[list[Row], list[AnnotationProblem]]:
    entries = load_json(data, name)
    if not isinstance(entries, list):
        raise FormatError(name, 0, "not a list of objects", "Export the project again as JSON.")
    rows, problems = [], []
    for position, entry in enumerate(entries):
        where = f"{name}: entry {position}"
        if isinstance(entry, dict):
            rows.append(Row(where, _plain(entry, ())))
        else:
            problems.append(
                AnnotationProblem(where, f"expected an object, not {type(entry).__name__}")
            )
    return rows, problems


def _csv_rows(data: bytes, name: str) -> tuple[list[Row], list[AnnotationProblem]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise FormatError(name, line, "not UTF-8 text", "Save it as UTF-8.") from error
    rows: list[Row] = []
    problems: list[AnnotationProblem] = []
    records = _records(text)
    _, header = next(records, (1, []))
    paths = [_path(column) for column in header] if isinstance(header, list) else []
    if ("id",) not in paths or len(set(paths)) < len(paths):
        problem = "two columns are the same" if ("id",) in paths else "no id column"
        raise FormatError(name, 1, problem, "Export the project again as CSV.")
    for line, cells in records:
        where = f"{name}:{line}"
        if isinstance(cells, str):
            problems.append(
                AnnotationProblem(where, f"cells that cannot be read ({cells}); check the quotes")
            )
        elif len(cells) != len(header):
            problems.append(
                AnnotationProblem(where, f"{len(cells)} cells, but the header has {len(header)}")
            )
        else:
            rows.append(Row(where, _unflattened(dict(zip(paths, cells, strict=True)))))
    return rows, problems


def _records(text: str) -> Iterator[tuple[int, list[str] | str]]:
    """Yield line and cells of each record, or the line and its problem."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            with _long_cells():
                cells = next(reader, None)
        except csv.Error as error:
            yield line, str(error)
            continue
        if cells is None:
            return
        if cells:
            yield line, cells


@contextmanager
def _long_cells() -> Iterator[None]:
    # The limit is process-wide, and a mask exceeds its 131,072 characters.
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _path(column: str) -> Path:
    """Return the keys and positions that lead to the content of a column."""
    for prefix in _INFO_PREFIXES:
        if column.startswith(prefix):
            return ("info", *column.removeprefix(prefix).split("__")[:_DEEPEST])
    for prefix in _PREFIXES:
        if column.startswith(prefix):
            return tuple(column.removeprefix(prefix).split("__")[:_DEEPEST])
    if not column.startswith("info_") or column.count("_") > _DEEPEST:
        return (column,)
    steps: list[str | int] = ["info"]
    for word in column.removeprefix("info_").split("_"):
        if (steps[-1], word) in _JOINED:
            steps[-1] = f"{steps[-1]}_{word}"
        else:
            steps.append(int(word) if word.isascii() and word.isdigit() else word)
    return tuple(steps)


def _unflattened(cells: Mapping[Path, str]) -> dict[str, Any]:
    """Return the row with these cells, given by their paths."""
    info = _unpacked(cells.get(("info",), ""))
    tree: dict[str | int, Any] = {}
    for path, cell in cells.items():
        if cell == "" or (path[0] == "info" and info != ""):
            continue
        branch = tree
        for step in path[:-1]:
            following = branch.setdefault(step, {})
            # The fork writes a key whole and again in parts: the whole is complete.
            if not isinstance(following, dict):
                break
            branch = following
        else:
            branch[path[-1]] = _value(cell, path)
    row = _plain(_with_lists(tree), ())
    return {**row, "info": _plain(info, ("info",))} if info != "" else dict(row)


def _value(cell: str, path: Path) -> Any:
    name = next((step for step in reversed(path) if isinstance(step, str)), "")
    if cell in {"[]", "{}"} and isinstance(path[-1], str):
        return json.loads(cell)
    if name in _NUMBERS:
        return _number(cell)
    return _FLAGS.get(cell, cell) if name in _TRUTHS else cell


def _number(cell: str) -> int | float | str:
    """Return a number if a cell is one; otherwise the text, for the codec to refuse."""
    try:
        number = float(cell)
    except ValueError:
        return cell
    return number if number - number == 0 else cell


def _with_lists(tree: Any) -> Any:
    """Return a tree with its numbered branches as lists."""
    if not isinstance(tree, dict):
        return tree
    if tree and all(isinstance(key, int) for key in tree):
        return [_with_lists(tree[key]) for key in sorted(tree)]
    return {str(key): _with_lists(value) for key, value in tree.items()}


def _plain(value: Any, path: Path) -> Any:
    """Return a value in the form that every export has; ``path`` leads to it."""
    if path in _PACKED and isinstance(value, str):
        value = _unpacked(value)
    if isinstance(value, dict):
        plain = {key: _plain(each, (*path, key)) for key, each in value.items()}
        return {key: each for key, each in plain.items() if each is not None and each != ""}
    if isinstance(value, list):
        return [_plain(each, (*path, 0)) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _unpacked(text: str) -> Any:
    """Return the list or object in a text, as JSON or a Python literal; otherwise the text."""
    if text[:1] not in {"[", "{"}:
        return text
    try:
        return parse_json(text)
    except (ValueError, RecursionError):
        pass
    try:
        return parse_json(json.dumps(ast.literal_eval(text)))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        # The reader of the row reports that it holds no annotation.
        return text
