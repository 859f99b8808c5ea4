"""The images that a round can select, given what other rounds selected."""

from collections.abc import Collection, Mapping

import pandas as pd

from annotation_platform.curation.carry_over import carry_over
from annotation_platform.images.accepted import accepted_images
from annotation_platform.pipeline.earlier import earlier_rounds
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import (
    CleanedImages,
    Frame,
    ImportedLabels,
    ReviewedLabels,
    RoundTasks,
    SelectedImages,
)
from annotation_platform.schema.tables.shared import ReviewDecision, TaskState
from annotation_platform.selection.overrides import SelectionOverride, SelectionOverrides
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.round_tables import RoundTables


def selectable_images(
    round_id: str,
    lake: Lake,
    ontology: Ontology,
    *,
    annotate_imported: bool = False,
    held: Collection[str] = (),
) -> pd.DataFrame:
    """Return the accepted images, up to this round, that can be selected for annotation.

    An image can be selected if no other round selected it, or if that round released it: the round
    was closed before the image was annotated, or cancelled; a reviewer rejected its labels; or one
    of its classes was split later. An image that was put on the include list after its selection
    can be selected again too. Images with usable imported labels are left out, unless
    ``annotate_imported`` or the include list says otherwise; so are the images of other ``held``
    rounds. Images that a later round selected in the meantime belong to that round.
    """
    images = accepted_images(lake.tables)
    images = images[~images[CleanedImages.round_id].isin(set(held) - {round_id})]
    selected = pd.concat(
        [
            earlier_rounds(SelectedImages, round_id, lake, without=held),
            _selected_later(round_id, lake.tables),
        ],
        ignore_index=True,
    )
    released = _released(lake.tables, ontology)
    pairs = zip(selected[SelectedImages.image_id], selected[SelectedImages.round_id], strict=True)
    known = {image for image, round_ in pairs if (image, round_) not in released}
    if not annotate_imported:
        imported = lake.tables.read_all(ImportedLabels)
        usable = carry_over(imported[imported[ImportedLabels.problem] == ""], ontology)
        known |= set(usable.labels["image_id"])
    known -= _overridden_since(SelectionOverrides(lake.store).read(), selected)
    open_ = (images[CleanedImages.round_id] <= round_id) & ~images[CleanedImages.image_id].isin(
        known
    )
    return images[open_].reset_index(drop=True)


def _selected_later(round_id: str, tables: RoundTables) -> Frame[SelectedImages]:
    """Return the images that later rounds selected, without those that this round selected."""
    rounds = tables.rounds(SelectedImages)
    later = tables.read_rounds(SelectedImages, [one for one in rounds if one > round_id])
    own = tables.read_rounds(SelectedImages, [round_id])
    return later[~later[SelectedImages.image_id].isin(own[SelectedImages.image_id])]


def _released(tables: RoundTables, ontology: Ontology) -> set[tuple[str, str]]:
    """Return the pairs of an image and a round that selected and released it."""
    found: set[tuple[str, str]] = set()
    for key in tables.rounds(RoundTasks):
        tasks = tables.read_columns(RoundTasks, key, [RoundTasks.image_id, RoundTasks.state])
        is_left = tasks[RoundTasks.state].isin([TaskState.ABANDONED, TaskState.CANCELLED])
        found |= {(image, key) for image in tasks.loc[is_left, RoundTasks.image_id]}
    divided = [old for old, new in ontology.successors.items() if len(new) > 1]
    again: set[str] = set()
    reviewed: dict[str, set[str]] = {}
    for key in tables.rounds(ReviewedLabels):
        columns = [ReviewedLabels.image_id, ReviewedLabels.decision, ReviewedLabels.class_name]
        labels = tables.read_columns(ReviewedLabels, key, columns)
        images = labels[ReviewedLabels.image_id]
        is_rejected = labels[ReviewedLabels.decision] == ReviewDecision.REJECTED
        found |= {(image, key) for image in images[is_rejected].unique()}
        again |= set(images[labels[ReviewedLabels.class_name].isin(divided)])
        reviewed[key] = set(images.unique())
    # All rounds of an image with a class that was split release it.
    return found | {(image, key) for key, own in reviewed.items() for image in own & again}


def _overridden_since(
    overrides: Mapping[str, SelectionOverride], selected: pd.DataFrame
) -> set[str]:
    """Return the images on the include list that no round has selected for that entry yet."""
    done = set(zip(selected[SelectedImages.image_id], selected[SelectedImages.reason], strict=True))
    return {
        image
        for image, override in overrides.items()
        if override.wanted and (image, override.sentence) not in done
    }
