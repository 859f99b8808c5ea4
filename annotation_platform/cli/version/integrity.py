"""Commands about the integrity of versions: verify them, rebuild them, collect garbage."""

from collections.abc import Collection, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annotation_platform.cli.options import AsJson, Registry, Version, with_option_groups
from annotation_platform.cli.output import (
    OUT,
    print_json,
    print_line,
    print_result,
    progress_bar,
    table_of,
)
from annotation_platform.cli.registries import (
    open_files,
    open_git,
    own_lake,
    own_settings,
    published_tags,
    registry_place,
    remote_url,
    tag_of,
)
from annotation_platform.cli.version.listing import erasure_sentence, print_erasures

if TYPE_CHECKING:
    from annotation_platform.settings import Settings
    from annotation_platform.versioning.git import Git
    from annotation_platform.versioning.mender import LakeMender
    from annotation_platform.versioning.verify import Verification

_SHOWN = 50


@with_option_groups
def verify(
    where: Registry,
    version: Annotated[
        str,
        typer.Argument(
            help="Version, such as training-set@v1.2.0 or 1.2.0; the newest by default."
        ),
    ] = "",
    every: Annotated[
        bool, typer.Option("--all", help="Verify every version, and list unreferenced objects.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Restore files that the lake has or can render again.")
    ] = False,
    audit: Annotated[
        bool, typer.Option("--audit", help="Also compare labels across formats, and check splits.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read every file of a version in the remote and list damaged and missing ones."""
    from annotation_platform.versioning.verify import audit_versions, verify_versions

    settings = own_settings()
    git = open_git(settings, where.registry)
    tags = None if every else [tag_of(git, version)]
    remote = open_files(settings, git, where)
    mend = _mender(settings, where) if repair else None
    with progress_bar() as progress:
        found = verify_versions(git, remote, tags, find_source=mend, progress=progress)
    # A damaged version cannot be read.
    audits = audit_versions(git, remote, tags) if audit and not found.problems else {}
    erased = _erasures(git, found.tags)
    if as_json:
        print_json({**_verified_facts(found), "audits": audits, "erased": erased})
    else:
        _show_verified(found, erased, is_repair=repair)
        _show_audits(audits)
    if found.problems or any(audits.values()):
        raise typer.Exit(1)


def _mender(settings: "Settings", where: Registry) -> "LakeMender":
    from annotation_platform.settings import PROJECT_ROOT
    from annotation_platform.versioning.mender import LakeMender
    from annotation_platform.versioning.store import VersionStore

    store = VersionStore(
        registry_place(settings, where.registry),
        remote_url(settings, where),
        PROJECT_ROOT,
        settings.mirrors_path,
    )
    return LakeMender(own_lake(settings), store)


def _erasures(git: "Git", tags: Collection[str]) -> dict[str, list[str]]:
    """Return the sentences about erasures after publication, by tag."""
    from annotation_platform.versioning.registry import read_manifest

    erased = {tag: read_manifest(git, tag).erased for tag in tags}
    return {
        tag: [erasure_sentence(asdict(each)) for each in several]
        for tag, several in erased.items()
        if several
    }


def _verified_facts(found: "Verification") -> dict[str, Any]:
    return {
        "whole": not found.problems,
        "versions": list(found.tags),
        "objects": found.objects,
        "bytes": found.byte_size,
        "problems": [vars(each) for each in found.problems],
        "repaired": [vars(each) for each in found.repaired],
        "orphans": list(found.orphans),
    }


def _show_verified(
    found: "Verification", erased: Mapping[str, Collection[str]], *, is_repair: bool
) -> None:
    for title, several in (("repaired", found.repaired), ("not whole", found.problems)):
        listed = [
            {"kind": each.kind, "file": each.path, "md5": each.name, "in": ", ".join(each.tags)}
            for each in several
        ]
        if listed:
            OUT.print(table_of(listed[:_SHOWN], title=f"{title}: {len(listed)}"))
    print_erasures(erased)
    whole = "whole" if not found.problems else f"{len(found.problems)} objects are not whole"
    orphans = f" {len(found.orphans)} objects belong to no version: see `version gc`." * bool(
        found.orphans
    )
    OUT.print(
        f"{len(found.tags)} versions, {found.objects} objects, {found.byte_size / 1e6:.1f} MB:"
        f" {whole}.{orphans}"
    )
    if found.problems and not is_repair:
        OUT.print("`--repair` restores what the lake still has.")


def _show_audits(audits: Mapping[str, Mapping[str, int]]) -> None:
    rows = [
        {"version": tag, "audit": name.replace("_", " "), "found": count}
        for tag, counts in audits.items()
        for name, count in counts.items()
    ]
    if audits:
        OUT.print(table_of(rows, title="audits") if rows else "All audits found nothing.")


def rebuild(version: Version, as_json: AsJson = False) -> None:
    """Rebuild a version from ledger and lake with its own code, and compare it.

    The remote is not read, and nothing is written. The version must be in your own registry,
    because its code is executed.
    """
    from annotation_platform.provenance.rebuilding.rebuild import rebuild_version

    settings = own_settings()
    git = open_git(settings)
    with progress_bar() as progress:
        found = rebuild_version(settings, git, tag_of(git, version), progress=progress)
    if as_json:
        print_json({"same": found.same, **asdict(found)})
    else:
        rows = [asdict(each) for each in found.differences]
        if rows:
            OUT.print(table_of(rows[:_SHOWN], title=f"differences: {len(rows)}"))
        for remark in found.remarks:
            print_line(remark)
        verdict = "is rebuilt as it was published" if found.same else "is not rebuilt the same"
        print_line(
            f"{found.tag} {verdict}, by code {found.code_commit[:12]}: {found.rounds} rounds,"
            f" {found.annotations} annotations, {found.labels} labels, {found.images} images,"
            f" {found.files} files."
        )
    if not found.same:
        raise typer.Exit(1)


@with_option_groups
def gc(
    where: Registry,
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete; otherwise the objects are only counted.")
    ] = False,
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also-registry", help="Another registry that uses the remote; may be repeated."
        ),
    ] = None,
    deleted: Annotated[
        list[str] | None,
        typer.Option(
            "--deleted-registry", help="Registry recorded in the remote that no longer exists."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Delete objects of the remote that no version references; dry run without --yes.

    Other registries that publish to the remote are recorded in it, and their objects stay.
    """
    from annotation_platform.versioning.collect import OtherRegistries, collect_garbage

    settings = own_settings()
    git = open_git(settings, where.registry)
    found = collect_garbage(
        git,
        open_files(settings, git, where),
        # Versions from this lake are in the own registry, and need not be in another one.
        expected=() if where.registry else published_tags(own_lake(settings)),
        now=datetime.now(UTC),
        dry_run=not yes,
        others=OtherRegistries(
            at_hand=[open_git(settings, each) for each in also or []],
            reach=lambda each: open_git(settings, each),
            deleted=deleted or [],
        ),
    )
    effect = "deleted" if yes else "would be deleted; --yes deletes them"
    print_result(
        {**vars(found), "dry_run": not yes},
        as_json,
        f"{found.versions} versions need {found.kept} objects. {len(found.removed)} others"
        f" {effect};"
        f" {len(found.young)} are less than a day old and stay.",
    )
