"""Estimated shares of wrong labels."""

from annotation_platform.schema.tables.shared import ROUND_ID
from annotation_platform.schema.tables.table import Table, count, number, text


class ErrorBars(Table, name="error_bars", version=2):
    """The estimated share of wrong labels of a version, overall and by class."""

    round_id = ROUND_ID.as_key()
    class_name = text("class; empty: all classes together", key=True)
    origin = text("origin of the labels: people, auto, or the source of imported labels", key=True)
    design = text(
        "whether labels or whole images were sampled, or a certificate gives the bound",
        one_of=["labels", "images", "certificate"],
        key=True,
    ).formerly(pictures="images")
    labels = count("labels of this class and origin")
    reviewed = count("labels that were reviewed").formerly("audited")
    images = count("images that were reviewed; 0 where labels were sampled").formerly("pictures")
    wrong = count("reviewed labels that are wrong")
    rate = number("estimated share of wrong labels", 0, 1)
    low = number("lower end of the confidence interval", 0, 1)
    high = number("upper end of the confidence interval", 0, 1)
    level = number("confidence level of the interval", 0, 1)
