"""Commands about rounds: their jobs, their progress, their annotations, decisions about them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from annotation_platform.actor import system_user
from annotation_platform.cli.options import AsJson, Reason, RoundId
from annotation_platform.cli.output import (
    OUT,
    print_json,
    print_line,
    print_result,
    progress_bar,
    table_of,
    write_output,
)
from annotation_platform.cli.registries import own_lake, own_policy, own_settings

if TYPE_CHECKING:
    from annotation_platform.labeling.backends.protocol import LabelingBackend
    from annotation_platform.storage.lake import Lake

app = typer.Typer(
    help="Run, show and close rounds, and list their annotations.",
    no_args_is_help=True,
)

_CONSEQUENCES = {
    "closed": "labeling_complete_sensor merges the annotations it has.",
    "cancelled": "labeling_complete_sensor removes its labels.",
    "reopened": "Annotators can go on with it.",
}


@app.command("start")
def round_start(
    round_id: Annotated[
        str,
        typer.Argument(
            metavar="ROUND", help="Round; the oldest not started, or a new one, by default."
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Start a round: clean its images, predict, select, and publish tasks (job start_round)."""
    from annotation_platform.ingestion.events import LandingEvents
    from annotation_platform.ingestion.watch import round_to_start

    settings = own_settings()
    round_id = round_id or round_to_start(
        own_lake(settings),
        LandingEvents(settings.landing_queue, settings.landing_url),
        own_policy(settings).rounds,
        now=datetime.now(UTC),
    )
    run_round_job("start_round", round_id, as_json)


@app.command("ask-again")
def round_ask_again(round_id: RoundId, as_json: AsJson = False) -> None:
    """Publish further assignments for tasks without a sufficient vote margin (job ask_again)."""
    run_round_job("ask_again", round_id, as_json)


@app.command("merge")
def round_merge(round_id: RoundId, as_json: AsJson = False) -> None:
    """Resolve a round's annotations into labels; release it if possible (job merge_round)."""
    run_round_job("merge_round", round_id, as_json)


@app.command("release")
def round_release(round_id: RoundId, as_json: AsJson = False) -> None:
    """Publish the reviewed labels of a round as a dataset version (job release_round)."""
    run_round_job("release_round", round_id, as_json)


@app.command("show")
def round_show(round_id: RoundId, as_json: AsJson = False) -> None:
    """Show the progress of each stage of a round, and the decisions about it."""
    from annotation_platform.reporting.status import round_progress

    progress = round_progress(own_lake(), round_id)
    if as_json:
        print_json(progress)
        return
    OUT.print(table_of(progress["stages"], title=round_id))
    for decision in progress["decisions"]:
        print_line("{action} by {by} at {at}: {reason}".format(**decision))


@app.command("report")
def round_report(
    round_id: RoundId,
    out: Annotated[Path | None, typer.Option(help="HTML file; ROUND.html by default.")] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Compute the figures again first (job report_round).")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the report of a round as one HTML page: figures, images, advice for the next."""
    from annotation_platform.reporting.round_page import render_round
    from annotation_platform.servers.jobs import run_job

    settings = own_settings()
    if refresh:
        run_job("report_round", settings, round_id=round_id)
    page = render_round(own_lake(settings), round_id, own_policy(settings))
    file = out or Path(f"{round_id}.html")
    write_output(file, page.encode())
    print_result({"round": round_id, "file": str(file)}, as_json, f"The report is in {file}.")


@app.command("annotations")
def round_annotations(
    round_id: RoundId,
    not_counted: Annotated[
        bool, typer.Option("--not-counted", help="List only annotations that are not counted.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="CSV file for the annotations.")] = None,
    names: Annotated[
        bool,
        typer.Option("--names", help="E-mail addresses instead of pseudonyms, for payment."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List every annotation of a round: counted, or the reason why not."""
    from annotation_platform.labeling.rounds import seen_annotations

    lake, labeling = _lake_and_labeling()
    found = seen_annotations(round_id, labeling, lake, names=names, now=datetime.now(UTC))
    if not_counted:
        found = found[found["state"] != "counted"]
    if out is not None:
        write_output(out, found.to_csv(index=False).encode())
    states = {str(key): int(number) for key, number in found["state"].value_counts().items()}
    if as_json:
        rows = found.to_dict("records")
        print_json({"round": round_id, "states": states, "annotations": rows})
        return
    by_person = found.groupby(["annotator", "state"], as_index=False).agg(
        annotations=("annotation_id", "size"),
        minutes=("lead_time_seconds", lambda seconds: round(seconds.sum() / 60)),
    )
    shown: list[dict[str, Any]] = [
        {str(key): value for key, value in row.items()} for row in by_person.to_dict("records")
    ]
    title = f"annotations of {round_id}"
    OUT.print(table_of(shown, title=title) if shown else "No annotations yet.")
    if out is not None:
        print_line(f"{len(found)} annotations in {out}")


@app.command("close")
def round_close(round_id: RoundId, reason: Reason, as_json: AsJson = False) -> None:
    """Close a round: complete tasks count, and the other images are selected again later."""
    from annotation_platform.labeling.rounds import close_round
    from annotation_platform.schema.tables import LabelTasks

    lake, labeling = _lake_and_labeling()
    lake.tables.read(LabelTasks, round_id)
    now = datetime.now(UTC)
    close_round(round_id, reason, system_user(), labeling, lake, now=now)
    _print_decision(round_id, "closed", as_json)


@app.command("cancel")
def round_cancel(round_id: RoundId, reason: Reason, as_json: AsJson = False) -> None:
    """Cancel a round: nothing of it counts, its images are selected again, annotations stay."""
    _decide(round_id, "cancelled", reason, as_json)


@app.command("reopen")
def round_reopen(round_id: RoundId, reason: Reason, as_json: AsJson = False) -> None:
    """Re-open a closed or cancelled round, as if it had not been closed."""
    _decide(round_id, "reopened", reason, as_json)


def run_round_job(name: str, round_id: str, as_json: bool) -> None:
    """Run a Dagster job on a round, showing a bar, and print that it succeeded."""
    from annotation_platform.servers.jobs import run_job

    with progress_bar(f"{name} {round_id}"):
        run_job(name, own_settings(), round_id=round_id)
    facts = {"round": round_id, "job": name}
    print_result(facts, as_json, f"{name} of {round_id} succeeded.")


def _decide(
    round_id: str, action: Literal["cancelled", "reopened"], reason: str, as_json: bool
) -> None:
    from annotation_platform.labeling.rounds import decide_round

    lake = own_lake()
    decide_round(round_id, action, reason, system_user(), lake, now=datetime.now(UTC))
    _print_decision(round_id, action, as_json)


def _print_decision(round_id: str, action: str, as_json: bool) -> None:
    facts = {"round": round_id, "action": action}
    print_result(facts, as_json, f"{round_id} is {action}. {_CONSEQUENCES[action]}")


def _lake_and_labeling() -> "tuple[Lake, LabelingBackend]":
    from annotation_platform.labeling.backends.registry import labeling_of

    settings = own_settings()
    lake = own_lake(settings)
    return lake, labeling_of(settings, lake.store, own_policy(settings))
