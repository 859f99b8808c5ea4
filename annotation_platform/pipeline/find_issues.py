"""Labels of a round that its predictions contradict."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.curation.label_issues import (
    box_issues,
    choice_issues,
    class_issues,
    measure_trust,
    mistake_risk,
)
from annotation_platform.params import Params
from annotation_platform.pipeline.held_out import (
    held_out_images,
    last_training_round,
    of_ontology,
    rows_of,
)
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import AREAS
from annotation_platform.schema.tables import empty_table
from annotation_platform.storage.lake import Lake


@dataclass(frozen=True)
class RoundIssues:
    """What is suspect of a round."""

    table: pd.DataFrame  # schema.tables.LABEL_ISSUES
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
    predictions = lake.tables.read("model_predictions", round_id)
    seen = lake.tables.read("predicted_images", round_id)
    judged = rows_of(consensus, seen)
    asked = of_ontology(rows_of(predictions, judged), policy)
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
        return empty_table("label_issues")
    # What was erased or rejected since is no truth.
    looked_at = held_out_images(round_id, lake.tables.read("held_out_images", round_id), lake)
    if looked_at.empty:
        return empty_table("label_issues")
    proposed = of_ontology(lake.tables.read("held_out_predictions", round_id), policy)
    last = lake.tables.read("training_set", last_training_round(lake, round_id))
    truth = rows_of(last, looked_at)
    trust = measure_trust(
        _boxes(rows_of(proposed, looked_at)),
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
        return empty_table("label_issues")
    proposed = asked[asked["shape"] == "choice"]
    chances = proposed.pivot(index="image_id", columns="class_name", values="score")
    chances = chances.reindex(columns=names).dropna()
    chosen = judged[(judged["shape"] == "choice") & judged["class_name"].isin(names)]
    chosen = chosen[chosen["image_id"].isin(chances.index)].sort_values("image_id")
    if chosen.empty:
        return empty_table("label_issues")
    if ontology.choose == "many":
        # A picture of which nothing was chosen says no to every class.
        answered = judged.loc[judged["shape"] != "unsure", "image_id"]
        return choice_issues(chosen, chances[chances.index.isin(answered)], round_id=round_id)
    probabilities = chances.loc[chosen["image_id"]].to_numpy(dtype=np.float64)
    return class_issues(chosen, probabilities, names, round_id=round_id)


def _boxes(predictions: pd.DataFrame) -> pd.DataFrame:
    return predictions[predictions["shape"] == "box"]
