"""What is to be told of a round: what came in, what people did, what came out, what is next."""

import math
from collections import Counter
from dataclasses import dataclass

import pandas as pd

from annotation_platform.consensus.agreement import pairwise_agreement
from annotation_platform.curation.error_bars import ALL
from annotation_platform.curation.imported import PEOPLE
from annotation_platform.ingestion.rounds import RoundManifests
from annotation_platform.reporting.manual_effort import (
    ManualEffort,
    manual_effort_of,
    minutes_of,
    published_labels,
)
from annotation_platform.reporting.open_conflicts import open_conflicts
from annotation_platform.schema.tables import (
    AnnotatorQuality,
    BatchDrift,
    CleanedImages,
    ConsensusLabels,
    DatasetVersions,
    ErrorBars,
    HumanLabels,
    LabelIssues,
    ModelEvaluations,
    ModelFindings,
    ModelSlices,
    ReviewedLabels,
    RoundReports,
    Table,
    records,
)
from annotation_platform.storage.lake import Lake


@dataclass(frozen=True)
class Trend:
    """A figure over the rounds so far; a round without it has no number."""

    title: str
    note: str
    values: dict[str, float]
    is_share: bool  # 0 to 1, else any number from 0

    @property
    def is_known(self) -> bool:
        """Whether any round has the figure."""
        return any(not math.isnan(value) for value in self.values.values())


@dataclass(frozen=True)
class RoundFacts:
    """A round in figures; what did not happen yet is empty, zero or no number."""

    round_id: str
    outcomes: dict[str, int]  # accepted, duplicate, quarantined
    reasons: dict[str, int]  # why things are in quarantine, most frequent first
    drifted: list[str]  # what the batch differs in, as sentences
    annotations: int
    people: list[dict[str, object]]  # rows of annotator_quality, the weakest first
    agreement: float
    agreement_by_class: dict[str, tuple[int, float]]  # labels, mean share who chose the class
    conflicts: dict[str, int]
    unsettled: int  # conflicts that no rule settled
    undecided: int  # images that nobody decided about
    manual_effort: list[ManualEffort]
    labels: int  # as they may be published
    issues: int  # labels that are probably wrong, and objects that probably lack one
    label_error: tuple[float, float, float]  # rate, low, high
    audited: int  # labels that rate rests on
    model: dict[str, object]  # the row of model_evaluation, or nothing
    findings: dict[str, int]  # what the model got wrong, by kind
    slices: list[dict[str, object]]  # rows of model_slices, the weakest first
    version: str
    images_in_version: int

    @property
    def touches(self) -> int:
        """How often somebody did something by hand."""
        return sum(each.touches for each in self.manual_effort)

    @property
    def minutes(self) -> float:
        """Minutes of people's time; not a number where nobody measured any."""
        return minutes_of(self.manual_effort)

    @property
    def seconds_a_label(self) -> float:
        """Seconds of people's time for each label that may be published."""
        return self.minutes * 60 / self.labels if self.labels else math.nan


def round_facts(lake: Lake, round_id: str) -> RoundFacts:
    """Return the facts of a round, finished or not; a DataError if there is no such round."""
    RoundManifests(lake.store).read(round_id)

    def rows(table: type[Table]) -> pd.DataFrame:
        return lake.tables.read_rounds(table, [round_id])

    cleaned, said, reviewed = (
        rows(table) for table in (CleanedImages, HumanLabels, ReviewedLabels)
    )
    conflicts = open_conflicts(lake.tables, round_id)
    drift, version = (rows(table) for table in (BatchDrift, DatasetVersions))
    quarantined = cleaned[cleaned["outcome"] == "quarantined"]
    label_error, audited = label_error_of(rows(ErrorBars))
    return RoundFacts(
        round_id=round_id,
        outcomes=_counted(cleaned["outcome"]),
        # The measured value behind a reason differs from image to image.
        reasons=_counted(quarantined["reason"].str.split(":").str[0]),
        drifted=[f"{row['feature']}: {row['detail']}" for row in records(drift[drift["drifted"]])],
        annotations=said["annotation_id"].nunique(),
        people=records(rows(AnnotatorQuality).sort_values("quality", kind="stable")),
        agreement=pairwise_agreement(said) if len(said) else math.nan,
        agreement_by_class=_by_class(rows(ConsensusLabels)),
        conflicts=_counted(conflicts["kind"]),
        unsettled=int((~conflicts["settled"].astype(bool)).sum()),
        undecided=int(reviewed.loc[reviewed["decision"] == "undecided", "image_id"].nunique()),
        manual_effort=manual_effort_of(lake, round_id),
        labels=published_labels(reviewed),
        issues=len(rows(LabelIssues)),
        label_error=label_error,
        audited=audited,
        model=next(iter(records(rows(ModelEvaluations))), {}),
        findings=_counted(rows(ModelFindings)["kind"]),
        slices=records(rows(ModelSlices).sort_values("rank", kind="stable")),
        version="".join(version["version"]),
        images_in_version=int(version["images"].sum()),
    )


def _counted(values: "pd.Series[str]") -> dict[str, int]:
    return {str(key): int(count) for key, count in Counter(values.dropna()).most_common()}


def label_error_of(bars: pd.DataFrame) -> tuple[tuple[float, float, float], int]:
    """Return the share of people's labels that is wrong, its interval, and on how many it rests."""
    overall = bars[(bars["class_name"] == ALL) & (bars["origin"] == PEOPLE)]
    if overall.empty:
        return (math.nan, 0.0, 1.0), 0
    bar = overall.iloc[0]
    return (float(bar["rate"]), float(bar["low"]), float(bar["high"])), int(bar["audited"])


def _by_class(consensus: pd.DataFrame) -> dict[str, tuple[int, float]]:
    """Return of each class how many labels several people saw, and how far they agreed on it."""
    several = consensus[(consensus["support"] > 1) & consensus["class_agreement"].notna()]
    shares = several.groupby("class_name")["class_agreement"]
    return {str(name): (len(each), float(each.mean())) for name, each in shares}


def round_trends(lake: Lake, facts: RoundFacts) -> list[Trend]:
    """Return the figures of all rounds up to this one."""
    so_far = [key for key in RoundManifests(lake.store).rounds() if key <= facts.round_id]
    reports = lake.tables.read_rounds(RoundReports, so_far).set_index("round_id")
    per_label = reports["minutes"] * 60 / reports["labels"].where(reports["labels"] > 0)

    def over_rounds(figures: "pd.Series[float]") -> dict[str, float]:
        return {key: float(figures.get(key, math.nan)) for key in so_far}

    return [
        Trend("Agreement", "mean F1 between two people", over_rounds(reports["agreement"]), True),
        Trend("Seconds a label", "of people's time, answers and reviews",
              over_rounds(per_label) | {facts.round_id: facts.seconds_a_label}, False),
        Trend("Wrong labels", "estimated share of the undisputed",
              over_rounds(reports["label_error"]), True),
        Trend("Model", "mAP at IoU 0.5, test images of then",
              over_rounds(reports["model_map50"]), True),
    ]  # fmt: skip
