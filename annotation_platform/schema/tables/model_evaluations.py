"""Figures of models on the test split."""

from annotation_platform.schema.tables.shared import MAYBE_SHA256, ROUND_ID
from annotation_platform.schema.tables.table import Table, count, flag, number, text


class ModelEvaluations(Table, name="model_evaluation", version=2):
    """Quality of a round's model on the test split, and whether it was promoted."""

    round_id = ROUND_ID.as_key()
    dataset_tag = text("version it was tested on")
    weights_sha256 = text("digest of the detector; empty: no boxes", pattern=MAYBE_SHA256)
    test_images = count("images of the test split")
    map50 = number("mean average precision at IoU 0.5, 0 to 1", 0, 1)
    map50_low = number("lower end of its 95 % interval", 0, 1)
    map50_high = number("upper end of its 95 % interval", 0, 1)
    map = number("mean average precision over IoU 0.5 to 0.95, 0 to 1", 0, 1)
    map_low = number("lower end of its 95 % interval", 0, 1)
    map_high = number("upper end of its 95 % interval", 0, 1)
    promoted_map50 = number("map50 of the model promoted before; missing: none", 0, 1)
    promoted_map = number("map of the model promoted before; missing: none", 0, 1)
    difference = number(
        "map minus that of the promoted or the best model, whichever is higher", -1, 1
    )
    difference_low = number("lower end of its 95 % interval", -1, 1)
    difference_high = number("upper end of its 95 % interval", -1, 1)
    best_sha256 = text("digest of the best model ever promoted, on these images; empty: none")
    promoted = flag("whether it now predicts for the rounds")
    reason = text("reason for the decision")
    classifier_sha256 = text("digest of the classifier's weights", pattern=MAYBE_SHA256)
    classified_images = count("test images with a classification").formerly("choice_images")
    accuracy = number("share of them with only correct classes", 0, 1)
    accuracy_low = number("lower end of its 95 % interval", 0, 1)
    accuracy_high = number("upper end of its 95 % interval", 0, 1)
    promoted_accuracy = number("accuracy of the classifier promoted before; missing: none", 0, 1)
    classifier_promoted = flag("whether it now predicts classifications")
    classifier_reason = text("reason for the decision; empty: there is none")
