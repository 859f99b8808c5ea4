"""How a round differs from known images."""

from annotation_platform.schema.tables.shared import DRIFTED, EFFECT, IMAGE_ID, P_VALUE, ROUND_ID
from annotation_platform.schema.tables.table import Table, count, number, text


class BatchDrift(Table, name="batch_drift"):
    """One row per feature in which a round's images were compared with known images."""

    round_id = ROUND_ID
    feature = text("the compared feature, see curation/drift.py", key=True)
    effect = EFFECT
    p_value = P_VALUE
    drifted = DRIFTED
    detail = text("both values, as a phrase")
    batch_images = count("accepted images of the round")
    reference_images = count("images of the reference")


class OutlierImages(Table, name="outlier_images", version=2, renamed_from=("odd_images",)):
    """Images of a round that are unlike all known images."""

    round_id = ROUND_ID
    image_id = IMAGE_ID.as_key()
    distance = number("cosine distance to the most similar known image", 0)
    reason = text("how it differs from known images").formerly("why")
