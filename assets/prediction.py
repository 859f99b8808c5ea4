"""Embeddings, predictions and drift of the images before annotation."""

from annotation_platform.pipeline.detect_drift import detect_drift
from annotation_platform.pipeline.embed import embed
from annotation_platform.pipeline.predict import predict
from assets.making import step

image_embeddings = step(
    embed,
    about="A vector for each accepted image: similar images have vectors close to each other.",
    group="prediction",
    kinds={"scipy"},
    code_version="2",
)

model_predictions = step(
    predict,
    about="Predictions of the promoted model for the images that no round has selected yet.",
    group="prediction",
    kinds={"pytorch"},
    code_version="2",
    reads=["cleaned_images", "imported_labels"],
    pool="gpu",
)

batch_drift = step(
    detect_drift,
    about="The differences between the round's images and the known images, by feature.",
    group="prediction",
    kinds={"scipy"},
    code_version="2",
    pool="gpu",
)
