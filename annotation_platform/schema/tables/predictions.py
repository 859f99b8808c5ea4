"""What a model predicts of images, and which images it saw."""

from annotation_platform.schema.tables.shared import (
    ATTRIBUTES,
    CLASS_NAME,
    IMAGE_ID,
    ROUND_ID,
    SHA256,
    TRACK_ID,
    X1,
    X2,
    Y1,
    Y2,
)
from annotation_platform.schema.tables.table import Table, count, number, text


class _Predictions(Table):
    """Rows of predictions."""

    round_id = ROUND_ID
    image_id = IMAGE_ID
    prediction_id = text("image_id and running number", key=True)
    shape = text("box, or choice: then the place is missing", one_of=["box", "choice"])
    class_name = CLASS_NAME
    x1 = X1
    y1 = Y1
    x2 = X2
    y2 = Y2
    attributes = ATTRIBUTES
    track_id = TRACK_ID
    score = number("probability that class and place are right (IoU 0.5), 0 to 1", 0, 1)
    raw_score = number("the model's own confidence, 0 to 1", 0, 1)
    weights_sha256 = text("digest of the newest weights that made it", pattern=SHA256)
    profile = text("how thoroughly it was looked at: name and start of the digest")
    calibration = text("digest of what made score of raw_score; empty: they are equal")


class _PredictedImages(Table):
    """Rows of images that a model saw."""

    round_id = ROUND_ID
    image_id = IMAGE_ID.as_key()
    weights = text("digests of all weights that looked, newest first, by comma")
    profile = text("how thoroughly: name and start of the digest")
    calibration = text("digest of what made score of raw_score; empty: they are equal")
    passes = count("looks of a network at the image or a part of it")
    proposals = count("its rows: boxes, where none is an answer like any other, and choices")
    dropped = count("outputs left out because they were no numbers")
    seconds = number("of a clock, decoding included", 0, unit="seconds")
    device = text("what looked: cpu or cuda")


class ModelPredictions(_Predictions, name="model_predictions", version=2):
    """One row per box that the promoted model proposes, and per choice, likely or not."""


class PredictedImages(_PredictedImages, name="predicted_images"):
    """One row per image that the promoted model looked at, with or without a proposal."""


class HeldOutPredictions(_Predictions, name="held_out_predictions", version=2):
    """What the model of a round's proposals sees in images whose labels no model learned from."""


class HeldOutImages(_PredictedImages, name="held_out_images"):
    """One row per image of the val and test splits that it looked at for that."""
