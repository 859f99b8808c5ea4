"""A list of images in a CSV file: location, name and metadata of each image."""

import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from annotation_platform.errors import DataError, FormatError
from annotation_platform.ingestion.arrivals import IncomingFile, landing_name, shown_name
from annotation_platform.storage.regular import is_unfinished, open_regular

_LOCATIONS = ("location", "url", "key", "path")
_DEGREES = {"latitude": 90.0, "longitude": 180.0}
_KNOWN = {*_LOCATIONS, "name", "source", "captured_at", *_DEGREES, "device", "licence", "consent"}
# Fields of a sidecar whose values cannot be written in a cell.
_RESERVED = {"geo", "labels"}

_MAXIMUM_BYTES = 64_000_000
_LONGEST_CELL = 100_000
_LONGEST_DERIVED = 150
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class ListEntry:
    """An image of a list: its line, its location, its name in the landing zone, its metadata."""

    line: int
    location: str
    name: str
    metadata: dict[str, object]


@dataclass(frozen=True)
class ListProblem:
    """The reason why the record that begins in a line cannot be used."""

    line: int
    problem: str


@dataclass(frozen=True)
class ImageList:
    """The usable records of a list, and the problems of the others; both in the list's order."""

    entries: list[ListEntry]
    problems: list[ListProblem]


def read_list(path: Path) -> ImageList:
    """Return the images of a CSV file with a header; bad records do not stop the others.

    The columns, in any order:

    - ``location``, or ``url``, ``key`` or ``path`` in place of it, required: an http or https
      address, ``s3://bucket/key``, or a path relative to the folder of the list.
    - ``name``: the name in the landing zone. Without it, the last part of the location; images of
      the same name each get sixteen digits of the hash of their location appended.
    - ``source``, ``device``, ``licence``, ``consent``: texts. ``captured_at``: ISO 8601.
      ``latitude`` and ``longitude``: degrees, both or neither.
    - Any other column is stored in the metadata under its own name.

    Cells are separated by commas, semicolons or tabs, whichever gives a header with a location.
    They are not trimmed; empty cells and empty lines are ignored. Latitude and longitude become
    numbers, all other cells stay text. Lines count from 1 as in an editor, so a quoted line break
    counts as well.

    Raises:
        FormatError: the file cannot be read, is not UTF-8 or over 64 MB, has a cell of more than
            100,000 characters, or a header without exactly one location, with a repeated column,
            with an unnamed one, or with one named ``geo`` or ``labels``.
    """
    text = _text(path)
    header, delimiter = _header(path, text)
    entries: list[ListEntry] = []
    problems: list[ListProblem] = []
    lines: dict[str, int] = {}
    records = _records(path, text, delimiter)
    next(records)
    for record in records:
        try:
            entry = _entry(record, header, lines)
        except DataError as error:
            problems.append(ListProblem(record.line, str(error)))
        else:
            lines[entry.location] = entry.line
            entries.append(entry)
    return ImageList(_with_own_names(entries), problems)


def fetch_entries(
    entries: Iterable[ListEntry], fetch: Callable[[str], bytes]
) -> Iterator[IncomingFile | ListProblem]:
    """Yield each image of a list, or the problem of downloading it, one at a time.

    ``fetch`` returns the bytes at a location, or raises a DataError.
    """
    for entry in entries:
        try:
            data = fetch(entry.location)
        except DataError as error:
            yield ListProblem(entry.line, str(error))
        else:
            yield IncomingFile(entry.name, data, entry.metadata or None)


def _text(path: Path) -> str:
    try:
        with open_regular(path) as (stream, _):
            data = stream.read(_MAXIMUM_BYTES + 1)
    except (DataError, OSError) as error:
        raise FormatError(str(path), 0, str(error), "Check the path and its rights.") from error
    if len(data) > _MAXIMUM_BYTES:
        raise FormatError(str(path), 0, f"more than {_MAXIMUM_BYTES} bytes", "Split it.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise FormatError(str(path), line, "not UTF-8 text", "Save it as UTF-8.") from error


def _header(path: Path, text: str) -> tuple[list[str], str]:
    """Return the columns, known ones in lower case, and the delimiter."""
    for delimiter in ",;\t":
        first = next(_records(path, text, delimiter), _Record(1, []))
        header = [_column(cell) for cell in first.cells]
        locations = [name for name in header if name in _LOCATIONS]
        if locations:
            break
    else:
        raise FormatError(
            str(path), 1, "no column named location", "Add location, url, key or path."
        )
    repeated = [name for name, count in Counter(header).items() if count > 1]
    bad = [name for name in header if not name or name in _RESERVED or "\0" in name]
    if len(locations) > 1:
        raise FormatError(
            str(path), 1, f"several columns for the location: {', '.join(locations)}", "Keep one."
        )
    if repeated or bad:
        name = shown_name([*repeated, *bad][0])
        problem = f"two columns are named {name}" if repeated else f"a column is named {name}"
        raise FormatError(str(path), 1, problem, "Rename or remove it.")
    return header, delimiter


def _column(cell: str) -> str:
    name = cell.strip().lower()
    return name if not name or name in _KNOWN | _RESERVED else cell


@dataclass(frozen=True)
class _Record:
    line: int
    cells: list[str]
    problem: str = ""


def _records(path: Path, text: str, delimiter: str) -> Iterator[_Record]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line, too_long = reader.line_num + 1, False
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if "field limit" not in str(error):
                yield _Record(line, [], f"its cells cannot be read ({error}); check the quotes")
                continue
            cells, too_long = [], True
        if cells is None:
            return
        if too_long or any(len(cell) > _LONGEST_CELL for cell in cells):
            raise FormatError(
                str(path),
                line,
                f"a cell of more than {_LONGEST_CELL} characters",
                "Shorten it, or close the quote that it opens.",
            )
        if cells:
            yield _Record(line, cells)


def _entry(record: _Record, header: list[str], lines: Mapping[str, int]) -> ListEntry:
    """Return the entry of a record; a DataError if it is unusable or repeats a location.

    ``lines`` has the line of each earlier location.
    """
    cells = record.cells
    if record.problem:
        raise DataError(record.problem)
    if len(cells) != len(header):
        raise DataError(f"{len(cells)} cells, but the header has {len(header)}")
    if any("\0" in cell for cell in cells):
        raise DataError("it has a NUL byte")
    texts = {column: cell for column, cell in zip(header, cells, strict=True) if cell}
    location = next((texts.pop(column) for column in _LOCATIONS if column in texts), "")
    _check_location(location)
    if location in lines:
        raise DataError(f"it has the same location as line {lines[location]}")
    name = texts.pop("name", None)
    name = _derived_name(location) if name is None else _given_name(name)
    return ListEntry(record.line, location, name, _metadata(texts))


def _check_location(location: str) -> None:
    if not location:
        raise DataError("it has no location")
    if location != location.strip():
        raise DataError("the location begins or ends with a blank; remove it")
    scheme, colon, rest = location.partition(":")
    if not colon or "/" in scheme:
        landing_name(location)
        return
    host, _, key = rest.removeprefix("//").partition("/")
    # Port, user and query are checked by the download.
    usable = rest.startswith("//") and host.strip()
    if scheme.lower() in {"http", "https"} and usable:
        return
    if scheme == "s3" and usable and key:
        return
    raise DataError(
        f"its location begins with {shown_name(scheme + ':')}; write http://host/…, "
        "https://host/…, s3://bucket/key or a path relative to the list"
    )


def _given_name(name: str) -> str:
    safe = landing_name(name)
    parts = PurePosixPath(safe).parts
    if any(part.startswith(".") for part in parts) or is_unfinished(safe):
        raise DataError(
            f"the name {shown_name(name)} is that of a hidden or unfinished file, which the "
            "landing zone ignores; rename it"
        )
    return safe


def _derived_name(location: str) -> str:
    is_web = location.lower().startswith(("http:", "https:"))
    path = unquote(re.split("[?#]", location)[0]) if is_web else location
    last = re.sub(r"[^\w.+-]", "_", path.rpartition("/")[2]).lstrip(".") or "image"
    if len(last.encode()) > _LONGEST_DERIVED:
        last = f"{_digits(location)}{PurePosixPath(last).suffix[:10]}"
    return f"{last}_" if is_unfinished(last) else last


def _metadata(texts: Mapping[str, str]) -> dict[str, object]:
    metadata: dict[str, object] = dict(texts)
    for column, most in _DEGREES.items():
        if column not in texts:
            continue
        number = float(texts[column]) if _NUMBER.fullmatch(texts[column]) else None
        if number is None or abs(number) > most:
            raise DataError(
                f"{column} {shown_name(texts[column])} is not a number of degrees from -{most:g} "
                f"to {most:g}"
            )
        metadata[column] = number
    if len(_DEGREES.keys() & texts.keys()) == 1:
        raise DataError("latitude or longitude is missing; give both or neither")
    if "captured_at" in texts:
        try:
            time = datetime.fromisoformat(texts["captured_at"])
            time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise DataError(
                f"captured_at {shown_name(texts['captured_at'])} is not a time like "
                "2026-05-01T12:00:00+02:00"
            ) from error
    return metadata


def _with_own_names(entries: list[ListEntry]) -> list[ListEntry]:
    """Return the entries with distinct names, which do not depend on their order."""
    counts = Counter(entry.name for entry in entries)
    distinct = []
    for entry in entries:
        path = PurePosixPath(entry.name)
        name = str(path.with_stem(f"{path.stem}-{_digits(entry.location)}"))
        distinct.append(replace(entry, name=name) if counts[entry.name] > 1 else entry)
    return distinct


def _digits(location: str) -> str:
    return hashlib.sha256(location.encode()).hexdigest()[:16]
