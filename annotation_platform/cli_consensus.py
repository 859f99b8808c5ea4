"""The command that makes one label of several answers; it needs nothing else of the platform."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annotation_platform.cli_output import OUT, AsJson, print_json, print_rows
from annotation_platform.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from annotation_platform.consensus.answers import AnswerFile, GoldFile
    from annotation_platform.consensus.evidence import ClassConsensus

COLUMNS = ["task", "label", "posterior", "answers", "agreed", "method"]


def consensus(
    answers: Annotated[
        Path, typer.Argument(help="CSV with the columns task, worker and label.", metavar="ANSWERS")
    ],
    gold: Annotated[
        Path | None, typer.Option(help="CSV with the columns task and label: known answers.")
    ] = None,
    ask: Annotated[
        int, typer.Option(min=0, help="Name so many tasks whose expert answer would decide most.")
    ] = 0,
    out: Annotated[Path | None, typer.Option(help="CSV that the labels are written to.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the order in which to ask.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Make one label per task of the answers of several people.

    The majority decides; ties fall to the more reliable or get no label.
    Where known answers (--gold) show that a model does better, it decides.
    Let an expert answer what --ask names, and add that to the gold.
    """
    from annotation_platform.consensus.answers import read_answers, read_gold
    from annotation_platform.consensus.evidence import resolve_classes

    read = read_answers(answers)
    known = read_gold(gold, read.answers) if gold else None
    found = resolve_classes(read.answers, gold=known.gold if known else None, seed=seed)
    asked = found.ask(ask)
    if out:
        _write(found.labels, out)
    if as_json:
        print_json(_facts(found, read, known, asked))
    else:
        _show(found, read, known, asked, out)


def _write(labels: "pd.DataFrame", out: Path) -> None:
    try:
        labels[COLUMNS].to_csv(out, index=False, float_format="%.6f", lineterminator="\n")
    except OSError as error:
        raise DataError(
            f"{out}: cannot be written ({error.strerror}). Name another file with --out."
        ) from error


def _facts(
    found: "ClassConsensus",
    read: "AnswerFile",
    known: "GoldFile | None",
    asked: list[str],
) -> dict[str, Any]:
    labels = found.labels
    return {
        "method": found.method,
        "reason": found.reason,
        "tasks": len(labels),
        "answers": len(read.answers),
        "tied": labels.loc[labels["tied"], "task"].tolist(),
        "ask": asked,
        "evidence": [_finite(asdict(each)) for each in found.evidence],
        "workers": [_finite(row) for row in found.workers.to_dict("records")],
        "labels": [_finite(row) for row in labels[COLUMNS].to_dict("records")],
        "superseded": [asdict(each) for each in read.superseded],
        "superseded_gold": [asdict(each) for each in known.superseded] if known else [],
        "warnings": [*read.warnings, *(known.warnings if known else [])],
    }


def _finite(row: dict[Any, Any]) -> dict[str, Any]:
    """Return a row in which what is not a number is null: JSON has no word for it."""
    return {
        str(name): None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }


def _show(
    found: "ClassConsensus",
    read: "AnswerFile",
    known: "GoldFile | None",
    asked: list[str],
    out: Path | None,
) -> None:
    labels, workers = found.labels, found.workers.sort_values(["quality", "worker"])
    tied = int(labels["tied"].sum())
    rows = [
        [row["worker"], row["answers"], _share(row["quality"]), _interval(row), row["compared"]]
        for row in workers.to_dict("records")
    ]
    print_rows(["worker", "answers", "quality", "95 %", "compared"], rows, most=20)
    if out is None:
        shown = labels[COLUMNS].assign(posterior=labels["posterior"].map("{:.3f}".format))
        cells = shown.astype(object).where(shown.notna(), "–").to_numpy().tolist()
        print_rows(COLUMNS, cells, most=20)
    for line in _notes(read, known):
        OUT.print(f"note: {line}", markup=False, soft_wrap=True)
    if asked:
        OUT.print(f"Ask an expert about these {len(asked)} tasks:")
        for task in asked:
            name = task if task.isprintable() else repr(task)
            OUT.print(f"  {name}", markup=False, soft_wrap=True)
    where = f" → {out}" if out else ""
    said = f"{len(labels)} tasks from {len(read.answers)} answers of {len(workers)} workers"
    OUT.print(f"{said}, {tied} tied{where}", markup=False, soft_wrap=True)
    OUT.print(found.reason, markup=False, soft_wrap=True)


def _notes(read: "AnswerFile", known: "GoldFile | None") -> list[str]:
    notes = [*read.warnings, *(known.warnings if known else [])]
    for what, repeats in (
        ("answers", read.superseded),
        ("known answers", known.superseded if known else []),
    ):
        if repeats:
            lines = ", ".join(str(each.line) for each in repeats[:10])
            more = ", …" if len(repeats) > 10 else ""
            notes.append(
                f"{len(repeats)} {what} do not count, a later one replaced them: line {lines}{more}"
            )
    return notes


def _interval(row: dict[Any, Any]) -> str:
    return f"{_share(row['low'])}–{_share(row['high'])}"


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"
