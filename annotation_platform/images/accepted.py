"""The images that cleaning accepted."""

import pandas as pd

from annotation_platform.schema.tables import CleanedImages
from annotation_platform.storage.round_tables import RoundTables


def accepted_images(tables: RoundTables) -> pd.DataFrame:
    """Return the ``cleaned_images`` rows of every accepted image of every round."""
    images = tables.read_all(CleanedImages)
    return images[images["outcome"] == "accepted"].reset_index(drop=True)
