"""The command that resolves the annotations in a CSV file; it needs no platform."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annotation_platform.cli.options import AsJson
from annotation_platform.cli.output import (
    OUT,
    finite,
    print_json,
    print_line,
    print_rows,
    write_output,
)

if TYPE_CHECKING:
    from annotation_platform.consensus.annotations import AnnotationFile, GoldFile
    from annotation_platform.consensus.evidence import ClassConsensus

COLUMNS = ["task", "label", "posterior", "annotations", "agreed", "method"]


def consensus(
    annotations: Annotated[
        Path,
        typer.Argument(
            help="CSV file with the columns task, worker and label.", metavar="ANNOTATIONS"
        ),
    ],
    gold: Annotated[
        Path | None, typer.Option(help="CSV file with the columns task and label: gold tasks.")
    ] = None,
    ask: Annotated[
        int, typer.Option(min=0, help="Number of tasks to list for an expert, best first.")
    ] = 0,
    out: Annotated[Path | None, typer.Option(help="CSV file for the labels.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed for the order of --ask.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Resolve several annotations per task into one label.

    The majority decides; the more reliable annotators decide ties, or the task gets no label.
    A model decides where gold tasks (--gold) show that it is more accurate.
    An expert's labels for the tasks that --ask lists go into the gold file.
    """
    from annotation_platform.consensus.annotations import read_annotations, read_gold
    from annotation_platform.consensus.evidence import resolve_classes

    read = read_annotations(annotations)
    known = read_gold(gold, read.annotations) if gold else None
    found = resolve_classes(read.annotations, gold=known.gold if known else None, seed=seed)
    asked = found.ask(ask)
    if out:
        text = found.labels[COLUMNS].to_csv(index=False, float_format="%.6f", lineterminator="\n")
        write_output(out, text.encode())
    if as_json:
        print_json(_facts(found, read, known, asked))
    else:
        _show(found, read, known, asked, out)


def _facts(
    found: "ClassConsensus",
    read: "AnnotationFile",
    known: "GoldFile | None",
    asked: list[str],
) -> dict[str, Any]:
    labels = found.labels
    return {
        "method": found.method,
        "reason": found.reason,
        "tasks": len(labels),
        "annotations": len(read.annotations),
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
    return {str(name): finite(value) for name, value in row.items()}


def _show(
    found: "ClassConsensus",
    read: "AnnotationFile",
    known: "GoldFile | None",
    asked: list[str],
    out: Path | None,
) -> None:
    labels, workers = found.labels, found.workers.sort_values(["quality", "worker"])
    tied = int(labels["tied"].sum())
    rows = [
        [row["worker"], row["annotations"], _share(row["quality"]), _interval(row), row["compared"]]
        for row in workers.to_dict("records")
    ]
    print_rows(["worker", "annotations", "quality", "95 %", "compared"], rows, most=20)
    if out is None:
        shown = labels[COLUMNS].assign(posterior=labels["posterior"].map("{:.3f}".format))
        cells = shown.astype(object).where(shown.notna(), "–").to_numpy().tolist()
        print_rows(COLUMNS, cells, most=20)
    for line in _notes(read, known):
        print_line(f"note: {line}")
    if asked:
        OUT.print(f"Ask an expert about these {len(asked)} tasks:")
        for task in asked:
            name = task if task.isprintable() else repr(task)
            print_line(f"  {name}")
    where = f" → {out}" if out else ""
    counts = f"{len(labels)} tasks, {len(read.annotations)} annotations by {len(workers)} workers"
    print_line(f"{counts}, {tied} tied{where}")
    print_line(found.reason)


def _notes(read: "AnnotationFile", known: "GoldFile | None") -> list[str]:
    notes = [*read.warnings, *(known.warnings if known else [])]
    for kind, repeats in (
        ("annotations", read.superseded),
        ("gold labels", known.superseded if known else []),
    ):
        if repeats:
            lines = ", ".join(str(each.line) for each in repeats[:10])
            more = ", …" if len(repeats) > 10 else ""
            notes.append(
                f"{len(repeats)} {kind} do not count, a later one replaced them: line {lines}{more}"
            )
    return notes


def _interval(row: dict[Any, Any]) -> str:
    return f"{_share(row['low'])}–{_share(row['high'])}"


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"
