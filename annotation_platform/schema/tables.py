"""Every table: its columns, types, units and ranges. Checked on every write and every read.

Labels of people, of the consensus and of a training set share one convention: a row is one label
of ``schema/shapes.py``, and an image in which somebody found nothing has one row with ``shape`` =
``none`` and no box.
"""

import pandas as pd

from annotation_platform.errors import TableError
from annotation_platform.schema.columns import (
    Column,
    Table,
    count,
    flag,
    number,
    optional_text,
    text,
    time,
)
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


_ROUND_ID = {"round_id": text("the round", pattern=ROUND)}
_IMAGE_ID = {"image_id": text("SHA-256 of the landed bytes", pattern=SHA256)}
_PLACE = {
    "class_name": optional_text("class, missing where shape is none or unsure"),
    "x1": number("left edge of the enclosing box, pixels of the stored picture"),
    "y1": number("top edge, pixels of the stored picture"),
    "x2": number("right edge, pixels of the stored picture"),
    "y2": number("bottom edge, pixels of the stored picture"),
}
_GEOMETRY = {"geometry": text("what the box does not say, see schema/shapes.py; or empty")}
_LABEL = {
    "shape": text("what the label is, see schema/shapes.py", one_of=SHAPES),
    **_PLACE,
    **_GEOMETRY,
}
_STORED = {
    "width": count("pixels of the stored picture"),
    "height": count("pixels of the stored picture"),
    "extension": text("true file extension of the stored bytes, without the dot"),
    "stored_md5": text("MD5 of the stored bytes: the name DVC knows them by", pattern=MD5),
    "stored_bytes": count("size of the stored bytes"),
}

LABEL_COLUMNS = list(_LABEL)
"""What a row says as a label of ``schema/shapes.py``."""

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

RAW_IMAGES = Table(
    "raw_images",
    "One row per landed object.",
    {
        **_ROUND_ID,
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
        **_ROUND_ID,
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
        **_ROUND_ID,
        **_IMAGE_ID,
        "label_id": text("image and running number"),
        **_LABEL,
        "origin": text("where the labels are from, as the sidecar says"),
        "problem": text("why the image's labels cannot be used; empty if they can"),
    },
    ["label_id"],
)

IMAGE_EMBEDDINGS = Table(
    "image_embeddings",
    "One vector per accepted image.",
    {
        **_ROUND_ID,
        **_IMAGE_ID,
        "embedder": text("name and version of what made the vector"),
        "vector": Column("object", "float32 values of unit length"),
    },
    ["image_id", "embedder"],
)

_PREDICTION = {
    "prediction_id": text("image_id and running number"),
    "shape": text("box, or choice: then the place is missing", one_of=["box", "choice"]),
    **_PLACE,
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
    {**_ROUND_ID, **_IMAGE_ID, **_PREDICTION},
    ["prediction_id"],
)

PREDICTED_IMAGES = Table(
    "predicted_images",
    "One row per picture that the promoted model looked at, with or without a proposal.",
    {**_ROUND_ID, **_IMAGE_ID, **_LOOK},
    ["image_id"],
)

HELD_OUT_PREDICTIONS = Table(
    "held_out_predictions",
    "What the model of a round's proposals sees in pictures whose labels no model learned from.",
    {**_ROUND_ID, **_IMAGE_ID, **_PREDICTION},
    ["prediction_id"],
)

HELD_OUT_IMAGES = Table(
    "held_out_images",
    "One row per picture of the val and test splits that it looked at for that.",
    {**_ROUND_ID, **_IMAGE_ID, **_LOOK},
    ["image_id"],
)

BATCH_DRIFT = Table(
    "batch_drift",
    "One row per feature in which a round's pictures were compared with what is known.",
    {
        **_ROUND_ID,
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
        **_ROUND_ID,
        **_IMAGE_ID,
        "distance": number("cosine distance to the most alike known image", 0),
        "why": text("what is odd about it"),
    },
    ["image_id"],
)

SELECTED_IMAGES = Table(
    "selected_images",
    "The images of this round that people are asked about, in order.",
    {
        **_ROUND_ID,
        **_IMAGE_ID,
        "rank": count("position in the order of asking, from 0"),
        "rule": text("what chose it", one_of=SELECTION_RULES),
        "reason": text("why it was chosen, in words"),
        "score": number("what the rule went by; missing where it went by no number"),
        "audit": flag("whether it was drawn by lot from the whole pool, before anything else"),
        "outlier_score": number("deviations by which it is farther from the others than usual"),
    },
    ["image_id"],
)

AUDIT_FRAME = Table(
    "audit_frame",
    "The images that a round chose from, and so drew its audit of; none where auto-accept is off.",
    {
        **_ROUND_ID,
        **_IMAGE_ID,
        "by_rule": flag("whether it would be asked about if nobody were audited: never accepted"),
        "predictions_sha256": text(
            "digest of the model_predictions it was chosen by", pattern=SHA256
        ),
    },
    ["image_id"],
)

LABEL_TASKS = Table(
    "label_tasks",
    "One row per place: each of the k blind copies of each task.",
    {
        **_ROUND_ID,
        "task_id": text("round, step and image"),
        "step": text("the question asked, e.g. boxes"),
        **_IMAGE_ID,
        "place": count("number of the copy", low=1),
        "stands_for": count(
            "the place it fills; another one where it replaces a copy that is used up", low=1
        ),
        "assignee": text("whom the place is meant for; empty: anybody"),
        "purpose": text("label, or gold: the answer is known", one_of=PURPOSES),
        "blind": flag("whether it shows no proposals, to see what they do to people"),
        "expertise": text("skill that whoever answers must have; empty: none"),
        "guideline": text("digest of classes and guidelines it was asked under", pattern=SHA256),
        "backend": text("where people answer it"),
        "backend_task": text("the task's id over there"),
    },
    ["task_id", "place"],
)

HUMAN_LABELS = Table(
    "human_labels",
    "What people said: one row per label of each counted answer, from the answers ledger.",
    {
        **_ROUND_ID,
        "task_id": text("round, step and image"),
        **_IMAGE_ID,
        "place": count("the copy that was answered", low=1),
        "answer_id": text("back end and annotation id"),
        "revision": text("digest of this state of the answer", pattern=SHA256),
        "annotator": text("pseudonym"),
        "label_id": text("answer and running number"),
        **_LABEL,
        "lead_time_seconds": number("seconds spent on the answer", 0),
        "submitted_at": time("when the answer took this form"),
        "weights_sha256": text("model behind the pre-annotation it began from; empty: none"),
        "changed": flag("whether it differs from that pre-annotation, by value"),
        "purpose": text("label, or gold: the answer is known", one_of=PURPOSES),
        "blind": flag("whether the annotator saw no proposals"),
        "guideline": text("digest of classes and guidelines it was made under", pattern=SHA256),
        "refused_regions": count("regions of the answer that are no usable label"),
        "problems": text("what is wrong with regions of the answer, a JSON list; or empty"),
    },
    ["label_id"],
)

ANSWERS = Table(
    "answers",
    "Every answer ever seen in a round, counted or not: what people are paid by.",
    {
        **_ROUND_ID,
        "answer_id": text("back end and annotation id"),
        "task_id": text("round, step and image"),
        **_IMAGE_ID,
        "place": count("the copy that was answered", low=None),
        "purpose": text("label or gold; empty if no such task was asked", one_of=[*PURPOSES, ""]),
        "annotator": text("pseudonym"),
        "state": text("counted, or why not", one_of=ANSWER_STATES),
        "detail": text("why it is not counted, as a sentence; empty if it is"),
        "revisions": count("states of it that were seen"),
        "lead_time_seconds": number("seconds spent on it", 0),
        "created_at": time("when it was first given"),
        "submitted_at": time("when it took its present form"),
    },
    ["answer_id"],
)

ROUND_TASKS = Table(
    "round_tasks",
    "How far each task of a round is.",
    {
        **_ROUND_ID,
        "task_id": text("round, step and image"),
        **_IMAGE_ID,
        "purpose": text("label, or gold: the answer is known", one_of=PURPOSES),
        "places": count("answers asked for"),
        "counted": count("answers that hold a place"),
        "state": text(
            "answered, waiting, left (the round was closed without it) or cancelled",
            one_of=TASK_STATES,
        ),
    },
    ["task_id"],
)

ANNOTATOR_QUALITY = Table(
    "annotator_quality",
    "How well each annotator of a round does, beside the others and on known answers.",
    {
        **_ROUND_ID,
        "annotator": text("pseudonym"),
        "answers": count("counted answers"),
        "images": count("images among them"),
        "quality": number("share of decisions that the others' consensus confirms", 0, 1),
        "low": number("lower end of its 95 % interval", 0, 1),
        "high": number("upper end of its 95 % interval", 0, 1),
        "gold_answers": count("answers on tasks whose answer is known"),
        "gold_quality": number("share of decisions that the known answers confirm", 0, 1),
        "gold_low": number("lower end of its 95 % interval", 0, 1),
        "gold_high": number("upper end of its 95 % interval", 0, 1),
        "agreement_with_others": number("agreement beyond chance, 1 is full", None, 1),
        "seconds_per_answer": number("median time spent on an answer", 0),
        "unchanged_share": number("share of answers that left their proposals as they were", 0, 1),
        "flags": text("what somebody should look at, comma separated"),
    },
    ["annotator"],
)

ANNOTATOR_PACE = Table(
    "annotator_pace",
    "How the time that each annotator takes differs from that of the rounds before.",
    {
        **_ROUND_ID,
        "annotator": text("pseudonym"),
        "proposals": flag("whether the answers began from proposals; the others are rows apart"),
        "feature": text("seconds per answer, or per label", one_of=["answer", "label"]),
        "effect": number("how far apart the two are, 0 to 1", 0, 1),
        "p_value": number("how likely chance alone makes that much", 0, 1),
        "drifted": flag("whether it is no chance, and large enough to matter"),
        "detail": text("the two medians, as a phrase"),
        "answers": count("timed answers of the round"),
        "earlier_answers": count("timed answers that they were compared with"),
    },
    ["annotator", "proposals", "feature"],
)

CONSENSUS_LABELS = Table(
    "consensus_labels",
    "One resolved set of labels per image.",
    {
        **_ROUND_ID,
        "task_id": text("round, step and image"),
        **_IMAGE_ID,
        "label_id": text("image and running number"),
        **_LABEL,
        "support": count("annotators who say so: saw the object, or saw nothing"),
        "answers": count("counted answers on the image"),
        "class_agreement": number("share of supporters who chose the class", 0, 1),
        "mean_iou": number("mean IoU of the supporters' boxes with the fused one", 0, 1),
        "disputed": flag("settled by rule against somebody's vote"),
    },
    ["label_id"],
)

CONFLICTS = Table(
    "conflicts",
    "Where the answers of a round contradict each other or the policy, and what kind it is.",
    {
        **_ROUND_ID,
        "task_id": text("round, step and image"),
        **_IMAGE_ID,
        "conflict_id": text("image, kind and running number"),
        "kind": text("class, overlap, missing, duplicate, outside_ontology, unsure, tied, …"),
        "label_id": optional_text("resolved label that it is about"),
        "shape": optional_text("of the place it is about"),
        **_PLACE,
        **_GEOMETRY,
        "annotators": text("pseudonyms of those involved, comma separated"),
        "detail": text("a sentence with the numbers"),
        "settled": flag("whether a rule settled it; if not, a person has to"),
    },
    ["conflict_id"],
)

REVIEW_TASKS = Table(
    "review_tasks",
    "The images of a round that a reviewer decides about, and why.",
    {
        **_ROUND_ID,
        "review_id": text("the task of the reviewer"),
        "task_id": text("the task whose answers are in dispute"),
        **_IMAGE_ID,
        "kinds": text("kinds of unsettled conflicts, comma separated; or sample"),
        "reasons": text("what the reviewer is told"),
        "reviewer": text("whom it is meant for; empty: anybody who did not answer it"),
        "backend": text("where it is decided; empty: nobody is asked"),
        "backend_task": text("the task's id over there"),
    },
    ["review_id"],
)

REVIEWED_LABELS = Table(
    "reviewed_labels",
    "The labels of a round as they may be published: undisputed, or decided by a reviewer.",
    {
        **_ROUND_ID,
        "task_id": text("round, step and image"),
        **_IMAGE_ID,
        "label_id": text("image and running number"),
        **_LABEL,
        "support": count("annotators who say so: saw the object, or saw nothing"),
        "answers": count("counted answers on the image"),
        "decision": text("undisputed, or what became of the dispute", one_of=DECISIONS),
        "decided_by": text("pseudonym of the reviewer; empty: a rule, or nobody yet"),
        "comment": text("what the reviewer wrote; or what keeps the image out"),
        "decided_at": time("when"),
    },
    ["label_id"],
)

TRAINING_SET = Table(
    "training_set",
    "Every label of every finished round and every usable one that came with an image.",
    {
        **_ROUND_ID,
        **_IMAGE_ID,
        "split": text("train, val or test", one_of=SPLITS),
        "group_id": text("group of look-alikes: one split only", pattern=SHA256),
        **_STORED,
        "label_id": text("image and running number"),
        **_LABEL,
        "class_id": Column("Int64", "id of the class", nullable=True, low=0),
        "origin": text("people, auto, or where the labels that came with the image are from"),
        "support": count("annotators who saw this object; 0 if it came with the image"),
        "answers": count("counted answers on the image; 0 if its labels came with it"),
        **METADATA,
    },
    ["label_id"],
)

CERTIFICATES = Table(
    "certificates",
    "What may become labels without a person in a round, of all classes and of each one.",
    {
        **_ROUND_ID,
        "class_name": text("a class; empty: all together"),
        "granted": flag("whether labels of it are accepted"),
        "reason": text("why not, as a sentence; empty if granted"),
        "alpha": number("share of wrong and missed labels that is allowed", 0, 1),
        "delta": number("chance of certifying more than that", 0, 1),
        "bound": number("upper bound of the share that the audit showed", 0, 1),
        "threshold": number("least confidence of an accepted picture"),
        "most_labels": number("pictures with more are not accepted", 0),
        "audited_pictures": count("pictures drawn at random and labelled blind"),
        "accepted_pictures": count("of the audited ones, those that would be accepted"),
        "accepted_labels": count("labels of those"),
        "errors": count("wrong and missed among them"),
        "share": number("of the proposed labels, expected to be accepted", 0, 1),
        "seconds_saved": number("of people's time; of pictures seen again none is", 0),
        "weights_sha256": text("the model it holds for; empty: it proposed nothing"),
        "profile": text("how the model was run"),
        "calibration": text("digest of what turns its scores into probabilities; empty: none"),
    },
    ["round_id", "class_name"],
)

REAUDITS = Table(
    "reaudits",
    "What people found since in pictures accepted without a person, by certificate.",
    {
        **_ROUND_ID,
        "certified_round": text("the round of the certificate", pattern=ROUND),
        "pictures": count("accepted pictures drawn by lot since and labelled blind"),
        "labels": count("accepted labels of those"),
        "errors": count("wrong and missed among them"),
        "alpha": number("share that the certificate allows", 0, 1),
        "contradicted": flag("whether they show more than that: its labels are withdrawn"),
    },
    ["round_id", "certified_round"],
)

AUTO_LABELS = Table(
    "auto_labels",
    "Proposals that became labels without a person, under the certificate of their round.",
    {
        **_ROUND_ID,
        **_IMAGE_ID,
        "label_id": text("image and running number"),
        **_LABEL,
        "score": number("probability that it is right", 0, 1),
        "confidence": number("of its picture, by which it was accepted"),
        "seen_again": flag("whether its picture was drawn to be asked about all the same, blind"),
        "weights_sha256": text("digest of the weights that proposed it", pattern=SHA256),
    },
    ["label_id"],
)

LABEL_ISSUES = Table(
    "label_issues",
    "Labels that are probably wrong and objects that probably lack one, most suspected first.",
    {
        **_ROUND_ID,
        **_IMAGE_ID,
        "issue_id": text("image, kind and running number"),
        "kind": text("wrong, swapped, placed or missed", one_of=ISSUE_KINDS),
        "label_id": optional_text("the suspected label; missing where one is missing"),
        "score": number("probability that it is an error", 0, 1),
        **_PLACE,
        "suggestion": text("what it should be, as a sentence"),
    },
    ["issue_id"],
)

ERROR_BARS = Table(
    "error_bars",
    "How many labels of a version are wrong, of all classes and of each one.",
    {
        **_ROUND_ID,
        "class_name": text("a class; empty: all together"),
        "origin": text("whose labels it speaks of: people, auto, or where they came along from"),
        "design": text(
            "labels drawn one by one, whole pictures, or the bound of a certificate",
            one_of=["labels", "pictures", "certificate"],
        ),
        "labels": count("labels that it speaks of"),
        "audited": count("labels that were looked at"),
        "pictures": count("pictures that were looked at; 0 where labels were drawn"),
        "wrong": count("of the audited, found to be wrong"),
        "rate": number("estimated share of wrong labels", 0, 1),
        "low": number("lower end of its interval", 0, 1),
        "high": number("upper end of its interval", 0, 1),
        "level": number("of the interval", 0, 1),
    },
    ["round_id", "class_name", "origin", "design"],
)

SPLIT_TABLE = Table(
    "splits",
    "The split of every image and of what keeps images together, drawn once.",
    {
        **_ROUND_ID,
        "key": text("image, group of look-alikes, or digest of a value they share", pattern=SHA256),
        "split": text("train, val or test", one_of=SPLITS),
    },
    ["key"],
)

TRAINING_ROUNDS = Table(
    "training_rounds",
    "The rounds that a training set holds, and the state of their labels in it.",
    {
        **_ROUND_ID,
        "included_round": text("a round whose labels are in it", pattern=ROUND),
        "labels_sha256": text(
            "digest of that round's reviewed_labels and imported_labels", pattern=SHA256
        ),
    },
    ["round_id", "included_round"],
)

DATASET_VERSIONS = Table(
    "dataset_version",
    "The version that a round's release published or confirmed.",
    {
        **_ROUND_ID,
        "version": text("MAJOR.MINOR.PATCH", pattern=r"^\d+\.\d+\.\d+$"),
        "tag": text("git tag in the registry"),
        "commit": text("git commit in the registry"),
        "folder_md5": text("DVC's digest of the folder", pattern=r"^[0-9a-f]{32}\.dir$"),
        "images": count("images in the version"),
        "boxes": count("boxes in the version"),
        "train_images": count("images of the train split"),
        "val_images": count("images of the val split"),
        "test_images": count("images of the test split"),
        "new_version": flag("false: the content was published before under this version"),
    },
    ["round_id"],
)

TRAINED_MODELS = Table(
    "trained_model",
    "The model a round's version gave.",
    {
        **_ROUND_ID,
        "dataset_tag": text("version it learned from"),
        "weights_sha256": text("digest of the detector; empty: no boxes", pattern=MAYBE_SHA256),
        "started_from": text("digest of the weights it started from; empty: from scratch"),
        "train_images": count("pictures it learned from"),
        "epochs": number("passes over them", 0),
        "cpu_seconds": number("processor time spent", 0),
        "final_loss": number("mean loss over the last tenth"),
        "steps": count("batches learned from"),
        "seed": count("of first weights, order and variations", low=None),
        "policy_digest": text("SHA-256 of the training policy"),
        "profile": text("how thoroughly it will propose: name and start of the digest"),
        "calibration": text("digest of what its scores mean; empty: taken as they are"),
        "calibration_images": count("pictures of the val split, which it did not learn from"),
        "calibration_error_before": number("expected error of its own scores", 0, 1),
        "calibration_error": number("the same of calibrated ones, on pictures held out", 0, 1),
        "classifier_sha256": text("digest of the weights that know choices", pattern=MAYBE_SHA256),
        "classifier_images": count("pictures with a choice that those learned from"),
        "classifier_steps": count("batches they learned from"),
        "classifier_calibration": text("digest of what its scores mean; empty: taken as they are"),
        "choice_error_before": number("expected error of its own scores", 0, 1),
        "choice_error": number("the same of calibrated ones, on pictures held out", 0, 1),
    },
    ["round_id"],
)

MODEL_EVALUATIONS = Table(
    "model_evaluation",
    "How well it does on the test split, and whether it was promoted.",
    {
        **_ROUND_ID,
        "dataset_tag": text("version it was tested on"),
        "weights_sha256": text("digest of the detector; empty: no boxes", pattern=MAYBE_SHA256),
        "test_images": count("pictures of the test split"),
        "map50": number("mean average precision at IoU 0.5, 0 to 1", 0, 1),
        "map50_low": number("lower end of its 95 % interval", 0, 1),
        "map50_high": number("upper end of its 95 % interval", 0, 1),
        "map": number("mean average precision over IoU 0.5 to 0.95, 0 to 1", 0, 1),
        "map_low": number("lower end of its 95 % interval", 0, 1),
        "map_high": number("upper end of its 95 % interval", 0, 1),
        "promoted_map50": number("map50 of the model promoted before; missing: none", 0, 1),
        "promoted_map": number("map of the model promoted before; missing: none", 0, 1),
        "difference": number("map beyond that of the promoted or the best, the higher", -1, 1),
        "difference_low": number("lower end of its 95 % interval", -1, 1),
        "difference_high": number("upper end of its 95 % interval", -1, 1),
        "best_sha256": text("the best model ever promoted, on these images; empty: none"),
        "promoted": flag("whether it now makes the proposals"),
        "reason": text("why it was promoted or not"),
        "classifier_sha256": text("digest of the weights that know choices", pattern=MAYBE_SHA256),
        "choice_images": count("pictures of the test split with a choice"),
        "accuracy": number("share of them whose choices are all right", 0, 1),
        "accuracy_low": number("lower end of its 95 % interval", 0, 1),
        "accuracy_high": number("upper end of its 95 % interval", 0, 1),
        "promoted_accuracy": number("that of the classifier promoted before; missing: none", 0, 1),
        "classifier_promoted": flag("whether it now makes the proposals of choices"),
        "classifier_reason": text("why it was promoted or not; empty: there is none"),
    },
    ["round_id"],
)

CHOICE_FIGURES = Table(
    "choice_figures",
    "How well a round's classifier does on the test pictures with a choice, by class.",
    {
        **_ROUND_ID,
        "class_name": text("class; empty: all of them"),
        "weights_sha256": text("the classifier", pattern=SHA256),
        "images": count("test pictures with a choice"),
        "chosen": count("those of which people chose the class; of all: their choices"),
        "proposed": count("those for which it is proposed"),
        "right": count("both"),
        "accuracy": number("right by chosen; of all: pictures whose choices are all right", 0, 1),
        "accuracy_low": number("lower end of its 95 % interval", 0, 1),
        "accuracy_high": number("upper end of its 95 % interval", 0, 1),
        "f1": number("2 right / (proposed + chosen), 0 to 1", 0, 1),
        "f1_low": number("lower end of its 95 % interval", 0, 1),
        "f1_high": number("upper end of its 95 % interval", 0, 1),
    },
    ["class_name"],
)

MODEL_SLICES = Table(
    "model_slices",
    "How well a round's model does by class, size and kind of test image, the weakest first.",
    {
        **_ROUND_ID,
        "kind": text("class, size, dark, bright, blurred, source, device or round"),
        "name": text("which class, size or value, or where the tail begins"),
        "images": count("test images in it"),
        "boxes": count("true boxes in it"),
        "map": number("mean average precision over IoU 0.5 to 0.95, 0 to 1", 0, 1),
        "map_low": number("lower end of its 95 % interval", 0, 1),
        "map_high": number("upper end of its 95 % interval", 0, 1),
        "map50": number("the same at IoU 0.5", 0, 1),
        "others_map": number("map of what it is compared with, 0 to 1", 0, 1),
        "difference": number("how much better than those, class by class", -1, 1),
        "upper": number("upper end of the difference, corrected for many looks", -1, 1),
        "weak": flag("whether it is worse beyond chance: upper is below 0"),
        "rank": count("position from the weakest, from 0"),
    },
    ["kind", "name"],
)

MODEL_FINDINGS = Table(
    "model_findings",
    "Every wrong box and every miss of a round's model on the test images.",
    {
        **_ROUND_ID,
        "finding_id": text("round and running number"),
        **_IMAGE_ID,
        "kind": text("what is wrong, see models/findings.py", one_of=FINDING_KINDS),
        **_PLACE,
        "score": number("of the proposal, 0 to 1; missing for a miss", 0, 1),
        "true_class": optional_text("class of the object it is about; missing: there is none"),
        "iou": number("overlap with it; of a miss, the most that any proposal has", 0, 1),
        "rank": count("position by kind, the worst first"),
    },
    ["finding_id"],
)

MISSED_BY_MODEL = Table(
    "missed_by_model",
    "The boxes of the train split that the promoted model does not find; training can weigh them.",
    {
        **_ROUND_ID,
        "missed_id": text("image and running number"),
        **_IMAGE_ID,
        **_PLACE,
        "nearest_iou": number("the most that a proposal of the class overlaps it", 0, 1),
        "image_boxes": count("true boxes of the image, found or not"),
        "weights_sha256": text("the model", pattern=SHA256),
    },
    ["missed_id"],
)

MODEL_AGREEMENT = Table(
    "model_agreement",
    "How far the model's proposals of a round agree with what people then said.",
    {
        **_ROUND_ID,
        "class_name": text("class; empty: all of them"),
        "answers": text("consensus, or blind: given without seeing proposals"),
        "images": count("images compared"),
        "proposals": count("shown boxes"),
        "labels": count("boxes that people settled on"),
        "matched": count("pairs of the same class at IoU 0.5 or above"),
        "f1": number("2 matched / (proposals + labels), 0 to 1", 0, 1),
        "f1_low": number("lower end of its 95 % interval", 0, 1),
        "f1_high": number("upper end of its 95 % interval", 0, 1),
        "weights_sha256": text("the model; empty: there was none"),
    },
    ["class_name", "answers"],
)

ROUND_REPORTS = Table(
    "round_report",
    "A round in one row.",
    {
        **_ROUND_ID,
        "landed": count("landed objects"),
        "accepted": count("accepted images"),
        "quarantined": count("quarantined objects"),
        "duplicates": count("duplicates of accepted images"),
        "tasks": count("images people were asked about"),
        "answers": count("counted answers"),
        "agreement": number(
            "mean F1 at IoU 0.5, class included, between pairs of annotators", 0, 1
        ),
        "disputed": count("boxes settled by rule against somebody's vote"),
        "labels": count("labels of the round that may be published"),
        "touches": count("what people did by hand: answers, reviews, decisions"),
        "minutes": number("of people's time, where it was measured", 0),
        "audited_pictures": count("labelled blind, and what auto-accept rests on; 0: it is off"),
        "auto_images": count("pictures of the pool that were accepted without a person"),
        "auto_share": number("of the pictures of the pool; missing: auto-accept is off", 0, 1),
        "auto_alpha": number("share of wrong or missed labels that is allowed among those", 0, 1),
        "auto_delta": number("chance of certifying more than that", 0, 1),
        "auto_bound": number("upper bound that the audit showed; missing: it showed none", 0, 1),
        "minutes_saved": number("of people's time, by this round's median; missing: off", 0),
        "label_error": number("share of people's undisputed labels that is wrong", 0, 1),
        "label_error_low": number("lower end of its 95 % interval", 0, 1),
        "label_error_high": number("upper end of it; 1 where nobody looked", 0, 1),
        "model_map50": number("of the model trained on this round's version", 0, 1),
        "test_images": count("pictures it was tested on"),
        "version": text("dataset version"),
    },
    ["round_id"],
)

TABLES = {
    table.name: table
    for table in (
        RAW_IMAGES,
        CLEANED_IMAGES,
        IMPORTED_LABELS,
        IMAGE_EMBEDDINGS,
        MODEL_PREDICTIONS,
        PREDICTED_IMAGES,
        HELD_OUT_PREDICTIONS,
        HELD_OUT_IMAGES,
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
    if frame.empty:
        frame = empty_table(name)
    if TABLES[name].plainly_fits(frame):
        return frame.copy(deep=False)
    from pandera.errors import SchemaError, SchemaErrors

    try:
        return TABLES[name].checked.validate(frame, lazy=False)
    except (SchemaError, SchemaErrors) as error:
        place = f" ({where})" if where else ""
        first = error.schema_errors[0] if isinstance(error, SchemaErrors) else error
        detail = str(first).splitlines()[0]
        raise TableError(
            f"table {name}{place} is not as declared: {detail}. "
            "See annotation_platform/schema/tables.py for its columns."
        ) from error


def empty_table(name: str) -> pd.DataFrame:
    """Return the table ``name`` with no rows and the declared columns and types."""
    columns = TABLES[name].columns
    return pd.DataFrame({key: pd.Series([], dtype=column.dtype) for key, column in columns.items()})


def records(frame: pd.DataFrame) -> list[dict[str, object]]:
    """Return the rows as dictionaries by column name."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def make_table(name: str, rows: list[dict[str, object]]) -> pd.DataFrame:
    """Return ``rows`` as the checked table ``name``; no rows give the empty table."""
    if not rows:
        return empty_table(name)
    frame = pd.DataFrame(rows, columns=list(TABLES[name].columns))
    for key, column in TABLES[name].columns.items():
        if column.dtype.startswith("datetime64"):
            # A column in which all are missing has no time zone to start from.
            frame[key] = pd.to_datetime(frame[key], utc=True)
        if column.dtype != "object":
            frame[key] = frame[key].astype(pd.api.types.pandas_dtype(column.dtype))
    return check_table(name, frame)
