"""Commands that override the selection: include, exclude and relabel images."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from annotation_platform.actor import system_user
from annotation_platform.cli.options import AsJson, Reason
from annotation_platform.cli.output import print_json, print_line, print_result, print_rows
from annotation_platform.cli.registries import own_lake
from annotation_platform.errors import DataError

FullId = Annotated[
    str, typer.Argument(metavar="IMAGE", help="Full image id; `catalog query` finds it.")
]


def include(image_id: FullId, reason: Reason, as_json: AsJson = False) -> None:
    """Put an image on the include list: the next round selects it in any case."""
    _override(image_id, reason, included=True)
    facts = {"image_id": image_id, "included": True}
    print_result(facts, as_json, f"{image_id} is selected in the next round.")


def exclude(image_id: FullId, reason: Reason, as_json: AsJson = False) -> None:
    """Put an image on the exclude list: no round selects it."""
    _override(image_id, reason, included=False)
    facts = {"image_id": image_id, "included": False}
    print_result(facts, as_json, f"{image_id} is not selected any more.")


def _override(image_id: str, reason: str, *, included: bool) -> None:
    from annotation_platform.schema.tables import CleanedImages
    from annotation_platform.selection.overrides import SelectionOverrides

    lake = own_lake()
    if image_id not in set(lake.tables.read_all(CleanedImages)[CleanedImages.image_id]):
        raise DataError(
            f"{image_id}: no such image. `annotation-platform catalog query"
            ' "SELECT image_id, source_key FROM images"` lists them.'
        )
    now = datetime.now(UTC)
    SelectionOverrides(lake.store).set(
        image_id, wanted=included, reason=reason, by=system_user(), now=now
    )


def relabel(
    round_id: Annotated[
        str, typer.Option("--round", help="Round whose model disagrees, such as round-0001.")
    ],
    by: Annotated[str, typer.Option(help="Actor of the decision; it is recorded.")],
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="Detection error type: missed, classification, localization, …; all by default."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Maximum number of images; 0: all.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Include the images on which a model and the human labels disagree, to label them again."""
    from annotation_platform.models.evaluation.findings import images_to_relabel
    from annotation_platform.schema.tables import ModelErrors
    from annotation_platform.selection.overrides import SelectionOverrides

    lake = own_lake()
    findings = lake.tables.read(ModelErrors, round_id)
    wanted = images_to_relabel(findings, kinds=kind or (), most=limit)
    overrides, now = SelectionOverrides(lake.store), datetime.now(UTC)
    for image_id, reason in wanted.items():
        overrides.set(image_id, wanted=True, reason=f"{round_id}: {reason}", by=by, now=now)
    rows = [{"image_id": image_id, "reason": reason} for image_id, reason in wanted.items()]
    if as_json:
        print_json({"round": round_id, "included": rows})
        return
    print_rows(["image", "reason"], [list(row.values()) for row in rows], most=20)
    print_line(f"{len(rows)} images included by {by}.")
