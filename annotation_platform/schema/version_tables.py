"""What a version of the data is made of: labels that stand or need no person, splits, errors."""

from annotation_platform.schema.columns import Column, Table, count, flag, number, text
from annotation_platform.schema.shared_columns import (
    IMAGE_ID,
    LABEL,
    METADATA,
    ROUND,
    ROUND_ID,
    SHA256,
    SPLITS,
    STORED,
)

TRAINING_SET = Table(
    "training_set",
    "Every label of every finished round and every usable one that came with an image.",
    {
        **ROUND_ID,
        **IMAGE_ID,
        "split": text("train, val or test", one_of=SPLITS),
        "group_id": text("group of look-alikes: one split only", pattern=SHA256),
        **STORED,
        "label_id": text("image and running number"),
        **LABEL,
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
        **ROUND_ID,
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
        **ROUND_ID,
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
        **ROUND_ID,
        **IMAGE_ID,
        "label_id": text("image and running number"),
        **LABEL,
        "score": number("probability that it is right", 0, 1),
        "confidence": number("of its picture, by which it was accepted"),
        "seen_again": flag("whether its picture was drawn to be asked about all the same, blind"),
        "weights_sha256": text("digest of the weights that proposed it", pattern=SHA256),
    },
    ["label_id"],
)

ERROR_BARS = Table(
    "error_bars",
    "How many labels of a version are wrong, of all classes and of each one.",
    {
        **ROUND_ID,
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
        **ROUND_ID,
        "key": text("image, group of look-alikes, or digest of a value they share", pattern=SHA256),
        "split": text("train, val or test", one_of=SPLITS),
    },
    ["key"],
)

TRAINING_ROUNDS = Table(
    "training_rounds",
    "The rounds that a training set holds, and the state of their labels in it.",
    {
        **ROUND_ID,
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
        **ROUND_ID,
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
