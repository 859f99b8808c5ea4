"""What can be said of a picture before anybody looks at it."""

import dagster as dg
import pandas as pd

from annotation_platform.curation.held import held_rounds
from annotation_platform.images.embedding import features_for
from annotation_platform.labeling.tasks import shown_proposals
from annotation_platform.models.embedder import embedder_for
from annotation_platform.models.proposals import propose
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.params import Params
from annotation_platform.pipeline.detect_drift import drift_of_round
from annotation_platform.pipeline.held_out import look_at_held_out
from annotation_platform.pipeline.unasked import unasked_images
from annotation_platform.storage.lake import Lake
from assets.metadata import histogram, number, pictures, table
from assets.partitions import rounds


@dg.asset(partitions_def=rounds, group_name="prediction", kinds={"scipy"}, code_version="2")
def image_embeddings(
    context: dg.AssetExecutionContext,
    cleaned_images: pd.DataFrame,
    lake: dg.ResourceParam[Lake],
    models: dg.ResourceParam[ModelRegistry],
    policy: dg.ResourceParam[Params],
) -> dg.MaterializeResult[pd.DataFrame]:
    """A vector for each accepted image: pictures that look alike lie close together."""
    accepted = cleaned_images[cleaned_images["outcome"] == "accepted"]
    embedder = embedder_for(policy.selection.embedder, models)
    vectors = features_for(
        accepted, embedder, store=lake.store, load=lake.picture, round_id=context.partition_key
    )
    return dg.MaterializeResult(
        value=vectors,
        metadata={
            "images": len(vectors),
            "embedder": embedder.name,
            "preview": table(vectors, ["image_id", "embedder"]),
        },
    )


@dg.asset(
    partitions_def=rounds, group_name="prediction", kinds={"pytorch"}, code_version="2", pool="gpu"
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
    pool = unasked_images(
        context.partition_key,
        lake,
        policy.ontology,
        ask_about_imported=again,
        held=held_rounds(lake.tables, policy.drift.gate),
    )
    proposed = propose(
        models, pool, lake.picture_path, round_id=context.partition_key, policy=policy
    )
    lake.tables.write("predicted_images", context.partition_key, proposed.pictures)
    predictions, looked_at = proposed.predictions, proposed.pictures
    least = policy.labeling.minimum_score
    shown = shown_proposals(predictions, policy.ontology, minimum_score=least)
    boxes = predictions["shape"] == "box"
    return dg.MaterializeResult(
        value=predictions,
        metadata={
            "boxes": int(boxes.sum()),
            "boxes_shown": int((shown["shape"] == "box").sum()),
            "choices_shown": int((shown["shape"] == "choice").sum()),
            "images": len(pool),
            "images_without_proposals": int((looked_at["proposals"] == 0).sum()),
            "dropped_outputs": int(looked_at["dropped"].sum()),
            "passes": int(looked_at["passes"].sum()),
            "seconds": number(float(looked_at["seconds"].sum())),
            "model": proposed.model,
            "scores": proposed.scores,
            "classes": histogram(shown["class_name"]),
            "preview": pictures(pool, lake, shown, policy.ontology),
        },
    )


@dg.asset(
    partitions_def=rounds, group_name="prediction", kinds={"scipy"}, code_version="2", pool="gpu"
)
def batch_drift(
    context: dg.AssetExecutionContext,
    cleaned_images: pd.DataFrame,
    model_predictions: pd.DataFrame,
    lake: dg.ResourceParam[Lake],
    models: dg.ResourceParam[ModelRegistry],
    policy: dg.ResourceParam[Params],
) -> dg.MaterializeResult[pd.DataFrame]:
    """How the round's pictures differ from those that are known, and which are unlike them all."""
    round_id = context.partition_key
    # Kept for label_issues, too: looking once more then would let people wait.
    held_out = look_at_held_out(round_id, lake=lake, registry=models, policy=policy)
    lake.tables.write("held_out_predictions", round_id, held_out.predictions)
    lake.tables.write("held_out_images", round_id, held_out.pictures)
    drift = drift_of_round(round_id, model_predictions, held_out, lake=lake, policy=policy)
    lake.tables.write("odd_images", round_id, drift.odd)
    accepted = cleaned_images[cleaned_images["outcome"] == "accepted"]
    effects = dict(zip(drift.features["feature"], drift.features["effect"], strict=True))
    return dg.MaterializeResult(
        value=drift.features,
        metadata={
            "drifted": ", ".join(drift.drifted),
            "says": drift.sentence,
            "odd_images": len(drift.odd),
            "held_out_images_looked_at": len(held_out.pictures),
            **{f"effect_{name}": number(float(effect)) for name, effect in effects.items()},
            "features": table(drift.features, ["feature", "effect", "p_value", "detail"]),
            "why_odd": table(drift.odd, ["image_id", "distance", "why"]),
            "preview": pictures(
                drift.odd.merge(accepted.drop(columns="round_id")), lake, model_predictions
            ),
        },
    )
