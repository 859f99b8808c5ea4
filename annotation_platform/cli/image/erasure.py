"""The command that erases images, the images of a source, or the identity of an annotator."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from annotation_platform.cli.options import AsJson, Registry, with_option_groups
from annotation_platform.cli.output import OUT, print_json, print_line, print_rows
from annotation_platform.cli.registries import open_git, own_policy, own_settings, remote_url
from annotation_platform.errors import DataError

if TYPE_CHECKING:
    from annotation_platform.governance.erasure.erase import Erased
    from annotation_platform.governance.erasure.locations import Locations
    from annotation_platform.governance.erasure.subject import Kind
    from annotation_platform.policy import Policy


@dataclass(frozen=True)
class SubjectOptions:
    """The subject of an erasure: exactly one of these."""

    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="Image id, or a unique prefix of it.")
    ] = ""
    source: Annotated[
        str, typer.Option(help="Source in sidecar files, or a folder of the landing zone.")
    ] = ""
    annotator: Annotated[
        str, typer.Option(help="E-mail address or pseudonym; annotations are anonymized.")
    ] = ""
    finish: Annotated[
        bool, typer.Option("--finish", help="Resume an erasure that was interrupted.")
    ] = False


@with_option_groups
def erase(
    subject: SubjectOptions,
    where: Registry,
    reason: Annotated[
        str, typer.Option(help="Reason; it is stored, so it must not contain personal data.")
    ] = "",
    yes: Annotated[
        bool, typer.Option("--yes", help="Erase; otherwise the effects are only listed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Erase an image, a source or an annotator's identity everywhere; dry run without --yes.

    Every store is cleaned: landing zone, lake, labelling server, models' records, and published
    versions, which are issued again under the same tags.
    """
    from annotation_platform.governance.erasure import erase as erasing
    from annotation_platform.governance.erasure.local import local_locations, one_erasure

    if sum(map(bool, asdict(subject).values())) != 1:
        raise DataError(
            "Name one thing to erase: an IMAGE, --source or --annotator; or give --finish."
        )
    settings = own_settings()
    locations = local_locations(
        settings,
        open_git(settings, where.registry),
        remote_url(settings, where),
        reach=lambda each: open_git(settings, each),
    )
    policy = own_policy(settings)
    if not subject.finish:
        expected = _begin(subject, locations, policy, reason=reason, dry_run=not yes)
        if not yes:
            _print_erased(expected, as_json=as_json)
            return
    with one_erasure(settings), _steps() as step:
        result = erasing.finish(locations, progress_of=step)
    if result is None:
        raise DataError("There is no interrupted erasure.")
    if result.pseudonym and policy.consensus.disregarded:
        typer.echo(
            "params.yaml lists pseudonyms in consensus.disregarded: if the erased one is among "
            "them, replace it with the new one.",
            err=True,
        )
    _print_erased(result, as_json=as_json)


def _begin(
    subject: SubjectOptions, locations: "Locations", policy: "Policy", *, reason: str, dry_run: bool
) -> "Erased":
    """Return the effects of an erasure, and unless it is a dry run, record that it begins."""
    from annotation_platform.actor import system_user
    from annotation_platform.governance.erasure import erase as erasing

    by = system_user()
    if subject.annotator:
        person, expected = erasing.plan_person_erasure(subject.annotator, locations)
        if not dry_run:
            erasing.begin_person_erasure(person, locations, reason=reason, by=by)
        return expected
    kind: Kind = "image" if subject.image else "source"
    name = subject.image or subject.source
    found, expected = erasing.plan_erasure(kind, name, locations, policy)
    if not dry_run:
        erasing.begin(f"{kind} {name}", found, expected, locations, policy, reason=reason, by=by)
    return expected


@contextmanager
def _steps() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Show a bar on stderr for each step; yields a function of the next step's name."""
    with Progress(console=Console(stderr=True)) as bar:

        def step(name: str) -> Callable[[int, int], None]:
            task = bar.add_task(name, total=None)
            return lambda done, total: bar.update(task, completed=done, total=total)

        yield step


def _print_erased(result: "Erased", *, as_json: bool) -> None:
    is_done = result.scanned is not None
    if as_json:
        print_json({"erased": is_done, **asdict(result)})
        return
    if result.pseudonym:
        _print_person(result)
    _print_images(result, is_done=is_done)
    rows: list[list[Any]] = [[tag, held] for tag, held in result.versions.items()]
    if rows:
        print_line(
            "Versions issued again, under their tags:" if is_done else "Versions that change:"
        )
        print_rows(["version", "images erased"], rows)
    for tag in result.withdrawn:
        print_line(f"{tag}: it has no images left, and is withdrawn")
    for sha, tag in result.models:
        print_line(f"model {sha[:12]} was trained on them in {tag}, and stays")
    for image in result.stay:
        print_line(f"{image} also landed from another source, and stays")
    if result.scanned is None:
        print_line("Dry run: nothing was changed. --yes erases.")
        return
    print_rows(["searched", "objects"], [list(each) for each in result.scanned.stores.items()])
    OUT.print("No trace is left there.")
    if result.versions or result.pseudonym:
        print_line(
            "Readers run `git fetch --force --tags`. A hosted registry keeps the old commits, "
            "which name no image, until its owner prunes them. Earlier pulls of a version, vendor "
            "packages and backups are not reached."
        )


def _print_images(result: "Erased", *, is_done: bool) -> None:
    count, duplicates = len(result.images), result.near_duplicates_found
    effect = "erased" if is_done else "would be erased"
    why = f", {duplicates} of them as duplicates or near-duplicates" if duplicates else ""
    if count:
        print_line(f"{count} image{'s' * (count != 1)} {effect}{why}.")
    if not is_done:
        print_line(
            f"{len(result.landed)} files of the landing zone would be deleted, and "
            f"{len(result.lake)} objects of the lake deleted or rewritten; --json lists them."
        )


def _print_person(result: "Erased") -> None:
    if result.scanned is None:
        print_line(
            f"The identity of {result.pseudonym} would be erased; {result.annotations} states of "
            "annotations would stay, under another pseudonym."
        )
    else:
        print_line(
            f"The identity was erased. {result.annotations} states of annotations stay, under the "
            f"pseudonym {result.pseudonym}."
        )
