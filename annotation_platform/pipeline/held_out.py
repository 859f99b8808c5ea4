"""The images no model learned from, and what the predicting model outputs for them."""

import numpy as np
import pandas as pd

from annotation_platform.curation.held import held_rounds
from annotation_platform.images.accepted import accepted_images
from annotation_platform.models.predictions import ImagePredictions, predict_pool
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.policy import Policy
from annotation_platform.schema.rounds import round_number
from annotation_platform.schema.tables import SelectedImages, TrainingSet
from annotation_platform.storage.lake import Lake

_LOOKED_AT = 300
"""Images that no model learned from and that the predicting one is run on once more."""
_LEAST_AUDITED = 30
"""Least audited images among them for a comparison with these alone."""


def predict_held_out(
    context: RoundContext, seen: pd.DataFrame, registry: ModelRegistry
) -> ImagePredictions:
    """Return what the model of a round's proposals sees in images that it did not learn from.

    They are of earlier rounds and of the val or test split: at most 300 of those that a round is
    compared with (``reference_images``), and 300 of them all, where these are more. If the
    registry has the model no more, the one of today looks. Before the first model there is nothing.

    Args:
        context: of the round.
        seen: its ``predicted_images``.
        registry: where the model is.
    """
    round_id, lake, policy = context.round_id, context.lake, context.policy
    held_out = held_out_images(round_id, known_before(round_id, lake, policy), lake)
    reference = reference_images(round_id, held_out, lake)
    seed = [policy.seed, round_number(round_id)]
    drawn = [
        each.sample(min(len(each), _LOOKED_AT), random_state=np.random.default_rng(seed))
        for each in (reference, held_out)
    ]
    return predict_pool(
        registry,
        pd.concat(drawn).drop_duplicates("image_id").sort_values("image_id"),
        lake.image_path,
        round_id=round_id,
        policy=policy,
        weights=seen["weights"].iloc[0].split(",") if len(seen) else (),
    )


def known_before(round_id: str, lake: Lake, policy: Policy) -> pd.DataFrame:
    """Return the accepted images of earlier rounds, without those of rounds that are held."""
    accepted = accepted_images(lake.tables)
    held = held_rounds(lake.tables, policy.drift.gate)
    return accepted[(accepted["round_id"] < round_id) & ~accepted["round_id"].isin(held)]


def held_out_images(round_id: str, images: pd.DataFrame, lake: Lake) -> pd.DataFrame:
    """Return the images, of these, that no model learned from, by image id."""
    before = last_training_round(lake, round_id)
    if not before:
        return images.iloc[:0]
    last = lake.tables.read_columns(TrainingSet, before, ["image_id", "split"])
    kept = last.loc[last["split"] != "train", "image_id"].unique()
    return images[images["image_id"].isin(kept)].sort_values("image_id")


def reference_images(round_id: str, images: pd.DataFrame, lake: Lake) -> pd.DataFrame:
    """Return the images, of these, in which a round's proposals are compared with others.

    They are those of the val and test splits, sorted by image id; where at least thirty of them
    were drawn for the audit of an earlier round, only these: they are a random sample of what
    landed, the others what the rules of selection prefer.
    """
    held_out = held_out_images(round_id, images, lake)
    before = [key for key in lake.tables.rounds(SelectedImages) if key < round_id]
    selected = lake.tables.read_rounds(SelectedImages, before)
    drawn = selected.loc[selected["audit"], "image_id"]
    audited = held_out[held_out["image_id"].isin(drawn)]
    return audited if len(audited) >= _LEAST_AUDITED else held_out


def last_training_round(lake: Lake, round_id: str) -> str:
    """Return the last round before a round that has a training set; empty if there is none."""
    return max((key for key in lake.tables.rounds(TrainingSet) if key < round_id), default="")


def rows_of(rows: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Return the rows about these images."""
    return rows[rows["image_id"].isin(images["image_id"])]


def of_ontology(predictions: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    """Return those that people are asked about: what is proposed only to be masked is not."""
    return predictions[predictions["class_name"].isin(policy.ontology.names)]
