"""Predictions of models, and the images that were predicted."""

from annotation_platform.schema.tables import shared
from annotation_platform.schema.tables.table import Table, count, number, text


class _Predictions(Table):
    """Rows of predictions."""

    round_id = shared.ROUND_ID
    image_id = shared.IMAGE_ID
    prediction_id = text("image_id and running number", key=True)
    shape = text(
        "box, or choice (a classification): then the box is missing", one_of=["box", "choice"]
    )
    class_name = shared.CLASS_NAME
    x1 = shared.X1
    y1 = shared.Y1
    x2 = shared.X2
    y2 = shared.Y2
    attributes = shared.ATTRIBUTES
    track_id = shared.TRACK_ID
    score = number("probability that class and location are correct (IoU 0.5), 0 to 1", 0, 1)
    raw_score = number("the model's own confidence, 0 to 1", 0, 1)
    weights_sha256 = text("digest of the newest weights that made it", pattern=shared.SHA256)
    profile = text("name and start of the digest of the prediction profile")
    calibration = text("digest of the calibration from raw_score to score; empty: they are equal")


class _PredictedImages(Table):
    """Rows of predicted images."""

    round_id = shared.ROUND_ID
    image_id = shared.IMAGE_ID.as_key()
    weights = text("digests of all weights of the ensemble, newest first, comma separated")
    profile = text("name and start of the digest of the prediction profile")
    calibration = text("digest of the calibration from raw_score to score; empty: they are equal")
    passes = count("passes of a network over the image or a part of it")
    predictions = count(
        "boxes and classifications that were predicted; 0 is a result too"
    ).formerly("proposals")
    dropped = count("outputs that were left out because they were not numbers")
    seconds = number("wall-clock time, decoding included", 0, unit="seconds")
    device = text("device of the model: cpu or cuda")


class ModelPredictions(_Predictions, name="model_predictions", version=2):
    """One row per box that the promoted model predicts, and per class of a classification."""


class PredictedImages(_PredictedImages, name="predicted_images", version=2):
    """One row per image that the promoted model predicted, with or without a result."""


class HeldOutPredictions(_Predictions, name="held_out_predictions", version=2):
    """Predictions of the round's model for images that no model was trained on."""


class HeldOutImages(_PredictedImages, name="held_out_images", version=2):
    """One row per image of the val and test splits that was predicted for this."""
