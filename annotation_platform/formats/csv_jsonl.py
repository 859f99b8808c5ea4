"""CSV and JSON Lines: one row, or line, per label; an image without labels has one row.

Both hold a complete ``Dataset``: each can be converted to the other, and writing a dataset that was
read gives the same bytes. Columns, and keys, are ``COLUMNS``; a key without a value is omitted, a
cell without a value is empty:

* ``image_id file_name split width height`` describe the image, equally in each of its rows;
* ``class_id class_name shape x1 y1 x2 y2 geometry instance attributes`` describe the label, as in
  ``schema/dataset.py``: absolute pixels, choices without a box. In CSV ``geometry`` and
  ``attributes`` are JSON texts, in JSON Lines they are JSON values.

``ontology.json`` in the same folder holds the classes with colours, shapes, earlier names and
guidelines. Without it, reading takes the classes' names and ids from the rows.

CSV is UTF-8 according to RFC 4180. A spreadsheet treats a cell that begins with ``=`` and similar
characters as a formula (CWE-1236; OWASP ASVS 1.2.10). With ``spreadsheet=True`` each such cell gets
the prefix ``'``, and the additional column ``escaped`` lists the row's columns with a prefix;
reading removes exactly those. The other form, for programs, changes no cell.

Neither format loses anything. Reading refuses values that a ``Dataset`` cannot hold, and unknown
columns.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from annotation_platform.errors import DataError, FormatError
from annotation_platform.formats.files import (
    check_image_ids,
    check_split_names,
    class_ids,
    finite_numbers,
    read_text,
    refuse_link,
    refuse_way_out,
)
from annotation_platform.formats.rows import (
    COLUMNS,
    ONTOLOGY_FILE,
    DatasetRows,
    json_text,
    label_problem,
    ontology_next_to,
    parse_json,
    parse_line,
)
from annotation_platform.schema.dataset import IMAGE_COLUMNS, Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.shapes import WITH_CLASS

HOLDS = WITH_CLASS
"""Shapes that both formats hold: all."""

ESCAPED = "escaped"
CSV_FILE, JSONL_FILE = "labels.csv", "labels.jsonl"

_JSON_COLUMNS = ("geometry", "attributes")
_NUMBER_COLUMNS = ("width", "height", "class_id", *BOX_COLUMNS)
# First characters of a formula in spreadsheets; the last four are the full-width forms.
_FORMULA = re.compile("[=+\\-@\t\r\n＝＋－＠]")
_LONGEST_CELL = 2**28
_WHOLE = re.compile(r"[0-9]{1,18}")


def render_csv(dataset: Dataset, *, spreadsheet: bool = False) -> dict[str, bytes]:
    """Return ``labels.csv`` and ``ontology.json``, sorted by image and label.

    Equal datasets give equal bytes, regardless of the order of their rows.

    Args:
        dataset: The dataset to write.
        spreadsheet: Whether cells that spreadsheets treat as formulas are escaped.

    Raises:
        DataError: a class, its image or a position is unknown, a geometry does not fit its shape,
            or a name is not valid text or not a file name.
    """
    text = io.StringIO(newline="")
    # With this line end, the writer quotes a cell that contains either of its characters.
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([*COLUMNS, *([ESCAPED] if spreadsheet else [])])
    rows = _rows(dataset)
    writer.writerows(map(_escape, rows) if spreadsheet else rows)
    # Spreadsheets recognise UTF-8 by the byte order mark.
    mark = "\ufeff" if spreadsheet else ""
    return {CSV_FILE: _encoded(mark + text.getvalue()), **render_ontology(dataset)}


def render_jsonl(dataset: Dataset) -> dict[str, bytes]:
    """Return ``labels.jsonl`` and ``ontology.json``; see ``render_csv``."""
    lines = [line for found in jsonl_lines(dataset).values() for line in found]
    return {
        JSONL_FILE: _encoded("".join(f"{line}\n" for line in lines)),
        **render_ontology(dataset),
    }


def render_ontology(dataset: Dataset) -> dict[str, bytes]:
    """Return ``ontology.json``: the complete ontology."""
    shown = dataset.ontology.model_dump(mode="json")
    return {ONTOLOGY_FILE: _encoded(json.dumps(shown, ensure_ascii=False, indent=2) + "\n")}


def jsonl_lines(dataset: Dataset) -> dict[str, list[str]]:
    """Return the lines of each image, by image id, in order; see ``render_csv`` for errors."""
    quote = json.JSONEncoder(ensure_ascii=False).encode
    texts = {"image_id", "file_name", "split", "class_name", "shape", "instance"}
    found: dict[str, list[str]] = {}
    for row in _rows(dataset):
        cells = zip(COLUMNS, row, strict=True)
        # All columns of the image are written; of the label, only those with a value.
        items = [
            f'"{name}":{quote(cell) if name in texts else cell}'
            for index, (name, cell) in enumerate(cells)
            if cell or index < len(IMAGE_COLUMNS)
        ]
        found.setdefault(row[0], []).append(f"{{{','.join(items)}}}")
    return found


def _rows(dataset: Dataset) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each row of ``COLUMNS``, sorted."""
    ids = class_ids(dataset)
    check_image_ids(dataset)
    check_split_names(dataset)
    for name in (*dataset.images["image_id"].tolist(), *dataset.images["file_name"].tolist()):
        refuse_way_out(name or ".", where=Path("the dataset"))
    labels = dataset.labels.assign(
        class_id=ids,
        # Adding zero turns -0.0 into 0.0: the two would be written differently.
        **{edge: dataset.labels[edge].astype("float64") + 0.0 for edge in BOX_COLUMNS},
        geometry=[_canonical_text(each) for each in dataset.labels["geometry"]],
        attributes=[_canonical_attributes(each) for each in dataset.labels["attributes"]],
    )
    labels = labels.sort_values(
        ["image_id", "shape", "class_name", *BOX_COLUMNS, "geometry", "instance", "attributes"]
    )
    names = labels["image_id"].tolist()
    columns = [labels[name].tolist() for name in COLUMNS[len(IMAGE_COLUMNS) :]]
    of_image: dict[str, list[tuple[str, ...]]] = {}
    for image_id, row in zip(names, zip(*columns, strict=True), strict=True):
        key, name, shape, *box, geometry, instance, attributes = row
        problem = label_problem(shape, box, geometry)
        if problem:
            raise DataError(f"image {image_id}: a {shape} {problem}. Correct or remove it.")
        edges = ["" if np.isnan(edge) else repr(edge) for edge in box]
        cells = (str(key), name, shape, *edges, geometry, instance, attributes)
        of_image.setdefault(image_id, []).append(cells)
    images = dataset.images.sort_values("image_id")
    nothing = [("",) * (len(COLUMNS) - len(IMAGE_COLUMNS))]
    for image in zip(*(images[name].tolist() for name in IMAGE_COLUMNS), strict=True):
        head = tuple(map(str, image))
        for cells in of_image.get(image[0], nothing):
            yield (*head, *cells)


def _escape(row: tuple[str, ...]) -> list[str]:
    is_formula = [bool(_FORMULA.match(cell)) for cell in row]
    cells = [f"'{cell}" if escape else cell for cell, escape in zip(row, is_formula, strict=True)]
    names = [name for name, escape in zip(COLUMNS, is_formula, strict=True) if escape]
    return [*cells, " ".join(names)]


def _canonical_text(text: str) -> str:
    """Return the canonical form of a JSON text; empty for an empty object."""
    if not text:
        return ""
    try:
        return json_text(parse_json(text))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{text[:80]!r} is not JSON ({error}). Correct the label.") from error


@lru_cache(maxsize=1024)
def _canonical_attributes(text: str) -> str:
    canonical = _canonical_text(text)
    if canonical and not canonical.startswith("{"):
        raise DataError(f"the attributes {text[:80]!r} are not a JSON object. Correct the label.")
    return canonical


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        near = text[max(error.start - 20, 0) : error.end]
        raise DataError(f"{near!r} contains half a surrogate pair. Rename it.") from error


def read_csv(path: Path) -> Dataset:
    """Return the dataset of a CSV file, or of ``labels.csv`` in a folder, in either form.

    Columns may be in any order, and label columns without values may be missing.

    Raises:
        FormatError: the file is not such a CSV, contradicts itself on an image, names a file
            outside its folder, or has a value that a dataset cannot hold; a link out of the folder.
    """
    file = _file(path, CSV_FILE)
    reader = csv.reader(io.StringIO(read_text(file, newline=""), newline=""), strict=True)
    found = DatasetRows(file)
    names: list[str] = []
    # The limit applies to the whole process, so it is restored for other readers.
    usual = csv.field_size_limit(_LONGEST_CELL)
    try:
        for row in reader:
            if not names:
                names = _header(row, file)
            elif row:
                found.add(_record(names, row, file, reader.line_num), reader.line_num)
    except csv.Error as error:
        problem = f"not CSV ({error})"
        raise FormatError(str(file), reader.line_num, problem, "Export it again.") from error
    finally:
        csv.field_size_limit(usual)
    return found.dataset(ontology_next_to(file))


def read_jsonl(path: Path) -> Dataset:
    """Return the dataset of a file of JSON Lines, or of ``labels.jsonl`` in a folder.

    Raises:
        FormatError: see ``read_csv``.
    """
    file = _file(path, JSONL_FILE)
    found = DatasetRows(file)
    # A name may contain other characters that splitlines treats as line ends.
    for number, line in enumerate(read_text(file, newline="").split("\n"), start=1):
        if line.strip():
            found.add(parse_line(line, file, number), number)
    return found.dataset(ontology_next_to(file))


def _file(path: Path, name: str) -> Path:
    file = path / name if path.is_dir() else path
    refuse_link(file, file.parent)
    return file


def _header(row: list[str], file: Path) -> list[str]:
    unknown = [name for name in row if name not in (*COLUMNS, ESCAPED)]
    missing = [name for name in (*IMAGE_COLUMNS, "class_name") if name not in row]
    if unknown or missing or len(set(row)) < len(row):
        names = unknown or missing
        problem = f"{'unknown' if unknown else 'no' if names else 'repeated'} column {names[:3]}"
        raise FormatError(str(file), 1, problem, f"Expected are {', '.join(COLUMNS)}.")
    return row


def _record(names: list[str], row: list[str], file: Path, line: int) -> dict[str, Any]:
    """Return a row of CSV as the object that a JSON line has."""
    if len(row) != len(names):
        problem = f"{len(row)} cells, expected {len(names)}"
        raise FormatError(str(file), line, problem, "Export it again.")
    cells = dict(zip(names, row, strict=True))
    for name in cells.pop(ESCAPED, "").split():
        if not cells.get(name, "").startswith("'"):
            problem = f"the cell {name[:80]!r} is listed as escaped, but has no prefix"
            raise FormatError(str(file), line, problem, "Do not edit the column `escaped`.")
        cells[name] = cells[name][1:]
    record: dict[str, Any] = {}
    for name, cell in cells.items():
        if name in _NUMBER_COLUMNS and cell:
            numbers = finite_numbers([cell])
            whole = _WHOLE.fullmatch(cell)
            record[name] = int(cell) if whole else numbers[0] if numbers else cell
        elif name in _JSON_COLUMNS and cell:
            record[name] = parse_line(cell, file, line)
        elif cell or name in IMAGE_COLUMNS:
            record[name] = cell
    return record
