"""Columns and values that several tables share.

Labels of people, of the consensus and of a training set follow one convention: a row is one label
of ``schema/shapes``, and an image in which somebody found nothing has one row with ``shape`` =
``none`` and no box.
"""

from annotation_platform.schema.columns import count, number, optional_text, text, time
from annotation_platform.schema.shapes import SHAPES

SHA256 = r"^[0-9a-f]{64}$"
MAYBE_SHA256 = r"^([0-9a-f]{64})?$"
MD5 = r"^[0-9a-f]{32}$"
ROUND = r"^round-\d{4,}$"
OUTCOMES = ["accepted", "duplicate", "quarantined"]
PURPOSES = ["label", "gold"]
TASK_STATES = ["answered", "waiting", "left", "cancelled"]
ANSWER_STATES = ["counted", "skipped", "late", "repeated", "foreign"]
DECISIONS = ["undisputed", "accepted", "fixed", "rejected", "undecided"]
SPLITS = ["train", "val", "test"]
FINDING_KINDS = ("miss", "background", "class", "place", "class_and_place", "duplicate")
ISSUE_KINDS = ["wrong", "swapped", "placed", "missed"]
SELECTION_RULES = [
    *("pinned", "reaudit", "audit", "outlier", "rare", "uncertain", "diverse"),
    *("random", "rest", "all"),
]


ROUND_ID = {"round_id": text("the round", pattern=ROUND)}
IMAGE_ID = {"image_id": text("SHA-256 of the landed bytes", pattern=SHA256)}
PLACE = {
    "class_name": optional_text("class, missing where shape is none or unsure"),
    "x1": number("left edge of the enclosing box, pixels of the stored picture"),
    "y1": number("top edge, pixels of the stored picture"),
    "x2": number("right edge, pixels of the stored picture"),
    "y2": number("bottom edge, pixels of the stored picture"),
}
GEOMETRY = {"geometry": text("what the box does not say, see schema/shapes; or empty")}
LABEL = {
    "shape": text("what the label is, see schema/shapes", one_of=SHAPES),
    **PLACE,
    **GEOMETRY,
}
STORED = {
    "width": count("pixels of the stored picture"),
    "height": count("pixels of the stored picture"),
    "extension": text("true file extension of the stored bytes, without the dot"),
    "stored_md5": text("MD5 of the stored bytes: the name DVC knows them by", pattern=MD5),
    "stored_bytes": count("size of the stored bytes"),
}

LABEL_COLUMNS = list(LABEL)
"""What a row says as a label of ``schema/shapes``."""

METADATA = {
    "source": optional_text("camera, site or supplier, as its sidecar says"),
    "captured_at": time("when it was taken"),
    "latitude": number("degrees north", -90, 90),
    "longitude": number("degrees east", -180, 180),
    "device": optional_text("what took it"),
    "licence": optional_text("under which it may be used"),
    "consent": optional_text("who agreed to what"),
    "other_metadata": text("further fields of its sidecar as a JSON object; empty if none"),
}
