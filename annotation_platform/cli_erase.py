"""The command that erases images, and that finishes an erasure which was stopped."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from annotation_platform.cli_output import OUT, AsJson, print_json, print_rows
from annotation_platform.cli_registry import RegistryOption, RemoteOption, opened, remote_url_of
from annotation_platform.errors import DataError, NotReadyError, SettingsError
from annotation_platform.settings import PROJECT_ROOT, Settings, read_settings, settings_environment

if TYPE_CHECKING:
    from annotation_platform.erasing.erase import Erased
    from annotation_platform.erasing.places import Places
    from annotation_platform.erasing.subject import Kind
    from annotation_platform.params import Params


def erase(
    image: Annotated[str, typer.Argument(help="Id of an image, or its first digits.")] = "",
    source: Annotated[
        str, typer.Option(help="What sidecars name, or a folder of the landing place.")
    ] = "",
    annotator: Annotated[
        str, typer.Option(help="An e-mail address or a pseudonym: who it was is forgotten.")
    ] = "",
    reason: Annotated[str, typer.Option(help="Why; it is kept, so it names nobody.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    finish: Annotated[bool, typer.Option("--finish", help="Go on with a stopped one.")] = False,
    registry: RegistryOption = "",
    remote: RemoteOption = "",
    as_json: AsJson = False,
) -> None:
    """Erase an image, all from a source, or who an annotator was, from every store and version."""
    from annotation_platform.actor import system_user
    from annotation_platform.erasing import erase as erasing
    from annotation_platform.params import read_params

    if sum(map(bool, (image, source, annotator, finish))) != 1:
        raise DataError(
            "Name one thing to erase: an IMAGE, --source or --annotator; or give --finish."
        )
    settings = read_settings()
    places = _places(settings, registry, remote)
    policy = read_params(settings.params_path)
    if annotator:
        person, expected = erasing.who_goes(annotator, places)
        if dry_run:
            _tell(expected, as_json=as_json)
            return
        erasing.begin_person(person, places, reason=reason, by=system_user())
    elif not finish:
        kind: Kind = "image" if image else "source"
        name = image or source
        found, expected = erasing.what_goes(kind, name, places, policy)
        if dry_run:
            _tell(expected, as_json=as_json)
            return
        erasing.begin(
            f"{kind} {name}", found, expected, places, policy, reason=reason, by=system_user()
        )
    with _alone(settings), _steps() as say:
        result = erasing.finish(places, say=say)
    if result is None:
        raise DataError("No erasure is unfinished.")
    if result.pseudonym:
        _warn_of_policy(policy)
    _tell(result, as_json=as_json)


def _warn_of_policy(policy: "Params") -> None:
    """Say that a policy may name somebody who is called otherwise now."""
    if policy.consensus.disregarded:
        typer.echo(
            "params.yaml names pseudonyms in consensus.disregarded: if the one that was erased is "
            "among them, put the new one there.",
            err=True,
        )


def _places(settings: Settings, registry: str, remote: str) -> "Places":
    from annotation_platform.erasing.places import Places
    from annotation_platform.labeling.backends import labeling_of
    from annotation_platform.landing.lake import lake_of
    from annotation_platform.models.registry import ModelRegistry
    from annotation_platform.params import read_params

    lake, models = lake_of(settings), ModelRegistry(settings.models_path)
    return Places(
        lake=lake,
        registry=opened(settings, registry),
        remote_url=remote_url_of(settings, registry, remote),
        labeling=labeling_of(settings, lake, read_params(settings.params_path)),
        models={**models.cards(), **models.classifiers.cards()},
        home=settings.home_path,
        reach=lambda each: opened(settings, each),
        events=lambda images: _clear_events(settings, images),
    )


def _clear_events(settings: Settings, images: frozenset[str]) -> int:
    """Have Dagster's events cleared by what knows Dagster, and return how many were."""
    ended = subprocess.run(
        [sys.executable, "-m", "resources.event_pictures"],
        cwd=PROJECT_ROOT,
        env={**settings_environment(settings), "PYTHONWARNINGS": "ignore"},
        input="\n".join(sorted(images)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ended.returncode != 0:
        words = ended.stderr.strip().splitlines()
        raise SettingsError(words[-1] if words else "Dagster's events could not be cleared.")
    return int(ended.stdout.strip().splitlines()[-1])


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Let no other process of this home go on with the same erasure."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(settings.home_path / "erasing.lock", timeout=1):
            yield
    except Timeout:
        raise NotReadyError("Another process goes on with an erasure. Wait for it.") from None


@contextmanager
def _steps() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Show a bar for each step; what is given is told the next one."""
    with Progress(console=Console(stderr=True)) as bar:

        def say(step: str) -> Callable[[int, int], None]:
            task = bar.add_task(step, total=None)
            return lambda done, total: bar.update(task, completed=done, total=total)

        yield say


def _tell_of_person(result: "Erased") -> None:
    if result.scanned is None:
        OUT.print(
            f"Who {result.pseudonym} is would be forgotten; {result.answers} states of answers "
            "would stay, under another pseudonym.",
            soft_wrap=True,
        )
    else:
        OUT.print(
            f"Nobody knows any more who it was. {result.answers} states of answers stay, as those "
            f"of {result.pseudonym}.",
            soft_wrap=True,
        )


def _tell(result: "Erased", *, as_json: bool) -> None:
    if as_json:
        print_json({"erased": result.scanned is not None, **asdict(result)})
        return
    is_done = result.scanned is not None
    if result.pseudonym:
        _tell_of_person(result)
    count, likes = len(result.images), result.look_alikes
    went = "erased" if is_done else "would be erased"
    why = f", {likes} of them because they repeat or look like what was named" if likes else ""
    if count:
        OUT.print(f"{count} image{'s' * (count != 1)} {went}{why}.", soft_wrap=True)
    if not is_done:
        OUT.print(
            f"{len(result.landed)} files would go from the landing place, and {len(result.lake)} "
            "objects of the lake would be others or go; --json names them.",
            soft_wrap=True,
        )
    rows: list[list[Any]] = [[tag, held] for tag, held in result.versions.items()]
    if rows:
        OUT.print("Versions issued anew, under their tags:" if is_done else "Versions that change:")
        print_rows(["version", "images that go"], rows)
    for tag in result.withdrawn:
        OUT.print(f"{tag}: nothing was left of it, and it is withdrawn", markup=False)
    for sha, tag in result.models:
        OUT.print(f"model {sha[:12]} learned from them in {tag}, and stays", markup=False)
    for image in result.stay:
        OUT.print(f"{image} landed from elsewhere as well, and stays", markup=False)
    if result.scanned is None:
        return
    print_rows(
        ["looked through", "objects"], [list(each) for each in result.scanned.stores.items()]
    )
    OUT.print("Nothing of them is left there.")
    if result.versions or result.pseudonym:
        OUT.print(
            "Readers run `git fetch --force --tags`. A hosted registry keeps the old commits, "
            "which name no image, until its owner prunes them; and whoever pulled an old version, "
            "or was handed a package or a backup, has it still.",
            soft_wrap=True,
        )
