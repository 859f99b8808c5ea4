"""What the promoted model proposes for images that people will look at."""

import pandas as pd

from annotation_platform.models.detector import predict_files
from annotation_platform.models.pictures import PicturePath, picture_paths
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.schema.tables import empty_table, make_table, records


def propose(
    registry: ModelRegistry,
    pool: pd.DataFrame,
    picture_path: PicturePath,
    *,
    round_id: str,
) -> pd.DataFrame:
    """Return the ``model_predictions`` for a pool of images; without a promoted model, none.

    Args:
        registry: where the promoted model is.
        pool: rows with ``image_id`` and ``extension``.
        picture_path: gives the file of a picture for its id and extension.
        round_id: written beside each prediction.
    """
    weights = registry.promoted()
    if weights is None or pool.empty:
        return empty_table("model_predictions")
    found = predict_files(registry.load(weights), picture_paths(pool, picture_path))
    number = found.groupby("image_id").cumcount().astype(str).str.zfill(4)
    found = found.assign(
        round_id=round_id,
        prediction_id=found["image_id"] + ":" + number,
        weights_sha256=weights,
    )
    return make_table("model_predictions", records(found))
