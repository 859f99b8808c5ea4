"""Commands about the changes between two versions: list them, apply them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annotation_platform.cli.options import AsJson, Registry, with_option_groups
from annotation_platform.cli.output import (
    json_rows,
    print_json,
    print_line,
    print_result,
    print_rows,
    progress_bar,
    write_output,
)
from annotation_platform.cli.registries import (
    open_files,
    open_git,
    own_lake,
    own_settings,
    read_version,
)
from annotation_platform.errors import DataError

if TYPE_CHECKING:
    from annotation_platform.provenance.diff import Diff


@with_option_groups
def diff(
    before: Annotated[str, typer.Argument(metavar="V1", help="Older version, by tag or number.")],
    now: Annotated[str, typer.Argument(metavar="V2", help="Newer version.")],
    where: Registry,
    html: Annotated[
        Path | None, typer.Option(help="HTML file for a page with images of before and after.")
    ] = None,
    patch: Annotated[
        Path | None, typer.Option(help="File for a patch that `version apply` reads.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the changes from one version to another, and the cause of each change.

    The causes are known if this home has the lake that the versions were published from.
    """
    from annotation_platform.provenance.diff import diff_versions

    settings = own_settings()
    older, newer = (read_version(settings, each, where) for each in (before, now))
    found = diff_versions(older, newer)
    if as_json:
        print_json(_facts(found))
    else:
        _print(found)
    if html is not None:
        from annotation_platform.provenance.page import render_diff

        page = render_diff(found, older, newer, own_lake(settings).image)
        write_output(html, page.encode(), option="--html")
    if patch is not None:
        from annotation_platform.provenance.patch import make_patch

        write_output(patch, make_patch(older, newer).to_bytes(), option="--patch")


@with_option_groups
def apply(
    version: Annotated[
        str, typer.Argument(metavar="V1", help="Version that the patch applies to.")
    ],
    patch: Annotated[
        Path, typer.Argument(metavar="FILE", help="Patch that `version diff --patch` wrote.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to create.")],
    where: Registry,
    as_json: AsJson = False,
) -> None:
    """Write the files of the newer version from the older one and a patch, byte for byte."""
    from annotation_platform.provenance.patch import (
        Patch,
        apply_patch,
        require_published,
        write_folder,
    )

    settings = own_settings()
    try:
        data = patch.read_bytes()
    except OSError as error:
        raise DataError(f"{patch}: cannot be read ({error.strerror}). Check the path.") from error
    state = read_version(settings, version, where)
    known = Patch.from_bytes(data, where=str(patch))
    git = open_git(settings, where.registry)
    require_published(known, git, where=str(patch))
    made = apply_patch(state, known)
    with progress_bar() as progress:
        write_folder(made, open_files(settings, git, where), out, progress=progress)
    facts = {"version": known.now, "folder": str(out), "md5": made.md5, "files": len(made.files)}
    sentence = f"{out} has the {len(made.files)} files of {known.now}: {made.md5}."
    print_result(facts, as_json, sentence)


def _facts(found: "Diff") -> dict[str, Any]:
    return {
        "before": found.before,
        "now": found.now,
        "changes": len(found.changes),
        "by_cause": found.counts(),
        "by_class": found.counts_by_class(),
        "ontology": found.ontology,
        "policy": {key: {"before": was, "now": is_} for key, (was, is_) in found.policy.items()},
        "rows": json_rows(found.changes),
    }


def _print(found: "Diff") -> None:
    if found.is_empty:
        print_line(f"{found.before} and {found.now} hold the same.")
        return
    from annotation_platform.provenance.changes import KINDS

    print_line(f"{found.before} → {found.now}: {len(found.changes)} changes")
    for title, counts in (("cause", found.counts()), ("class", found.counts_by_class())):
        used = [kind for kind in KINDS if any(kind in each for each in counts.values())]
        rows: list[list[Any]] = [
            [name, *(each.get(kind, 0) for kind in used)] for name, each in counts.items()
        ]
        if rows:
            total = ["all", *(sum(row[at] for row in rows) for at in range(1, len(used) + 1))]
            print_rows([title, *(kind.replace("_", " ") for kind in used)], [*rows, total])
    for sentence in found.ontology:
        print_line(f"ontology: {sentence}")
    for key, (was, is_) in found.policy.items():
        print_line(f"policy: {key} is {is_}, was {was}")
