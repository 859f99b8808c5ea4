"""Commands about published versions: what there is, whether it is whole, and what is left over."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
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
from annotation_platform.cli_registry import (
    RegistryOption,
    RemoteOption,
    opened,
    place_of,
    remote_at,
    remote_url_of,
)
from annotation_platform.settings import read_settings

if TYPE_CHECKING:
    from annotation_platform.versioning.git import Git

_SHOWN = 50


def versions(registry: RegistryOption = "", as_json: AsJson = False) -> None:
    """List the published dataset versions, and what each is used for.

    Of a registry that gives no answer it lists what was there when it last did, and says so.
    """
    from annotation_platform.versioning.registry import list_versions
    from annotation_platform.versioning.stages import stages_of_versions

    warnings: list[str] = []
    git = opened(read_settings(), registry, say=warnings.append)
    stages = stages_of_versions(git)
    found: list[dict[str, Any]] = [
        {
            "version": info.version,
            "tag": info.tag,
            "commit": info.commit[:12],
            "images": info.manifest.images,
            "boxes": info.manifest.boxes,
            "published": info.manifest.published_at,
            "erased": [asdict(each) for each in info.manifest.erased],
            "label_errors": [asdict(bar) for bar in info.manifest.label_errors],
            "stages": "\n".join(
                f"{each.name}: {each.reason}" for each in stages.get(info.commit, [])
            ),
        }
        for info in list_versions(git)
    ]
    if as_json:
        print_json({"versions": found, "warnings": warnings})
    else:
        for warning in warnings:
            typer.echo(warning, err=True)
        rows = [{**row, "label_errors": _wrong(row["label_errors"])} for row in found]
        erased = {row["tag"]: [_gone(each) for each in row.pop("erased")] for row in rows}
        OUT.print(table_of(rows, title="versions") if rows else "No version yet.")
        _print_gone(erased)


def _erased(git: "Git", tags: Collection[str]) -> dict[str, list[str]]:
    """Return what was taken out of some versions after they were published, by tag."""
    from annotation_platform.versioning.registry import read_manifest

    erased = {tag: read_manifest(git, tag).erased for tag in tags}
    return {
        tag: [_gone(asdict(each)) for each in several] for tag, several in erased.items() if several
    }


def _gone(erased: Mapping[str, Any]) -> str:
    """Return what was taken out of a version, when and why."""
    count = erased["images"]
    images = "1 image was" if count == 1 else f"{count} images were"
    return f"{images} erased on {erased['at'][:10]}: {erased['reason']}"


def _print_gone(erased: Mapping[str, Collection[str]]) -> None:
    for tag, several in erased.items():
        for text in several:
            OUT.print(f"{tag}: {text}", markup=False, soft_wrap=True)


def _wrong(bars: Sequence[dict[str, Any]]) -> str:
    """Return the interval of what is wrong of people's labels, of all classes."""
    from annotation_platform.curation.imported import PEOPLE

    for bar in bars:
        if bar["origin"] == PEOPLE and not bar["class_name"]:
            return f"{bar['low']:.1%} to {bar['high']:.1%}" if bar["audited"] else "nobody looked"
    return "not measured"


def stage(
    version: Annotated[str, typer.Argument(help="Such as training-set@v1.2.0 or 1.2.0.")],
    name: Annotated[str, typer.Argument(help="Such as production, or deprecated.")],
    reason: Annotated[str, typer.Option(help="Why; it stays in the tag.")],
    registry: RegistryOption = "",
    as_json: AsJson = False,
) -> None:
    """Say what a version is used for, as a git tag that `gto show` lists too."""
    from annotation_platform.audit_log.noting import note_stage
    from annotation_platform.landing.lake import lake_of
    from annotation_platform.versioning.stages import assign_stage

    settings, now = read_settings(), datetime.now(UTC)
    git = opened(settings, registry)
    tag = _tag(git, version)
    assign_stage(git, tag, name, reason=reason, now=now)
    note_stage(tag, name, lake_of(settings), reason=reason, now=now)
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
    audit: Annotated[
        bool, typer.Option("--audit", help="Compare labels in all formats, and splits, as well.")
    ] = False,
    registry: RegistryOption = "",
    remote: RemoteOption = "",
    as_json: AsJson = False,
) -> None:
    """Read every file of a version in the remote and say which are damaged or missing."""
    from annotation_platform.landing.lake import lake_of
    from annotation_platform.settings import PROJECT_ROOT
    from annotation_platform.versioning.mender import LakeMender
    from annotation_platform.versioning.store import VersionStore
    from annotation_platform.versioning.verify import audit_versions, verify_versions

    settings = read_settings()
    git = opened(settings, registry)
    store = VersionStore(
        place_of(settings, registry),
        remote_url_of(settings, registry, remote),
        PROJECT_ROOT,
        settings.mirrors_path,
    )
    mend = LakeMender(lake_of(settings), store) if repair else None
    tags = None if every else [_tag(git, version)]
    there = remote_at(settings, git, registry, remote)
    with looking_at_files() as progress:
        found = verify_versions(git, there, tags, mend=mend, progress=progress)
    # What is not whole cannot be read.
    audits = audit_versions(git, there, tags) if audit and not found.problems else {}
    facts: dict[str, Any] = {
        "whole": not found.problems,
        "versions": list(found.tags),
        "objects": found.objects,
        "bytes": found.byte_size,
        "problems": [vars(each) for each in found.problems],
        "repaired": [vars(each) for each in found.repaired],
        "orphans": list(found.orphans),
        "audits": audits,
        "erased": _erased(git, found.tags),
    }
    if as_json:
        print_json(facts)
    else:
        for title, several in (("repaired", found.repaired), ("not whole", found.problems)):
            listed = [
                {"kind": each.kind, "file": each.path, "md5": each.name, "in": ", ".join(each.tags)}
                for each in several
            ]
            if listed:
                OUT.print(table_of(listed[:_SHOWN], title=f"{title}: {len(listed)}"))
        _print_gone(facts["erased"])
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
        rows = [
            {"version": tag, "audit": name.replace("_", " "), "found": count}
            for tag, counts in audits.items()
            for name, count in counts.items()
        ]
        if audits:
            OUT.print(table_of(rows, title="audits") if rows else "All audits found nothing.")
    if found.problems or any(audits.values()):
        raise typer.Exit(1)


def rebuild(
    version: Annotated[str, typer.Argument(help="Such as training-set@v1.2.0 or 1.2.0.")],
    as_json: AsJson = False,
) -> None:
    """Make a version again from ledger and lake, by its own code, and say whether it is the same.

    The remote is not used, and nothing is written. It has to be a version of your own registry:
    its code is run.
    """
    from dataclasses import asdict

    from annotation_platform.rebuilding.rebuild import rebuild_version

    settings = read_settings()
    git = opened(settings, "")
    with looking_at_files() as progress:
        found = rebuild_version(settings, git, _tag(git, version), progress=progress)
    if as_json:
        print_json({"same": found.same, **asdict(found)})
    else:
        rows = [asdict(each) for each in found.differences]
        if rows:
            OUT.print(table_of(rows[:_SHOWN], title=f"not the same: {len(rows)}"))
        for remark in found.remarks:
            OUT.print(remark, markup=False, soft_wrap=True)
        verdict = "comes out as it was published" if found.same else "does not come out the same"
        OUT.print(
            f"{found.tag} {verdict}, by code {found.code_commit[:12]}: {found.rounds} rounds,"
            f" {found.answers} answers, {found.labels} labels, {found.images} images,"
            f" {found.files} files.",
            soft_wrap=True,
        )
    if not found.same:
        raise typer.Exit(1)


def checkout(
    version: Annotated[str, typer.Argument(help="Such as training-set@v1.2.0 or 1.2.0.")],
    folder: Annotated[Path, typer.Argument(help="Empty, new, or of an earlier checkout.")],
    registry: RegistryOption = "",
    remote: RemoteOption = "",
    force: Annotated[bool, typer.Option("--force", help="Lose what was changed there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Get a version, or change from one to another: only what differs is fetched."""
    from annotation_platform.versioning.checkout import checkout_version
    from annotation_platform.versioning.manifest import typed_tag

    settings = read_settings()
    source = place_of(settings, registry)
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
    registry: RegistryOption = "",
    remote: RemoteOption = "",
    also: Annotated[
        list[str] | None,
        typer.Option("--also-registry", help="Another whose files are there; may be repeated."),
    ] = None,
    forget: Annotated[
        list[str] | None,
        typer.Option(help="A registry noted in the remote whose versions are no more."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take away objects of the remote that no version names; a dry run unless --yes is given.

    Other registries that publish to the remote are noted in it, and what they need stays.
    """
    from annotation_platform.landing.lake import lake_of
    from annotation_platform.versioning.collect import collect_garbage

    settings = read_settings()
    git = opened(settings, registry)
    place = remote_at(settings, git, registry, remote)
    # What was published from this lake is in its own registry, and need not be in another.
    expected = () if registry else set(lake_of(settings).tables.read_all("dataset_version")["tag"])
    found = collect_garbage(
        git,
        place,
        expected=expected,
        now=datetime.now(UTC),
        dry_run=not yes,
        others=[opened(settings, each) for each in also or []],
        reach=lambda each: opened(settings, each),
        forget=forget or [],
    )
    did = "taken away" if yes else "would be taken away; --yes does it"
    answer(
        {**vars(found), "dry_run": not yes},
        as_json,
        f"{found.versions} versions need {found.kept} objects. {len(found.removed)} others {did};"
        f" {len(found.young)} are less than a day old and stay.",
    )


def _tag(git: "Git", version: str) -> str:
    """Return the tag of a version as people type it; by default that of the newest."""
    from annotation_platform.errors import PublishError
    from annotation_platform.versioning.manifest import typed_tag
    from annotation_platform.versioning.registry import list_versions

    if version:
        return typed_tag(version)
    infos = list_versions(git)
    if not infos:
        raise PublishError(f"{git.where}: no version was published yet.")
    return infos[-1].tag
