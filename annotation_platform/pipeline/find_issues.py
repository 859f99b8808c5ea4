"""Labels of a round that its predictions contradict."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.curation.classification_issues import class_issues, classification_issues
from annotation_platform.curation.label_issues import (
    box_issues,
    measure_trust,
    mistake_risk,
)
from annotation_platform.images.accepted import accepted_images
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.held_out import (
    held_out_images,
    last_training_round,
    of_ontology,
    rows_of,
)
from annotation_platform.pipeline.result import Counts, Result, TableRows, Thumbnails
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import AREAS, CLASSIFICATIONS, UNSURE, UPRIGHT_BOXES
from annotation_platform.schema.tables import (
    ConsensusLabels,
    Frame,
    HeldOutImages,
    HeldOutPredictions,
    LabelIssues,
    ModelPredictions,
    PredictedImages,
    TrainingSet,
)


@dataclass(frozen=True)
class IssueInputs:
    """The tables of a round from which its label issues are computed, by name."""

    consensus_labels: Frame[ConsensusLabels]
    model_predictions: Frame[ModelPredictions]
    predicted_images: Frame[PredictedImages]
    held_out_predictions: Frame[HeldOutPredictions]
    held_out_images: Frame[HeldOutImages]


@dataclass(frozen=True, kw_only=True)
class IssuesFound(Result):
    """The suspected labels of a round."""

    label_issues: Frame[LabelIssues]


def find_issues(context: RoundContext, inputs: IssueInputs) -> IssuesFound:
    """Return the labels of the round that are probably wrong, and the objects without one."""
    consensus = inputs.consensus_labels
    found = _issues_of_round(context, inputs)
    issues = found.table
    # The images most likely to hold an error first, then those with suspected classifications only.
    order = [*found.risk.sort_values(ascending=False).index, *issues[LabelIssues.image_id]]
    shown = issues[["image_id"]].drop_duplicates().set_index("image_id")
    shown = shown.loc[[image for image in dict.fromkeys(order) if image in shown.index]]
    worst = shown.reset_index().merge(accepted_images(context.tables))
    return IssuesFound(
        label_issues=issues,
        figures={
            "issues": len(issues),
            "images": issues[LabelIssues.image_id].nunique(),
            "expected_images_with_errors": float(found.risk.sum()),
            "kinds": Counts(issues[LabelIssues.kind]),
            "worst": TableRows(issues, ["image_id", "kind", "score", "suggestion"]),
            "preview": Thumbnails(worst, consensus, context.policy.ontology),
        },
    )


@dataclass(frozen=True)
class _RoundIssues:
    """The label issues of a round."""

    table: Frame[LabelIssues]
    risk: pd.Series  # by image, the probability that a box is wrong or missing


def _issues_of_round(context: RoundContext, inputs: IssueInputs) -> _RoundIssues:
    """Return the ``label_issues`` of a round: labels that its predictions contradict.

    The predictions were made before the annotations, so the model was not trained on the labels.
    How often it overlooks objects is measured on its predictions for the val and test splits.
    Before the first model there are no issues. Classifications are judged together; where each
    image has one class, their scores are not probabilities, so they are not part of the risk.
    """
    round_id, policy = context.round_id, context.policy
    judged = rows_of(inputs.consensus_labels, inputs.predicted_images)
    predictions = of_ontology(rows_of(inputs.model_predictions, judged), policy)
    found = _box_issues(context, inputs, judged, predictions)
    likely = found[found[LabelIssues.score] >= policy.label_issues.minimum_probability]
    tables = [likely, _classification_issues(round_id, judged, predictions, policy.ontology)]
    tables = [each for each in tables if not each.empty] or [likely]
    return _RoundIssues(pd.concat(tables, ignore_index=True), mistake_risk(found))


def _box_issues(
    context: RoundContext, inputs: IssueInputs, judged: pd.DataFrame, predictions: pd.DataFrame
) -> Frame[LabelIssues]:
    """Return the issues of boxes, including the least likely ones."""
    round_id, lake, policy = context.round_id, context.lake, context.policy
    if judged.empty or not policy.ontology.areas:
        return LabelIssues.empty()
    # Images that were erased or rejected since then are not used.
    held_out = held_out_images(round_id, inputs.held_out_images, lake)
    if held_out.empty:
        return LabelIssues.empty()
    predicted = of_ontology(inputs.held_out_predictions, policy)
    last = lake.tables.read(TrainingSet, last_training_round(lake, round_id))
    truth = rows_of(last, held_out)
    trust = measure_trust(
        _boxes(rows_of(predicted, held_out)),
        truth[truth[TrainingSet.shape].isin(AREAS)],
        error_rate=policy.label_issues.error_rate,
    )
    boxes = judged[judged[ConsensusLabels.shape].isin(AREAS)]
    return box_issues(boxes, _boxes(predictions), trust, round_id=round_id, minimum_probability=0.0)


def _classification_issues(
    round_id: str, judged: pd.DataFrame, predictions: pd.DataFrame, ontology: Ontology
) -> Frame[LabelIssues]:
    """Return the issues of classifications, of the images with a prediction for every class."""
    names = ontology.choices
    if not names or (ontology.choose == "one" and len(names) < 2):
        return LabelIssues.empty()
    predicted = predictions[predictions[ModelPredictions.shape].isin(CLASSIFICATIONS)]
    chances = predicted.pivot(index="image_id", columns="class_name", values="score")
    chances = chances.reindex(columns=names).dropna()
    chosen = judged[
        judged[ConsensusLabels.shape].isin(CLASSIFICATIONS)
        & judged[ConsensusLabels.class_name].isin(names)
    ]
    chosen = chosen[chosen[ConsensusLabels.image_id].isin(chances.index)].sort_values("image_id")
    if chosen.empty:
        return LabelIssues.empty()
    if ontology.choose == "many":
        # For an annotated image without a choice, every class is absent.
        annotated = judged.loc[judged[ConsensusLabels.shape] != UNSURE.shape, "image_id"]
        return classification_issues(
            chosen, chances[chances.index.isin(annotated)], round_id=round_id
        )
    probabilities = chances.loc[chosen[ConsensusLabels.image_id]].to_numpy(dtype=np.float64)
    return class_issues(chosen, probabilities, names, round_id=round_id)


def _boxes(predictions: pd.DataFrame) -> pd.DataFrame:
    return predictions[predictions[ModelPredictions.shape].isin(UPRIGHT_BOXES)]
