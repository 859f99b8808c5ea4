"""Agreement of predictions with people."""

from annotation_platform.schema.tables.shared import ROUND_ID
from annotation_platform.schema.tables.table import Table, count, number, text


class ModelAgreement(Table, name="model_agreement"):
    """How far the predictions for a round agree with its annotations."""

    round_id = ROUND_ID
    class_name = text("class; empty: all of them", key=True)
    annotations = text("consensus, or blind: given without seeing proposals", key=True).formerly(
        "answers"
    )
    images = count("images compared")
    proposals = count("shown boxes")
    labels = count("boxes that people settled on")
    matched = count("pairs of the same class at IoU 0.5 or above")
    f1 = number("2 matched / (proposals + labels), 0 to 1", 0, 1)
    f1_low = number("lower end of its 95 % interval", 0, 1)
    f1_high = number("upper end of its 95 % interval", 0, 1)
    weights_sha256 = text("the model; empty: there was none")
