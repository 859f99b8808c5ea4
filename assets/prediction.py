"""What can be said of a picture before anybody looks at it."""

import dagster as dg
import pandas as pd

from annotation_platform.images.embedding import EMBEDDER, embed_images
from annotation_platform.lake import Lake
from annotation_platform.models.proposals import propose
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.params import Params
from assets.metadata import counts, pictures, table
from assets.partitions import rounds


@dg.asset(partitions_def=rounds, group_name="prediction", kinds={"scipy"}, code_version="1")
def image_embeddings(
    context: dg.AssetExecutionContext, cleaned_images: pd.DataFrame, lake: dg.ResourceParam[Lake]
) -> dg.MaterializeResult[pd.DataFrame]:
    """A vector for each accepted image: pictures that look alike lie close together."""
    accepted = cleaned_images[cleaned_images["outcome"] == "accepted"]
    vectors = embed_images(accepted, lake.picture, round_id=context.partition_key)
    return dg.MaterializeResult(
        value=vectors,
        metadata={
            "images": len(vectors),
            "embedder": EMBEDDER,
            "preview": table(vectors, ["image_id", "embedder"]),
        },
    )


@dg.asset(
    partitions_def=rounds, group_name="prediction", kinds={"pytorch"}, code_version="1", pool="gpu"
)
def model_predictions(
    context: dg.AssetExecutionContext,
    cleaned_images: pd.DataFrame,  # noqa: ARG001  the pool below holds this round's rows too
    imported_labels: pd.DataFrame,  # noqa: ARG001  and leaves out what landed with labels
    lake: dg.ResourceParam[Lake],
    models: dg.ResourceParam[ModelRegistry],
    policy: dg.ResourceParam[Params],
) -> dg.MaterializeResult[pd.DataFrame]:
    """What the promoted model sees in the images that nobody was asked about yet."""
    again = policy.labeling.ask_about_imported
    pool = lake.unasked_images(context.partition_key, policy.ontology, ask_about_imported=again)
    predictions = propose(models, pool, lake.picture_path, round_id=context.partition_key)
    shown = predictions[predictions["score"] >= policy.labeling.minimum_score]
    return dg.MaterializeResult(
        value=predictions,
        metadata={
            "boxes": len(predictions),
            "boxes_shown": len(shown),
            "images": len(pool),
            "model": models.promoted() or "none yet: the first round is labelled from scratch",
            "classes": counts(shown["class_name"]),
            "preview": pictures(pool, lake, shown, policy.ontology),
        },
    )
