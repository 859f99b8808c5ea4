"""Class annotations as a table of task, worker and label: read, checked, and coded as numbers."""

import csv
import io
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.errors import FormatError, TableError
from annotation_platform.schema.geometry import FloatArray

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

ANNOTATION_COLUMNS = ("task", "worker", "label")
GOLD_COLUMNS = ("task", "label")

TIED = -1
"""The code of an undecided label."""


@dataclass(frozen=True)
class Superseded:
    """An annotation that does not count, because the same worker annotated the task again later."""

    line: int
    task: str
    worker: str
    label: str


@dataclass(frozen=True)
class AnnotationFile:
    """The content of a file of annotations."""

    # task, worker, label: one row per worker and task, in the file's order
    annotations: pd.DataFrame
    superseded: list[Superseded]
    warnings: list[str]


@dataclass(frozen=True)
class GoldFile:
    """The content of a file of gold labels."""

    gold: pd.DataFrame  # task, label: one row per task, in the file's order
    superseded: list[Superseded]
    warnings: list[str]


@dataclass(frozen=True)
class Votes:
    """Annotations as numbers, ordered by task and then worker.

    A cell is a task and a class that at least one worker gave it; cells are ordered by task and
    then class. Names are in the order of their code points, codes count from 0.
    """

    tasks: npt.NDArray[np.object_]
    workers: npt.NDArray[np.object_]
    classes: npt.NDArray[np.object_]
    task: IntArray  # (N,) of each annotation
    worker: IntArray  # (N,)
    label: IntArray  # (N,)
    cell: IntArray  # (N,)
    annotations: IntArray  # (T,) on each task
    first_cell: IntArray  # (T,)
    cell_task: IntArray  # (M,)
    cell_label: IntArray  # (M,)
    cell_votes: IntArray  # (M,)

    def most_in_task(self, values: npt.ArrayLike) -> FloatArray:
        """Return the largest of ``(M,)`` values by cell among the cells of each task."""
        return np.maximum.reduceat(np.asarray(values, dtype=np.float64), self.first_cell)

    def sum_in_task(self, values: npt.ArrayLike) -> FloatArray:
        """Return the sum of ``(M,)`` values by cell over the cells of each task."""
        return by_code(self.cell_task, values, len(self.tasks))


def by_code(code: IntArray, values: npt.ArrayLike, count: int) -> FloatArray:
    """Return ``(count,)`` sums of the values that have each code."""
    return np.bincount(code, np.asarray(values, dtype=np.float64), count).astype(np.float64)


def encode(annotations: pd.DataFrame) -> Votes:
    """Return annotations as numbers; the last row per worker and task counts.

    Args:
        annotations: columns ``task``, ``worker`` and ``label``; they are taken as strings.

    Raises:
        TableError: a column or a value is missing.
    """
    columns = [_strings(annotations, name) for name in ANNOTATION_COLUMNS]
    (task, tasks), (worker, workers), (label, classes) = (_codes(column) for column in columns)
    key = task * max(len(workers), 1) + worker
    order = np.argsort(key, kind="stable")
    last = np.ones(len(order), dtype=bool)
    last[:-1] = key[order[1:]] != key[order[:-1]]
    order = order[last]
    task, worker, label = task[order], worker[order], label[order]
    if len(order) < len(key):
        # A class that only superseded annotations had is removed.
        used, label = np.unique(label, return_inverse=True)
        classes = classes[used]
    cells, cell, votes = np.unique(
        task * max(len(classes), 1) + label, return_inverse=True, return_counts=True
    )
    cell_task, cell_label = np.divmod(cells, max(len(classes), 1))
    return Votes(
        *(tasks, workers, classes),
        *(task, worker, label, cell.astype(np.int64)),
        annotations=np.bincount(task, minlength=len(tasks)),
        first_cell=np.searchsorted(cell_task, np.arange(len(tasks))),
        cell_task=cell_task,
        cell_label=cell_label,
        cell_votes=votes.astype(np.int64),
    )


def code_gold(votes: Votes, gold: pd.DataFrame | None) -> IntArray:
    """Return the gold class of each task: ``TIED`` without gold, -2 for a class without votes.

    Gold of tasks without annotations is left out; the last row of a task counts.

    Raises:
        TableError: a column or a value is missing.
    """
    known = np.full(len(votes.tasks), TIED, dtype=np.int64)
    if gold is None or gold.empty:
        return known
    tasks, labels = (_strings(gold, name) for name in GOLD_COLUMNS)
    at = pd.Index(votes.tasks).get_indexer(pd.Index(tasks))
    code = pd.Index(votes.classes).get_indexer(pd.Index(labels))
    known[at[at >= 0]] = np.where(code < 0, -2, code)[at >= 0]
    return known


def read_annotations(path: Path) -> AnnotationFile:
    """Return the annotations of a CSV file with a header; all cells are text.

    The file needs the columns ``task``, ``worker`` and ``label``, in any order; others are ignored.
    Cells are separated by commas, semicolons or tabs and read unchanged, spaces included; empty
    lines are skipped. If a worker annotated a task more than once, the latest annotation counts and
    the others are listed.

    Raises:
        FormatError: the file cannot be read, is not UTF-8, has no annotations, lacks a column or
            names one twice, or a line has too few or too many cells or an empty required one. The
            message names the file and the line.
    """
    rows = _rows(path, ANNOTATION_COLUMNS)
    kept, superseded = _latest(rows, 2)
    annotations = pd.DataFrame(
        [cells for _, cells in kept], columns=list(ANNOTATION_COLUMNS), dtype="str"
    )
    warnings = [
        *_variants("class", annotations["label"].unique().tolist()),
        *_variants("worker", annotations["worker"].unique().tolist()),
    ]
    return AnnotationFile(
        annotations, [Superseded(line, *cells) for line, cells in superseded], warnings
    )


def read_gold(path: Path, annotations: pd.DataFrame) -> GoldFile:
    """Return the gold labels of a CSV file with the columns ``task`` and ``label``.

    The format is that of ``read_annotations``. Warnings name tasks that have no annotations, and
    labels that no annotation has.

    Raises:
        FormatError: as ``read_annotations``.
    """
    kept, superseded = _latest(_rows(path, GOLD_COLUMNS), 1)
    gold = pd.DataFrame([cells for _, cells in kept], columns=list(GOLD_COLUMNS), dtype="str")
    warnings = []
    unknown = gold.loc[~gold["task"].isin(annotations["task"]), "task"].tolist()
    if unknown:
        warnings.append(f"gold of {_listed(unknown, 'task')} without annotations is not used")
    given = annotations["label"].unique().tolist()
    unvoted = [label for label in gold["label"].unique() if label not in set(given)]
    if unvoted:
        warnings.append(f"gold has {_listed(unvoted, 'label')} that no annotation has")
    warnings += _variants("class", sorted({*given, *unvoted}), only=unvoted)
    repeats = [Superseded(line, task, "", label) for line, (task, label) in superseded]
    return GoldFile(gold, repeats, warnings)


def _strings(table: pd.DataFrame, name: str) -> npt.NDArray[np.object_]:
    if name not in table.columns:
        raise TableError(
            f"the table of annotations has no column {name}. Rename the column that holds it."
        )
    column = table[name]
    missing = np.flatnonzero(column.isna().to_numpy())
    if len(missing):
        raise TableError(
            f"row {missing[0]} of the table of annotations has no {name}. "
            "Remove the row or fill it in."
        )
    return column.astype("str").to_numpy(dtype=object)


def _codes(column: npt.NDArray[np.object_]) -> tuple[IntArray, npt.NDArray[np.object_]]:
    codes, names = pd.factorize(column, sort=True)
    return codes.astype(np.int64), np.asarray(names, dtype=object)


_Row = tuple[int, list[str]]


def _rows(path: Path, columns: Sequence[str]) -> Iterator[_Row]:
    """Yield the first line of each record and its cells of ``columns``."""
    text = _text(path)
    delimiter, header = _header(path, text, columns)
    positions = [header.index(name) for name in columns]
    records = _records(path, text, delimiter)
    next(records)
    count = 0
    for line, cells in records:
        if len(cells) != len(header):
            problem = f"{len(cells)} cells, but the header has {len(header)}"
            raise FormatError(str(path), line, problem, "Fix the line; quote cells with commas.")
        selected = [cells[position] for position in positions]
        for name, cell in zip(columns, selected, strict=True):
            if not cell.strip():
                raise FormatError(str(path), line, f"no {name}", "Fill it in or remove the line.")
        count += 1
        yield line, selected
    if not count:
        raise FormatError(str(path), 0, "no rows below the header", "Add at least one.")


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise FormatError(str(path), 0, problem, "Check the path and its permissions.") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise FormatError(str(path), line, "not UTF-8 text", "Save it as UTF-8.") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise FormatError(str(path), line, "a NUL character", "Save it as UTF-8 text.")
    return text


def _header(path: Path, text: str, columns: Sequence[str]) -> tuple[str, list[str]]:
    """Return the delimiter under which the header has these columns, and the whole header."""
    found: list[str] = []
    for delimiter in ",;\t":
        first = next(_records(path, text, delimiter), (1, []))[1]
        header = [cell.strip().lower() for cell in first]
        if not found or set(columns) & set(header):
            found = header
        if set(columns) <= set(header):
            repeated = [name for name in columns if header.count(name) > 1]
            if repeated:
                raise FormatError(str(path), 1, f"two columns are named {repeated[0]}", "Keep one.")
            return delimiter, header
    missing = ", ".join(name for name in columns if name not in found)
    actual = f"the header has {', '.join(found)}" if found else "the file is empty"
    raise FormatError(str(path), 1, f"no column {missing}: {actual}", "Rename or add the column.")


def _records(path: Path, text: str, delimiter: str) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            problem = f"cells that cannot be read ({error})"
            raise FormatError(str(path), line, problem, "Check the quotes.") from error
        if cells is None:
            return
        # A line of spaces counts as empty.
        if any(cell.strip() for cell in cells):
            yield line, cells


def _latest(rows: Iterator[_Row], key_cells: int) -> tuple[list[_Row], list[_Row]]:
    """Return the rows that are the last of their key, and the others, both in order."""
    last: dict[tuple[str, ...], _Row] = {}
    superseded: list[_Row] = []
    for row in rows:
        key = tuple(row[1][:key_cells])
        if key in last:
            superseded.append(last.pop(key))
        last[key] = row
    return list(last.values()), sorted(superseded)


def _variants(noun: str, names: Sequence[str], *, only: Sequence[str] | None = None) -> list[str]:
    """Return a warning for each group of names that differ only in case, spaces or Unicode form."""
    groups: dict[str, list[str]] = {}
    for name in names:
        plain = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        groups.setdefault(plain, []).append(name)
    return [
        f"{noun} names that differ only in case or spaces are treated as different: "
        + ", ".join(repr(name) for name in sorted(group))
        for group in groups.values()
        if len(group) > 1 and (only is None or set(group) & set(only))
    ]


def _listed(names: Sequence[str], noun: str) -> str:
    shown = ", ".join(repr(name) for name in list(names)[:3])
    more = ", …" if len(names) > 3 else ""
    return f"{len(names)} {noun}{'s' if len(names) > 1 else ''} ({shown}{more})"
