"""Estimated shares of wrong labels."""

from annotation_platform.schema.tables.shared import ROUND_ID
from annotation_platform.schema.tables.table import Table, count, number, text


class ErrorBars(Table, name="error_bars", version=2):
    """How many labels of a version are wrong, of all classes and of each one."""

    round_id = ROUND_ID.as_key()
    class_name = text("a class; empty: all together", key=True)
    origin = text(
        "whose labels it speaks of: people, auto, or where they came along from", key=True
    )
    design = text(
        "labels drawn one by one, whole images, or the bound of a certificate",
        one_of=["labels", "images", "certificate"],
        key=True,
    ).formerly(pictures="images")
    labels = count("labels that it speaks of")
    reviewed = count("labels that were reviewed").formerly("audited")
    images = count("images that were reviewed; 0 where labels were drawn").formerly("pictures")
    wrong = count("reviewed labels that are wrong")
    rate = number("estimated share of wrong labels", 0, 1)
    low = number("lower end of its interval", 0, 1)
    high = number("upper end of its interval", 0, 1)
    level = number("of the interval", 0, 1)
