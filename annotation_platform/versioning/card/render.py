"""The files of a card: ``card.json`` for programs, ``README.md`` and ``card.html`` for people."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from annotation_platform.pages import percent, render_page
from annotation_platform.pages.text import markdown
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables.shared import SPLITS
from annotation_platform.versioning.card.charts import STYLE, Chart, draw_charts
from annotation_platform.versioning.card.examples import MOST_NAMED, Example, choose_examples
from annotation_platform.versioning.card.facts import (
    Agreement,
    FolderFacts,
    Histogram,
    Rows,
    folder_facts,
)
from annotation_platform.versioning.card.limits import Limit, known_limits

_README_EXAMPLES = 6
STATED = {
    "source": "source",
    "device": "device",
    "captured_at": "time",
    "geo": "place",
    "licence": "licence",
    "consent": "consent",
}
"""What may be known of an image, and what people call it."""


@dataclass(frozen=True)
class Card:
    """What was counted, and the files that say so by their path within the version's folder."""

    facts: FolderFacts
    texts: dict[str, bytes]


def render_card(
    frame: pd.DataFrame, ontology: Ontology, audits: Mapping[str, int], *, name: str
) -> Card:
    """Return the card of a training set.

    Its files are ``card.json``, ``README.md``, ``card.html`` and the charts that the README shows,
    under ``card/``. Images are shown where they lie in the folder. Equal training sets give equal
    bytes; whatever people named is escaped.

    Args:
        frame: the ``training_set`` table, sorted by image; not empty.
        ontology: its classes.
        audits: what its audit counted.
        name: the dataset's name.
    """
    rows = Rows.of(frame, ontology)
    facts = folder_facts(rows, ontology, audits)
    limits, examples = known_limits(facts), choose_examples(rows, ontology)
    charts = draw_charts(facts)
    texts = {
        "card.json": _card_json(facts, limits, examples, name),
        "README.md": _readme(facts, limits, examples, charts, name).encode(),
        "card.html": _page(facts, limits, examples, charts, name).encode(),
        **{f"card/{chart.name}.svg": chart.file for chart in charts},
    }
    return Card(facts, texts)


def _card_json(
    facts: FolderFacts, limits: Sequence[Limit], examples: Sequence[Example], name: str
) -> bytes:
    card = {
        "dataset": name,
        "images": facts.images,
        "empty_images": facts.empty_images,
        "images_without_labels": facts.unlabelled_images,
        "groups_of_look_alikes": facts.groups,
        "boxes": facts.boxes,
        "labels": facts.labels,
        "labels_by_shape": facts.shapes,
        "classes": [
            {
                "id": one.id,
                "name": one.name,
                "boxes": one.boxes,
                "labels": one.labels,
                "agreement": asdict(one.agreement),
            }
            for one in facts.classes
        ],
        "median_box_pixels": {"width": facts.median_box[0], "height": facts.median_box[1]},
        "boxes_by_size": facts.boxes_by_size,
        "box_sizes": _histogram_json(facts.box_sizes),
        "box_aspects": _histogram_json(facts.box_aspects),
        "labels_per_image": _histogram_json(facts.labels_per_image),
        "image_sizes": _histogram_json(facts.image_sizes),
        "common_image_sizes": [
            {"width": width, "height": height, "images": images}
            for width, height, images in facts.common_sizes
        ],
        "agreement": asdict(facts.agreement),
        "sources": [asdict(one) for one in facts.sources],
        "other_sources": {"sources": facts.other_sources[0], "images": facts.other_sources[1]},
        "images_that_state": facts.stated,
        "rounds": _counts_json(facts.rounds),
        "origins": _counts_json(facts.origins),
        "audits": facts.audits,
        "limits": [asdict(limit) for limit in limits],
        "examples": [example.path for example in examples],
    }
    return json.dumps(card, indent=2, ensure_ascii=False).encode() + b"\n"


def _histogram_json(histogram: Histogram) -> dict[str, object]:
    return {"bins_from": histogram.starts, **histogram.counts}


def _counts_json(counts: dict[str, tuple[int, int]]) -> dict[str, dict[str, int]]:
    return {key: {"images": images, "boxes": boxes} for key, (images, boxes) in counts.items()}


def _page(
    facts: FolderFacts,
    limits: Sequence[Limit],
    examples: Sequence[Example],
    charts: Sequence[Chart],
    name: str,
) -> str:
    return render_page(
        __package__,
        "card.html.jinja",
        style=STYLE,
        name=name,
        facts=facts,
        limits=limits,
        examples=examples,
        charts={chart.name: chart for chart in charts},
        splits=SPLITS,
        stated=STATED,
        most_named=MOST_NAMED,
        summary=_summary(facts),
    )


def _summary(facts: FolderFacts) -> str:
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


def _readme(
    facts: FolderFacts,
    limits: Sequence[Limit],
    examples: Sequence[Example],
    charts: Sequence[Chart],
    name: str,
) -> str:
    images, boxes = sum(facts.images.values()), sum(facts.boxes.values())
    width, height = facts.median_box
    sizes = ", ".join(f"{count} {size}" for size, count in facts.boxes_by_size.items())
    chart_images = {chart.name: f"![{chart.title}](card/{chart.name}.svg)" for chart in charts}
    return "\n".join(
        [
            f"# {markdown(name)}",
            "",
            f"{_summary(facts)} The same with its labels drawn is in [card.html](card.html).",
            "",
            *_examples(examples),
            "## Known limits",
            "",
            *(f"- {markdown(limit.text, 1000)}" for limit in limits),
            *([] if limits else ["None of those that are looked for."]),
            "",
            "## Splits",
            "",
            *_table(
                ["", *SPLITS, "all"],
                [
                    [title, *counts.values(), sum(counts.values())]
                    for title, counts in {
                        "images": facts.images,
                        "without a box": facts.empty_images,
                        "without any label": facts.unlabelled_images,
                        "groups of near-duplicates": facts.groups,
                        "boxes": facts.boxes,
                        "labels": facts.labels,
                    }.items()
                ],
            ),
            "",
            f"Groups of look-alike images in more than one split: "
            f"{facts.audits.get('groups_in_two_splits', 0)}.",
            "",
            "## Classes",
            "",
            chart_images["classes"],
            "",
            *_table(
                ["id", "class", *SPLITS, "all", "agreement"],
                [
                    [
                        one.id,
                        one.name,
                        *one.labels.values(),
                        sum(one.labels.values()),
                        _agreed(one.agreement),
                    ]
                    for one in facts.classes
                ],
            ),
            "",
            "Labels by split. Agreement: of the people who answered an image, the share who saw a "
            "label of it, where two or more answered.",
            "",
            "## Boxes and images",
            "",
            f"Median box {width:g} × {height:g} pixels; {sizes} (below 32², below 96², above).",
            "",
            *(chart_images[each] for each in ("sizes", "aspects", "per-image", "images")),
            "",
            "Images: "
            + ", ".join(f"{w} × {h} ({count})" for w, h, count in facts.common_sizes)
            + (" are the commonest sizes." if len(facts.common_sizes) > 1 else "."),
            "",
            "## Agreement",
            "",
            *_table(
                ["labels", "number"],
                [[title, count] for title, count in _annotations(facts.agreement).items()],
            ),
            "",
            "## Sources, licence and consent",
            "",
            *_table(
                ["source", "licence", "consent", "images"],
                [
                    *(
                        [one.source or "–", one.licence or "–", one.consent or "–", one.images]
                        for one in facts.sources
                    ),
                    *_other_sources(facts),
                ],
            ),
            "",
            "Images of which it is stated: "
            + ", ".join(f"{word} {facts.stated[key]}" for key, word in STATED.items())
            + f", of {images}.",
            "",
            "## Rounds",
            "",
            *_table(
                ["round", "images", "boxes"],
                [[key, one, other] for key, (one, other) in facts.rounds.items()],
            ),
            "",
            "## Origins",
            "",
            "Labels that people gave here, and those that the images landed with.",
            "",
            *_table(
                ["labels from", "images", "boxes"],
                [[key, one, other] for key, (one, other) in facts.origins.items()],
            ),
            "",
            "## Audit",
            "",
            f"Counted in the files themselves; 0 where all is well. There are {boxes} boxes.",
            "",
            *_table(
                ["found", "number"],
                [[key.replace("_", " "), count] for key, count in facts.audits.items()],
            ),
            "",
            "## Files",
            "",
            "- `images/`, `labels/`, `data.yaml`: YOLO. `coco/`: COCO, one file per split.",
            "- `annotations/*.parquet`: every label with its round, group, origin and support, and "
            "what is known of its image.",
            "- `card.html`: this page with the labels drawn. `card.json`: the numbers.",
            "",
        ]
    )


def _examples(examples: Sequence[Example]) -> list[str]:
    if not examples:
        return []
    # One of each split first, for there is room for a few only.
    order = sorted(range(len(examples)), key=lambda at: _nth_of_split(examples, at))
    chosen = [examples[at] for at in sorted(order[:_README_EXAMPLES])]
    # Ids, splits and extensions hold nothing that would need escaping.
    chart_images = [f'<img src="{one.path}" alt="{one.split}" height="150">' for one in chosen]
    return [" ".join(chart_images), ""]


def _nth_of_split(examples: Sequence[Example], at: int) -> int:
    return sum(one.split == examples[at].split for one in examples[:at])


def _other_sources(facts: FolderFacts) -> list[list[object]]:
    number, images = facts.other_sources
    return [[f"{number} more", "", "", images]] if number else []


def _agreed(agreement: Agreement) -> str:
    return percent(agreement.mean_share, 1.0) if agreement.asked else "–"


def _annotations(agreement: Agreement) -> dict[str, object]:
    return {
        "on images that two or more people answered": agreement.asked,
        "of those, seen by everybody": agreement.unanimous,
        "of those, seen by half of them or fewer": agreement.minority,
        "mean share of people who saw them": _agreed(agreement),
        "from a single answer": agreement.one_annotation,
        "came with their image, nobody was asked": agreement.unseen,
    }


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines: list[Sequence[object]] = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(markdown(str(cell)) for cell in line) + " |" for line in lines]
