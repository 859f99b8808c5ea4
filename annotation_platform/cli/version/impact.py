"""The command that lists dependents of an annotator, model, guideline, round or source."""

from collections.abc import Hashable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annotation_platform.cli.options import AsJson, Registry, with_option_groups
from annotation_platform.cli.output import (
    json_rows,
    print_json,
    print_line,
    print_rows,
    progress_bar,
)
from annotation_platform.cli.registries import open_git, own_lake, own_settings, remote_url
from annotation_platform.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from annotation_platform.provenance.impact import Impact, VersionImpact

_KINDS = ["image_removed", "image_added", "label_removed", "label_added", "label_changed"]


@dataclass(frozen=True)
class Origin:
    """The subject whose impact is listed: exactly one of these."""

    annotator: Annotated[str, typer.Option(help="Annotator: pseudonym or e-mail address.")] = ""
    model: Annotated[str, typer.Option(help="Model: SHA-256 of its weights, or a prefix.")] = ""
    guideline: Annotated[str, typer.Option(help="Guideline: its digest, or a prefix.")] = ""
    round: Annotated[str, typer.Option(help="Round, such as round-0001.")] = ""
    source: Annotated[
        str, typer.Option(help="Source in sidecar files, or a folder of the landing zone.")
    ] = ""


@with_option_groups
def impact(
    origin: Origin,
    where: Registry,
    without: Annotated[
        bool, typer.Option(help="Also show how each version would change without it.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """List labels, versions and models that depend on an annotator, a model or a source."""
    from annotation_platform.models.registry import ModelRegistry
    from annotation_platform.provenance.impact import find_impact, find_subject
    from annotation_platform.provenance.state import read_state
    from annotation_platform.versioning.registry import list_versions

    (kind, name) = _named(origin)
    settings = own_settings()
    lake, git = own_lake(settings), open_git(settings, where.registry)
    models = ModelRegistry(settings.models_path)
    cards = {**models.cards(), **models.classifiers.cards()}
    subject = find_subject(kind, name, lake, cards)
    url = remote_url(settings, where)
    read: dict[Hashable, pd.DataFrame] = {}
    versions = [
        read_state(git, info.tag, remote_url=url, lake=lake, shared=read)
        for info in list_versions(git)
    ]
    with progress_bar() as progress:
        found = find_impact(subject, versions, cards, without=without, progress=progress)
    if as_json:
        print_json(_facts(found))
    else:
        _print(found)


def _named(origin: Origin) -> tuple[Any, str]:
    """Return the one option that was given, and its value."""
    given = asdict(origin)
    named = [(kind, name) for kind, name in given.items() if name]
    if len(named) != 1:
        raise DataError(f"Give exactly one of {', '.join(f'--{kind}' for kind in given)}.")
    return named[0]


def _facts(found: "Impact") -> dict[str, Any]:
    return {
        "of": {found.subject.kind: found.subject.name},
        "versions": [_version_facts(each) for each in found.versions],
        "models": [vars(each) for each in found.models],
        "unknown_versions": list(found.unknown),
    }


def _version_facts(each: "VersionImpact") -> dict[str, Any]:
    facts = {
        "version": each.tag,
        "images": int(each.dependents["image_id"].nunique()),
        "labels": _labels(each),
        "rows": json_rows(each.dependents),
    }
    if each.without is not None:
        facts["without"] = {
            "by_kind": each.without.changes["kind"].value_counts().to_dict(),
            "to_review": list(each.without.to_review),
            "changes": json_rows(each.without.changes),
        }
    return facts


def _labels(each: "VersionImpact") -> int:
    """Return the number of dependent labels; an image without objects has none."""
    return int(each.dependents["class_name"].notna().sum())


def _print(found: "Impact") -> None:
    name = f"{found.subject.kind} {found.subject.name}"
    if not found.versions:
        print_line(f"No published version depends on {name}.")
    else:
        shows_without = found.versions[0].without is not None
        more = ", and what would change without" if shows_without else ""
        print_line(f"What depends on {name}{more}:")
        head = ["version", "images", "labels"]
        if shows_without:
            head += [*(kind.replace("_", "s ") for kind in _KINDS), "to review first"]
        print_rows(head, [_row(each) for each in found.versions])
    for model in found.models:
        print_line(
            f"model {model.weights_sha256[:12]} was trained on {model.labels} such labels of "
            f"{model.images} images in {model.dataset_tag}"
        )
    for tag in found.unknown:
        print_line(f"{tag}: unknown, because its inputs were not kept or are not in this lake")


def _row(each: "VersionImpact") -> list[Any]:
    row = [each.tag, each.dependents["image_id"].nunique(), _labels(each)]
    if each.without is not None:
        counts = each.without.changes["kind"].value_counts()
        row += [int(counts.get(kind, 0)) for kind in _KINDS]
        row.append(len(each.without.to_review))
    return row
