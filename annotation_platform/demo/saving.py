"""What proposals spared people: the same people on the same images, with and without them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import pandas as pd

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
from annotation_platform.schema.tables import HumanLabels, records


@dataclass(frozen=True)
class Saving:
    """People's seconds in a round and the F1 of their consensus at IoU 0.5, before any review.

    Some answers of every round are blind, to audit the labels and to measure anchoring; on them
    nothing can be spared, so the others are counted apart, too.
    """

    seconds: float
    seconds_without: float  # had nothing been proposed
    seconds_beside: float  # of answers that were given beside proposals
    seconds_beside_without: float
    f1: float
    f1_without: float

    @property
    def share(self) -> float:
        """The share of the seconds that was spared, at most 1; negative: proposals cost time."""
        return _spared(self.seconds, self.seconds_without)

    @property
    def share_beside(self) -> float:
        """The same share of the answers that were given beside proposals."""
        return _spared(self.seconds_beside, self.seconds_beside_without)


def measure_saving(
    human_labels: pd.DataFrame,
    people: Mapping[str, SimulatedPerson],
    truth: Dataset,
    *,
    images: pd.DataFrame,
    quality: pd.DataFrame,
    iou_threshold: float,
    seed: int,
) -> Saving:
    """Return what the proposals of a round spared, and what they did to its labels.

    Everybody answers again what they answered, without proposals; as the same randomness gives
    the same sight of an image, nothing else differs.

    Args:
        human_labels: of the round.
        people: who answered, by pseudonym.
        truth: what is really in the images, by image id.
        images: their ``cleaned_images`` rows.
        quality: the round's ``annotator_quality``; people weigh the same in both.
        iou_threshold: of the consensus.
        seed: with which they answered.
    """
    known = {str(key): rows for key, rows in truth.labels.groupby("image_id")}
    sizes = sizes_of(truth)
    said = human_labels.drop_duplicates("annotation_id")
    rows: list[dict[str, object]] = []
    for one in records(said):
        image_id, person = str(one["image_id"]), people[str(one["annotator"])]
        width, height = sizes[image_id]
        bare = simulate_annotation(
            person,
            known.get(image_id, truth.labels.head(0)),
            width=width,
            height=height,
            ontology=truth.ontology,
            rng=annotation_rng(person, image_id, seed=seed),
        )
        rows += _label_rows(one, bare)
    without = HumanLabels.from_rows(rows)
    asked = truth.labels[truth.labels["image_id"].isin(said["image_id"])]

    def f1(labels: pd.DataFrame) -> float:
        resolved = resolve_consensus(
            labels[labels["purpose"] == "label"],
            iou_threshold=iou_threshold,
            ontology=truth.ontology,
            images=images,
            quality=quality,
        ).labels
        return pooled_f1(resolved[resolved["shape"].isin(UPRIGHT_BOXES)], asked)

    bare_said = without.drop_duplicates("annotation_id")
    beside = said[~said["blind"]]
    bare_beside = bare_said[bare_said["annotation_id"].isin(beside["annotation_id"])]
    return Saving(
        seconds=float(said["lead_time_seconds"].sum()),
        seconds_without=float(bare_said["lead_time_seconds"].sum()),
        seconds_beside=float(beside["lead_time_seconds"].sum()),
        seconds_beside_without=float(bare_beside["lead_time_seconds"].sum()),
        f1=f1(human_labels),
        f1_without=f1(without),
    )


def _spared(seconds: float, without: float) -> float:
    return 1.0 - seconds / without if without else 0.0


def _label_rows(counted: dict[str, object], said: SimulatedAnnotation) -> list[dict[str, object]]:
    """Return the ``human_labels`` rows of an answer that stands in the place of a counted one."""
    return [
        {
            **counted,
            **asdict(label),
            "label_id": f"{counted['answer_id']}:{number:04d}",
            "lead_time_seconds": said.lead_time_seconds,
            "blind": True,
        }
        for number, label in enumerate(said.labels or [NOTHING])
    ]
