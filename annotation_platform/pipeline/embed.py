"""A vector for each accepted image."""

from dataclasses import dataclass

from annotation_platform.images.embedding import features_for
from annotation_platform.models.embedder import embedder_for
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.result import Result, TableRows
from annotation_platform.schema.tables import CleanedImages, Frame, ImageEmbeddings
from annotation_platform.schema.tables.shared import Outcome


@dataclass(frozen=True, kw_only=True)
class Embedded(Result):
    """The vectors of a round."""

    image_embeddings: Frame[ImageEmbeddings]


def embed(
    context: RoundContext, cleaned_images: Frame[CleanedImages], models: ModelRegistry
) -> Embedded:
    """Return a vector for each accepted image of the round."""
    lake = context.lake
    accepted = cleaned_images[cleaned_images[CleanedImages.outcome] == Outcome.ACCEPTED]
    embedder = embedder_for(context.policy.selection.embedder, models)
    vectors = features_for(
        accepted, embedder, store=lake.store, load=lake.image, round_id=context.round_id
    )
    return Embedded(
        image_embeddings=vectors,
        figures={
            "images": len(vectors),
            "embedder": embedder.name,
            "preview": TableRows(vectors, ["image_id", "embedder"]),
        },
    )
