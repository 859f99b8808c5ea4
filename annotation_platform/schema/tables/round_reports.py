"""Rounds in one row each."""

from annotation_platform.schema.tables.shared import ROUND_ID
from annotation_platform.schema.tables.table import Table, count, number, text


class RoundReports(Table, name="round_report", version=2):
    """A round in one row."""

    round_id = ROUND_ID.as_key()
    landed = count("landed objects")
    accepted = count("accepted images")
    quarantined = count("quarantined objects")
    duplicates = count("duplicates of accepted images")
    tasks = count("images with a task")
    annotations = count("counted annotations").formerly("answers")
    agreement = number("mean F1 at IoU 0.5, class included, between pairs of annotators", 0, 1)
    disputed = count("boxes that a rule settled against at least one vote")
    labels = count("labels of the round that may be published")
    manual_actions = count("annotations, reviews and decisions of people").formerly("touches")
    minutes = number("annotation time, where it was measured", 0, unit="minutes")
    sampled_images = count("images of the calibration sample; 0: auto-accept is off").formerly(
        "audited_images", "audited_pictures"
    )
    auto_images = count("images of the pool that were accepted automatically")
    auto_share = number("share of the pool that was accepted; missing: auto-accept is off", 0, 1)
    auto_alpha = number("share of wrong or missed labels that is allowed among those", 0, 1)
    auto_delta = number("chance of certifying more than that", 0, 1)
    auto_bound = number("upper bound of the certificate; missing: there is none", 0, 1)
    minutes_saved = number(
        "annotation time saved, by this round's median; missing: auto-accept is off",
        0,
        unit="minutes",
    )
    label_error = number("share of undisputed human labels that is wrong", 0, 1)
    label_error_low = number("lower end of its 95 % interval", 0, 1)
    label_error_high = number("upper end of its interval; 1 without a review", 0, 1)
    model_map50 = number("mean average precision at IoU 0.5 of this round's model", 0, 1)
    test_images = count("images of the test split")
    version = text("dataset version")
