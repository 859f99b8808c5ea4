"""Commands about what was: the path of one picture, and what people were told when."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from annotation_platform.cli_output import OUT, AsJson, print_json, print_rows
from annotation_platform.cli_registry import own_registry, remote_url_of
from annotation_platform.settings import read_settings

if TYPE_CHECKING:
    import pandas as pd

    from annotation_platform.curation.history import Event
    from annotation_platform.reporting.guidelines import Changes
    from annotation_platform.storage.lake import Lake

_SHORT = 12


def history(
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="Its id, or enough of the beginning.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show the path of a picture: landed, asked about, answered, reviewed, published."""
    from annotation_platform.curation.history import require_legal
    from annotation_platform.landing.lake import lake_of
    from annotation_platform.reporting.history import find_image, image_history
    from annotation_platform.versioning.contents import versions_with

    settings = read_settings()
    lake = lake_of(settings)
    image_id = find_image(image, lake)
    held = versions_with(
        image_id,
        own_registry(settings),
        remote_url_of(settings, ""),
        expected=_published_tags(lake),
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
    # Said last: what is wrong is best seen beside all that happened.
    require_legal(image_id, events)


def guidelines(
    digest: Annotated[
        str,
        typer.Argument(metavar="DIGEST", help="Of a version, or its beginning: lists its images."),
    ] = "",
    diff: Annotated[
        tuple[str, str] | None, typer.Option(metavar="OLD NEW", help="What changed between two.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List what people were told, since when, and what was labelled under it."""
    from annotation_platform.landing.lake import lake_of
    from annotation_platform.reporting.guidelines import find_guideline

    lake = lake_of(read_settings())
    if diff is not None:
        old, new = diff
        _differences(find_guideline(old, lake), find_guideline(new, lake), lake, as_json)
    elif digest:
        _images_under(find_guideline(digest, lake), lake, as_json)
    else:
        _all_guidelines(lake, as_json)


def _all_guidelines(lake: "Lake", as_json: bool) -> None:
    from annotation_platform.reporting.guidelines import guideline_versions

    found = guideline_versions(lake, _newest_labels(lake))
    if as_json:
        versions = [
            {
                "digest": each.digest,
                "since": each.rounds[0] if each.rounds else None,
                "since_at": each.since.isoformat() if each.since else None,
                "rounds": each.rounds,
                "answers": each.answers,
                "images": each.images,
                "changes": _facts(each.changes) if each.changes else None,
            }
            for each in found
        ]
        print_json({"guidelines": versions})
        return
    if not found:
        OUT.print("Nobody was asked anything yet.")
        return
    rows = [
        [
            each.digest[:_SHORT],
            each.rounds[0] if each.rounds else "never",
            str(each.since)[:19] if each.since else "",
            each.answers,
            each.images,
            each.changes.sentence if each.changes else "the first",
        ]
        for each in found
    ]
    print_rows(["guidelines", "since", "at", "answers", "images", "changes"], rows)


def _images_under(digest: str, lake: "Lake", as_json: bool) -> None:
    from annotation_platform.reporting.guidelines import resting_on

    found = resting_on(digest, lake, _newest_labels(lake))
    if as_json:
        facts = {"digest": digest, "images": found.published, "unpublished": found.others}
        print_json(facts)
        return
    for image in found.published:
        OUT.print(image, markup=False)
    for image in found.others:
        OUT.print(f"{image} (not published)", markup=False)
    if not found.published and not found.others:
        OUT.print("No label rests on it.")


def _differences(old: str, new: str, lake: "Lake", as_json: bool) -> None:
    from annotation_platform.labeling.guidelines import read_guideline
    from annotation_platform.reporting.guidelines import changes_between

    changes = changes_between(read_guideline(lake.store, old), read_guideline(lake.store, new))
    if as_json:
        print_json({"old": old, "new": new, "changes": _facts(changes)})
        return
    OUT.print(f"{old[:_SHORT]} to {new[:_SHORT]}: {changes.sentence}", markup=False)
    for line in changes.text:
        OUT.print(f"  {line}", markup=False, soft_wrap=True)


def _facts(changes: "Changes") -> dict[str, Any]:
    return {
        "added": changes.added,
        "renamed": changes.renamed,
        "retired": changes.retired,
        "other": changes.other,
        "text": changes.text,
    }


def _timeline(image_id: str, events: "Sequence[Event]") -> Table:
    table = Table(title=image_id, title_justify="left")
    for name in ("state", "at", "round"):
        table.add_column(name, no_wrap=True)
    table.add_column("what", overflow="fold")
    for event in events:
        # Reasons and comments are what people typed.
        said = "".join(each if each.isprintable() else "\ufffd" for each in event.detail)
        who = f"{event.by}: " if event.by else ""
        at = f"{event.at:%Y-%m-%d %H:%M:%S}" if event.at else ""
        table.add_row(event.state, at, event.round_id, Text(who + said))
    return table


def _newest_labels(lake: "Lake") -> "pd.DataFrame":
    from annotation_platform.versioning.contents import newest_labels

    settings = read_settings()
    return newest_labels(
        own_registry(settings), remote_url_of(settings, ""), expected=_published_tags(lake)
    )


def _published_tags(lake: "Lake") -> set[str]:
    return set(lake.tables.read_all("dataset_version")["tag"])
