"""Which images people are asked about next."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.tables import make_table
from annotation_platform.selection.pins import Pin


def select_batch(
    pool: pd.DataFrame,
    embeddings: pd.DataFrame,
    *,
    budget: int,
    round_id: str,
    pins: Mapping[str, Pin] | None = None,
) -> pd.DataFrame:
    """Return the ``selected_images`` of a round: the whole pool, or ``budget`` unlike images of it.

    What somebody pinned is always in, first and whatever the budget, or always out.

    Images are taken by farthest-first traversal of their embeddings (Gonzalez, "Clustering to
    minimize the maximum intercluster distance", 1985), starting with the one nearest to the mean:
    at every length the chosen ones cover the pool at most twice as coarsely as the best choice
    would. Ties go by image id.

    Args:
        pool: ``cleaned_images`` rows, accepted and not asked about in an earlier round.
        embeddings: an ``image_embeddings`` table with a vector for each of them.
        budget: how many; 0, or more than there are, is all of them.
        round_id: the round that asks.
        pins: what people decided about single images.
    """
    pins = pins or {}
    there = sorted(pool["image_id"])
    pinned = [image for image in there if image in pins and pins[image].wanted]
    images = [image for image in there if image not in pins]
    left = max(0, budget - len(pinned))
    wanted = len(images) if budget == 0 else min(left, len(images))
    if wanted == 0:
        chosen, reason = [], ""
    elif wanted == len(images):
        reason = "all images of the round"
        chosen = images
    else:
        by_image = dict(zip(embeddings["image_id"], embeddings["vector"], strict=True))
        vectors = np.stack([np.asarray(by_image[image], dtype=np.float64) for image in images])
        chosen = [images[position] for position in _farthest_first(vectors, wanted)]
        reason = "unlike those before it"
    reasons = [(image, f"wanted by {pins[image].by}: {pins[image].reason}") for image in pinned]
    reasons += [(image, reason) for image in chosen]
    rows: list[dict[str, object]] = [
        {"round_id": round_id, "image_id": image, "rank": rank, "reason": why}
        for rank, (image, why) in enumerate(reasons)
    ]
    return make_table("selected_images", rows)


def _farthest_first(vectors: FloatArray, wanted: int) -> list[int]:
    start = int(np.argmin(np.linalg.norm(vectors - vectors.mean(axis=0), axis=1)))
    chosen = [start]
    distances = np.linalg.norm(vectors - vectors[start], axis=1)
    while len(chosen) < wanted:
        distances[chosen] = -1.0
        farthest = int(np.argmax(distances))
        chosen.append(farthest)
        distances = np.minimum(distances, np.linalg.norm(vectors - vectors[farthest], axis=1))
    return chosen
