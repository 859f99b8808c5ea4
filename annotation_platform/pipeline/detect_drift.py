"""How far the images of a round are like those that are known."""

import numpy as np
import pandas as pd

from annotation_platform.curation.drift import Batch, Drift, measure_drift
from annotation_platform.images.accepted import accepted_images
from annotation_platform.images.embedding import PictureEmbedder, features_for
from annotation_platform.models.proposals import Proposals
from annotation_platform.params import Params
from annotation_platform.pipeline.held_out import (
    known_before,
    of_ontology,
    reference_pictures,
    rows_of,
)
from annotation_platform.schema.rounds import round_number
from annotation_platform.storage.lake import Lake


def drift_of_round(
    round_id: str,
    predictions: pd.DataFrame,
    held_out: Proposals,
    *,
    lake: Lake,
    policy: Params,
) -> Drift:
    """Return how the accepted images of a round differ from all that earlier rounds accepted.

    Objects and classes are compared by what the proposing detector sees, in both: labels would
    differ from its proposals although nothing drifted. So it is shown pictures of the val and test
    splits, of which it knows no more than of the round's; where there are enough, only those of
    them that were drawn for the audit, for the others are what selection prefers. Before the first
    model these two are left out. Rounds that are held are not known.

    Args:
        round_id: the round.
        predictions: its ``model_predictions``.
        held_out: what ``look_at_held_out`` saw.
        lake: where everything is kept.
        policy: its ``drift`` section says what counts.
    """
    rng = np.random.default_rng([policy.seed, round_number(round_id)])
    accepted = accepted_images(lake.tables)
    ours = accepted[accepted["round_id"] == round_id]
    theirs = known_before(round_id, lake, policy)
    compared = reference_pictures(round_id, theirs, lake)
    seen = lake.tables.read("predicted_images", round_id)
    vectors = features_for(
        pd.concat([ours, theirs]),
        PictureEmbedder(),
        store=lake.store,
        load=lake.picture,
        round_id=round_id,
    )
    return measure_drift(
        Batch(
            ours,
            rows_of(vectors, ours),
            _weighed(of_ontology(rows_of(predictions, ours), policy)),
            _looked_at(seen, ours),
        ),
        Batch(
            theirs,
            rows_of(vectors, theirs),
            _weighed(of_ontology(rows_of(held_out.predictions, compared), policy)),
            _looked_at(held_out.pictures, compared),
        ),
        round_id=round_id,
        rng=rng,
        level=policy.drift.level,
        least_effect=policy.drift.least_effect,
    )


def _looked_at(pictures: pd.DataFrame, images: pd.DataFrame) -> list[str]:
    return sorted(set(pictures["image_id"]) & set(images["image_id"]))


def _weighed(predictions: pd.DataFrame) -> pd.DataFrame:
    return predictions[["image_id", "class_name"]].assign(weight=predictions["score"])
