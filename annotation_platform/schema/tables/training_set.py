"""The labels of a dataset version and the rounds that they are from."""

from annotation_platform.schema.tables.shared import (
    ATTRIBUTES,
    CAPTURED_AT,
    CLASS_NAME,
    CONSENT,
    DEVICE,
    GEOMETRY,
    IGNORE,
    IMAGE_ID,
    LABEL_ID,
    LATITUDE,
    LICENCE,
    LONGITUDE,
    MD5,
    OBJECT_GROUP_ID,
    OTHER_METADATA,
    ROUND,
    ROUND_ID,
    SHA256,
    SHAPE,
    SOURCE,
    SPLIT,
    TRACK_ID,
    X1,
    X2,
    Y1,
    Y2,
)
from annotation_platform.schema.tables.table import Column, Table, count, text


class TrainingSet(Table, name="training_set", version=2):
    """Every label of every finished round and every usable one that came with an image."""

    round_id = ROUND_ID
    image_id = IMAGE_ID
    split = SPLIT
    group_id = text("group of near-duplicates: one split only", pattern=SHA256)
    width = count("pixels of the stored image", unit="pixels")
    height = count("pixels of the stored image", unit="pixels")
    extension = text("true file extension of the stored bytes, without the dot")
    stored_md5 = text("MD5 of the stored bytes: the name DVC knows them by", pattern=MD5)
    stored_bytes = count("size of the stored bytes", unit="bytes")
    label_id = LABEL_ID.as_key()
    shape = SHAPE
    class_name = CLASS_NAME
    x1 = X1
    y1 = Y1
    x2 = X2
    y2 = Y2
    geometry = GEOMETRY
    attributes = ATTRIBUTES
    ignore = IGNORE
    track_id = TRACK_ID
    object_group_id = OBJECT_GROUP_ID
    class_id = Column("Int64", "id of the class", nullable=True, low=0)
    origin = text("people, auto, or where the labels that came with the image are from")
    support = count("annotators who saw this object; 0 if it came with the image")
    annotations = count("counted answers on the image; 0 if its labels came with it").formerly(
        "answers"
    )
    source = SOURCE
    captured_at = CAPTURED_AT
    latitude = LATITUDE
    longitude = LONGITUDE
    device = DEVICE
    licence = LICENCE
    consent = CONSENT
    other_metadata = OTHER_METADATA


class TrainingRounds(Table, name="training_rounds"):
    """The rounds that a training set holds, and the state of their labels in it."""

    round_id = ROUND_ID.as_key()
    included_round = text("a round whose labels are in it", pattern=ROUND, key=True)
    labels_sha256 = text(
        "digest of that round's reviewed_labels and imported_labels", pattern=SHA256
    )
