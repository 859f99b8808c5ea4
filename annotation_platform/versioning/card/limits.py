"""Derive the known limits of a version, each with its number; only those that apply are listed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from annotation_platform.pages.text import shown
from annotation_platform.schema.tables.shared import SPLITS
from annotation_platform.versioning.card.facts import FolderFacts

FEW_IMAGES = 50
"""With fewer images in a split, metrics measured on it are mostly chance."""
FEW_TO_LEARN = 50
"""With fewer labels in train, a model learns little about a class."""
FEW_TO_MEASURE = 10
"""With fewer labels in val or test, the metrics of a class are mostly chance."""
IMBALANCE = 20
"""Ratio of the labels of the most frequent and the rarest class from which it is a limit."""
SMALL_SHARE = 0.4
"""With a larger share of boxes below 32² pixels, small objects dominate the version."""
LITTLE_AGREEMENT = 0.8
"""With a smaller mean share of annotators who saw a label, the labelling rules are unclear."""
ALIKE_SHARE = 0.9
"""With fewer duplicate groups per image, a held-out split measures less than its images suggest."""
_NAMED, _LONGEST = 8, 40  # classes listed in a sentence; letters of a name


@dataclass(frozen=True)
class Limit:
    """One limit: its name, its number and a sentence that states it."""

    name: str
    number: float
    text: str


def known_limits(facts: FolderFacts) -> list[Limit]:
    """Return the limits that apply, including the defects that the audit counted."""
    return [
        *_of_splits(facts),
        *_of_classes(facts),
        *_of_boxes(facts),
        *_of_annotations(facts),
        *_of_sources(facts),
        *_of_audit(facts),
    ]


def _of_splits(facts: FolderFacts) -> Iterator[Limit]:
    for split, images in facts.images.items():
        if images < FEW_IMAGES:
            yield Limit(
                f"few_images_{split}",
                images,
                f"{split} has {_count(images, 'image')}, fewer than {FEW_IMAGES}.",
            )
    for split in SPLITS[1:]:
        images, groups = facts.images[split], facts.groups[split]
        if groups < ALIKE_SHARE * images:
            yield Limit(
                f"look_alikes_{split}",
                groups,
                f"The {_count(images, 'image')} of {split} are {_count(groups, 'group')} of "
                "near-duplicates: they measure as little as that.",
            )
    empty, images = sum(facts.unlabelled_images.values()), sum(facts.images.values())
    if empty:
        yield Limit(
            "images_without_labels",
            empty,
            f"{_count(empty, 'image')} ({_share(empty, images)}) without any label: they are "
            "background only where everything was to be labelled.",
        )


def _of_classes(facts: FolderFacts) -> Iterator[Limit]:
    for split in SPLITS:
        # A split without images has a limit of its own.
        if not facts.images[split]:
            continue
        least = FEW_TO_LEARN if split == "train" else FEW_TO_MEASURE
        none = [one.name for one in facts.classes if not one.labels[split]]
        few = [one.name for one in facts.classes if 0 < one.labels[split] < least]
        if none:
            yield Limit(
                f"classes_not_in_{split}",
                len(none),
                f"{_count(len(none), 'class', 'classes')} without a label in {split}: "
                f"{_list(none)}.",
            )
        if few:
            yield Limit(
                f"classes_rare_in_{split}",
                len(few),
                f"{_count(len(few), 'class', 'classes')} with fewer than {least} labels in "
                f"{split}: {_list(few)}.",
            )
    counts = {one.name: one.labels["train"] for one in facts.classes if one.labels["train"]}
    if counts:
        most, least_ = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        ratio = round(counts[most] / counts[least_], 1)
        if ratio >= IMBALANCE:
            yield Limit(
                "class_imbalance",
                ratio,
                f"train has {ratio:g} times as many labels of {_list([most])} as of "
                f"{_list([least_])}.",
            )


def _of_boxes(facts: FolderFacts) -> Iterator[Limit]:
    small, boxes = facts.boxes_by_size["small"], sum(facts.boxes.values())
    if boxes and small > SMALL_SHARE * boxes:
        yield Limit(
            "small_boxes",
            small,
            f"{_count(small, 'box', 'boxes')} ({_share(small, boxes)}) smaller than 32 × 32 "
            "pixels: detectors that reduce images lose them.",
        )


def _of_annotations(facts: FolderFacts) -> Iterator[Limit]:
    agreement, labels = facts.agreement, sum(facts.labels.values())
    single = agreement.one_annotation
    if single:
        yield Limit(
            "labels_of_one_annotation",
            single,
            f"{_count(single, 'label')} ({_share(single, labels)}) "
            "from a single annotation, so their agreement is unknown.",
        )
    if agreement.unseen:
        yield Limit(
            "labels_nobody_checked",
            agreement.unseen,
            f"{_count(agreement.unseen, 'label')} ({_share(agreement.unseen, labels)}) that came "
            "with their image and were not annotated here.",
        )
    if agreement.asked and agreement.mean_share < LITTLE_AGREEMENT:
        yield Limit(
            "little_agreement",
            agreement.mean_share,
            f"Where several people annotated, {agreement.mean_share:.0%} of them saw a label on "
            "average.",
        )
    doubtful = [
        one.name
        for one in facts.classes
        if one.agreement.asked and one.agreement.mean_share < LITTLE_AGREEMENT
    ]
    if doubtful and len(doubtful) < len(facts.classes):
        yield Limit(
            "classes_of_little_agreement",
            len(doubtful),
            f"{_count(len(doubtful), 'class', 'classes')} that fewer than {LITTLE_AGREEMENT:.0%} "
            f"of annotators saw on average: {_list(doubtful)}.",
        )


def _of_sources(facts: FolderFacts) -> Iterator[Limit]:
    images = sum(facts.images.values())
    for name in ("licence", "consent", "source"):
        unknown = images - facts.stated[name]
        if unknown:
            yield Limit(
                f"images_without_{name}",
                unknown,
                f"{_count(unknown, 'image')} ({_share(unknown, images)}) without a stated {name}.",
            )
    named = {one.source for one in facts.sources}
    if len(named) == 1 and not facts.other_sources[0] and "" not in named:
        yield Limit(
            "one_source",
            1,
            f"All images are from one source, {_list([*named])}: how a model does elsewhere is "
            "not known.",
        )


def _of_audit(facts: FolderFacts) -> Iterator[Limit]:
    for name, found in facts.audits.items():
        if found:
            yield Limit(
                f"audit_{name}", found, f"The audit found {name.replace('_', ' ')}: {found}."
            )


def _list(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    listed = ", ".join(f"“{shown(name, _LONGEST)}”" for name in names[:_NAMED])
    return f"{listed} and {more} more" if more > 0 else listed


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def _share(part: int, whole: int) -> str:
    share = part / whole if whole else 0.0
    return "under 1 %" if 0 < share < 0.01 else f"{share:.0%}".replace("%", " %")
