"""The choice of predictions that annotators are shown."""

import pandas as pd

from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import CLASSIFICATIONS
from annotation_platform.schema.tables import ModelPredictions


def shown_predictions(
    predictions: pd.DataFrame, ontology: Ontology, *, minimum_score: float
) -> pd.DataFrame:
    """Return the ``model_predictions`` shown to annotators: those of ``minimum_score`` or more.

    Where an image has exactly one class, only its likeliest choice is shown, the first of equal
    ones: two would not be a valid annotation.
    """
    shown = predictions[predictions[ModelPredictions.score] >= minimum_score]
    if ontology.choose == "many":
        return shown
    choices = shown[shown[ModelPredictions.shape].isin(CLASSIFICATIONS)]
    by_score = [ModelPredictions.score, ModelPredictions.prediction_id]
    ordered = choices.sort_values(by_score, ascending=[False, True])
    return shown.drop(index=ordered.index[ordered[ModelPredictions.image_id].duplicated()])
