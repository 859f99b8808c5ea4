"""Agreement of predictions with annotations."""

from annotation_platform.schema.tables.shared import ROUND_ID
from annotation_platform.schema.tables.table import Table, count, number, text


class ModelAgreement(Table, name="model_agreement", version=2):
    """Agreement of the predictions for a round with its annotations."""

    round_id = ROUND_ID
    class_name = text("class; empty: all classes", key=True)
    annotations = text(
        "consensus, or without_predictions: made without pre-annotations",
        one_of=["consensus", "without_predictions"],
        key=True,
    ).formerly("answers", blind="without_predictions")
    images = count("images compared")
    predictions = count("predicted boxes that were shown").formerly("proposals")
    labels = count("boxes of the annotations")
    matched = count("pairs of the same class at IoU 0.5 or above")
    f1 = number("2 matched / (predictions + labels), 0 to 1", 0, 1)
    f1_low = number("lower end of its 95 % interval", 0, 1)
    f1_high = number("upper end of its 95 % interval", 0, 1)
    weights_sha256 = text("the model; empty: there was none")
