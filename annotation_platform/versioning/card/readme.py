"""Render ``README.md`` of a card.

The text is a part of the published version: a changed word changes the digest of its folder.
"""

from collections.abc import Sequence
from typing import Any

from annotation_platform.pages import percent
from annotation_platform.pages.text import markdown
from annotation_platform.schema.tables.shared import SPLITS
from annotation_platform.versioning.card.charts import Chart
from annotation_platform.versioning.card.examples import Example
from annotation_platform.versioning.card.facts import Agreement, FolderFacts
from annotation_platform.versioning.card.limits import Limit

_README_EXAMPLES = 6
STATED = {
    "source": "source",
    "device": "device",
    "captured_at": "time",
    "geo": "place",
    "licence": "licence",
    "consent": "consent",
}
"""Kinds of metadata of an image, and their names on a card."""


def render_readme(
    facts: FolderFacts,
    limits: Sequence[Limit],
    examples: Sequence[Example],
    charts: Sequence[Chart],
    name: str,
) -> str:
    """Return the README as Markdown; names and metadata are escaped."""
    class_link, *links = [f"![{chart.title}](card/{chart.name}.svg)" for chart in charts]
    return "\n".join(
        [
            f"# {markdown(name)}",
            "",
            f"{summarize(facts)} The same with its labels drawn is in [card.html](card.html).",
            "",
            *_examples(examples),
            "## Known limits",
            "",
            *(f"- {markdown(limit.text, 1000)}" for limit in limits),
            *([] if limits else ["None of those that are looked for."]),
            "",
            *_splits(facts),
            *_classes(facts, class_link),
            *_sizes(facts, links),
            *_agreement(facts),
            *_sources(facts),
            *_counts("Rounds", "round", facts.rounds),
            *_counts(
                "Origins",
                "labels from",
                facts.origins,
                "Labels that people gave here, and those that the images landed with.",
                "",
            ),
            *_audit(facts),
            "## Files",
            "",
            "- `images/`, `labels/`, `data.yaml`: YOLO. `coco/`: COCO, one file per split.",
            "- `annotations/*.parquet`: every label with its round, group, origin and support, and "
            "what is known of its image.",
            "- `card.html`: this page with the labels drawn. `card.json`: the numbers.",
            "",
        ]
    )


def summarize(facts: FolderFacts) -> str:
    """Return a sentence with the numbers of images, labels, classes and rounds."""
    images, labels, boxes = (
        sum(each.values()) for each in (facts.images, facts.labels, facts.boxes)
    )
    rest = "" if labels == boxes else f" and {labels - boxes:,} points and choices"
    counted = [
        f"{number:,} {name if number != 1 else one}"
        for number, one, name in (
            (images, "image", "images"),
            (boxes, "box", "boxes"),
            (len(facts.classes), "class", "classes"),
            (len(facts.rounds), "round", "rounds"),
        )
    ]
    return "{} with {}{} of {}, labelled in {}.".format(*counted[:2], rest, *counted[2:])


def _splits(facts: FolderFacts) -> list[str]:
    counts = {
        "images": facts.images,
        "without a box": facts.empty_images,
        "without any label": facts.unlabelled_images,
        "groups of near-duplicates": facts.groups,
        "boxes": facts.boxes,
        "labels": facts.labels,
    }
    rows = [[title, *each.values(), sum(each.values())] for title, each in counts.items()]
    return [
        "## Splits",
        "",
        *_table(["", *SPLITS, "all"], rows),
        "",
        f"Groups of look-alike images in more than one split: "
        f"{facts.audits.get('groups_in_two_splits', 0)}.",
        "",
    ]


def _classes(facts: FolderFacts, link: str) -> list[str]:
    rows = [
        [one.id, one.name, *one.labels.values(), sum(one.labels.values()), _share(one.agreement)]
        for one in facts.classes
    ]
    return [
        "## Classes",
        "",
        link,
        "",
        *_table(["id", "class", *SPLITS, "all", "agreement"], rows),
        "",
        "Labels by split. Agreement: of the people who annotated an image, the share who saw a "
        "label of it, where two or more annotated.",
        "",
    ]


def _sizes(facts: FolderFacts, links: Sequence[str]) -> list[str]:
    width, height = facts.median_box
    by_size = ", ".join(f"{count} {size}" for size, count in facts.boxes_by_size.items())
    return [
        "## Boxes and images",
        "",
        f"Median box {width:g} × {height:g} pixels; {by_size} (below 32², below 96², above).",
        "",
        *links,
        "",
        "Images: "
        + ", ".join(f"{w} × {h} ({count})" for w, h, count in facts.common_sizes)
        + (" are the commonest sizes." if len(facts.common_sizes) > 1 else "."),
        "",
    ]


def _agreement(facts: FolderFacts) -> list[str]:
    agreement = facts.agreement
    rows = {
        "on images with two or more annotations": agreement.asked,
        "of those, seen by everybody": agreement.unanimous,
        "of those, seen by half of them or fewer": agreement.minority,
        "mean share of people who saw them": _share(agreement),
        "from a single annotation": agreement.one_annotation,
        "came with their image, not annotated here": agreement.unseen,
    }
    return ["## Agreement", "", *_table(["labels", "number"], [*rows.items()]), ""]


def _sources(facts: FolderFacts) -> list[str]:
    rows: list[list[object]] = [
        [one.source or "–", one.licence or "–", one.consent or "–", one.images]
        for one in facts.sources
    ]
    number, images = facts.other_sources
    if number:
        rows.append([f"{number} more", "", "", images])
    return [
        "## Sources, licence and consent",
        "",
        *_table(["source", "licence", "consent", "images"], rows),
        "",
        "Images of which it is stated: "
        + ", ".join(f"{word} {facts.stated[key]}" for key, word in STATED.items())
        + f", of {sum(facts.images.values())}.",
        "",
    ]


def _counts(
    title: str, head: str, counts: dict[str, tuple[int, int]], *introduction: str
) -> list[str]:
    rows = [[key, images, boxes] for key, (images, boxes) in counts.items()]
    return [f"## {title}", "", *introduction, *_table([head, "images", "boxes"], rows), ""]


def _audit(facts: FolderFacts) -> list[str]:
    boxes = sum(facts.boxes.values())
    rows = [[key.replace("_", " "), count] for key, count in facts.audits.items()]
    return [
        "## Audit",
        "",
        f"Counted in the files themselves; 0 where all is well. There are {boxes} boxes.",
        "",
        *_table(["found", "number"], rows),
        "",
    ]


def _examples(examples: Sequence[Example]) -> list[str]:
    if not examples:
        return []
    # There is room for a few examples, so each split gets its first one before any second one.
    order = sorted(range(len(examples)), key=lambda at: _nth_of_split(examples, at))
    chosen = [examples[at] for at in sorted(order[:_README_EXAMPLES])]
    # Ids, splits and extensions contain no character that needs escaping.
    images = [f'<img src="{one.path}" alt="{one.split}" height="150">' for one in chosen]
    return [" ".join(images), ""]


def _nth_of_split(examples: Sequence[Example], at: int) -> int:
    return sum(one.split == examples[at].split for one in examples[:at])


def _share(agreement: Agreement) -> str:
    return percent(agreement.mean_share, 1.0) if agreement.asked else "–"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines: list[Sequence[object]] = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(markdown(str(cell)) for cell in line) + " |" for line in lines]
