"""The text half of a version's folder: labels, canonical tables, COCO, the card.

Facts about content only: no times, no paths, no version number, nothing that changes by itself.
Equal training sets give equal bytes whatever the order of their rows, so DVC's digest of the
folder says whether anything changed.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from annotation_platform.curation.gates import boxes_outside_image, groups_in_two_splits
from annotation_platform.errors import PublishError
from annotation_platform.formats.coco import render_coco
from annotation_platform.formats.yolo import render_yolo
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import AREAS
from annotation_platform.schema.tables import SPLITS, check_table
from annotation_platform.storage.round_tables import parquet_bytes

# COCO's areas of small, medium and large objects, in square pixels.
_SMALL, _LARGE = 32**2, 96**2


@dataclass(frozen=True)
class ImageFile:
    """One picture of the folder, known by its MD5 since cleaning and not read again."""

    path: str  # within the folder
    image_id: str
    extension: str
    md5: str
    byte_size: int


@dataclass(frozen=True)
class ClassFacts:
    """One class: its id, name and boxes by split."""

    id: int
    name: str
    boxes: dict[str, int]


@dataclass(frozen=True)
class FolderFacts:
    """What the card and the manifest count. Sides in pixels; no boxes give zeros."""

    images: dict[str, int]  # by split
    empty_images: dict[str, int]  # by split: those without a box
    classes: tuple[ClassFacts, ...]  # ordered by id
    median_box: tuple[float, float]  # width, height
    boxes_by_size: dict[str, int]  # small, medium, large as COCO has them
    rounds: dict[str, tuple[int, int]]  # round to images and boxes
    origins: dict[str, tuple[int, int]]  # where labels are from, to images and boxes
    audits: dict[str, int]

    @property
    def boxes(self) -> dict[str, int]:
        """The boxes by split."""
        return {split: sum(one.boxes[split] for one in self.classes) for split in SPLITS}


@dataclass(frozen=True)
class Folder:
    """The content of a version: rendered files by path, pictures by MD5, and their counts."""

    texts: dict[str, bytes]
    images: list[ImageFile]
    facts: FolderFacts


def canonical(training_set: pd.DataFrame, ontology: Ontology) -> pd.DataFrame:
    """Return the training set checked, sorted by image and label, and fit to be published.

    No images, an image with two splits or two contents, and a class that the ontology lacks or
    knows under another id are PublishErrors.
    """
    frame = check_table("training_set", training_set)
    if frame.empty:
        raise PublishError("the training set is empty: there is nothing to publish yet.")
    facts_of_image = ["split", "group_id", "extension", "stored_md5", "stored_bytes", "origin"]
    different = frame.groupby("image_id")[facts_of_image].nunique().gt(1).any(axis=1)
    if different.any():
        raise PublishError(
            f"image {different.idxmax()}: its rows name different splits, groups, contents or "
            "origins. "
            "Rebuild training_set and publish again."
        )
    boxes = frame[frame["class_name"].notna()]
    wrong = boxes["class_id"] != boxes["class_name"].map(ontology.id_of)
    if wrong.fillna(True).any():
        row = boxes[wrong.fillna(True)].iloc[0]
        raise PublishError(
            f"image {row['image_id']}: class {row['class_name']!r} with id {row['class_id']} is "
            "not in the ontology. Correct params.yaml or rebuild training_set."
        )
    return frame.sort_values(["image_id", "label_id"], ignore_index=True)


def image_files(frame: pd.DataFrame) -> list[ImageFile]:
    """Return the pictures of a canonical training set, by path."""
    images = frame.drop_duplicates("image_id")
    names = ["split", "image_id", "extension", "stored_md5", "stored_bytes"]
    rows = zip(*(images[name].tolist() for name in names), strict=True)
    return sorted(
        (
            ImageFile(f"images/{split}/{image_id}.{extension}", image_id, extension, md5, size)
            for split, image_id, extension, md5, size in rows
        ),
        key=lambda file: file.path,
    )


def build_folder(training_set: pd.DataFrame, ontology: Ontology, *, name: str) -> Folder:
    """Return what a version of ``training_set`` consists of; ``canonical`` says what is refused.

    Beside the pictures: ``labels/`` and ``data.yaml`` (YOLO), ``coco/``, ``annotations/`` (Parquet,
    sharded by the first digit of the image id), ``card.json`` and ``README.md``.
    """
    frame = canonical(training_set, ontology)
    dataset = Dataset.from_training_set(frame, ontology)
    facts = folder_facts(frame, ontology)
    shards = {
        f"annotations/{digit}.parquet": parquet_bytes(shard.reset_index(drop=True))
        for digit, shard in frame.groupby(frame["image_id"].str[0])
    }
    texts = {
        **render_yolo(dataset),
        **render_coco(dataset),
        **shards,
        "card.json": _card_json(facts, name),
        "README.md": _card_text(facts, name).encode(),
    }
    return Folder(texts, image_files(frame), facts)


def folder_facts(frame: pd.DataFrame, ontology: Ontology) -> FolderFacts:
    """Return the counts of a canonical training set."""
    images = frame.drop_duplicates("image_id")
    boxes = frame[frame["shape"].isin(AREAS)]
    empty = images[~images["image_id"].isin(boxes["image_id"])]
    by_class = boxes.groupby(["class_id", "split"]).size().to_dict()
    classes = tuple(
        ClassFacts(
            id=one.id,
            name=one.name,
            boxes={split: int(by_class.get((one.id, split), 0)) for split in SPLITS},
        )
        for one in sorted(ontology.classes, key=lambda one: one.id)
    )
    widths, heights = boxes["x2"] - boxes["x1"], boxes["y2"] - boxes["y1"]
    areas = widths * heights
    return FolderFacts(
        images=_by_split(images),
        empty_images=_by_split(empty),
        classes=classes,
        median_box=(_median(widths), _median(heights)),
        boxes_by_size={
            "small": int((areas < _SMALL).sum()),
            "medium": int(((areas >= _SMALL) & (areas < _LARGE)).sum()),
            "large": int((areas >= _LARGE).sum()),
        },
        rounds=_images_and_boxes(frame, "round_id"),
        origins=_images_and_boxes(frame, "origin"),
        audits=_audits(frame),
    )


def _audits(frame: pd.DataFrame) -> dict[str, int]:
    splits_of_content = frame.groupby("stored_md5")["split"].nunique()
    labels = frame.drop(columns=["width", "height"])
    return {
        "groups_in_two_splits": len(groups_in_two_splits(frame)),
        "contents_in_two_splits": int((splits_of_content > 1).sum()),
        "boxes_outside_image": len(boxes_outside_image(labels, frame)),
    }


def _images_and_boxes(frame: pd.DataFrame, column: str) -> dict[str, tuple[int, int]]:
    """Return the number of images and of boxes for each value of a column, by value."""
    return {
        str(key): (int(rows["image_id"].nunique()), int(rows["shape"].isin(AREAS).sum()))
        for key, rows in frame.groupby(column, sort=True)
    }


def _by_split(images: pd.DataFrame) -> dict[str, int]:
    counts = images["split"].value_counts().to_dict()
    return {split: int(counts.get(split, 0)) for split in SPLITS}


def _median(sides: "pd.Series[float]") -> float:
    return 0.0 if sides.empty else round(float(sides.median()), 1)


def _card_json(facts: FolderFacts, name: str) -> bytes:
    card = {
        "dataset": name,
        "images": facts.images,
        "empty_images": facts.empty_images,
        "boxes": facts.boxes,
        "classes": [{"id": one.id, "name": one.name, "boxes": one.boxes} for one in facts.classes],
        "median_box_pixels": {"width": facts.median_box[0], "height": facts.median_box[1]},
        "boxes_by_size": facts.boxes_by_size,
        "rounds": {
            key: {"images": images, "boxes": boxes} for key, (images, boxes) in facts.rounds.items()
        },
        "origins": {
            key: {"images": images, "boxes": boxes}
            for key, (images, boxes) in facts.origins.items()
        },
        "audits": facts.audits,
    }
    return json.dumps(card, indent=2, ensure_ascii=False).encode() + b"\n"


def _card_text(facts: FolderFacts, name: str) -> str:
    images, boxes = sum(facts.images.values()), sum(facts.boxes.values())
    width, height = facts.median_box
    sizes = ", ".join(f"{count} {size}" for size, count in facts.boxes_by_size.items())
    return "\n".join(
        [
            f"# {name}",
            "",
            f"{images} images with {boxes} boxes of {len(facts.classes)} classes, labelled in "
            f"{len(facts.rounds)} rounds.",
            "",
            "## Splits",
            "",
            *_table(
                ["", *SPLITS, "all"],
                [
                    ["images", *facts.images.values(), images],
                    [
                        "without a box",
                        *facts.empty_images.values(),
                        sum(facts.empty_images.values()),
                    ],
                    ["boxes", *facts.boxes.values(), boxes],
                ],
            ),
            "",
            f"Groups of look-alike images in more than one split: "
            f"{facts.audits['groups_in_two_splits']}.",
            "",
            "## Classes",
            "",
            *_table(
                ["id", "class", *SPLITS, "all"],
                [
                    [one.id, one.name, *one.boxes.values(), sum(one.boxes.values())]
                    for one in facts.classes
                ],
            ),
            "",
            "## Boxes",
            "",
            f"Median {width:g} × {height:g} pixels; {sizes} (below 32², below 96², above).",
            "",
            "## Rounds",
            "",
            *_table(
                ["round", "images", "boxes"],
                [[key, images, boxes] for key, (images, boxes) in facts.rounds.items()],
            ),
            "",
            "## Origins",
            "",
            "Labels that people gave here, and those that the images landed with.",
            "",
            *_table(
                ["labels from", "images", "boxes"],
                [[key, images, boxes] for key, (images, boxes) in facts.origins.items()],
            ),
            "",
            "## Files",
            "",
            "- `images/`, `labels/`, `data.yaml`: YOLO. `coco/`: COCO, one file per split.",
            "- `annotations/*.parquet`: every label with its round, group, origin and support, and "
            "what is known of its image.",
            "- `card.json`: the numbers above.",
            "",
        ]
    )


def _table(head: list[str], rows: list[list[object]]) -> list[str]:
    # A bar in a class name would end its cell.
    lines: list[Sequence[object]] = [head, ["---"] * len(head), *rows]
    return [
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    ]
