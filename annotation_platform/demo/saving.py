"""Time saved by pre-annotations: the same annotators on the same images, with and without them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from annotation_platform.consensus.agreement import pooled_f1
from annotation_platform.consensus.resolve import resolve_consensus
from annotation_platform.demo.annotators import (
    SimulatedAnnotation,
    SimulatedPerson,
    annotation_rng,
    simulate_annotation,
)
from annotation_platform.demo.crowd import sizes_of
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.shapes import NOTHING, UPRIGHT_BOXES
from annotation_platform.schema.tables import (
    AnnotatorQuality,
    CleanedImages,
    ConsensusLabels,
    Frame,
    HumanLabels,
    records,
)


@dataclass(frozen=True)
class Saving:
    """Annotators' seconds in a round and the F1 of their consensus at IoU 0.5, before any review.

    Some annotations of every round are made without predictions, to estimate label errors and to
    measure anchoring. These save no time, so the others are also counted separately.
    """

    seconds: float
    seconds_without: float  # without any pre-annotation in the round
    seconds_shown: float  # of the annotations that began from pre-annotations
    seconds_shown_without: float
    f1: float
    f1_without: float

    @property
    def share(self) -> float:
        """Share of the seconds saved, at most 1; negative if pre-annotations cost time."""
        return _saved_share(self.seconds, self.seconds_without)

    @property
    def share_shown(self) -> float:
        """The same share for the annotations that began from pre-annotations."""
        return _saved_share(self.seconds_shown, self.seconds_shown_without)


def measure_saving(
    human_labels: Frame[HumanLabels],
    people: Mapping[str, SimulatedPerson],
    truth: Dataset,
    *,
    images: Frame[CleanedImages],
    quality: Frame[AnnotatorQuality],
    iou_threshold: float,
    seed: int,
) -> Saving:
    """Return the time that pre-annotations saved in a round, and their effect on its labels.

    Each annotation is simulated a second time without pre-annotations. The same random numbers
    give the same perception of an image, so nothing else differs.

    Args:
        human_labels: labels of the round.
        people: annotators by pseudonym.
        truth: ground truth by image id.
        images: ``cleaned_images`` rows of its images.
        quality: ``annotator_quality`` of the round; both consensus runs use the same weights.
        iou_threshold: IoU threshold of the consensus.
        seed: random seed of the first simulation.
    """
    annotations = human_labels.drop_duplicates(HumanLabels.annotation_id)
    without = _without_predictions(annotations, people, truth, seed=seed)
    labelled_truth = truth.labels[truth.labels["image_id"].isin(annotations[HumanLabels.image_id])]

    def f1(labels: Frame[HumanLabels]) -> float:
        resolved = resolve_consensus(
            labels[labels[HumanLabels.purpose] == "label"],
            iou_threshold=iou_threshold,
            ontology=truth.ontology,
            images=images,
            quality=quality,
        ).labels
        return pooled_f1(
            resolved[resolved[ConsensusLabels.shape].isin(UPRIGHT_BOXES)], labelled_truth
        )

    shown = annotations[~annotations[HumanLabels.without_predictions]]
    repeated = without.drop_duplicates(HumanLabels.annotation_id)
    is_shown = repeated[HumanLabels.annotation_id].isin(shown[HumanLabels.annotation_id])
    return Saving(
        seconds=_seconds(annotations),
        seconds_without=_seconds(repeated),
        seconds_shown=_seconds(shown),
        seconds_shown_without=_seconds(repeated[is_shown]),
        f1=f1(human_labels),
        f1_without=f1(without),
    )


def _without_predictions(
    annotations: Frame[HumanLabels],
    people: Mapping[str, SimulatedPerson],
    truth: Dataset,
    *,
    seed: int,
) -> Frame[HumanLabels]:
    """Return the labels of the same annotations, simulated without pre-annotations."""
    known = {str(key): rows for key, rows in truth.labels.groupby("image_id")}
    sizes = sizes_of(truth)
    rows: list[dict[str, object]] = []
    for row in records(annotations):
        image_id = str(row[HumanLabels.image_id])
        person = people[str(row[HumanLabels.annotator])]
        width, height = sizes[image_id]
        repeated = simulate_annotation(
            person,
            known.get(image_id, truth.labels.head(0)),
            width=width,
            height=height,
            ontology=truth.ontology,
            rng=annotation_rng(person, image_id, seed=seed),
        )
        rows += _label_rows(row, repeated)
    return HumanLabels.from_rows(rows)


def _seconds(annotations: Frame[HumanLabels]) -> float:
    return float(annotations[HumanLabels.lead_time_seconds].sum())


def _saved_share(seconds: float, without: float) -> float:
    return 1.0 - seconds / without if without else 0.0


def _label_rows(
    counted: dict[str, object], repeated: SimulatedAnnotation
) -> list[dict[str, object]]:
    """Return the ``human_labels`` rows of an annotation that replaces a counted one."""
    return [
        {
            **counted,
            **asdict(label),
            HumanLabels.label_id: f"{counted[HumanLabels.annotation_id]}:{number:04d}",
            HumanLabels.lead_time_seconds: repeated.lead_time_seconds,
            HumanLabels.without_predictions: True,
        }
        for number, label in enumerate(repeated.labels or [NOTHING])
    ]
