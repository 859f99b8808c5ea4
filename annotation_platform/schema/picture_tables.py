"""What is known of pictures before anybody looks at them: as they landed, cleaned, embedded, and
what a model sees in them."""

from annotation_platform.schema.columns import (
    Column,
    Table,
    count,
    flag,
    number,
    optional_text,
    text,
)
from annotation_platform.schema.shared_columns import (
    IMAGE_ID,
    LABEL,
    MD5,
    METADATA,
    OUTCOMES,
    PLACE,
    ROUND_ID,
    SHA256,
)

RAW_IMAGES = Table(
    "raw_images",
    "One row per landed object.",
    {
        **ROUND_ID,
        "source_key": text("name under the landing place, as it landed"),
        "stamp": text("tells two contents under one name apart"),
        "image_id": optional_text(
            "SHA-256 of the landed bytes; missing if unreadable", pattern=SHA256
        ),
        "byte_size": count("bytes as they landed"),
        "problem": text("why it or its metadata could not be read; empty if they could"),
        **METADATA,
        "sidecar_sha256": optional_text("SHA-256 of its sidecar as it landed", pattern=SHA256),
    },
    ["round_id", "source_key", "stamp"],
)

CLEANED_IMAGES = Table(
    "cleaned_images",
    "One row per row of raw_images: accepted, duplicate of which, or quarantined and why.",
    {
        **ROUND_ID,
        "source_key": text("name under the landing place, as it landed"),
        "stamp": text("tells two contents under one name apart"),
        "image_id": optional_text(
            "SHA-256 of the landed bytes; missing if unreadable", pattern=SHA256
        ),
        "outcome": text("what became of it", one_of=OUTCOMES),
        "reason": text("why it was quarantined, or the kind of duplicate; empty if accepted"),
        "duplicate_of": optional_text("image_id of the accepted image it repeats", pattern=SHA256),
        "similar_to": optional_text(
            "image_id of the accepted image it is most like: cropped, stamped, mirrored or turned",
            pattern=SHA256,
        ),
        "group_id": optional_text("image_id that names its group of look-alikes", pattern=SHA256),
        "joins": text("further groups that it resembles, comma separated"),
        "width": count("pixels of the stored picture; 0 if it was never decoded"),
        "height": count("pixels of the stored picture; 0 if it was never decoded"),
        "extension": text("true file extension of the stored bytes; empty if nothing was stored"),
        "stored_sha256": optional_text("SHA-256 of the stored bytes", pattern=SHA256),
        "stored_md5": optional_text(
            "MD5 of the stored bytes: the name DVC knows them by", pattern=MD5
        ),
        "stored_bytes": count("size of the stored bytes; 0 if nothing was stored"),
        "pixel_sha256": optional_text("SHA-256 of mode, size and pixels", pattern=SHA256),
        "perceptual_hash": optional_text("64-bit pHash, 16 hex digits", pattern=r"^[0-9a-f]{16}$"),
        "sharpness": number("variance of the Laplacian of the grey picture", 0),
        "brightness": number("mean grey value, 0 to 255", 0, 255),
        "entropy": number("Shannon entropy of the histogram of grey values, in bits", 0, 8),
        "flags": text("what was noticed or changed, comma separated"),
    },
    ["round_id", "source_key", "stamp"],
)

IMPORTED_LABELS = Table(
    "imported_labels",
    "The labels that accepted images landed with: usable, or not and why.",
    {
        **ROUND_ID,
        **IMAGE_ID,
        "label_id": text("image and running number"),
        **LABEL,
        "origin": text("where the labels are from, as the sidecar says"),
        "problem": text("why the image's labels cannot be used; empty if they can"),
    },
    ["label_id"],
)

IMAGE_EMBEDDINGS = Table(
    "image_embeddings",
    "One vector per accepted image.",
    {
        **ROUND_ID,
        **IMAGE_ID,
        "embedder": text("name and version of what made the vector"),
        "vector": Column("object", "float32 values of unit length"),
    },
    ["image_id", "embedder"],
)

_PREDICTION = {
    "prediction_id": text("image_id and running number"),
    "shape": text("box, or choice: then the place is missing", one_of=["box", "choice"]),
    **PLACE,
    "score": number("probability that class and place are right (IoU 0.5), 0 to 1", 0, 1),
    "raw_score": number("the model's own confidence, 0 to 1", 0, 1),
    "weights_sha256": text("digest of the newest weights that made it", pattern=SHA256),
    "profile": text("how thoroughly it was looked at: name and start of the digest"),
    "calibration": text("digest of what made score of raw_score; empty: they are equal"),
}
_LOOK = {
    "weights": text("digests of all weights that looked, newest first, by comma"),
    "profile": text("how thoroughly: name and start of the digest"),
    "calibration": text("digest of what made score of raw_score; empty: they are equal"),
    "passes": count("looks of a network at the picture or a part of it"),
    "proposals": count("its rows: boxes, where none is an answer like any other, and choices"),
    "dropped": count("outputs left out because they were no numbers"),
    "seconds": number("of a clock, decoding included", 0),
    "device": text("what looked: cpu or cuda"),
}

MODEL_PREDICTIONS = Table(
    "model_predictions",
    "One row per box that the promoted model proposes, and per choice, likely or not.",
    {**ROUND_ID, **IMAGE_ID, **_PREDICTION},
    ["prediction_id"],
)

PREDICTED_IMAGES = Table(
    "predicted_images",
    "One row per picture that the promoted model looked at, with or without a proposal.",
    {**ROUND_ID, **IMAGE_ID, **_LOOK},
    ["image_id"],
)

HELD_OUT_PREDICTIONS = Table(
    "held_out_predictions",
    "What the model of a round's proposals sees in pictures whose labels no model learned from.",
    {**ROUND_ID, **IMAGE_ID, **_PREDICTION},
    ["prediction_id"],
)

HELD_OUT_IMAGES = Table(
    "held_out_images",
    "One row per picture of the val and test splits that it looked at for that.",
    {**ROUND_ID, **IMAGE_ID, **_LOOK},
    ["image_id"],
)

BATCH_DRIFT = Table(
    "batch_drift",
    "One row per feature in which a round's pictures were compared with what is known.",
    {
        **ROUND_ID,
        "feature": text("what was compared, see curation/drift.py"),
        "effect": number("how far apart the two are, 0 to 1", 0, 1),
        "p_value": number("how likely chance alone makes that much", 0, 1),
        "drifted": flag("whether it is no chance, and large enough to matter"),
        "detail": text("the two in numbers, as a phrase"),
        "batch_images": count("accepted images of the round"),
        "reference_images": count("images that they were compared with"),
    },
    ["feature"],
)

ODD_IMAGES = Table(
    "odd_images",
    "Images of a round that are unlike all that is known.",
    {
        **ROUND_ID,
        **IMAGE_ID,
        "distance": number("cosine distance to the most alike known image", 0),
        "why": text("what is odd about it"),
    },
    ["image_id"],
)
