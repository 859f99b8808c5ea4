"""The labels of a dataset version, and their rounds."""

from annotation_platform.schema.tables import shared
from annotation_platform.schema.tables.table import Column, Table, count, text


class TrainingSet(Table, name="training_set", version=2):
    """Every label of every finished round, and every usable imported label."""

    round_id = shared.ROUND_ID
    image_id = shared.IMAGE_ID
    split = shared.SPLIT
    group_id = text("group of near-duplicates: one split only", pattern=shared.SHA256)
    width = count("pixels of the stored image", unit="pixels")
    height = count("pixels of the stored image", unit="pixels")
    extension = text("true file extension of the stored bytes, without the dot")
    stored_md5 = text("MD5 of the stored bytes: DVC's name of the file", pattern=shared.MD5)
    stored_bytes = count("size of the stored bytes", unit="bytes")
    label_id = shared.LABEL_ID.as_key()
    shape = shared.SHAPE
    class_name = shared.CLASS_NAME
    x1 = shared.X1
    y1 = shared.Y1
    x2 = shared.X2
    y2 = shared.Y2
    geometry = shared.GEOMETRY
    attributes = shared.ATTRIBUTES
    ignore = shared.IGNORE
    track_id = shared.TRACK_ID
    object_group_id = shared.OBJECT_GROUP_ID
    class_id = Column("Int64", "id of the class", nullable=True, low=0)
    origin = text("people, auto, or the source of imported labels")
    support = count("annotators who labelled this object; 0 for imported labels")
    annotations = count("counted annotations of the image; 0 for imported labels").formerly(
        "answers"
    )
    source = shared.SOURCE
    captured_at = shared.CAPTURED_AT
    latitude = shared.LATITUDE
    longitude = shared.LONGITUDE
    device = shared.DEVICE
    licence = shared.LICENCE
    consent = shared.CONSENT
    other_metadata = shared.OTHER_METADATA


class TrainingRounds(Table, name="training_rounds"):
    """The rounds that a training set holds, and the state of their labels in it."""

    round_id = shared.ROUND_ID.as_key()
    included_round = text("a round whose labels are in it", pattern=shared.ROUND, key=True)
    labels_sha256 = text(
        "digest of that round's reviewed_labels and imported_labels", pattern=shared.SHA256
    )
