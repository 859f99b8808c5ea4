"""How commands answer: tables and bars for people, one JSON object for programs."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import pandas as pd

OUT = Console(highlight=False)

Email = Annotated[str, typer.Argument(help="Of the account in Label Studio.")]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


def answer(facts: dict[str, Any], as_json: bool, sentence: str) -> None:
    """Print the facts as JSON, or the sentence that says them."""
    if as_json:
        print_json(facts)
    else:
        OUT.print(sentence, markup=False, soft_wrap=True)


def print_json(data: dict[str, Any]) -> None:
    """Print one JSON object on one line."""
    sys.stdout.write(json.dumps(data, default=str) + "\n")


def json_rows(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return the rows of a table as JSON knows them: what is missing is null."""
    columns = [frame[name].astype(object).where(frame[name].notna(), None) for name in frame]
    names = [str(name) for name in frame]
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def table_of(rows: list[dict[str, Any]], *, title: str) -> Table:
    """Return a table with the keys of the first row as its head."""
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    return table


@contextmanager
def looking_at_files() -> Iterator[Callable[[int, int], None]]:
    """Show a bar while files are looked at; what is given takes the done and all of them."""
    with bar_of("looking at files") as progress:
        yield progress


@contextmanager
def bar_of(work: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr during long work; what is given takes the done and all of it."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(work, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_rows(columns: list[str], rows: list[list[Any]], *, most: int = 50) -> None:
    """Print rows under their columns, at most so many, safe against what names may hold."""
    # Into a file or a pipe the table is as wide as it needs to be, instead of cut at 80 columns.
    out = OUT if OUT.is_terminal else Console(highlight=False, width=100_000)
    table = Table()
    for name in columns:
        table.add_column(_printable(name))
    for row in rows[:most]:
        table.add_row(*(_printable(value) for value in row))
    out.print(table)
    if len(rows) > most:
        out.print(f"... and {len(rows) - most} more; --json gives all")


def _printable(value: object) -> Text:
    """Return a value without what would steer the terminal: names of files come from anywhere."""
    text = "null" if value is None else str(value)
    return Text("".join(each if each.isprintable() or each == "\n" else "\ufffd" for each in text))
