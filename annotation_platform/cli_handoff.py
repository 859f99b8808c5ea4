"""The commands about outside vendors: what goes out, and what comes back."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from annotation_platform.cli_output import AsJson, answer, print_json, print_rows
from annotation_platform.errors import DataError, SettingsError
from annotation_platform.settings import read_settings

if TYPE_CHECKING:
    from annotation_platform.labeling.handoff_returns import Imported

handoff_app = typer.Typer(
    help="Packages for outside vendors, and what they answer.", no_args_is_help=True
)

_SHOWN = 20
"""So many problems are told one by one."""


@handoff_app.command("export")
def handoff_export(
    round_id: Annotated[str, typer.Argument(metavar="ROUND", help="Such as round-0001.")],
    out: Annotated[Path, typer.Option(help="FILE.zip, or a folder; must not be there yet.")],
    form: Annotated[
        Literal["label-studio", "coco", "pybossa"],
        typer.Option("--format", help="How the vendor answers."),
    ] = "label-studio",
    vendor: Annotated[
        str, typer.Option(help="Whose people answer; they are told apart by it.")
    ] = "vendor",
    only_open: Annotated[
        bool, typer.Option("--open", help="Only places that nobody has answered yet.")
    ] = False,
    pictures_url: Annotated[
        str, typer.Option(help="For Pybossa: the address below which images/ is served.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Write a round's tasks, pictures and guidelines as a package for a vendor."""
    from annotation_platform.labeling.handoff import HandoffLabeling
    from annotation_platform.labeling.handoff_package import write_package
    from annotation_platform.landing.lake import lake_of

    store = lake_of(read_settings()).store
    labeling = HandoffLabeling(store)
    manifest = labeling.make_package(round_id, vendor=vendor, only_open=only_open)
    pictures = write_package(
        manifest, labeling.copies(round_id), store, out, form=form, pictures_url=pictures_url
    )
    facts = {
        "package": manifest.package,
        "out": str(out),
        "tasks": len(manifest.places_of),
        "places": len(manifest.places),
        "pictures": pictures,
    }
    said = (
        f"package {manifest.package} in {out}: {facts['tasks']} tasks with {facts['places']} "
        f"places on {pictures} pictures"
    )
    answer(facts, as_json, said)


@handoff_app.command("import")
def handoff_import(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE.zip|FOLDER|ANSWERS.json]", help="What the vendor returned."),
    ] = None,
    source: Annotated[
        Literal["package", "pybossa"],
        typer.Option("--from", help="A returned package, or exports of Pybossa's."),
    ] = "package",
    tasks: Annotated[Path | None, typer.Option(help="Pybossa's export of the tasks.")] = None,
    task_runs: Annotated[Path | None, typer.Option(help="Its export of the task runs.")] = None,
    package: Annotated[str, typer.Option(help="Its id, where the answers do not say it.")] = "",
    annotator: Annotated[str, typer.Option(help="Who answered, where they do not say it.")] = "",
    skip_wrong: Annotated[
        bool, typer.Option("--skip-wrong", help="Take the right answers all the same.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check what a vendor returned and take it: all of it, or nothing if anything is wrong."""
    from annotation_platform.labeling.handoff import HandoffLabeling
    from annotation_platform.labeling.handoff_returns import import_answers, read_returned
    from annotation_platform.labeling.pybossa import read_pybossa
    from annotation_platform.landing.lake import lake_of

    labeling = HandoffLabeling(lake_of(read_settings()).store)
    if source == "pybossa":
        if tasks is None or task_runs is None or path is not None:
            raise SettingsError("--from pybossa takes --tasks FILE and --task-runs FILE.")
        returned = read_pybossa(tasks, task_runs)
    elif path is None or tasks is not None or task_runs is not None:
        raise SettingsError("Name the one zip, folder or file that the vendor returned.")
    else:
        returned = read_returned(path, package=package)
    done = import_answers(
        labeling, returned, annotator=annotator, skip_wrong=skip_wrong, now=datetime.now(UTC)
    )
    _tell(done, skip_wrong=skip_wrong, as_json=as_json)


def _tell(done: "Imported", *, skip_wrong: bool, as_json: bool) -> None:
    """Print what became of answers; a DataError if nothing was taken, exit 1 if not all were."""
    wrong = [asdict(each) for each in done.problems[:_SHOWN]]
    if as_json:
        counts = {"stored": done.stored, "known": done.known, "unanswered": done.unanswered}
        print_json({**counts, "wrong": len(done.problems), "problems": wrong})
    elif wrong:
        print_rows(["where", "problem"], [list(each.values()) for each in wrong])
    if done.problems and not skip_wrong:
        raise DataError(
            f"{len(done.problems)} problems, the first {len(wrong)} of them are listed; nothing "
            "was stored. Have them mended, or pass --skip-wrong to take the other answers."
        )
    if not as_json:
        said = f"{done.stored} answers stored, {done.known} were there already"
        left = f", {done.unanswered} places are not answered yet" if done.unanswered else ""
        more = f", {len(done.problems)} problems" if done.problems else ""
        answer({}, False, f"{said}{left}{more}")
    if done.problems:
        raise typer.Exit(1)
