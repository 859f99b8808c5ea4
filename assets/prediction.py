"""Embeddings, predictions and drift of the images before annotation."""

from annotation_platform.pipeline.detect_drift import detect_drift
from annotation_platform.pipeline.embed import embed
from annotation_platform.pipeline.predict import predict
from assets.making import tables_made

image_embeddings = tables_made(
    "image_embeddings",
    about="A vector for each accepted image: similar images have vectors close to each other.",
    group="prediction",
    kinds={"scipy"},
    code_version="2",
)(embed)

model_predictions = tables_made(
    "model_predictions",
    "predicted_images",
    about="Predictions of the promoted model for the images that no round has selected yet.",
    group="prediction",
    kinds={"pytorch"},
    code_version="2",
    reads=["cleaned_images", "imported_labels"],
    pool="gpu",
)(predict)

batch_drift = tables_made(
    "batch_drift",
    "odd_images",
    "held_out_predictions",
    "held_out_images",
    about="The differences between the round's images and the known images, by feature.",
    group="prediction",
    kinds={"scipy"},
    code_version="2",
    pool="gpu",
)(detect_drift)
