"""The list of dataset versions, and the stages that they are in."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from annotation_platform.cli.options import AsJson, Version
from annotation_platform.cli.output import OUT, print_json, print_line, print_result, table_of
from annotation_platform.cli.registries import open_git, own_lake, own_settings, tag_of

RegistryOption = Annotated[
    str,
    typer.Option(
        "--registry", help="Path or address of the registry; the platform's own by default."
    ),
]


def list_versions(registry: RegistryOption = "", as_json: AsJson = False) -> None:
    """List the published versions with their stages, label errors and erasures.

    If the address of a registry cannot be reached, the list is from its last copy, with a warning.
    """
    from annotation_platform.versioning import registry as registries
    from annotation_platform.versioning.stages import stages_of_versions

    warnings: list[str] = []
    git = open_git(own_settings(), registry, warn=warnings.append)
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
        for info in registries.list_versions(git)
    ]
    if as_json:
        print_json({"versions": found, "warnings": warnings})
        return
    for warning in warnings:
        typer.echo(warning, err=True)
    rows = [{**row, "label_errors": _error_interval(row["label_errors"])} for row in found]
    erased = {row["tag"]: [erasure_sentence(each) for each in row.pop("erased")] for row in rows}
    OUT.print(table_of(rows, title="versions") if rows else "No version yet.")
    print_erasures(erased)


def erasure_sentence(erased: Mapping[str, Any]) -> str:
    """Return the sentence about an erasure after publication: number of images, date, reason."""
    count = erased["images"]
    images = "1 image was" if count == 1 else f"{count} images were"
    return f"{images} erased on {erased['at'][:10]}: {erased['reason']}"


def print_erasures(erased: Mapping[str, Collection[str]]) -> None:
    """Print the sentences about erasures, by tag."""
    for tag, several in erased.items():
        for text in several:
            print_line(f"{tag}: {text}")


def _error_interval(bars: Sequence[dict[str, Any]]) -> str:
    """Return the interval of the error rate of human labels, over all classes."""
    from annotation_platform.curation.imported import PEOPLE
    from annotation_platform.versioning.manifest import LabelError

    for bar in (LabelError(**each) for each in bars):
        if bar.origin == PEOPLE and not bar.class_name:
            return f"{bar.low:.1%} to {bar.high:.1%}" if bar.audited else "no review"
    return "not measured"


def stage(
    version: Version,
    name: Annotated[str, typer.Argument(help="Stage, such as production or deprecated.")],
    reason: Annotated[str, typer.Option(help="Reason; it is recorded in the tag.")],
    registry: RegistryOption = "",
    as_json: AsJson = False,
) -> None:
    """Assign a stage to a version, as a git tag that `gto show` lists too."""
    from annotation_platform.audit_log.recording import record_stage
    from annotation_platform.versioning.stages import assign_stage

    settings, now = own_settings(), datetime.now(UTC)
    git = open_git(settings, registry)
    tag = tag_of(git, version)
    assign_stage(git, tag, name, reason=reason, now=now)
    record_stage(tag, name, own_lake(settings), reason=reason, now=now)
    facts = {"tag": tag, "stage": name, "reason": reason}
    print_result(facts, as_json, f"{tag} is now in the stage {name}.")
