"""Columns and values that several tables share.

Labels of people, of the consensus and of a training set follow one convention: a row is one label
of ``schema/shapes``, and an image without any object has one row with ``shape`` = ``none`` and
no box.
"""

from enum import StrEnum

from annotation_platform.schema.shapes import SHAPES
from annotation_platform.schema.tables.table import (
    Column,
    count,
    flag,
    number,
    optional_text,
    states,
    text,
    time,
)

SHA256 = r"^[0-9a-f]{64}$"
MAYBE_SHA256 = r"^([0-9a-f]{64})?$"
MD5 = r"^[0-9a-f]{32}$"
ROUND = r"^round-\d{4,}$"


class Outcome(StrEnum):
    """What cleaning makes of an arrival."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    QUARANTINED = "quarantined"


class Purpose(StrEnum):
    """Why an image is annotated: for its label, or to test annotators (ground truth is known)."""

    LABEL = "label"
    GOLD = "gold"


class TaskState(StrEnum):
    """How far a task is; ``abandoned``: its round was closed before it was complete."""

    ANNOTATED = "annotated"
    WAITING = "waiting"
    ABANDONED = "abandoned"
    CANCELLED = "cancelled"


class AnnotationState(StrEnum):
    """Whether an annotation is counted, or why not."""

    COUNTED = "counted"
    SKIPPED = "skipped"
    LATE = "late"
    REPEATED = "repeated"
    UNASSIGNED = "unassigned"


class ReviewDecision(StrEnum):
    """What became of the dispute about an image."""

    UNDISPUTED = "undisputed"
    ACCEPTED = "accepted"
    FIXED = "fixed"
    REJECTED = "rejected"
    UNDECIDED = "undecided"


class Split(StrEnum):
    """The part of a dataset that an image belongs to, for good."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class ErrorKind(StrEnum):
    """Types of detection errors, see ``models/evaluation/findings.py``."""

    MISSED = "missed"
    BACKGROUND = "background"
    CLASSIFICATION = "classification"
    LOCALIZATION = "localization"
    BOTH = "both"
    DUPLICATE = "duplicate"


class IssueKind(StrEnum):
    """Types of label issues, see ``curation/label_issues.py``."""

    SPURIOUS = "spurious"
    SWAPPED = "swapped"
    BADLY_LOCATED = "badly_located"
    OVERLOOKED = "overlooked"


class SelectionRule(StrEnum):
    """The term of the selection that chose an image."""

    INCLUDED = "included"
    RECHECK = "recheck"
    CALIBRATION = "calibration"
    OUTLIER = "outlier"
    RARE = "rare"
    UNCERTAIN = "uncertain"
    DIVERSE = "diverse"
    RANDOM = "random"
    REMAINING = "remaining"
    ALL = "all"


SPLITS = [each.value for each in Split]
ERROR_KINDS = tuple(each.value for each in ErrorKind)

ROUND_ID = text("the round", pattern=ROUND)
IMAGE_ID = text("SHA-256 of the landed bytes", pattern=SHA256)
LANDED_IMAGE_ID = optional_text(
    "SHA-256 of the landed bytes; missing if unreadable", pattern=SHA256
)
SOURCE_KEY = text("name under the landing zone, as it landed")
ARRIVAL_VERSION = text("tells two contents under one name apart").formerly("stamp")
TASK_ID = text("round, step and image")
STEP = text("the pipeline step of the task").or_else("labels").as_key()
PURPOSE = states("label, or gold: the ground truth is known", Purpose)
ANNOTATOR = text("pseudonym")
ANNOTATION_ID = text("back end and annotation id")
BACKEND_TASK = text("id of the task in the back end")
LABEL_ID = text("image and running number")
SHAPE = text("shape of the label, see schema/shapes", one_of=SHAPES)
CLASS_NAME = optional_text("class, missing where shape is none or unsure")
X1 = number("left edge of the enclosing box, pixels of the stored image", unit="pixels")
Y1 = number("top edge, pixels of the stored image", unit="pixels")
X2 = number("right edge, pixels of the stored image", unit="pixels")
Y2 = number("bottom edge, pixels of the stored image", unit="pixels")
GEOMETRY = text("what the box does not define, see schema/shapes; or empty")
SUPPORT = count("annotators who labelled the object, or found nothing")
ANNOTATIONS_ON_IMAGE = count("counted annotations of the image")
SPLIT = states("train, val or test", Split)
EFFECT = number("size of the difference, 0 to 1", 0, 1)
P_VALUE = number("p-value of the difference", 0, 1)
DRIFTED = flag("whether the difference is significant and large enough")
SOURCE = optional_text("camera, site or supplier, from its sidecar")
CAPTURED_AT = time("when it was captured")
LATITUDE = number("degrees north", -90, 90, unit="degrees")
LONGITUDE = number("degrees east", -180, 180, unit="degrees")
DEVICE = optional_text("device that captured it")
LICENCE = optional_text("licence under which it may be used")
CONSENT = optional_text("consent that was given")
PARENT_ID = optional_text("SHA-256 of the landed video or image that it is a part of")
FRAME_INDEX = Column("Int64", "position in its parent, from 0", nullable=True, low=0)
TIMESTAMP_SECONDS = number("time from the start of its parent", 0, unit="seconds")
ATTRIBUTES = text("further properties of the label as a JSON object; empty if none").or_else("")
IGNORE = flag("whether training and evaluation leave the label out").or_else(False)
TRACK_ID = optional_text("id of the object across the frames of a video")
OBJECT_GROUP_ID = optional_text("id that labels of one group share, such as parts of one object")
OTHER_METADATA = text("further fields of its sidecar as a JSON object; empty if none")

LABEL_COLUMNS = ["shape", "class_name", "x1", "y1", "x2", "y2", "geometry"]
"""The columns of a label of ``schema/shapes``."""
NO_EXTRAS: dict[str, str | bool | None] = {
    "attributes": "",
    "ignore": False,
    "track_id": None,
    "object_group_id": None,
}
"""The further columns of a label, with the values of a label that uses none of them."""
METADATA_COLUMNS = [
    "source",
    "captured_at",
    "latitude",
    "longitude",
    "device",
    "licence",
    "consent",
    "other_metadata",
]
"""The columns from the sidecar of an image."""
