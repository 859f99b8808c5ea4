"""What the proposing detector tells of a round besides its proposals.

How far the round's pictures are like those that are known, and which of its labels are suspect.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.curation.drift import Batch, Drift, measure_drift
from annotation_platform.curation.label_issues import (
    box_issues,
    choice_issues,
    class_issues,
    measure_trust,
    mistake_risk,
)
from annotation_platform.images.embedding import PictureEmbedder, features_for
from annotation_platform.lake import Lake
from annotation_platform.models.proposals import Proposals, propose
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.params import Params
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.rounds import round_number
from annotation_platform.schema.shapes import AREAS, CLASSIFICATIONS, UNSURE, UPRIGHT_BOXES
from annotation_platform.schema.tables import (
    Frame,
    HeldOutImages,
    HeldOutPredictions,
    LabelIssues,
    ModelPredictions,
    PredictedImages,
    SelectedImages,
    TrainingSet,
)

_LOOKED_AT = 300
"""Pictures that no model learned from and that the proposing one is asked about once more."""
_LEAST_AUDITED = 30
"""With so many audited pictures among them, only those are compared with: fewer tell too little."""


def look_at_held_out(
    round_id: str, *, lake: Lake, registry: ModelRegistry, policy: Params
) -> Proposals:
    """Return what the model of a round's proposals sees in pictures that it did not learn from.

    They are of earlier rounds and of the val or test split: at most 300 of those that a round is
    compared with (``reference_pictures``), and 300 of them all, where these are more. If the
    registry has the model no more, the one of today looks. Before the first model there is nothing.

    Args:
        round_id: the round; its ``model_predictions`` are made.
        lake: where everything is kept.
        registry: where the model is.
        policy: its profile.
    """
    held_out = _held_out(round_id, _known_before(round_id, lake, policy), lake)
    reference = reference_pictures(round_id, held_out, lake)
    seed = [policy.seed, round_number(round_id)]
    drawn = [
        each.sample(min(len(each), _LOOKED_AT), random_state=np.random.default_rng(seed))
        for each in (reference, held_out)
    ]
    seen = lake.tables.read(PredictedImages, round_id)
    return propose(
        registry,
        pd.concat(drawn).drop_duplicates("image_id").sort_values("image_id"),
        lake.picture_path,
        round_id=round_id,
        policy=policy,
        weights=seen["weights"].iloc[0].split(",") if len(seen) else (),
    )


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
    accepted = lake.accepted_images()
    ours = accepted[accepted["round_id"] == round_id]
    theirs = _known_before(round_id, lake, policy)
    compared = reference_pictures(round_id, theirs, lake)
    seen = lake.tables.read(PredictedImages, round_id)
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
            _of(vectors, ours),
            _weighed(_asked(_of(predictions, ours), policy)),
            _looked_at(seen, ours),
        ),
        Batch(
            theirs,
            _of(vectors, theirs),
            _weighed(_asked(_of(held_out.predictions, compared), policy)),
            _looked_at(held_out.pictures, compared),
        ),
        round_id=round_id,
        rng=rng,
        level=policy.drift.level,
        least_effect=policy.drift.least_effect,
    )


@dataclass(frozen=True)
class RoundIssues:
    """What is suspect of a round."""

    table: Frame[LabelIssues]
    risk: pd.Series  # by image the probability that a box of it is wrong or missing


def issues_of_round(
    round_id: str, consensus: pd.DataFrame, *, lake: Lake, policy: Params
) -> RoundIssues:
    """Return the ``label_issues`` of a round: labels that its proposals contradict.

    The proposals were made before people answered, so their model did not learn from the labels.
    How often it overlooks objects is seen in what it was shown of the val and test splits then.
    Before the first model nothing is suspect. Choices are judged together, where one is chosen of
    each picture; their scores are no probabilities, so they are not in the risk.

    Args:
        round_id: the round; its ``batch_drift`` is made.
        consensus: its ``consensus_labels``.
        lake: where everything is kept.
        policy: its ``label_issues`` section says what counts.
    """
    predictions = lake.tables.read(ModelPredictions, round_id)
    seen = lake.tables.read(PredictedImages, round_id)
    judged = _of(consensus, seen)
    asked = _asked(_of(predictions, judged), policy)
    found = _box_issues(round_id, judged, asked, lake=lake, policy=policy)
    likely = found[found["score"] >= policy.label_issues.minimum_probability]
    tables = [likely, _choice_issues(round_id, judged, asked, policy.ontology)]
    tables = [each for each in tables if not each.empty] or [likely]
    return RoundIssues(pd.concat(tables, ignore_index=True), mistake_risk(found))


def _box_issues(
    round_id: str, judged: pd.DataFrame, asked: pd.DataFrame, *, lake: Lake, policy: Params
) -> pd.DataFrame:
    """Return the issues of boxes, however little suspected."""
    if judged.empty or not policy.ontology.areas:
        return LabelIssues.empty()
    # What was erased or rejected since is no truth.
    looked_at = _held_out(round_id, lake.tables.read(HeldOutImages, round_id), lake)
    if looked_at.empty:
        return LabelIssues.empty()
    proposed = _asked(lake.tables.read(HeldOutPredictions, round_id), policy)
    last = lake.tables.read(TrainingSet, _last_training_round(lake, round_id))
    truth = _of(last, looked_at)
    trust = measure_trust(
        _boxes(_of(proposed, looked_at)),
        truth[truth["shape"].isin(AREAS)],
        error_rate=policy.label_issues.error_rate,
    )
    boxes = judged[judged["shape"].isin(AREAS)]
    return box_issues(boxes, _boxes(asked), trust, round_id=round_id, minimum_probability=0.0)


def _choice_issues(
    round_id: str, judged: pd.DataFrame, asked: pd.DataFrame, ontology: Ontology
) -> pd.DataFrame:
    """Return the issues of choices of the pictures for which all choices were proposed."""
    names = ontology.choices
    if not names or (ontology.choose == "one" and len(names) < 2):
        return LabelIssues.empty()
    proposed = asked[asked["shape"].isin(CLASSIFICATIONS)]
    chances = proposed.pivot(index="image_id", columns="class_name", values="score")
    chances = chances.reindex(columns=names).dropna()
    chosen = judged[judged["shape"].isin(CLASSIFICATIONS) & judged["class_name"].isin(names)]
    chosen = chosen[chosen["image_id"].isin(chances.index)].sort_values("image_id")
    if chosen.empty:
        return LabelIssues.empty()
    if ontology.choose == "many":
        # A picture of which nothing was chosen says no to every class.
        answered = judged.loc[judged["shape"] != UNSURE.shape, "image_id"]
        return choice_issues(chosen, chances[chances.index.isin(answered)], round_id=round_id)
    probabilities = chances.loc[chosen["image_id"]].to_numpy(dtype=np.float64)
    return class_issues(chosen, probabilities, names, round_id=round_id)


def _known_before(round_id: str, lake: Lake, policy: Params) -> pd.DataFrame:
    """Return the accepted images of earlier rounds, without those of rounds that are held."""
    accepted = lake.accepted_images()
    held = lake.held_rounds(policy.drift.gate)
    return accepted[(accepted["round_id"] < round_id) & ~accepted["round_id"].isin(held)]


def _held_out(round_id: str, images: pd.DataFrame, lake: Lake) -> pd.DataFrame:
    """Return the pictures, of these, that no model learned from, by image id."""
    before = _last_training_round(lake, round_id)
    if not before:
        return images.iloc[:0]
    last = lake.tables.read_columns(TrainingSet, before, ["image_id", "split"])
    kept = last.loc[last["split"] != "train", "image_id"].unique()
    return images[images["image_id"].isin(kept)].sort_values("image_id")


def reference_pictures(round_id: str, images: pd.DataFrame, lake: Lake) -> pd.DataFrame:
    """Return the pictures, of these, in which a round's proposals are compared with others.

    They are those of the val and test splits, sorted by image id; where at least thirty of them
    were drawn for the audit of an earlier round, only these: they are a random sample of what
    landed, the others what the rules of selection prefer.
    """
    held_out = _held_out(round_id, images, lake)
    before = [key for key in lake.tables.rounds(SelectedImages) if key < round_id]
    selected = lake.tables.read_rounds(SelectedImages, before)
    drawn = selected.loc[selected["audit"], "image_id"]
    audited = held_out[held_out["image_id"].isin(drawn)]
    return audited if len(audited) >= _LEAST_AUDITED else held_out


def _last_training_round(lake: Lake, round_id: str) -> str:
    """Return the last round before a round that has a training set; empty if there is none."""
    return max((key for key in lake.tables.rounds(TrainingSet) if key < round_id), default="")


def _boxes(predictions: pd.DataFrame) -> pd.DataFrame:
    return predictions[predictions["shape"].isin(UPRIGHT_BOXES)]


def _of(rows: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["image_id"].isin(images["image_id"])]


def _asked(predictions: pd.DataFrame, policy: Params) -> pd.DataFrame:
    """Return those that people are asked about: what is proposed only to be masked is not."""
    return predictions[predictions["class_name"].isin(policy.ontology.names)]


def _looked_at(pictures: pd.DataFrame, images: pd.DataFrame) -> list[str]:
    return sorted(set(pictures["image_id"]) & set(images["image_id"]))


def _weighed(predictions: pd.DataFrame) -> pd.DataFrame:
    return predictions[["image_id", "class_name"]].assign(weight=predictions["score"])
