"""How commands print: tables, sentences and progress bars, or one line of JSON."""

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from annotation_platform.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

OUT = Console(highlight=False)


def print_result(facts: dict[str, Any], as_json: bool, sentence: str) -> None:
    """Print the facts as JSON, or the sentence that describes them."""
    if as_json:
        print_json(facts)
    else:
        print_line(sentence)


def print_line(text: str) -> None:
    """Print text as it is: no markup is read from it, and lines are not broken."""
    OUT.print(text, markup=False, soft_wrap=True)


def print_json(data: dict[str, Any]) -> None:
    """Print one JSON object on one line."""
    sys.stdout.write(json.dumps(data, default=str) + "\n")


def json_rows(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return the rows of a table for JSON: a missing value is null."""
    columns = [frame[name].astype(object).where(frame[name].notna(), None) for name in frame]
    names = [str(name) for name in frame]
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def finite(value: Any) -> Any:
    """Return the value, or None for a float that JSON has no literal for: NaN and infinities."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table_of(rows: list[dict[str, Any]], *, title: str) -> Table:
    """Return a table whose columns are the keys of the first row; ``rows`` is not empty."""
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    return table


@contextmanager
def progress_bar(work: str = "reading files") -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr during long work; yields a function of done and total."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(work, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def share_bar(work: str) -> Iterator[Callable[[float], None]]:
    """Show a bar on stderr during long work; yields a function of the done share, 0 to 1."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(work, total=1.0)
        yield lambda share: bar.update(task, completed=share)


def print_rows(columns: list[str], rows: list[list[Any]], *, most: int = 50) -> None:
    """Print at most ``most`` rows under their columns, without control characters."""
    # Into a file or a pipe the table is as wide as it needs to be, instead of cut at 80 columns.
    out = OUT if OUT.is_terminal else Console(highlight=False, width=100_000)
    table = Table()
    for name in columns:
        table.add_column(_printable(name))
    for row in rows[:most]:
        table.add_row(*(_printable(value) for value in row))
    out.print(table)
    if len(rows) > most:
        out.print(f"... and {len(rows) - most} more; --json prints all")


def _printable(value: object) -> Text:
    """Return a value without control characters: file names and comments come from anywhere."""
    text = "null" if value is None else str(value)
    return Text("".join(each if each.isprintable() or each == "\n" else "\ufffd" for each in text))


def write_output(path: Path, data: bytes, *, option: str = "--out") -> None:
    """Write the file that an option names.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        path.write_bytes(data)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}). Name another file with {option}."
        ) from error
