"""Commands that ask a published version: what changed, and why."""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annotation_platform.cli_output import (
    OUT,
    AsJson,
    answer,
    json_rows,
    looking_at_files,
    print_json,
    print_rows,
)
from annotation_platform.cli_registry import (
    RegistryOption,
    RemoteOption,
    opened,
    remote_at,
    remote_url_of,
)
from annotation_platform.errors import DataError
from annotation_platform.settings import Settings, read_settings

if TYPE_CHECKING:
    from annotation_platform.provenance.diff import Diff
    from annotation_platform.provenance.explain import ImageStory, LabelStory
    from annotation_platform.provenance.state import VersionState


_DIGITS = 64


def diff(
    before: Annotated[str, typer.Argument(metavar="V1", help="The older version, or its number.")],
    now: Annotated[str, typer.Argument(metavar="V2", help="The newer one.")],
    html: Annotated[
        Path | None, typer.Option(help="Write a page with pictures of before and after.")
    ] = None,
    patch: Annotated[
        Path | None, typer.Option(help="Write what `apply` makes the newer one of.")
    ] = None,
    registry: RegistryOption = "",
    remote: RemoteOption = "",
    as_json: AsJson = False,
) -> None:
    """Say what changed from one version to another, and the cause of each change.

    Causes are known where the lake that the versions were published from is at hand.
    """
    from annotation_platform.provenance.diff import diff_versions

    settings = read_settings()
    was, is_ = (_state(settings, each, registry, remote) for each in (before, now))
    found = diff_versions(was, is_)
    if as_json:
        print_json(_facts(found))
    else:
        _print(found)
    if html is not None:
        from annotation_platform.landing.lake import lake_of
        from annotation_platform.provenance.page import render_diff

        _write(html, render_diff(found, was, is_, lake_of(settings).picture).encode())
    if patch is not None:
        from annotation_platform.provenance.patch import make_patch

        _write(patch, make_patch(was, is_).to_bytes())


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}).") from error


def apply(
    version: Annotated[str, typer.Argument(metavar="V1", help="The version the patch is for.")],
    patch: Annotated[Path, typer.Argument(metavar="FILE", help="What `diff --patch` wrote.")],
    out: Annotated[Path, typer.Option(help="A folder that is made.")],
    registry: RegistryOption = "",
    remote: RemoteOption = "",
    as_json: AsJson = False,
) -> None:
    """Make the files of the newer version from the older one and a patch, to the byte."""
    from annotation_platform.provenance.patch import Patch, apply_patch, write_folder
    from annotation_platform.versioning.registry import read_manifest

    settings = read_settings()
    try:
        data = patch.read_bytes()
    except OSError as error:
        raise DataError(f"{patch}: cannot be read ({error.strerror}).") from error
    state = _state(settings, version, registry, remote)
    known = Patch.from_bytes(data, where=str(patch))
    git = opened(settings, registry)
    if known.now in git.tags("*@v*") and (
        read_manifest(git, known.now).folder_md5 != known.now_md5
    ):
        raise DataError(f"{patch}: does not lead to {known.now} as it was published.")
    made = apply_patch(state, known)
    with looking_at_files() as progress:
        place = remote_at(settings, git, registry, remote)
        write_folder(made, place, out, progress=progress)
    facts = {"version": known.now, "folder": str(out), "md5": made.md5, "files": len(made.files)}
    answer(facts, as_json, f"{out} holds the {len(made.files)} files of {known.now}: {made.md5}.")


def explain(
    image: Annotated[str, typer.Argument(help="Its id, or enough of the beginning.")],
    version: Annotated[str, typer.Option(help="Such as training-set@v1.2.0 or 1.2.0.")],
    label: Annotated[
        int | None, typer.Option(min=0, help="The number of a label of it, from 0.")
    ] = None,
    proof: Annotated[
        Path | None, typer.Option(help="Write what proves that this label is in the version.")
    ] = None,
    registry: RegistryOption = "",
    remote: RemoteOption = "",
    as_json: AsJson = False,
) -> None:
    """Say why the labels of an image in a version are what they are, from its landing on."""
    from annotation_platform.landing.lake import lake_of
    from annotation_platform.provenance.explain import explain_image, prove
    from annotation_platform.reporting.history import find_image

    settings = read_settings()
    state = _state(settings, version, registry, remote)
    image_id = image if len(image) == _DIGITS else find_image(image, lake_of(settings))
    story = explain_image(state, image_id, label=label)
    if proof is not None:
        if len(story.labels) != 1:
            raise DataError(f"{image_id[:12]} has {len(story.labels)} labels: name one by --label.")
        proven = prove(state, story.labels[0].label_id)
        _write(proof, json.dumps(asdict(proven), indent=1).encode() + b"\n")
    if as_json:
        print_json(story.to_dict())
    else:
        _tell(story)


def _tell(story: "ImageStory") -> None:
    say = partial(OUT.print, markup=False, soft_wrap=True)
    say(f"{story.image_id} in {story.version}, {story.split}, labelled in {story.round_id}")
    for each in story.landed:
        say(f"  landed as {each['source_key']} in {each['round_id']}, {each['byte_size']} bytes")
    if story.cleaned:
        noticed = f"; noticed: {story.cleaned['flags']}" if story.cleaned["flags"] else ""
        say(f"  cleaned: {story.cleaned['width']} × {story.cleaned['height']} pixels{noticed}")
    if story.selected:
        say(f"  selected by rule {story.selected['rule']}: {story.selected['reason']}")
    if story.guideline:
        say(f"  asked about under guideline {story.guideline[:12]}")
    if not story.labels:
        say("  no label: there is nothing to see in it")
    for label in story.labels:
        _tell_label(label, say)


def _tell_label(label: "LabelStory", say: Callable[[str], None]) -> None:
    place = label.label
    where = (
        ""
        if place["x1"] is None
        else " at " + ", ".join(f"{place[edge]:.1f}" for edge in ("x1", "y1", "x2", "y2"))
    )
    say(f"{label.label_id[-4:]}: {place['class_name']} ({place['shape']}){where}")
    for vote in label.votes:
        seen = f"{vote.says}" if vote.says else "not seen"
        begun = f", from a proposal of {vote.proposed_by[:12]}" if vote.proposed_by else ""
        say(f"  {vote.annotator}: {seen}, weight {vote.weight:.2f}, {vote.submitted_at}{begun}")
    if label.there is not None:
        say(f"  it is there with probability {label.there:.3f}")
    for conflict in label.conflicts:
        say(f"  conflict: {conflict}")
    if label.decision and label.decision != "undisputed":
        say(f"  review: {label.decision} by {label.decided_by or 'a rule'}")
    if label.origin != "people":
        say(f"  from {label.origin}: nobody was asked about it")
    if label.certificate:
        say(f"  accepted under the certificate of its round, bound {label.certificate['bound']}")
    if label.rests_on:
        who = {vote.answer_id: vote.annotator for vote in label.votes}
        named = ", ".join(who.get(each, each) for each in label.rests_on)
        least = "" if label.is_smallest else " (there may be a smaller set)"
        say(f"  would be another one, or none, without what was said by: {named}{least}")


def _state(settings: Settings, version: str, registry: str, remote: str) -> "VersionState":
    from annotation_platform.landing.lake import lake_of
    from annotation_platform.provenance.state import read_state
    from annotation_platform.versioning.manifest import typed_tag

    git = opened(settings, registry)
    return read_state(
        git,
        typed_tag(version),
        remote_url=remote_url_of(settings, registry, remote),
        lake=lake_of(settings),
    )


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
        OUT.print(f"{found.before} and {found.now} hold the same.", markup=False)
        return
    from annotation_platform.provenance.changes import KINDS

    OUT.print(f"{found.before} → {found.now}: {len(found.changes)} changes", markup=False)
    for title, counts in (("cause", found.counts()), ("class", found.counts_by_class())):
        used = [kind for kind in KINDS if any(kind in each for each in counts.values())]
        rows: list[list[Any]] = [
            [name, *(each.get(kind, 0) for kind in used)] for name, each in counts.items()
        ]
        if rows:
            total = ["all", *(sum(row[at] for row in rows) for at in range(1, len(used) + 1))]
            print_rows([title, *(kind.replace("_", " ") for kind in used)], [*rows, total])
    for sentence in found.ontology:
        OUT.print(f"ontology: {sentence}", markup=False)
    for key, (was, is_) in found.policy.items():
        OUT.print(f"policy: {key} is {is_}, was {was}", markup=False)
