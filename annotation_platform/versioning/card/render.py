"""Write the files of a card: ``card.json`` for programs, ``README.md`` and ``card.html``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from annotation_platform.pages import render_page
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import Frame, TrainingSet
from annotation_platform.schema.tables.shared import SPLITS
from annotation_platform.versioning.card.charts import STYLE, Chart, draw_charts
from annotation_platform.versioning.card.examples import MOST_NAMED, Example, choose_examples
from annotation_platform.versioning.card.facts import FolderFacts, Histogram, Rows, folder_facts
from annotation_platform.versioning.card.limits import Limit, known_limits
from annotation_platform.versioning.card.readme import STATED, render_readme, summarize


@dataclass(frozen=True)
class Card:
    """The counts of a version, and the files of its card by their path in the version's folder."""

    facts: FolderFacts
    texts: dict[str, bytes]


def render_card(
    frame: Frame[TrainingSet], ontology: Ontology, audits: Mapping[str, int], *, name: str
) -> Card:
    """Return the card of a training set.

    Its files are ``card.json``, ``README.md``, ``card.html`` and the charts of the README, under
    ``card/``. The pages link to the image files of the folder. Equal training sets give equal
    bytes; names and metadata are escaped.

    Args:
        frame: the training set, sorted by image; not empty.
        ontology: its classes.
        audits: defect to count, from its audit.
        name: the name of the dataset.
    """
    rows = Rows.of(frame, ontology)
    facts = folder_facts(rows, ontology, audits)
    limits, examples = known_limits(facts), choose_examples(rows, ontology)
    charts = draw_charts(facts)
    texts = {
        "card.json": _card_json(facts, limits, examples, name),
        "README.md": render_readme(facts, limits, examples, charts, name).encode(),
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
        class_chart=charts[0],
        histograms=charts[1:],
        splits=SPLITS,
        stated=STATED,
        most_named=MOST_NAMED,
        summary=summarize(facts),
    )
