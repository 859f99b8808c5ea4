"""Which images of a round are annotated, and what they were chosen from."""

from annotation_platform.schema.tables.shared import IMAGE_ID, ROUND_ID, SHA256, SelectionRule
from annotation_platform.schema.tables.table import Table, count, flag, number, states, text


class SelectedImages(Table, name="selected_images", version=2):
    """The images of this round that people are asked about, in order."""

    round_id = ROUND_ID
    image_id = IMAGE_ID.as_key()
    rank = count("position in the order of asking, from 0")
    rule = states("the rule that selected it", SelectionRule).formerly(
        audit="calibration", reaudit="recheck", pinned="included", rest="remaining"
    )
    reason = text("why it was chosen, in words")
    score = number("what the rule went by; missing where it went by no number")
    calibration_sample = flag(
        "whether it is in the random sample of the whole pool, which is drawn first"
    ).formerly("audit")
    outlier_score = number("deviations by which it is farther from the others than usual")


class CalibrationFrame(Table, name="calibration_frame", version=2, renamed_from=("audit_frame",)):
    """The images that a round chose from and drew its audit of; none where auto-accept is off."""

    round_id = ROUND_ID
    image_id = IMAGE_ID.as_key()
    by_rule = flag("whether it would be selected without a holdout sample: never accepted")
    predictions_sha256 = text("digest of the model_predictions it was chosen by", pattern=SHA256)
