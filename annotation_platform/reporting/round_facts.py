"""The figures of a round: arrivals, annotations, manual effort, label errors, the model."""

import math
from collections import Counter
from dataclasses import dataclass

import pandas as pd

from annotation_platform.consensus.agreement import pairwise_agreement
from annotation_platform.curation.error_bars import ALL
from annotation_platform.curation.imported import PEOPLE
from annotation_platform.curation.label_issues import with_suspects
from annotation_platform.ingestion.rounds import RoundManifests
from annotation_platform.reporting.manual_effort import (
    ManualEffort,
    manual_effort_of,
    minutes_of,
    published_labels,
)
from annotation_platform.schema.tables import (
    AnnotatorQuality,
    BatchDrift,
    CleanedImages,
    Conflicts,
    ConsensusLabels,
    DatasetVersions,
    ErrorBars,
    Frame,
    HumanLabels,
    LabelIssues,
    ModelErrors,
    ModelEvaluations,
    ModelSlices,
    ReviewedLabels,
    ReviewTasks,
    RoundReports,
    Table,
    records,
)
from annotation_platform.schema.tables.shared import Outcome, ReviewDecision
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.round_tables import RoundTables


@dataclass(frozen=True)
class Trend:
    """A figure over the rounds so far; NaN for a round without it."""

    title: str
    note: str
    values: dict[str, float]
    is_share: bool  # a share from 0 to 1; otherwise any number from 0

    @property
    def is_known(self) -> bool:
        """Whether any round has the figure."""
        return any(not math.isnan(value) for value in self.values.values())


@dataclass(frozen=True)
class RoundFacts:
    """The figures of a round; those of later stages are empty, zero or NaN."""

    round_id: str
    outcomes: dict[str, int]  # accepted, duplicate, quarantined
    reasons: dict[str, int]  # reasons for quarantine, the most frequent first
    drifted: list[str]  # features in which the images differ, as phrases
    annotations: int
    people: list[dict[str, object]]  # rows of annotator_quality, the weakest first
    agreement: float
    agreement_by_class: dict[str, tuple[int, float]]  # labels, mean share of the class
    conflicts: dict[str, int]
    unsettled: int  # conflicts that no rule settled
    undecided: int  # images without a decision
    manual_effort: list[ManualEffort]
    labels: int  # labels that may be published
    issues: int  # labels that are probably wrong or missing
    label_error: tuple[float, float, float]  # rate, low, high
    sampled_labels: int  # reviewed labels behind that rate
    model: dict[str, object]  # the row of model_evaluation, or empty
    findings: dict[str, int]  # errors of the model, by kind
    slices: list[dict[str, object]]  # rows of model_slices, the weakest first
    version: str
    images_in_version: int

    @property
    def actions(self) -> int:
        """Number of manual actions."""
        return sum(each.actions for each in self.manual_effort)

    @property
    def minutes(self) -> float:
        """Minutes of manual effort; NaN if none were measured."""
        return minutes_of(self.manual_effort)

    @property
    def seconds_per_label(self) -> float:
        """Seconds of manual effort per label that may be published."""
        return self.minutes * 60 / self.labels if self.labels else math.nan


def round_facts(lake: Lake, round_id: str) -> RoundFacts:
    """Return the figures of a round, finished or not; raise a DataError if it does not exist."""
    RoundManifests(lake.store).read(round_id)

    def rows(table: type[Table]) -> pd.DataFrame:
        return lake.tables.read_rounds(table, [round_id])

    cleaned, labels, reviewed = (
        rows(table) for table in (CleanedImages, HumanLabels, ReviewedLabels)
    )
    conflicts = open_conflicts(lake.tables, round_id)
    drift, version = (rows(table) for table in (BatchDrift, DatasetVersions))
    drift = drift[drift[BatchDrift.drifted]]
    quarantined = cleaned[cleaned[CleanedImages.outcome] == Outcome.QUARANTINED]
    undecided = reviewed[reviewed[ReviewedLabels.decision] == ReviewDecision.UNDECIDED]
    label_error, sampled_labels = label_error_of(rows(ErrorBars))
    return RoundFacts(
        round_id=round_id,
        outcomes=_counted(cleaned[CleanedImages.outcome]),
        # The measured value after the colon differs from image to image.
        reasons=_counted(quarantined[CleanedImages.reason].str.split(":").str[0]),
        drifted=[f"{row[BatchDrift.feature]}: {row[BatchDrift.detail]}" for row in records(drift)],
        annotations=labels[HumanLabels.annotation_id].nunique(),
        people=records(rows(AnnotatorQuality).sort_values(AnnotatorQuality.quality, kind="stable")),
        agreement=pairwise_agreement(labels) if len(labels) else math.nan,
        agreement_by_class=_by_class(rows(ConsensusLabels)),
        conflicts=_counted(conflicts[Conflicts.kind]),
        unsettled=int((~conflicts[Conflicts.settled].astype(bool)).sum()),
        undecided=int(undecided[ReviewedLabels.image_id].nunique()),
        manual_effort=manual_effort_of(lake, round_id),
        labels=published_labels(reviewed),
        issues=len(rows(LabelIssues)),
        label_error=label_error,
        sampled_labels=sampled_labels,
        model=next(iter(records(rows(ModelEvaluations))), {}),
        findings=_counted(rows(ModelErrors)[ModelErrors.kind]),
        slices=records(rows(ModelSlices).sort_values(ModelSlices.rank, kind="stable")),
        version="".join(version[DatasetVersions.version]),
        images_in_version=int(version[DatasetVersions.images].sum()),
    )


def open_conflicts(tables: RoundTables, round_id: str) -> Frame[Conflicts]:
    """Return the ``conflicts`` of a round and the issues for which images are under review.

    Lakes of v0.1.0 hold these issues in the table itself; they are counted once.
    """
    conflicts, issues, consensus, tasks = (
        tables.read_rounds(table, [round_id])
        for table in (Conflicts, LabelIssues, ConsensusLabels, ReviewTasks)
    )
    is_suspect = tasks[ReviewTasks.kinds].str.contains("suspected ")
    under_review = tasks.loc[is_suspect, ReviewTasks.image_id]
    return with_suspects(
        conflicts, issues[issues[LabelIssues.image_id].isin(under_review)], consensus
    )


def _counted(values: "pd.Series[str]") -> dict[str, int]:
    return {str(key): int(count) for key, count in Counter(values.dropna()).most_common()}


def label_error_of(bars: Frame[ErrorBars]) -> tuple[tuple[float, float, float], int]:
    """Return the share of wrong human labels with its interval, and the number of labels sampled.

    Without a sample the rate is NaN, its interval is 0 to 1 and the number is 0.
    """
    overall = bars[(bars[ErrorBars.class_name] == ALL) & (bars[ErrorBars.origin] == PEOPLE)]
    if overall.empty:
        return (math.nan, 0.0, 1.0), 0
    bar = overall.iloc[0]
    rate, low, high = (float(bar[name]) for name in (ErrorBars.rate, ErrorBars.low, ErrorBars.high))
    return (rate, low, high), int(bar[ErrorBars.reviewed])


def _by_class(consensus: Frame[ConsensusLabels]) -> dict[str, tuple[int, float]]:
    """Return, by class, the labels of several annotators and the mean share that chose it."""
    is_shared = consensus[ConsensusLabels.support] > 1
    is_known = consensus[ConsensusLabels.class_agreement].notna()
    shares = consensus[is_shared & is_known].groupby(ConsensusLabels.class_name)[
        ConsensusLabels.class_agreement
    ]
    return {str(name): (len(each), float(each.mean())) for name, each in shares}


def round_trends(lake: Lake, facts: RoundFacts) -> list[Trend]:
    """Return the trends over all rounds up to this one."""
    so_far = [key for key in RoundManifests(lake.store).rounds() if key <= facts.round_id]
    reports = lake.tables.read_rounds(RoundReports, so_far).set_index(RoundReports.round_id)
    labels = reports[RoundReports.labels]
    per_label = reports[RoundReports.minutes] * 60 / labels.where(labels > 0)

    def over_rounds(figures: "pd.Series[float]") -> dict[str, float]:
        return {key: float(figures.get(key, math.nan)) for key in so_far}

    return [
        Trend("Agreement", "mean F1 between pairs of annotators",
              over_rounds(reports[RoundReports.agreement]), True),
        Trend("Seconds per label", "manual effort, annotations and reviews",
              over_rounds(per_label) | {facts.round_id: facts.seconds_per_label}, False),
        Trend("Wrong labels", "estimated share of the undisputed labels",
              over_rounds(reports[RoundReports.label_error]), True),
        Trend("Model", "mAP at IoU 0.5, on the test images of each round",
              over_rounds(reports[RoundReports.model_map50]), True),
    ]  # fmt: skip
