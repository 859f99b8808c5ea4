"""The labels of images whose ground truth is known."""

from collections.abc import Collection

import pandas as pd

from annotation_platform.schema.tables import ImportedLabels, ReviewedLabels
from annotation_platform.schema.tables.shared import LABEL_COLUMNS
from annotation_platform.storage.round_tables import RoundTables


def known_labels(tables: RoundTables, origins: Collection[str]) -> pd.DataFrame:
    """Return the labels of images whose ground truth is known, the latest of each image.

    A reviewer accepted or fixed them, or they landed with a label of one of these ``origins``.
    """
    reviewed = tables.read_all(ReviewedLabels)
    reviewed = reviewed[reviewed["decision"].isin(["accepted", "fixed"])]
    imported = tables.read_all(ImportedLabels)
    imported = imported[(imported["problem"] == "") & imported["origin"].isin(origins)]
    columns = ["round_id", "image_id", *LABEL_COLUMNS]
    known = pd.concat([reviewed[columns], imported[columns]], ignore_index=True)
    latest = known.groupby("image_id")["round_id"].transform("max")
    return known[known["round_id"] == latest].reset_index(drop=True)
