"""Commands that explain an image: the provenance of its labels, and its history."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from annotation_platform.cli.options import AsJson, ImageId, Registry, with_option_groups
from annotation_platform.cli.output import (
    OUT,
    print_json,
    print_line,
    write_output,
)
from annotation_platform.cli.registries import (
    own_lake,
    own_registry,
    own_settings,
    published_tags,
    read_version,
    remote_url,
)
from annotation_platform.errors import DataError

if TYPE_CHECKING:
    from annotation_platform.curation.history import ImageEvent
    from annotation_platform.provenance.annotated_image import LabelProvenance
    from annotation_platform.provenance.explain import ImageProvenance

_DIGITS = 64
"""Length of a full image id."""


@with_option_groups
def explain(
    image: ImageId,
    version: Annotated[str, typer.Option(help="Version, such as training-set@v1.2.0 or 1.2.0.")],
    where: Registry,
    label: Annotated[
        int | None, typer.Option(min=0, help="Number of one label of the image, from 0.")
    ] = None,
    proof: Annotated[
        Path | None, typer.Option(help="File for a proof that this label is in the version.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Explain the labels of an image in a version, from its landing to its last review."""
    from annotation_platform.provenance.explain import explain_image, prove
    from annotation_platform.provenance.image_ids import find_image

    settings = own_settings()
    state = read_version(settings, version, where)
    image_id = image if len(image) == _DIGITS else find_image(image, own_lake(settings))
    story = explain_image(state, image_id, label=label)
    if proof is not None:
        if len(story.labels) != 1:
            raise DataError(f"{image_id[:12]} has {len(story.labels)} labels: name one by --label.")
        proven = prove(state, story.labels[0].label_id)
        text = json.dumps(asdict(proven), indent=1)
        write_output(proof, text.encode() + b"\n", option="--proof")
    if as_json:
        print_json(story.to_dict())
    else:
        _print_image(story)


def _print_image(story: "ImageProvenance") -> None:
    print_line(f"{story.image_id} in {story.version}, {story.split}, labelled in {story.round_id}")
    for each in story.landed:
        landed = f"landed as {each['source_key']} in {each['round_id']}"
        print_line(f"  {landed}, {each['byte_size']} bytes")
    if story.cleaned:
        flags = f"; flags: {story.cleaned['flags']}" if story.cleaned["flags"] else ""
        size = f"{story.cleaned['width']} × {story.cleaned['height']} pixels"
        print_line(f"  cleaned: {size}{flags}")
    if story.selected:
        print_line(f"  selected by rule {story.selected['rule']}: {story.selected['reason']}")
    if story.guideline:
        print_line(f"  annotated under guideline {story.guideline[:12]}")
    if not story.labels:
        print_line("  no labels: the image shows no object")
    for label in story.labels:
        _print_label(label)


def _print_label(label: "LabelProvenance") -> None:
    box = label.label
    where = (
        ""
        if box["x1"] is None
        else " at " + ", ".join(f"{box[edge]:.1f}" for edge in ("x1", "y1", "x2", "y2"))
    )
    print_line(f"{label.label_id[-4:]}: {box['class_name']} ({box['shape']}){where}")
    for vote in label.votes:
        seen = f"{vote.says}" if vote.says else "not seen"
        begun = f", from a prediction of {vote.proposed_by[:12]}" if vote.proposed_by else ""
        weight = f"weight {vote.weight:.2f}"
        print_line(f"  {vote.annotator}: {seen}, {weight}, {vote.submitted_at}{begun}")
    if label.there is not None:
        print_line(f"  the object exists with probability {label.there:.3f}")
    for conflict in label.conflicts:
        print_line(f"  conflict: {conflict}")
    if label.decision and label.decision != "undisputed":
        print_line(f"  review: {label.decision} by {label.decided_by or 'a rule'}")
    if label.origin != "people":
        print_line(f"  from {label.origin}: no annotator labelled it")
    if label.certificate:
        bound = label.certificate["bound"]
        print_line(f"  accepted under the certificate of its round, bound {bound}")
    if label.rests_on:
        authors = {vote.annotation_id: vote.annotator for vote in label.votes}
        named = ", ".join(authors.get(each, each) for each in label.rests_on)
        least = "" if label.is_smallest else " (a smaller set may exist)"
        print_line(f"  minimal flip set: without the annotations of {named} it changes{least}")


def history(image: ImageId, as_json: AsJson = False) -> None:
    """Show the history of an image: landed, selected, annotated, reviewed, published."""
    from annotation_platform.curation.history import require_legal
    from annotation_platform.provenance.image_history import image_history
    from annotation_platform.provenance.image_ids import find_image
    from annotation_platform.versioning.contents import versions_with

    settings = own_settings()
    lake = own_lake(settings)
    image_id = find_image(image, lake)
    held = versions_with(
        image_id,
        own_registry(settings),
        remote_url(settings),
        expected=published_tags(lake),
    )
    events = image_history(image_id, lake, held)
    if as_json:
        rows = [
            {
                "state": event.state,
                "at": event.at.isoformat() if event.at else None,
                "round": event.round_id,
                "by": event.by,
                "detail": event.detail,
            }
            for event in events
        ]
        print_json({"image_id": image_id, "events": rows})
    else:
        OUT.print(_timeline(image_id, events))
    # Last, so that an illegal history is printed too.
    require_legal(image_id, events)


def _timeline(image_id: str, events: "Sequence[ImageEvent]") -> Table:
    table = Table(title=image_id, title_justify="left")
    for name in ("state", "at", "round"):
        table.add_column(name, no_wrap=True)
    table.add_column("detail", overflow="fold")
    for event in events:
        author = f"{event.by}: " if event.by else ""
        at = f"{event.at:%Y-%m-%d %H:%M:%S}" if event.at else ""
        # Reasons and comments are free text: a line break in one must not look like a row.
        detail = "".join(each if each.isprintable() else "\ufffd" for each in event.detail)
        table.add_row(event.state, at, event.round_id, Text(author + detail))
    return table
