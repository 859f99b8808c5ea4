"""Commands about published versions: what there is, whether it is whole, and what is left over."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annotation_platform.cli_output import (
    OUT,
    AsJson,
    answer,
    looking_at_files,
    print_json,
    table_of,
)
from annotation_platform.settings import Settings, read_settings

if TYPE_CHECKING:
    from annotation_platform.versioning.remote import DvcRemote

_SHOWN = 50


def versions(as_json: AsJson = False) -> None:
    """List the published dataset versions, and what each is used for."""
    from annotation_platform.versioning.registry import list_versions
    from annotation_platform.versioning.stages import stages_of_versions

    registry = read_settings().registry_path
    stages = stages_of_versions(registry)
    found = [
        {
            "version": info.version,
            "tag": info.tag,
            "commit": info.commit[:12],
            "images": info.manifest.images,
            "boxes": info.manifest.boxes,
            "published": info.manifest.published_at,
            "stages": "\n".join(
                f"{each.name}: {each.reason}" for each in stages.get(info.commit, [])
            ),
        }
        for info in list_versions(registry)
    ]
    if as_json:
        print_json({"versions": found})
    else:
        OUT.print(table_of(found, title="versions") if found else "No version yet.")


def stage(
    version: Annotated[str, typer.Argument(help="Such as training-set@v1.2.0 or 1.2.0.")],
    name: Annotated[str, typer.Argument(help="Such as production, or deprecated.")],
    reason: Annotated[str, typer.Option(help="Why; it stays in the tag.")],
    as_json: AsJson = False,
) -> None:
    """Say what a version is used for, as a git tag that `gto show` lists too."""
    from annotation_platform.versioning.stages import assign_stage

    settings = read_settings()
    tag = _tag(settings, version)
    assign_stage(settings.registry_path, tag, name, reason=reason, now=datetime.now(UTC))
    answer({"tag": tag, "stage": name, "reason": reason}, as_json, f"{tag} is {name} now.")


def verify(
    version: Annotated[
        str, typer.Argument(help="Such as training-set@v1.2.0 or 1.2.0; by default the newest.")
    ] = "",
    every: Annotated[
        bool, typer.Option("--all", help="Every version, and what none names.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Put back what the lake still has, or renders again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read every file of a version in the remote and say which are damaged or missing."""
    from annotation_platform.lake import lake_of
    from annotation_platform.release import LakeMender, VersionStore
    from annotation_platform.settings import PROJECT_ROOT
    from annotation_platform.versioning.verify import verify_versions

    settings = read_settings()
    store = VersionStore(settings.registry_path, settings.remote_url, PROJECT_ROOT)
    mend = LakeMender(lake_of(settings), store) if repair else None
    tags = None if every else [_tag(settings, version)]
    with looking_at_files() as progress:
        found = verify_versions(
            store.registry, _remote(settings), tags, mend=mend, progress=progress
        )
    facts: dict[str, Any] = {
        "whole": not found.problems,
        "versions": list(found.tags),
        "objects": found.objects,
        "bytes": found.byte_size,
        "problems": [vars(each) for each in found.problems],
        "repaired": [vars(each) for each in found.repaired],
        "orphans": list(found.orphans),
    }
    if as_json:
        print_json(facts)
    else:
        for title, several in (("repaired", found.repaired), ("not whole", found.problems)):
            rows = [
                {"kind": each.kind, "file": each.path, "md5": each.name, "in": ", ".join(each.tags)}
                for each in several
            ]
            if rows:
                OUT.print(table_of(rows[:_SHOWN], title=f"{title}: {len(rows)}"))
        whole = "whole" if not found.problems else f"{len(found.problems)} objects are not whole"
        orphans = f" {len(found.orphans)} objects that no version names: see gc." * bool(
            found.orphans
        )
        OUT.print(
            f"{len(found.tags)} versions, {found.objects} objects, {found.byte_size / 1e6:.1f} MB:"
            f" {whole}.{orphans}"
        )
        if found.problems and not repair:
            OUT.print("`--repair` puts back what the lake still has.")
    if found.problems:
        raise typer.Exit(1)


def checkout(
    version: Annotated[str, typer.Argument(help="Such as training-set@v1.2.0 or 1.2.0.")],
    folder: Annotated[Path, typer.Argument(help="Empty, new, or of an earlier checkout.")],
    registry: Annotated[str, typer.Option(help="Path or address; by default your own.")] = "",
    remote: Annotated[str, typer.Option(help="Where its files are, if not where it says.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Lose what was changed there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Get a version, or change from one to another: only what differs is fetched."""
    from annotation_platform.versioning.checkout import checkout_version
    from annotation_platform.versioning.manifest import typed_tag

    settings = read_settings()
    source = registry or str(settings.registry_path)
    tag = typed_tag(version)
    with looking_at_files() as progress:
        done = checkout_version(
            source, tag, folder, remote_url=remote, force=force, progress=progress
        )
    answer(
        {**vars(done)},
        as_json,
        f"{done.folder} is at {done.tag}: {done.files} files, {done.linked} of them new there"
        f" ({done.fetched} fetched), {done.removed} removed.",
    )


def gc(
    yes: Annotated[
        bool, typer.Option("--yes", help="Take them away; otherwise only list.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take away objects of the remote that no version names; a dry run unless --yes is given."""
    from annotation_platform.lake import lake_of
    from annotation_platform.versioning.collect import collect_garbage

    settings = read_settings()
    published = lake_of(settings).tables.read_all("dataset_version")
    found = collect_garbage(
        settings.registry_path,
        _remote(settings),
        expected=set(published["tag"]),
        now=datetime.now(UTC),
        dry_run=not yes,
    )
    did = "taken away" if yes else "would be taken away; --yes does it"
    answer(
        {**vars(found), "dry_run": not yes},
        as_json,
        f"{found.versions} versions need {found.kept} objects. {len(found.removed)} others {did};"
        f" {len(found.young)} are less than a day old and stay.",
    )


def _tag(settings: Settings, version: str) -> str:
    """Return the tag of a version as people type it; by default that of the newest."""
    from annotation_platform.errors import PublishError
    from annotation_platform.versioning.manifest import typed_tag
    from annotation_platform.versioning.registry import list_versions

    if version:
        return typed_tag(version)
    infos = list_versions(settings.registry_path)
    if not infos:
        raise PublishError(f"{settings.registry_path}: no version was published yet.")
    return infos[-1].tag


def _remote(settings: Settings) -> "DvcRemote":
    from annotation_platform.versioning.registry import open_remote

    return open_remote(settings.registry_path, settings.remote_url)
