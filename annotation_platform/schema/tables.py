"""Every table: its columns, types, units and ranges. Checked on every write and every read.

Labels of people, of the consensus and of a training set share one convention: a row is one label
of ``schema/shapes.py``, and an image in which somebody found nothing has one row with ``shape`` =
``none`` and no box.
"""

from collections.abc import Sequence

import pandas as pd
import pandera.pandas as pa

from annotation_platform.errors import TableError
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


def _text(about: str, *, pattern: str = "", one_of: Sequence[str] | None = None) -> pa.Column:
    checks = [pa.Check.str_matches(pattern)] if pattern else []
    if one_of is not None:
        checks.append(pa.Check.isin(list(one_of)))
    return pa.Column(str, checks, nullable=False, description=about)


def _optional_text(about: str, *, pattern: str = "") -> pa.Column:
    checks = [pa.Check.str_matches(pattern)] if pattern else []
    return pa.Column(str, checks, nullable=True, description=about)


def _count(about: str) -> pa.Column:
    return pa.Column("int64", pa.Check.ge(0), description=about)


def _number(about: str, low: float | None = None, high: float | None = None) -> pa.Column:
    checks = [] if low is None else [pa.Check.ge(low)]
    if high is not None:
        checks.append(pa.Check.le(high))
    return pa.Column("float64", checks, nullable=True, description=about)


def _flag(about: str) -> pa.Column:
    return pa.Column(bool, description=about)


def _time(about: str) -> pa.Column:
    return pa.Column("datetime64[us, UTC]", nullable=True, coerce=True, description=about)


def _table(
    name: str, about: str, columns: dict[str, pa.Column], key: list[str]
) -> pa.DataFrameSchema:
    return pa.DataFrameSchema(
        columns, name=name, description=about, unique=key, strict=True, ordered=True
    )


_ROUND_ID = {"round_id": _text("the round", pattern=ROUND)}
_IMAGE_ID = {"image_id": _text("SHA-256 of the landed bytes", pattern=SHA256)}
_PLACE = {
    "class_name": _optional_text("class, missing where shape is none or unsure"),
    "x1": _number("left edge of the enclosing box, pixels of the stored picture"),
    "y1": _number("top edge, pixels of the stored picture"),
    "x2": _number("right edge, pixels of the stored picture"),
    "y2": _number("bottom edge, pixels of the stored picture"),
}
_GEOMETRY = {"geometry": _text("what the box does not say, see schema/shapes.py; or empty")}
_LABEL = {
    "shape": _text("what the label is, see schema/shapes.py", one_of=SHAPES),
    **_PLACE,
    **_GEOMETRY,
}
_STORED = {
    "width": _count("pixels of the stored picture"),
    "height": _count("pixels of the stored picture"),
    "extension": _text("true file extension of the stored bytes, without the dot"),
    "stored_md5": _text("MD5 of the stored bytes: the name DVC knows them by", pattern=MD5),
    "stored_bytes": _count("size of the stored bytes"),
}

LABEL_COLUMNS = list(_LABEL)
"""What a row says as a label of ``schema/shapes.py``."""

METADATA = {
    "source": _optional_text("camera, site or supplier, as its sidecar says"),
    "captured_at": _time("when it was taken"),
    "latitude": _number("degrees north", -90, 90),
    "longitude": _number("degrees east", -180, 180),
    "device": _optional_text("what took it"),
    "licence": _optional_text("under which it may be used"),
    "consent": _optional_text("who agreed to what"),
    "other_metadata": _text("further fields of its sidecar as a JSON object; empty if none"),
}

RAW_IMAGES = _table(
    "raw_images",
    "One row per landed object.",
    {
        **_ROUND_ID,
        "source_key": _text("name under the landing place, as it landed"),
        "stamp": _text("tells two contents under one name apart"),
        "image_id": _optional_text(
            "SHA-256 of the landed bytes; missing if unreadable", pattern=SHA256
        ),
        "byte_size": _count("bytes as they landed"),
        "problem": _text("why it or its metadata could not be read; empty if they could"),
        **METADATA,
        "sidecar_sha256": _optional_text("SHA-256 of its sidecar as it landed", pattern=SHA256),
    },
    ["round_id", "source_key", "stamp"],
)

CLEANED_IMAGES = _table(
    "cleaned_images",
    "One row per row of raw_images: accepted, duplicate of which, or quarantined and why.",
    {
        **_ROUND_ID,
        "source_key": _text("name under the landing place, as it landed"),
        "stamp": _text("tells two contents under one name apart"),
        "image_id": _optional_text(
            "SHA-256 of the landed bytes; missing if unreadable", pattern=SHA256
        ),
        "outcome": _text("what became of it", one_of=OUTCOMES),
        "reason": _text("why it was quarantined, or the kind of duplicate; empty if accepted"),
        "duplicate_of": _optional_text("image_id of the accepted image it repeats", pattern=SHA256),
        "similar_to": _optional_text(
            "image_id of the accepted image it is most like: cropped, stamped, mirrored or turned",
            pattern=SHA256,
        ),
        "group_id": _optional_text("image_id that names its group of look-alikes", pattern=SHA256),
        "joins": _text("further groups that it resembles, comma separated"),
        "width": _count("pixels of the stored picture; 0 if it was never decoded"),
        "height": _count("pixels of the stored picture; 0 if it was never decoded"),
        "extension": _text("true file extension of the stored bytes; empty if nothing was stored"),
        "stored_sha256": _optional_text("SHA-256 of the stored bytes", pattern=SHA256),
        "stored_md5": _optional_text(
            "MD5 of the stored bytes: the name DVC knows them by", pattern=MD5
        ),
        "stored_bytes": _count("size of the stored bytes; 0 if nothing was stored"),
        "pixel_sha256": _optional_text("SHA-256 of mode, size and pixels", pattern=SHA256),
        "perceptual_hash": _optional_text("64-bit pHash, 16 hex digits", pattern=r"^[0-9a-f]{16}$"),
        "sharpness": _number("variance of the Laplacian of the grey picture", 0),
        "brightness": _number("mean grey value, 0 to 255", 0, 255),
        "entropy": _number("Shannon entropy of the histogram of grey values, in bits", 0, 8),
        "flags": _text("what was noticed or changed, comma separated"),
    },
    ["round_id", "source_key", "stamp"],
)

IMPORTED_LABELS = _table(
    "imported_labels",
    "The labels that accepted images landed with: usable, or not and why.",
    {
        **_ROUND_ID,
        **_IMAGE_ID,
        "label_id": _text("image and running number"),
        **_LABEL,
        "origin": _text("where the labels are from, as the sidecar says"),
        "problem": _text("why the image's labels cannot be used; empty if they can"),
    },
    ["label_id"],
)

IMAGE_EMBEDDINGS = _table(
    "image_embeddings",
    "One vector per accepted image.",
    {
        **_ROUND_ID,
        **_IMAGE_ID,
        "embedder": _text("name and version of what made the vector"),
        "vector": pa.Column(object, description="float32 values of unit length"),
    },
    ["image_id", "embedder"],
)

MODEL_PREDICTIONS = _table(
    "model_predictions",
    "One row per box that the promoted model proposes, and per choice, likely or not.",
    {
        **_ROUND_ID,
        **_IMAGE_ID,
        "prediction_id": _text("image_id and running number"),
        "shape": _text("box, or choice: then the place is missing", one_of=["box", "choice"]),
        **_PLACE,
        "score": _number("probability that class and place are right (IoU 0.5), 0 to 1", 0, 1),
        "raw_score": _number("the model's own confidence, 0 to 1", 0, 1),
        "weights_sha256": _text("digest of the newest weights that made it", pattern=SHA256),
        "profile": _text("how thoroughly it was looked at: name and start of the digest"),
        "calibration": _text("digest of what made score of raw_score; empty: they are equal"),
    },
    ["prediction_id"],
)

PREDICTED_IMAGES = _table(
    "predicted_images",
    "One row per picture that the promoted model looked at, with or without a proposal.",
    {
        **_ROUND_ID,
        **_IMAGE_ID,
        "weights": _text("digests of all weights that looked, newest first, by comma"),
        "profile": _text("how thoroughly: name and start of the digest"),
        "calibration": _text("digest of what made score of raw_score; empty: they are equal"),
        "passes": _count("looks of a network at the picture or a part of it"),
        "proposals": _count("its rows: boxes, where none is an answer like any other, and choices"),
        "dropped": _count("outputs left out because they were no numbers"),
        "seconds": _number("of a clock, decoding included", 0),
        "device": _text("what looked: cpu or cuda"),
    },
    ["image_id"],
)

BATCH_DRIFT = _table(
    "batch_drift",
    "One row per feature in which a round's pictures were compared with what is known.",
    {
        **_ROUND_ID,
        "feature": _text("what was compared, see curation/drift.py"),
        "effect": _number("how far apart the two are, 0 to 1", 0, 1),
        "p_value": _number("how likely chance alone makes that much", 0, 1),
        "drifted": _flag("whether it is no chance, and large enough to matter"),
        "detail": _text("the two in numbers, as a phrase"),
        "batch_images": _count("accepted images of the round"),
        "reference_images": _count("images that they were compared with"),
    },
    ["feature"],
)

ODD_IMAGES = _table(
    "odd_images",
    "Images of a round that are unlike all that is known.",
    {
        **_ROUND_ID,
        **_IMAGE_ID,
        "distance": _number("cosine distance to the most alike known image", 0),
        "why": _text("what is odd about it"),
    },
    ["image_id"],
)

SELECTED_IMAGES = _table(
    "selected_images",
    "The images of this round that people are asked about, in order.",
    {
        **_ROUND_ID,
        **_IMAGE_ID,
        "rank": _count("position in the order of asking, from 0"),
        "rule": _text("what chose it", one_of=SELECTION_RULES),
        "reason": _text("why it was chosen, in words"),
        "score": _number("what the rule went by; missing where it went by no number"),
        "audit": _flag("whether it was drawn by lot from the whole pool, before anything else"),
        "outlier_score": _number("deviations by which it is farther from the others than usual"),
    },
    ["image_id"],
)

AUDIT_FRAME = _table(
    "audit_frame",
    "The images that a round chose from, and so drew its audit of; none where auto-accept is off.",
    {
        **_ROUND_ID,
        **_IMAGE_ID,
        "by_rule": _flag("whether it would be asked about if nobody were audited: never accepted"),
        "predictions_sha256": _text(
            "digest of the model_predictions it was chosen by", pattern=SHA256
        ),
    },
    ["image_id"],
)

LABEL_TASKS = _table(
    "label_tasks",
    "One row per place: each of the k blind copies of each task.",
    {
        **_ROUND_ID,
        "task_id": _text("round, step and image"),
        "step": _text("the question asked, e.g. boxes"),
        **_IMAGE_ID,
        "place": pa.Column("int64", pa.Check.ge(1), description="number of the copy"),
        "stands_for": pa.Column(
            "int64",
            pa.Check.ge(1),
            description="the place it fills; another one where it replaces a copy that is used up",
        ),
        "assignee": _text("whom the place is meant for; empty: anybody"),
        "purpose": _text("label, or gold: the answer is known", one_of=PURPOSES),
        "blind": _flag("whether it shows no proposals, to see what they do to people"),
        "expertise": _text("skill that whoever answers must have; empty: none"),
        "guideline": _text("digest of classes and guidelines it was asked under", pattern=SHA256),
        "backend": _text("where people answer it"),
        "backend_task": _text("the task's id over there"),
    },
    ["task_id", "place"],
)

HUMAN_LABELS = _table(
    "human_labels",
    "What people said: one row per label of each counted answer, from the answers ledger.",
    {
        **_ROUND_ID,
        "task_id": _text("round, step and image"),
        **_IMAGE_ID,
        "place": pa.Column("int64", pa.Check.ge(1), description="the copy that was answered"),
        "answer_id": _text("back end and annotation id"),
        "revision": _text("digest of this state of the answer", pattern=SHA256),
        "annotator": _text("pseudonym"),
        "label_id": _text("answer and running number"),
        **_LABEL,
        "lead_time_seconds": _number("seconds spent on the answer", 0),
        "submitted_at": _time("when the answer took this form"),
        "weights_sha256": _text("model behind the pre-annotation it began from; empty: none"),
        "changed": _flag("whether it differs from that pre-annotation, by value"),
        "purpose": _text("label, or gold: the answer is known", one_of=PURPOSES),
        "blind": _flag("whether the annotator saw no proposals"),
        "guideline": _text("digest of classes and guidelines it was made under", pattern=SHA256),
        "refused_regions": _count("regions of the answer that are no usable label"),
        "problems": _text("what is wrong with regions of the answer, a JSON list; or empty"),
    },
    ["label_id"],
)

ANSWERS = _table(
    "answers",
    "Every answer ever seen in a round, counted or not: what people are paid by.",
    {
        **_ROUND_ID,
        "answer_id": _text("back end and annotation id"),
        "task_id": _text("round, step and image"),
        **_IMAGE_ID,
        "place": pa.Column("int64", description="the copy that was answered"),
        "purpose": _text("label or gold; empty if no such task was asked", one_of=[*PURPOSES, ""]),
        "annotator": _text("pseudonym"),
        "state": _text("counted, or why not", one_of=ANSWER_STATES),
        "detail": _text("why it is not counted, as a sentence; empty if it is"),
        "revisions": _count("states of it that were seen"),
        "lead_time_seconds": _number("seconds spent on it", 0),
        "created_at": _time("when it was first given"),
        "submitted_at": _time("when it took its present form"),
    },
    ["answer_id"],
)

ROUND_TASKS = _table(
    "round_tasks",
    "How far each task of a round is.",
    {
        **_ROUND_ID,
        "task_id": _text("round, step and image"),
        **_IMAGE_ID,
        "purpose": _text("label, or gold: the answer is known", one_of=PURPOSES),
        "places": _count("answers asked for"),
        "counted": _count("answers that hold a place"),
        "state": _text(
            "answered, waiting, left (the round was closed without it) or cancelled",
            one_of=TASK_STATES,
        ),
    },
    ["task_id"],
)

ANNOTATOR_QUALITY = _table(
    "annotator_quality",
    "How well each annotator of a round does, beside the others and on known answers.",
    {
        **_ROUND_ID,
        "annotator": _text("pseudonym"),
        "answers": _count("counted answers"),
        "images": _count("images among them"),
        "quality": _number("share of decisions that the others' consensus confirms", 0, 1),
        "low": _number("lower end of its 95 % interval", 0, 1),
        "high": _number("upper end of its 95 % interval", 0, 1),
        "gold_answers": _count("answers on tasks whose answer is known"),
        "gold_quality": _number("share of decisions that the known answers confirm", 0, 1),
        "gold_low": _number("lower end of its 95 % interval", 0, 1),
        "gold_high": _number("upper end of its 95 % interval", 0, 1),
        "agreement_with_others": _number("agreement beyond chance, 1 is full", None, 1),
        "seconds_per_answer": _number("median time spent on an answer", 0),
        "unchanged_share": _number("share of answers that left their proposals as they were", 0, 1),
        "flags": _text("what somebody should look at, comma separated"),
    },
    ["annotator"],
)

ANNOTATOR_PACE = _table(
    "annotator_pace",
    "How the time that each annotator takes differs from that of the rounds before.",
    {
        **_ROUND_ID,
        "annotator": _text("pseudonym"),
        "proposals": _flag("whether the answers began from proposals; the others are rows apart"),
        "feature": _text("seconds per answer, or per label", one_of=["answer", "label"]),
        "effect": _number("how far apart the two are, 0 to 1", 0, 1),
        "p_value": _number("how likely chance alone makes that much", 0, 1),
        "drifted": _flag("whether it is no chance, and large enough to matter"),
        "detail": _text("the two medians, as a phrase"),
        "answers": _count("timed answers of the round"),
        "earlier_answers": _count("timed answers that they were compared with"),
    },
    ["annotator", "proposals", "feature"],
)

CONSENSUS_LABELS = _table(
    "consensus_labels",
    "One resolved set of labels per image.",
    {
        **_ROUND_ID,
        "task_id": _text("round, step and image"),
        **_IMAGE_ID,
        "label_id": _text("image and running number"),
        **_LABEL,
        "support": _count("annotators who say so: saw the object, or saw nothing"),
        "answers": _count("counted answers on the image"),
        "class_agreement": _number("share of supporters who chose the class", 0, 1),
        "mean_iou": _number("mean IoU of the supporters' boxes with the fused one", 0, 1),
        "disputed": _flag("settled by rule against somebody's vote"),
    },
    ["label_id"],
)

CONFLICTS = _table(
    "conflicts",
    "Where the answers of a round contradict each other or the policy, and what kind it is.",
    {
        **_ROUND_ID,
        "task_id": _text("round, step and image"),
        **_IMAGE_ID,
        "conflict_id": _text("image, kind and running number"),
        "kind": _text("class, overlap, missing, duplicate, outside_ontology, unsure, tied, …"),
        "label_id": _optional_text("resolved label that it is about"),
        "shape": _optional_text("of the place it is about"),
        **_PLACE,
        **_GEOMETRY,
        "annotators": _text("pseudonyms of those involved, comma separated"),
        "detail": _text("a sentence with the numbers"),
        "settled": _flag("whether a rule settled it; if not, a person has to"),
    },
    ["conflict_id"],
)

REVIEW_TASKS = _table(
    "review_tasks",
    "The images of a round that a reviewer decides about, and why.",
    {
        **_ROUND_ID,
        "review_id": _text("the task of the reviewer"),
        "task_id": _text("the task whose answers are in dispute"),
        **_IMAGE_ID,
        "kinds": _text("kinds of unsettled conflicts, comma separated; or sample"),
        "reasons": _text("what the reviewer is told"),
        "reviewer": _text("whom it is meant for; empty: anybody who did not answer it"),
        "backend": _text("where it is decided; empty: nobody is asked"),
        "backend_task": _text("the task's id over there"),
    },
    ["review_id"],
)

REVIEWED_LABELS = _table(
    "reviewed_labels",
    "The labels of a round as they may be published: undisputed, or decided by a reviewer.",
    {
        **_ROUND_ID,
        "task_id": _text("round, step and image"),
        **_IMAGE_ID,
        "label_id": _text("image and running number"),
        **_LABEL,
        "support": _count("annotators who say so: saw the object, or saw nothing"),
        "answers": _count("counted answers on the image"),
        "decision": _text("undisputed, or what became of the dispute", one_of=DECISIONS),
        "decided_by": _text("pseudonym of the reviewer; empty: a rule, or nobody yet"),
        "comment": _text("what the reviewer wrote; or what keeps the image out"),
        "decided_at": _time("when"),
    },
    ["label_id"],
)

TRAINING_SET = _table(
    "training_set",
    "Every label of every finished round and every usable one that came with an image.",
    {
        **_ROUND_ID,
        **_IMAGE_ID,
        "split": _text("train, val or test", one_of=SPLITS),
        "group_id": _text("group of look-alikes: one split only", pattern=SHA256),
        **_STORED,
        "label_id": _text("image and running number"),
        **_LABEL,
        "class_id": pa.Column(
            "Int64", pa.Check.ge(0), nullable=True, description="id of the class"
        ),
        "origin": _text("people, auto, or where the labels that came with the image are from"),
        "support": _count("annotators who saw this object; 0 if it came with the image"),
        "answers": _count("counted answers on the image; 0 if its labels came with it"),
        **METADATA,
    },
    ["label_id"],
)

CERTIFICATES = _table(
    "certificates",
    "What may become labels without a person in a round, of all classes and of each one.",
    {
        **_ROUND_ID,
        "class_name": _text("a class; empty: all together"),
        "granted": _flag("whether labels of it are accepted"),
        "reason": _text("why not, as a sentence; empty if granted"),
        "alpha": _number("share of wrong and missed labels that is allowed", 0, 1),
        "delta": _number("chance of certifying more than that", 0, 1),
        "bound": _number("upper bound of the share that the audit showed", 0, 1),
        "threshold": _number("least confidence of an accepted picture"),
        "most_labels": _number("pictures with more are not accepted", 0),
        "audited_pictures": _count("pictures drawn at random and labelled blind"),
        "accepted_pictures": _count("of the audited ones, those that would be accepted"),
        "accepted_labels": _count("labels of those"),
        "errors": _count("wrong and missed among them"),
        "share": _number("of the proposed labels, expected to be accepted", 0, 1),
        "seconds_saved": _number("of people's time; of pictures seen again none is", 0),
        "weights_sha256": _text("the model it holds for; empty: it proposed nothing"),
        "profile": _text("how the model was run"),
        "calibration": _text("digest of what turns its scores into probabilities; empty: none"),
    },
    ["round_id", "class_name"],
)

REAUDITS = _table(
    "reaudits",
    "What people found since in pictures accepted without a person, by certificate.",
    {
        **_ROUND_ID,
        "certified_round": _text("the round of the certificate", pattern=ROUND),
        "pictures": _count("accepted pictures drawn by lot since and labelled blind"),
        "labels": _count("accepted labels of those"),
        "errors": _count("wrong and missed among them"),
        "alpha": _number("share that the certificate allows", 0, 1),
        "contradicted": _flag("whether they show more than that: its labels are withdrawn"),
    },
    ["round_id", "certified_round"],
)

AUTO_LABELS = _table(
    "auto_labels",
    "Proposals that became labels without a person, under the certificate of their round.",
    {
        **_ROUND_ID,
        **_IMAGE_ID,
        "label_id": _text("image and running number"),
        **_LABEL,
        "score": _number("probability that it is right", 0, 1),
        "confidence": _number("of its picture, by which it was accepted"),
        "seen_again": _flag("whether its picture was drawn to be asked about all the same, blind"),
        "weights_sha256": _text("digest of the weights that proposed it", pattern=SHA256),
    },
    ["label_id"],
)

LABEL_ISSUES = _table(
    "label_issues",
    "Labels that are probably wrong and objects that probably lack one, most suspected first.",
    {
        **_ROUND_ID,
        **_IMAGE_ID,
        "issue_id": _text("image, kind and running number"),
        "kind": _text("wrong, swapped, placed or missed", one_of=ISSUE_KINDS),
        "label_id": _optional_text("the suspected label; missing where one is missing"),
        "score": _number("probability that it is an error", 0, 1),
        **_PLACE,
        "suggestion": _text("what it should be, as a sentence"),
    },
    ["issue_id"],
)

ERROR_BARS = _table(
    "error_bars",
    "How many labels of a version are wrong, of all classes and of each one.",
    {
        **_ROUND_ID,
        "class_name": _text("a class; empty: all together"),
        "origin": _text("whose labels it speaks of: people, auto, or where they came along from"),
        "design": _text(
            "labels drawn one by one, whole pictures, or the bound of a certificate",
            one_of=["labels", "pictures", "certificate"],
        ),
        "labels": _count("labels that it speaks of"),
        "audited": _count("labels that were looked at"),
        "pictures": _count("pictures that were looked at; 0 where labels were drawn"),
        "wrong": _count("of the audited, found to be wrong"),
        "rate": _number("estimated share of wrong labels", 0, 1),
        "low": _number("lower end of its interval", 0, 1),
        "high": _number("upper end of its interval", 0, 1),
        "level": _number("of the interval", 0, 1),
    },
    ["round_id", "class_name", "origin", "design"],
)

SPLIT_TABLE = _table(
    "splits",
    "The split of every image and of what keeps images together, drawn once.",
    {
        **_ROUND_ID,
        "key": _text(
            "image, group of look-alikes, or digest of a value they share", pattern=SHA256
        ),
        "split": _text("train, val or test", one_of=SPLITS),
    },
    ["key"],
)

TRAINING_ROUNDS = _table(
    "training_rounds",
    "The rounds that a training set holds, and the state of their labels in it.",
    {
        **_ROUND_ID,
        "included_round": _text("a round whose labels are in it", pattern=ROUND),
        "labels_sha256": _text(
            "digest of that round's reviewed_labels and imported_labels", pattern=SHA256
        ),
    },
    ["round_id", "included_round"],
)

DATASET_VERSIONS = _table(
    "dataset_version",
    "The version that a round's release published or confirmed.",
    {
        **_ROUND_ID,
        "version": _text("MAJOR.MINOR.PATCH", pattern=r"^\d+\.\d+\.\d+$"),
        "tag": _text("git tag in the registry"),
        "commit": _text("git commit in the registry"),
        "folder_md5": _text("DVC's digest of the folder", pattern=r"^[0-9a-f]{32}\.dir$"),
        "images": _count("images in the version"),
        "boxes": _count("boxes in the version"),
        "train_images": _count("images of the train split"),
        "val_images": _count("images of the val split"),
        "test_images": _count("images of the test split"),
        "new_version": _flag("false: the content was published before under this version"),
    },
    ["round_id"],
)

TRAINED_MODELS = _table(
    "trained_model",
    "The model a round's version gave.",
    {
        **_ROUND_ID,
        "dataset_tag": _text("version it learned from"),
        "weights_sha256": _text("digest of the detector; empty: no boxes", pattern=MAYBE_SHA256),
        "started_from": _text("digest of the weights it started from; empty: from scratch"),
        "train_images": _count("pictures it learned from"),
        "epochs": _number("passes over them", 0),
        "cpu_seconds": _number("processor time spent", 0),
        "final_loss": _number("mean loss over the last tenth"),
        "steps": _count("batches learned from"),
        "seed": pa.Column("int64", description="of first weights, order and variations"),
        "policy_digest": _text("SHA-256 of the training policy"),
        "profile": _text("how thoroughly it will propose: name and start of the digest"),
        "calibration": _text("digest of what its scores mean; empty: taken as they are"),
        "calibration_images": _count("pictures of the val split, which it did not learn from"),
        "calibration_error_before": _number("expected error of its own scores", 0, 1),
        "calibration_error": _number("the same of calibrated ones, on pictures held out", 0, 1),
        "classifier_sha256": _text("digest of the weights that know choices", pattern=MAYBE_SHA256),
        "classifier_images": _count("pictures with a choice that those learned from"),
        "classifier_steps": _count("batches they learned from"),
        "classifier_calibration": _text("digest of what its scores mean; empty: taken as they are"),
        "choice_error_before": _number("expected error of its own scores", 0, 1),
        "choice_error": _number("the same of calibrated ones, on pictures held out", 0, 1),
    },
    ["round_id"],
)

MODEL_EVALUATIONS = _table(
    "model_evaluation",
    "How well it does on the test split, and whether it was promoted.",
    {
        **_ROUND_ID,
        "dataset_tag": _text("version it was tested on"),
        "weights_sha256": _text("digest of the detector; empty: no boxes", pattern=MAYBE_SHA256),
        "test_images": _count("pictures of the test split"),
        "map50": _number("mean average precision at IoU 0.5, 0 to 1", 0, 1),
        "map50_low": _number("lower end of its 95 % interval", 0, 1),
        "map50_high": _number("upper end of its 95 % interval", 0, 1),
        "map": _number("mean average precision over IoU 0.5 to 0.95, 0 to 1", 0, 1),
        "map_low": _number("lower end of its 95 % interval", 0, 1),
        "map_high": _number("upper end of its 95 % interval", 0, 1),
        "promoted_map50": _number("map50 of the model promoted before; missing: none", 0, 1),
        "promoted_map": _number("map of the model promoted before; missing: none", 0, 1),
        "difference": _number("map beyond that of the promoted or the best, the higher", -1, 1),
        "difference_low": _number("lower end of its 95 % interval", -1, 1),
        "difference_high": _number("upper end of its 95 % interval", -1, 1),
        "best_sha256": _text("the best model ever promoted, on these images; empty: none"),
        "promoted": _flag("whether it now makes the proposals"),
        "reason": _text("why it was promoted or not"),
        "classifier_sha256": _text("digest of the weights that know choices", pattern=MAYBE_SHA256),
        "choice_images": _count("pictures of the test split with a choice"),
        "accuracy": _number("share of them whose choices are all right", 0, 1),
        "accuracy_low": _number("lower end of its 95 % interval", 0, 1),
        "accuracy_high": _number("upper end of its 95 % interval", 0, 1),
        "promoted_accuracy": _number("that of the classifier promoted before; missing: none", 0, 1),
        "classifier_promoted": _flag("whether it now makes the proposals of choices"),
        "classifier_reason": _text("why it was promoted or not; empty: there is none"),
    },
    ["round_id"],
)

CHOICE_FIGURES = _table(
    "choice_figures",
    "How well a round's classifier does on the test pictures with a choice, by class.",
    {
        **_ROUND_ID,
        "class_name": _text("class; empty: all of them"),
        "weights_sha256": _text("the classifier", pattern=SHA256),
        "images": _count("test pictures with a choice"),
        "chosen": _count("those of which people chose the class; of all: their choices"),
        "proposed": _count("those for which it is proposed"),
        "right": _count("both"),
        "accuracy": _number("right by chosen; of all: pictures whose choices are all right", 0, 1),
        "accuracy_low": _number("lower end of its 95 % interval", 0, 1),
        "accuracy_high": _number("upper end of its 95 % interval", 0, 1),
        "f1": _number("2 right / (proposed + chosen), 0 to 1", 0, 1),
        "f1_low": _number("lower end of its 95 % interval", 0, 1),
        "f1_high": _number("upper end of its 95 % interval", 0, 1),
    },
    ["class_name"],
)

MODEL_SLICES = _table(
    "model_slices",
    "How well a round's model does by class, size and kind of test image, the weakest first.",
    {
        **_ROUND_ID,
        "kind": _text("class, size, dark, bright, blurred, source, device or round"),
        "name": _text("which class, size or value, or where the tail begins"),
        "images": _count("test images in it"),
        "boxes": _count("true boxes in it"),
        "map": _number("mean average precision over IoU 0.5 to 0.95, 0 to 1", 0, 1),
        "map_low": _number("lower end of its 95 % interval", 0, 1),
        "map_high": _number("upper end of its 95 % interval", 0, 1),
        "map50": _number("the same at IoU 0.5", 0, 1),
        "others_map": _number("map of what it is compared with, 0 to 1", 0, 1),
        "difference": _number("how much better than those, class by class", -1, 1),
        "upper": _number("upper end of the difference, corrected for many looks", -1, 1),
        "weak": _flag("whether it is worse beyond chance: upper is below 0"),
        "rank": _count("position from the weakest, from 0"),
    },
    ["kind", "name"],
)

MODEL_FINDINGS = _table(
    "model_findings",
    "Every wrong box and every miss of a round's model on the test images.",
    {
        **_ROUND_ID,
        "finding_id": _text("round and running number"),
        **_IMAGE_ID,
        "kind": _text("what is wrong, see models/findings.py", one_of=FINDING_KINDS),
        **_PLACE,
        "score": _number("of the proposal, 0 to 1; missing for a miss", 0, 1),
        "true_class": _optional_text("class of the object it is about; missing: there is none"),
        "iou": _number("overlap with it; of a miss, the most that any proposal has", 0, 1),
        "rank": _count("position by kind, the worst first"),
    },
    ["finding_id"],
)

MISSED_BY_MODEL = _table(
    "missed_by_model",
    "The boxes of the train split that the promoted model does not find; training can weigh them.",
    {
        **_ROUND_ID,
        "missed_id": _text("image and running number"),
        **_IMAGE_ID,
        **_PLACE,
        "nearest_iou": _number("the most that a proposal of the class overlaps it", 0, 1),
        "image_boxes": _count("true boxes of the image, found or not"),
        "weights_sha256": _text("the model", pattern=SHA256),
    },
    ["missed_id"],
)

MODEL_AGREEMENT = _table(
    "model_agreement",
    "How far the model's proposals of a round agree with what people then said.",
    {
        **_ROUND_ID,
        "class_name": _text("class; empty: all of them"),
        "answers": _text("consensus, or blind: given without seeing proposals"),
        "images": _count("images compared"),
        "proposals": _count("shown boxes"),
        "labels": _count("boxes that people settled on"),
        "matched": _count("pairs of the same class at IoU 0.5 or above"),
        "f1": _number("2 matched / (proposals + labels), 0 to 1", 0, 1),
        "f1_low": _number("lower end of its 95 % interval", 0, 1),
        "f1_high": _number("upper end of its 95 % interval", 0, 1),
        "weights_sha256": _text("the model; empty: there was none"),
    },
    ["class_name", "answers"],
)

ROUND_REPORTS = _table(
    "round_report",
    "A round in one row.",
    {
        **_ROUND_ID,
        "landed": _count("landed objects"),
        "accepted": _count("accepted images"),
        "quarantined": _count("quarantined objects"),
        "duplicates": _count("duplicates of accepted images"),
        "tasks": _count("images people were asked about"),
        "answers": _count("counted answers"),
        "agreement": _number(
            "mean F1 at IoU 0.5, class included, between pairs of annotators", 0, 1
        ),
        "disputed": _count("boxes settled by rule against somebody's vote"),
        "audited_pictures": _count("labelled blind, and what auto-accept rests on; 0: it is off"),
        "auto_images": _count("pictures of the pool that were accepted without a person"),
        "auto_share": _number("of the pictures of the pool; missing: auto-accept is off", 0, 1),
        "auto_alpha": _number("share of wrong or missed labels that is allowed among those", 0, 1),
        "auto_delta": _number("chance of certifying more than that", 0, 1),
        "auto_bound": _number("upper bound that the audit showed; missing: it showed none", 0, 1),
        "minutes_saved": _number("of people's time, by this round's median; missing: off", 0),
        "label_error": _number("share of people's undisputed labels that is wrong", 0, 1),
        "label_error_low": _number("lower end of its 95 % interval", 0, 1),
        "label_error_high": _number("upper end of it; 1 where nobody looked", 0, 1),
        "model_map50": _number("of the model trained on this round's version", 0, 1),
        "test_images": _count("pictures it was tested on"),
        "version": _text("dataset version"),
    },
    ["round_id"],
)

TABLES: dict[str, pa.DataFrameSchema] = {
    str(schema.name): schema
    for schema in (
        RAW_IMAGES,
        CLEANED_IMAGES,
        IMPORTED_LABELS,
        IMAGE_EMBEDDINGS,
        MODEL_PREDICTIONS,
        PREDICTED_IMAGES,
        BATCH_DRIFT,
        ODD_IMAGES,
        SELECTED_IMAGES,
        AUDIT_FRAME,
        LABEL_TASKS,
        HUMAN_LABELS,
        ANSWERS,
        ROUND_TASKS,
        ANNOTATOR_QUALITY,
        ANNOTATOR_PACE,
        CONSENSUS_LABELS,
        CONFLICTS,
        REVIEW_TASKS,
        REVIEWED_LABELS,
        TRAINING_SET,
        CERTIFICATES,
        REAUDITS,
        AUTO_LABELS,
        LABEL_ISSUES,
        ERROR_BARS,
        SPLIT_TABLE,
        TRAINING_ROUNDS,
        DATASET_VERSIONS,
        TRAINED_MODELS,
        MODEL_EVALUATIONS,
        CHOICE_FIGURES,
        MODEL_SLICES,
        MODEL_FINDINGS,
        MISSED_BY_MODEL,
        MODEL_AGREEMENT,
        ROUND_REPORTS,
    )
}


def check_table(name: str, frame: pd.DataFrame, *, where: str = "") -> pd.DataFrame:
    """Return ``frame`` if it is a ``name`` table; otherwise raise a TableError naming the column.

    An empty frame is given the declared types first, because pandas cannot infer them.
    """
    schema = TABLES[name]
    if frame.empty:
        frame = empty_table(name)
    try:
        return schema.validate(frame, lazy=False)
    except (pa.errors.SchemaError, pa.errors.SchemaErrors) as error:
        place = f" ({where})" if where else ""
        first = error.schema_errors[0] if isinstance(error, pa.errors.SchemaErrors) else error
        detail = str(first).splitlines()[0]
        raise TableError(
            f"table {name}{place} is not as declared: {detail}. "
            "See annotation_platform/schema/tables.py for its columns."
        ) from error


def empty_table(name: str) -> pd.DataFrame:
    """Return the table ``name`` with no rows and the declared columns and types."""
    columns = TABLES[name].columns
    return pd.DataFrame(
        {key: pd.Series([], dtype=str(column.dtype)) for key, column in columns.items()}
    )


def records(frame: pd.DataFrame) -> list[dict[str, object]]:
    """Return the rows as dictionaries by column name."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def make_table(name: str, rows: list[dict[str, object]]) -> pd.DataFrame:
    """Return ``rows`` as the checked table ``name``; no rows give the empty table."""
    if not rows:
        return empty_table(name)
    frame = pd.DataFrame(rows, columns=list(TABLES[name].columns))
    for key, column in TABLES[name].columns.items():
        if str(column.dtype).startswith("datetime64"):
            # A column in which all are missing has no time zone to start from.
            frame[key] = pd.to_datetime(frame[key], utc=True)
        if str(column.dtype) != "object":
            frame[key] = frame[key].astype(str(column.dtype))
    return check_table(name, frame)
