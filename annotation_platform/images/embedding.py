"""A vector for every picture, without a model: what lies where, and in which colours."""

from collections.abc import Callable

import pandas as pd

from annotation_platform.images.decoding import decode
from annotation_platform.images.hashing import describe
from annotation_platform.schema.tables import make_table

EMBEDDER = "dct-colour-1"


def embed_images(
    images: pd.DataFrame, load: Callable[[str, str], bytes], *, round_id: str
) -> pd.DataFrame:
    """Return the ``image_embeddings`` of pictures; ``load`` gives bytes for id and extension."""
    rows: list[dict[str, object]] = [
        {
            "round_id": round_id,
            "image_id": image_id,
            "embedder": EMBEDDER,
            "vector": describe(decode(load(image_id, extension))),
        }
        for image_id, extension in zip(images["image_id"], images["extension"], strict=True)
    ]
    return make_table("image_embeddings", rows)
