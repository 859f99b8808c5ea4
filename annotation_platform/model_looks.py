"""What the proposing detector tells of a round besides its proposals.

How far the round's pictures are like those that are known, and which of its labels are suspect.
"""

import numpy as np
import pandas as pd

from annotation_platform.curation.drift import Batch, Drift, measure_drift
from annotation_platform.curation.label_issues import box_issues, measure_trust
from annotation_platform.images.embedding import PictureEmbedder, features_for
from annotation_platform.lake import Lake
from annotation_platform.models.proposals import Proposals, propose
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.params import Params
from annotation_platform.schema.rounds import round_number
from annotation_platform.schema.shapes import AREAS
from annotation_platform.schema.tables import empty_table

_LOOKED_AT = 300
"""Pictures that no model learned from and that the promoted one is asked about once more."""


def drift_of_round(
    round_id: str,
    predictions: pd.DataFrame,
    *,
    lake: Lake,
    registry: ModelRegistry,
    policy: Params,
) -> Drift:
    """Return how the accepted images of a round differ from all that earlier rounds accepted.

    Objects and classes are compared by what the proposing detector sees, in both: labels would
    differ from its proposals although nothing drifted. So it is shown pictures of the val and test
    splits, of which it knows no more than of the round's. Before the first model these two are
    left out.

    Args:
        round_id: the round.
        predictions: its ``model_predictions``.
        lake: where everything is kept.
        registry: where the promoted model is.
        policy: its ``drift`` section says what counts.
    """
    rng = np.random.default_rng([policy.seed, round_number(round_id)])
    accepted = lake.accepted_images()
    ours = accepted[accepted["round_id"] == round_id]
    theirs = accepted[accepted["round_id"] < round_id]
    proposed = _looks_again(round_id, theirs, lake, registry, policy, rng)
    seen = lake.tables.read("predicted_images", round_id)
    # What is proposed only to be masked says nothing of what people label.
    known = predictions[predictions["class_name"].isin(policy.ontology.names)]
    vectors = features_for(
        pd.concat([ours, theirs]),
        PictureEmbedder(),
        store=lake.store,
        load=lake.picture,
        round_id=round_id,
    )
    return measure_drift(
        Batch(ours, _of(vectors, ours), _weighed(_of(known, ours)), _looked_at(seen, ours)),
        Batch(
            theirs,
            _of(vectors, theirs),
            _weighed(proposed.predictions),
            _looked_at(proposed.pictures, theirs),
        ),
        round_id=round_id,
        rng=rng,
        level=policy.drift.level,
        least_effect=policy.drift.least_effect,
    )


def issues_of_round(
    round_id: str,
    consensus: pd.DataFrame,
    *,
    lake: Lake,
    registry: ModelRegistry,
    policy: Params,
) -> pd.DataFrame:
    """Return the ``label_issues`` of a round: labels that its proposals contradict.

    The proposals were made before people answered, so their model did not learn from the labels.
    How often it overlooks objects is seen on pictures of the val and test splits. Before the first
    model nothing is suspect.

    Args:
        round_id: the round.
        consensus: its ``consensus_labels``.
        lake: where everything is kept.
        registry: where the promoted model is.
        policy: its ``label_issues`` section says what counts.
    """
    predictions = lake.tables.read("model_predictions", round_id)
    seen = lake.tables.read("predicted_images", round_id)
    judged = _of(consensus, seen)
    if judged.empty:
        return empty_table("label_issues")
    asked = _of(predictions[predictions["class_name"].isin(policy.ontology.names)], judged)
    accepted = lake.accepted_images()
    earlier = accepted[accepted["round_id"] < round_id]
    rng = np.random.default_rng([policy.seed, 1, round_number(round_id)])
    looked = _looks_again(round_id, earlier, lake, registry, policy, rng)
    if looked.pictures.empty:
        return empty_table("label_issues")
    truth = _of(_last_training_set(lake, round_id), looked.pictures)
    boxes = judged[judged["shape"].isin(AREAS)]
    trust = measure_trust(
        looked.predictions,
        truth[truth["shape"].isin(AREAS)],
        error_rate=policy.label_issues.error_rate,
    )
    return box_issues(
        boxes,
        asked,
        trust,
        round_id=round_id,
        minimum_probability=policy.label_issues.minimum_probability,
    )


def _looks_again(
    round_id: str,
    images: pd.DataFrame,
    lake: Lake,
    registry: ModelRegistry,
    policy: Params,
    rng: np.random.Generator,
) -> Proposals:
    """Return what the detector sees in pictures, of these, that no model learned from."""
    last = _last_training_set(lake, round_id)
    kept = last.loc[last["split"] != "train", "image_id"]
    held_out = images[images["image_id"].isin(kept)].sort_values("image_id")
    if len(held_out) > _LOOKED_AT:
        held_out = held_out.sample(_LOOKED_AT, random_state=rng)
    return propose(registry, held_out, lake.picture_path, round_id=round_id, policy=policy)


def _last_training_set(lake: Lake, round_id: str) -> pd.DataFrame:
    """Return the last training set before a round; an empty one if there is none."""
    before = [key for key in lake.tables.rounds("training_set") if key < round_id]
    return lake.tables.read("training_set", max(before)) if before else empty_table("training_set")


def _of(rows: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["image_id"].isin(images["image_id"])]


def _looked_at(pictures: pd.DataFrame, images: pd.DataFrame) -> list[str]:
    return sorted(set(pictures["image_id"]) & set(images["image_id"]))


def _weighed(predictions: pd.DataFrame) -> pd.DataFrame:
    return predictions[["image_id", "class_name"]].assign(weight=predictions["score"])
