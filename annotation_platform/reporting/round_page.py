"""The report of a round as one page: figures, images of what people and model did, advice."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files

import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.images.accepted import accepted_images
from annotation_platform.images.decoding import decode
from annotation_platform.labeling.guidelines import guideline_of
from annotation_platform.labeling.tasks import shown_predictions
from annotation_platform.pages import as_base64, render_page
from annotation_platform.policy import Policy
from annotation_platform.reporting.advice import advise
from annotation_platform.reporting.open_conflicts import open_conflicts
from annotation_platform.reporting.previews import (
    error_images,
    finding_title,
    thumbnail,
    worst_findings,
)
from annotation_platform.reporting.round_facts import round_facts, round_trends
from annotation_platform.reporting.status import round_state
from annotation_platform.reporting.trend_chart import STYLE, draw_trend
from annotation_platform.schema.ontology import Ontology, class_colors
from annotation_platform.schema.tables import (
    CleanedImages,
    ConsensusLabels,
    HumanLabels,
    ModelFindings,
    ModelPredictions,
    ReviewedLabels,
    TrainingSet,
    records,
)
from annotation_platform.storage.keys import raw_key
from annotation_platform.storage.lake import Lake

_CHANGES, _DISPUTES, _KEPT_OUT, _FINDINGS = 6, 4, 8, 8
"""How many images of each kind a page shows."""
_SIDE, _SMALL = 400, 200
_SENTENCES = 4


@dataclass(frozen=True)
class Panel:
    """An image, or why there is none, and what stands under it."""

    title: str
    image: str  # JPEG in base64; empty: it cannot be shown
    detail: str = ""


@dataclass(frozen=True)
class Comparison:
    """Images of one image side by side, and sentences about them."""

    image_id: str
    panels: list[Panel]
    sentences: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Images:
    """Draws what is said of the round's images, each in the colour of its class."""

    lake: Lake
    extensions: dict[str, str]
    colors: dict[str, str]

    def panel(self, title: str, image_id: str, labels: pd.DataFrame) -> Panel:
        """Return an image with those of the labels that have a place; an erased one without."""
        own = labels[labels["image_id"] == image_id].dropna(subset=["x1"])
        try:
            pixels = decode(self.lake.image(image_id, self.extensions[image_id]))
        except DataError:
            return Panel(title, "")
        return Panel(title, as_base64(thumbnail(pixels, own, self.colors, side=_SIDE)))


def render_round(lake: Lake, round_id: str, policy: Policy) -> str:
    """Return the report of a round: HTML that loads nothing and runs nothing.

    It is made of what the lake holds now, so a round that is not finished has one, too, and what
    was erased is in none. Whatever people named is escaped.

    Raises:
        DataError: there is no such round.
    """
    facts = round_facts(lake, round_id)
    said = lake.tables.read_rounds(HumanLabels, [round_id])
    ontology = guideline_of(said, lake.store, policy.ontology)
    cleaned = lake.tables.read_rounds(CleanedImages, [round_id])
    accepted = accepted_images(lake.tables)
    images = _Images(
        lake,
        dict(zip(accepted["image_id"], accepted["extension"], strict=True)),
        class_colors(ontology),
    )
    style = files(__package__).joinpath("templates", "round.css").read_text("utf-8")
    return render_page(
        __package__,
        "round.html.jinja",
        style=style + STYLE,
        facts=facts,
        waits_for=str(round_state(lake, round_id)["waits_for"]),
        advice=advise(facts),
        trends=[(each, draw_trend(each)) for each in round_trends(lake, facts) if each.is_known],
        classes=list(images.colors.items()),
        changes=_changes(lake, round_id, policy, ontology, images),
        disputes=_disputes(lake, round_id, said, images),
        kept_out=list(_kept_out(lake, cleaned)),
        findings=list(_findings(lake, round_id)),
        is_number=lambda value: isinstance(value, float | int) and not math.isnan(value),
    )


def _changes(
    lake: Lake, round_id: str, policy: Policy, ontology: Ontology, images: _Images
) -> list[Comparison]:
    """Return images before people saw them and after; those that they changed most come first."""
    reviewed = lake.tables.read_rounds(ReviewedLabels, [round_id])
    after = reviewed[~reviewed["decision"].isin(["rejected", "undecided"])]
    proposed = shown_predictions(
        lake.tables.read_rounds(ModelPredictions, [round_id]),
        ontology,
        minimum_score=policy.labeling.minimum_score,
    )
    counts = [frame.dropna(subset=["x1"])["image_id"].value_counts() for frame in (proposed, after)]
    both = pd.concat(counts, axis=1).reindex(after["image_id"].unique()).fillna(0)
    both["change"] = (both.iloc[:, 0] - both.iloc[:, 1]).abs()
    chosen = both.sort_values("change", ascending=False, kind="stable").head(_CHANGES).index
    before = "what the model proposed" if len(proposed) else "as it landed"
    return [
        Comparison(
            str(image_id),
            [
                images.panel(before, str(image_id), proposed),
                images.panel("what it says now", str(image_id), after),
            ],
        )
        for image_id in chosen
    ]


def _disputes(lake: Lake, round_id: str, said: pd.DataFrame, images: _Images) -> list[Comparison]:
    """Return the images with most conflicts: what each person drew, and what was made of it."""
    conflicts = open_conflicts(lake.tables, round_id)
    resolved = lake.tables.read_rounds(ConsensusLabels, [round_id])
    weight = (~conflicts["settled"].astype(bool)).astype(int) * 1000 + 1
    worst = weight.groupby(conflicts["image_id"]).sum().sort_values(ascending=False, kind="stable")
    found = []
    for image_id in worst.head(_DISPUTES).index:
        own = said[said["image_id"] == image_id]
        panels = [
            images.panel(str(person), str(image_id), labels)
            for person, labels in own.groupby("annotator")
        ]
        panels.append(images.panel("together", str(image_id), resolved))
        rows = conflicts[conflicts["image_id"] == image_id].sort_values("settled", kind="stable")
        sentences = [f"{row['kind']}: {row['detail']}" for row in records(rows)]
        if len(sentences) > _SENTENCES:
            more = len(sentences) - _SENTENCES
            sentences = [*sentences[:_SENTENCES], f"and {more} more"]
        found.append(Comparison(str(image_id), panels, sentences))
    return found


def _kept_out(lake: Lake, cleaned: pd.DataFrame) -> Iterator[Panel]:
    out = cleaned[cleaned["outcome"] == "quarantined"]
    # What can be looked at comes first.
    for row in records(out.sort_values("width", ascending=False, kind="stable").head(_KEPT_OUT)):
        name = str(row["source_key"]).rsplit("/", 1)[-1]
        image = ""
        if row["width"] and isinstance(row["image_id"], str):
            try:
                pixels = decode(lake.store.get(raw_key(row["image_id"])))
                image = as_base64(thumbnail(pixels, cleaned[:0], {}, side=_SMALL))
            except DataError:
                image = ""
        yield Panel(name, image, str(row["reason"]))


def _findings(lake: Lake, round_id: str) -> Iterator[Panel]:
    findings = lake.tables.read_rounds(ModelFindings, [round_id])
    if findings.empty:
        return
    # All labels of all rounds: the largest table there is.
    truth = lake.tables.read_rounds(TrainingSet, [round_id])
    rows = worst_findings(findings[findings["image_id"].isin(truth["image_id"])], _FINDINGS)
    for row in rows:
        try:
            image = next(error_images([row], truth, lake.image, side=_SMALL))
        except DataError:
            continue
        yield Panel(finding_title(row), as_base64(image), str(row["image_id"])[:12])
