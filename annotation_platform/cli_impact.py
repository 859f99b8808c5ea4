"""The command that says what rests on somebody or something."""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annotation_platform.cli_output import (
    OUT,
    AsJson,
    json_rows,
    looking_at_files,
    print_json,
    print_rows,
)
from annotation_platform.cli_registry import RegistryOption, RemoteOption, opened, remote_url_of
from annotation_platform.errors import DataError
from annotation_platform.settings import read_settings

if TYPE_CHECKING:
    import pandas as pd

    from annotation_platform.provenance.impact import Impact, Kind, VersionImpact


def impact(
    annotator: Annotated[str, typer.Option(help="A pseudonym or an e-mail address.")] = "",
    model: Annotated[str, typer.Option(help="SHA-256 of weights, or its beginning.")] = "",
    guideline: Annotated[str, typer.Option(help="Digest of a guideline, or its beginning.")] = "",
    round_id: Annotated[str, typer.Option("--round", help="Such as round-0001.")] = "",
    source: Annotated[
        str, typer.Option(help="What sidecars name, or a folder of the landing place.")
    ] = "",
    without: Annotated[
        bool, typer.Option(help="Say what each version would say without it, too.")
    ] = True,
    registry: RegistryOption = "",
    remote: RemoteOption = "",
    as_json: AsJson = False,
) -> None:
    """List every label, version and model that rests on somebody or something."""
    from annotation_platform.landing.lake import lake_of
    from annotation_platform.models.registry import ModelRegistry
    from annotation_platform.provenance.impact import find_impact, find_subject
    from annotation_platform.provenance.state import read_state
    from annotation_platform.versioning.registry import list_versions

    asked: dict[Kind, str] = {
        "annotator": annotator,
        "model": model,
        "guideline": guideline,
        "round": round_id,
        "source": source,
    }
    named = [(kind, name) for kind, name in asked.items() if name]
    if len(named) != 1:
        options = ", ".join(f"--{kind}" for kind in asked)
        raise DataError(f"Name one thing to ask about: {options}.")
    settings = read_settings()
    lake, git = lake_of(settings), opened(settings, registry)
    models = ModelRegistry(settings.models_path)
    cards = {**models.cards(), **models.classifiers.cards()}
    (kind, name) = named[0]
    subject = find_subject(kind, name, lake, cards)
    url = remote_url_of(settings, registry, remote)
    read: dict[Hashable, pd.DataFrame] = {}
    versions = [
        read_state(git, info.tag, remote_url=url, lake=lake, shared=read)
        for info in list_versions(git)
    ]
    with looking_at_files() as progress:
        found = find_impact(subject, versions, cards, without=without, progress=progress)
    if as_json:
        print_json(_facts(found))
    else:
        _print(found)


def _facts(found: "Impact") -> dict[str, Any]:
    return {
        "of": {found.subject.kind: found.subject.name},
        "versions": [_version(each) for each in found.versions],
        "models": [vars(each) for each in found.models],
        "unknown_versions": list(found.unknown),
    }


def _version(each: "VersionImpact") -> dict[str, Any]:
    facts = {
        "version": each.tag,
        "images": int(each.rests["image_id"].nunique()),
        "labels": _labels(each),
        "rows": json_rows(each.rests),
    }
    if each.without is not None:
        facts["without"] = {
            "by_kind": each.without.changes["kind"].value_counts().to_dict(),
            "to_review": list(each.without.to_review),
            "changes": json_rows(each.without.changes),
        }
    return facts


def _labels(each: "VersionImpact") -> int:
    """Return how many labels rest on it: a picture that shows nothing has none."""
    return int(each.rests["class_name"].notna().sum())


def _print(found: "Impact") -> None:
    named = f"{found.subject.kind} {found.subject.name}"
    if not found.versions:
        OUT.print(f"Nothing published rests on {named}.", markup=False)
    else:
        shows_without = found.versions[0].without is not None
        more = ", and goes, comes or changes without" if shows_without else ""
        OUT.print(f"What rests on {named}{more}:", markup=False, soft_wrap=True)
        kinds = ["image_removed", "image_added", "label_removed", "label_added", "label_changed"]
        rows: list[list[Any]] = []
        for each in found.versions:
            row = [each.tag, each.rests["image_id"].nunique(), _labels(each)]
            if each.without is not None:
                counts = each.without.changes["kind"].value_counts()
                row += [int(counts.get(kind, 0)) for kind in kinds]
                row.append(len(each.without.to_review))
            rows.append(row)
        head = ["version", "images", "labels"]
        if shows_without:
            head += [*(kind.replace("_", "s ") for kind in kinds), "to review first"]
        print_rows(head, rows)
    for model in found.models:
        OUT.print(
            f"model {model.weights_sha256[:12]} learned from {model.labels} such labels of "
            f"{model.images} images in {model.dataset_tag}",
            markup=False,
        )
    for tag in found.unknown:
        OUT.print(f"{tag}: not known: what it was made of was not kept, or not here", markup=False)
