"""The labels of images whose ground truth is known."""

from collections.abc import Collection

import pandas as pd

from annotation_platform.schema.tables import ImportedLabels, ReviewedLabels
from annotation_platform.schema.tables.shared import LABEL_COLUMNS, ReviewDecision
from annotation_platform.storage.round_tables import RoundTables


def known_labels(tables: RoundTables, origins: Collection[str]) -> pd.DataFrame:
    """Return the labels of images whose ground truth is known, the latest of each image.

    These are labels that a reviewer accepted or fixed, and imported labels with one of the
    ``origins``.
    """
    reviewed = tables.read_all(ReviewedLabels)
    decided = (ReviewDecision.ACCEPTED, ReviewDecision.FIXED)
    reviewed = reviewed[reviewed[ReviewedLabels.decision].isin(decided)]
    imported = tables.read_all(ImportedLabels)
    is_trusted = imported[ImportedLabels.origin].isin(origins)
    imported = imported[(imported[ImportedLabels.problem] == "") & is_trusted]
    columns = ["round_id", "image_id", *LABEL_COLUMNS]
    known = pd.concat([reviewed[columns], imported[columns]], ignore_index=True)
    latest = known.groupby("image_id")["round_id"].transform("max")
    return known[known["round_id"] == latest].reset_index(drop=True)
