"""The images that a round can select, given what other rounds selected."""

from collections.abc import Collection, Mapping

import pandas as pd

from annotation_platform.curation.carry_over import carry_over
from annotation_platform.images.accepted import accepted_images
from annotation_platform.pipeline.earlier import earlier_rounds
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import (
    ImportedLabels,
    ReviewedLabels,
    RoundTasks,
    SelectedImages,
)
from annotation_platform.selection.overrides import SelectionOverride, SelectionOverrides
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.round_tables import RoundTables


def unasked_images(
    round_id: str,
    lake: Lake,
    ontology: Ontology,
    *,
    ask_about_imported: bool = False,
    held: Collection[str] = (),
) -> pd.DataFrame:
    """Return the accepted images, up to this round, that can be selected for annotation.

    No other round selected them, or another round gave them back: it was closed before they were
    annotated, or cancelled; a reviewer rejected their labels; or one of their classes was split
    since. Images that were put on the include list after they were selected are open again too.
    Images with usable imported labels are left out, unless ``ask_about_imported`` or the include
    list says otherwise; so are the images of other ``held`` rounds. Images that a later round
    selected in the meantime belong to that round.
    """
    images = accepted_images(lake.tables)
    images = images[~images["round_id"].isin(set(held) - {round_id})]
    asked = pd.concat(
        [
            earlier_rounds(SelectedImages, round_id, lake, without=held),
            _asked_meanwhile(round_id, lake.tables),
        ],
        ignore_index=True,
    )
    given_back = _given_back(lake.tables, ontology)
    pairs = zip(asked["image_id"], asked["round_id"], strict=True)
    known = {image for image, asked_in in pairs if (image, asked_in) not in given_back}
    if not ask_about_imported:
        imported = lake.tables.read_all(ImportedLabels)
        usable = carry_over(imported[imported["problem"] == ""], ontology)
        known |= set(usable.labels["image_id"])
    known -= _overridden_since(SelectionOverrides(lake.store).read(), asked)
    open_ = (images["round_id"] <= round_id) & ~images["image_id"].isin(known)
    return images[open_].reset_index(drop=True)


def _asked_meanwhile(round_id: str, tables: RoundTables) -> pd.DataFrame:
    """Return what later rounds ask about, save what this one already asks about itself."""
    rounds = tables.rounds(SelectedImages)
    later = tables.read_rounds(SelectedImages, [one for one in rounds if one > round_id])
    own = tables.read_rounds(SelectedImages, [round_id])
    return later[~later["image_id"].isin(own["image_id"])]


def _given_back(tables: RoundTables, ontology: Ontology) -> set[tuple[str, str]]:
    """Return the images, each with its round, whose question that round leaves open."""
    found: set[tuple[str, str]] = set()
    for key in tables.rounds(RoundTasks):
        tasks = tables.read_columns(RoundTasks, key, ["image_id", "state"])
        left = tasks.loc[tasks["state"].isin(["left", "cancelled"]), "image_id"]
        found |= {(image, key) for image in left}
    divided = [old for old, new in ontology.successors.items() if len(new) > 1]
    again: set[str] = set()
    looked_at: dict[str, set[str]] = {}
    for key in tables.rounds(ReviewedLabels):
        columns = ["image_id", "decision", "class_name"]
        labels = tables.read_columns(ReviewedLabels, key, columns)
        rejected = labels.loc[labels["decision"] == "rejected", "image_id"]
        found |= {(image, key) for image in rejected.unique()}
        again |= set(labels.loc[labels["class_name"].isin(divided), "image_id"])
        looked_at[key] = set(labels["image_id"].unique())
    # All that was ever said of an image with a class that was split is open again.
    return found | {(one, key) for key, images in looked_at.items() for one in images & again}


def _overridden_since(pins: Mapping[str, SelectionOverride], asked: pd.DataFrame) -> set[str]:
    """Return the images that somebody wants asked about, and that no round asked about for it."""
    done = set(zip(asked["image_id"], asked["reason"], strict=True))
    return {
        image for image, pin in pins.items() if pin.wanted and (image, pin.sentence) not in done
    }
