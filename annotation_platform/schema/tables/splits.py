"""The permanent splits."""

from annotation_platform.schema.tables.shared import ROUND_ID, SHA256, SPLIT
from annotation_platform.schema.tables.table import Table, text


class Splits(Table, name="splits"):
    """The split of every image and of every value that keeps images together, drawn once."""

    round_id = ROUND_ID
    key = text(
        "image, group of near-duplicates, or digest of a value they share", pattern=SHA256, key=True
    )
    split = SPLIT
