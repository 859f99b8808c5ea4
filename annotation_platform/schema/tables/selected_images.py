"""Which images of a round are annotated, and from which pool."""

from annotation_platform.schema.tables.shared import IMAGE_ID, ROUND_ID, SHA256, SelectionRule
from annotation_platform.schema.tables.table import Table, count, flag, number, states, text


class SelectedImages(Table, name="selected_images", version=2):
    """The images of this round that are annotated, in order."""

    round_id = ROUND_ID
    image_id = IMAGE_ID.as_key()
    rank = count("position in the order of annotation, from 0")
    rule = states("the rule that selected it", SelectionRule).formerly(
        audit="calibration", reaudit="recheck", pinned="included", rest="remaining"
    )
    reason = text("why it was selected, in words")
    score = number("value that the rule used; missing where it used none")
    calibration_sample = flag(
        "whether it is in the random sample of the whole pool, which is drawn first"
    ).formerly("audit")
    outlier_score = number("standard deviations above the usual distance to the other images")


class CalibrationFrame(Table, name="calibration_frame", version=2, renamed_from=("audit_frame",)):
    """The pool of a round's selection and calibration sample; empty if auto-accept is off."""

    round_id = ROUND_ID
    image_id = IMAGE_ID.as_key()
    by_rule = flag(
        "whether it would be selected without a calibration sample: never accepted automatically"
    )
    predictions_sha256 = text("digest of the model_predictions that selected it", pattern=SHA256)
