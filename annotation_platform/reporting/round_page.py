"""The report of a round as one page: figures, images with labels and errors, advice."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files

import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.images.accepted import accepted_images
from annotation_platform.images.decoding import decode
from annotation_platform.labeling.guidelines import guideline_of
from annotation_platform.models.shown_predictions import shown_predictions
from annotation_platform.pages import as_base64, render_page
from annotation_platform.policy import Policy
from annotation_platform.reporting.advice import advise
from annotation_platform.reporting.manual_effort import publishable
from annotation_platform.reporting.previews import (
    SHORT_ID,
    error_images,
    finding_title,
    thumbnail,
    worst_findings,
)
from annotation_platform.reporting.round_facts import open_conflicts, round_facts, round_trends
from annotation_platform.reporting.status import round_state
from annotation_platform.reporting.trend_chart import STYLE, draw_trend
from annotation_platform.schema.keys import raw_key
from annotation_platform.schema.ontology import Ontology, class_colors
from annotation_platform.schema.tables import (
    CleanedImages,
    Conflicts,
    ConsensusLabels,
    Frame,
    HumanLabels,
    ModelErrors,
    ModelPredictions,
    ReviewedLabels,
    TrainingSet,
    records,
)
from annotation_platform.schema.tables.shared import Outcome
from annotation_platform.storage.lake import Lake

_CHANGES, _DISPUTES, _QUARANTINED, _FINDINGS = 6, 4, 8, 8
"""Number of images of each kind on a page."""
_SIDE, _SMALL = 400, 200
_SENTENCES = 4


@dataclass(frozen=True)
class Panel:
    """An image with its caption, or the caption alone if the image cannot be shown."""

    title: str
    image: str  # JPEG in base64; empty if it cannot be shown
    detail: str = ""


@dataclass(frozen=True)
class AnnotationComparison:
    """Several versions of one image side by side, with sentences about it."""

    image_id: str
    panels: list[Panel]
    sentences: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Images:
    """Draws labels on the round's images, each in the colour of its class."""

    lake: Lake
    extensions: dict[str, str]
    colors: dict[str, str]

    def panel(self, title: str, image_id: str, labels: pd.DataFrame) -> Panel:
        """Return a panel of the image with its regions; without an image if it was erased."""
        own = labels[labels["image_id"] == image_id].dropna(subset=["x1"])
        try:
            pixels = decode(self.lake.image(image_id, self.extensions[image_id]))
        except DataError:
            return Panel(title, "")
        return Panel(title, as_base64(thumbnail(pixels, own, self.colors, side=_SIDE)))


def render_round(lake: Lake, round_id: str, policy: Policy) -> str:
    """Return the report of a round as HTML that loads no resource and runs no script.

    It is rendered from the current lake, so an unfinished round has a report too, and erased
    images are in none. Names chosen by users are escaped.

    Raises:
        DataError: the round does not exist.
    """
    facts = round_facts(lake, round_id)
    labels = lake.tables.read_rounds(HumanLabels, [round_id])
    ontology = guideline_of(labels, lake.store, policy.ontology)
    cleaned = lake.tables.read_rounds(CleanedImages, [round_id])
    accepted = accepted_images(lake.tables)
    images = _Images(
        lake,
        dict(zip(accepted[CleanedImages.image_id], accepted[CleanedImages.extension], strict=True)),
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
        disputes=_disputes(lake, round_id, labels, images),
        quarantined=list(_quarantined(lake, cleaned)),
        findings=list(_findings(lake, round_id)),
        is_number=lambda value: isinstance(value, float | int) and not math.isnan(value),
    )


def _changes(
    lake: Lake, round_id: str, policy: Policy, ontology: Ontology, images: _Images
) -> list[AnnotationComparison]:
    """Return images before and after annotation; those with the most changes come first."""
    reviewed = lake.tables.read_rounds(ReviewedLabels, [round_id])
    after = publishable(reviewed)
    predicted = shown_predictions(
        lake.tables.read_rounds(ModelPredictions, [round_id]),
        ontology,
        minimum_score=policy.labeling.minimum_score,
    )
    counts = [
        frame.dropna(subset=["x1"])["image_id"].value_counts() for frame in (predicted, after)
    ]
    both = pd.concat(counts, axis=1).reindex(after[ReviewedLabels.image_id].unique()).fillna(0)
    both["change"] = (both.iloc[:, 0] - both.iloc[:, 1]).abs()
    chosen = both.sort_values("change", ascending=False, kind="stable").head(_CHANGES).index
    before = "predictions" if len(predicted) else "as landed"
    return [
        AnnotationComparison(
            str(image_id),
            [
                images.panel(before, str(image_id), predicted),
                images.panel("labels", str(image_id), after),
            ],
        )
        for image_id in chosen
    ]


def _disputes(
    lake: Lake, round_id: str, labels: Frame[HumanLabels], images: _Images
) -> list[AnnotationComparison]:
    """Return the images with most conflicts: the labels of each annotator and the consensus."""
    conflicts = open_conflicts(lake.tables, round_id)
    resolved = lake.tables.read_rounds(ConsensusLabels, [round_id])
    # Any unsettled conflict outweighs all settled ones.
    weight = (~conflicts[Conflicts.settled].astype(bool)).astype(int) * 1000 + 1
    by_image = weight.groupby(conflicts[Conflicts.image_id]).sum()
    worst = by_image.sort_values(ascending=False, kind="stable")
    comparisons = []
    for image_id in worst.head(_DISPUTES).index:
        own = labels[labels[HumanLabels.image_id] == image_id]
        panels = [
            images.panel(str(person), str(image_id), rows)
            for person, rows in own.groupby(HumanLabels.annotator)
        ]
        panels.append(images.panel("consensus", str(image_id), resolved))
        rows = conflicts[conflicts[Conflicts.image_id] == image_id]
        rows = rows.sort_values(Conflicts.settled, kind="stable")
        sentences = [f"{row[Conflicts.kind]}: {row[Conflicts.detail]}" for row in records(rows)]
        if len(sentences) > _SENTENCES:
            more = len(sentences) - _SENTENCES
            sentences = [*sentences[:_SENTENCES], f"and {more} more"]
        comparisons.append(AnnotationComparison(str(image_id), panels, sentences))
    return comparisons


def _quarantined(lake: Lake, cleaned: Frame[CleanedImages]) -> Iterator[Panel]:
    rows = cleaned[cleaned[CleanedImages.outcome] == Outcome.QUARANTINED]
    # Images that can be decoded come first.
    rows = rows.sort_values(CleanedImages.width, ascending=False, kind="stable")
    for row in records(rows.head(_QUARANTINED)):
        name = str(row[CleanedImages.source_key]).rsplit("/", 1)[-1]
        image_id, image = row[CleanedImages.image_id], ""
        if row[CleanedImages.width] and isinstance(image_id, str):
            try:
                pixels = decode(lake.store.get(raw_key(image_id)))
                image = as_base64(thumbnail(pixels, cleaned[:0], {}, side=_SMALL))
            except DataError:
                image = ""
        yield Panel(name, image, str(row[CleanedImages.reason]))


def _findings(lake: Lake, round_id: str) -> Iterator[Panel]:
    findings = lake.tables.read_rounds(ModelErrors, [round_id])
    if findings.empty:
        return
    # The training set holds the labels of all rounds and is the largest table.
    truth = lake.tables.read_rounds(TrainingSet, [round_id])
    is_labelled = findings[ModelErrors.image_id].isin(truth[TrainingSet.image_id])
    for row in worst_findings(findings[is_labelled], _FINDINGS):
        try:
            image = next(error_images([row], truth, lake.image, side=_SMALL))
        except DataError:
            continue
        yield Panel(finding_title(row), as_base64(image), str(row[ModelErrors.image_id])[:SHORT_ID])
