"""Commands about annotation vendors: packages that go out, and annotations that come back."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from annotation_platform.cli.options import AsJson, RoundId, with_option_groups
from annotation_platform.cli.output import print_json, print_line, print_result, print_rows
from annotation_platform.cli.registries import own_lake
from annotation_platform.errors import DataError, SettingsError

if TYPE_CHECKING:
    from annotation_platform.labeling.backends.vendor.returns import Imported

app = typer.Typer(
    help="Export tasks to annotation vendors and import their annotations.", no_args_is_help=True
)

_SHOWN = 20
"""Number of problems that are listed."""


@app.command("export")
def vendor_export(
    round_id: RoundId,
    out: Annotated[Path, typer.Option(help="FILE.zip, or a folder; it must not exist.")],
    form: Annotated[
        Literal["label-studio", "coco", "pybossa"],
        typer.Option("--format", help="Format in which the vendor returns annotations."),
    ] = "label-studio",
    vendor: Annotated[
        str, typer.Option(help="Name of the vendor; it prefixes the annotators' names.")
    ] = "vendor",
    only_open: Annotated[
        bool, typer.Option("--open", help="Export only assignments without an annotation.")
    ] = False,
    images_url: Annotated[
        str, typer.Option(help="Address at which images/ is served; only for PyBossa.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Write a package for a vendor: a round's tasks, images and guidelines."""
    from annotation_platform.labeling.backends.vendor.backend import VendorLabeling
    from annotation_platform.labeling.backends.vendor.package import write_package

    store = own_lake().store
    labeling = VendorLabeling(store)
    manifest = labeling.make_package(round_id, vendor=vendor, only_open=only_open)
    images = write_package(
        manifest, labeling.replicas(round_id), store, out, form=form, images_url=images_url
    )
    facts = {
        "package": manifest.package,
        "out": str(out),
        "tasks": len(manifest.assignments_of),
        "assignments": len(manifest.assignments),
        "images": images,
    }
    sentence = (
        f"package {manifest.package} in {out}: {facts['tasks']} tasks with "
        f"{facts['assignments']} assignments on {images} images"
    )
    print_result(facts, as_json, sentence)


@dataclass(frozen=True)
class ReturnOptions:
    """The files that a vendor returned, and their format."""

    source: Annotated[
        Literal["package", "pybossa"],
        typer.Option("--from", help="Kind of files: a returned package, or PyBossa's exports."),
    ] = "package"
    tasks: Annotated[Path | None, typer.Option(help="PyBossa's export of the tasks.")] = None
    task_runs: Annotated[Path | None, typer.Option(help="PyBossa's export of the task runs.")] = (
        None
    )
    package: Annotated[str, typer.Option(help="Package id, if the files do not contain it.")] = ""
    annotator: Annotated[
        str, typer.Option(help="Name of the annotator, if the files do not contain it.")
    ] = ""


@app.command("import")
@with_option_groups
def vendor_import(
    returned: ReturnOptions,
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE.zip|FOLDER|ANNOTATIONS.json]", help="Files that the vendor returned."
        ),
    ] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Import the valid annotations only.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check what a vendor returned and import it: everything, or nothing if part is invalid."""
    from annotation_platform.labeling.backends.pybossa.exports import read_pybossa
    from annotation_platform.labeling.backends.vendor.backend import VendorLabeling
    from annotation_platform.labeling.backends.vendor.returns import (
        import_annotations,
        read_returned,
    )

    labeling = VendorLabeling(own_lake().store)
    tasks, task_runs = returned.tasks, returned.task_runs
    if returned.source == "pybossa":
        if tasks is None or task_runs is None or path is not None:
            raise SettingsError("--from pybossa takes --tasks FILE and --task-runs FILE.")
        content = read_pybossa(tasks, task_runs)
    elif path is None or tasks is not None or task_runs is not None:
        raise SettingsError("Name the one zip, folder or file that the vendor returned.")
    else:
        content = read_returned(path, package=returned.package)
    done = import_annotations(
        labeling,
        content,
        annotator=returned.annotator,
        skip_wrong=skip_invalid,
        now=datetime.now(UTC),
    )
    _print_imported(done, skip_invalid=skip_invalid, as_json=as_json)


def _print_imported(done: "Imported", *, skip_invalid: bool, as_json: bool) -> None:
    """Print what was imported.

    Raises:
        DataError: something is invalid and nothing was imported.
        typer.Exit: with 1, if only the valid annotations were imported.
    """
    problems = [asdict(each) for each in done.problems[:_SHOWN]]
    if as_json:
        counts = {"stored": done.stored, "known": done.known, "missing": done.unannotated}
        print_json({**counts, "invalid": len(done.problems), "problems": problems})
    elif problems:
        print_rows(["where", "problem"], [list(each.values()) for each in problems])
    if done.problems and not skip_invalid:
        raise DataError(
            f"{len(done.problems)} problems, of which {len(problems)} are listed; nothing was "
            "stored. Have them corrected, or pass --skip-invalid to import the valid annotations."
        )
    if not as_json:
        open_ = (
            f", {done.unannotated} assignments have no annotation yet" if done.unannotated else ""
        )
        more = f", {len(done.problems)} problems" if done.problems else ""
        stored = f"{done.stored} annotations stored, {done.known} were there already"
        print_line(f"{stored}{open_}{more}")
    if done.problems:
        raise typer.Exit(1)
