"""Errors of a model, one by one."""

from annotation_platform.schema.tables import shared
from annotation_platform.schema.tables.table import (
    Table,
    count,
    number,
    optional_text,
    states,
    text,
)


class ModelErrors(Table, name="model_errors", version=2, renamed_from=("model_findings",)):
    """Every wrong and every missed box of a round's model on the test images."""

    round_id = shared.ROUND_ID
    error_id = text("round and running number", key=True).formerly("finding_id")
    image_id = shared.IMAGE_ID
    kind = states("type of error, see models/evaluation/findings.py", shared.ErrorKind).formerly(
        **{"miss": "missed", "class": "classification", "place": "localization"},
        class_and_place="both",
    )
    class_name = shared.CLASS_NAME
    x1 = shared.X1
    y1 = shared.Y1
    x2 = shared.X2
    y2 = shared.Y2
    score = number("score of the prediction, 0 to 1; missing for a missed box", 0, 1)
    true_class = optional_text("class of the true object; missing: there is none")
    iou = number("IoU with the true object; for a missed box, the largest of any prediction", 0, 1)
    rank = count("position in its kind, the worst first")


class MissedByModel(Table, name="missed_by_model"):
    """Boxes of the train split that the promoted model does not find; training can weight them."""

    round_id = shared.ROUND_ID
    missed_id = text("image and running number", key=True)
    image_id = shared.IMAGE_ID
    class_name = shared.CLASS_NAME
    x1 = shared.X1
    y1 = shared.Y1
    x2 = shared.X2
    y2 = shared.Y2
    nearest_iou = number("largest IoU of a prediction of its class", 0, 1)
    image_boxes = count("true boxes of the image, found or not")
    weights_sha256 = text("the model", pattern=shared.SHA256)
