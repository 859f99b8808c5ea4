"""Whether annotators work as fast as in the rounds before.

Each annotator is compared with their own earlier annotations, so a change in who annotates is not
a change of pace. Annotations with and without pre-annotations are compared separately, because
checking is faster than drawing. Single annotations that were too fast are found by
``consensus/anomalies.py``.
"""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from annotation_platform.consensus.anomalies import annotations_with_regions
from annotation_platform.curation.drift import Compared, compare_numbers, holm
from annotation_platform.schema.tables import AnnotatorPace, Frame

_LEAST_ANNOTATIONS = 8
"""Least annotations on each side: with fewer only absurd differences are significant."""
_FEATURES = {"annotation": "seconds per annotation", "label": "seconds per label"}


@dataclass(frozen=True)
class PaceChanges:
    """The change of pace of each annotator."""

    table: Frame[AnnotatorPace]

    @property
    def changed(self) -> list[str]:
        """A phrase for each change, the largest first."""
        rows = self.table[self.table[AnnotatorPace.drifted]]
        rows = rows.sort_values(AnnotatorPace.effect, ascending=False)
        columns = [AnnotatorPace.annotator, AnnotatorPace.detail, AnnotatorPace.pre_annotated]
        return [
            f"{annotator} {detail} {'with' if shown else 'without'} pre-annotations"
            for annotator, detail, shown in rows[columns].itertuples(index=False)
        ]

    @property
    def sentence(self) -> str:
        """The changes as a sentence."""
        annotators = self.table[AnnotatorPace.annotator].nunique()
        if not annotators:
            return "No annotator has enough annotations, in this round and before, to compare pace."
        if not self.changed:
            return f"{annotators} annotators work as fast as before."
        return f"Some of {annotators} annotators changed their pace: {'; '.join(self.changed)}."


def measure_pace(
    round_id: str,
    human_labels: pd.DataFrame,
    earlier: pd.DataFrame,
    *,
    level: float = 0.01,
    minimum_effect: float = 0.25,
) -> PaceChanges:
    """Return how the seconds that each annotator takes differ from those of earlier rounds.

    Seconds per annotation and per label are compared; one label is added for the time to view the
    image. The effect, 0 to 1, is the Kolmogorov-Smirnov distance of the two distributions, with an
    annotation as the unit. A change counts if it is significant (Holm's correction over all
    comparisons of the round) and large enough to matter. An annotator with fewer than eight
    annotations of a kind on either side is not compared.

    Args:
        round_id: of the new annotations.
        human_labels: of the round.
        earlier: the ``human_labels`` of earlier rounds.
        level: probability of a false alarm for a whole round.
        minimum_effect: a smaller difference is not a change, however significant.
    """
    ours, theirs = _paces(human_labels), _paces(earlier)
    before = dict(iter(theirs.groupby(["annotator", "pre_annotated"])))
    rows: list[dict[str, object]] = []
    compared: list[Compared] = []
    for key, now in ours.groupby(["annotator", "pre_annotated"], sort=True):
        then = before.get(key)
        if then is None or min(len(now), len(then)) < _LEAST_ANNOTATIONS:
            continue
        group = {"annotator": key[0], "pre_annotated": key[1]}
        size = {"annotations": len(now), "earlier_annotations": len(then)}
        for feature, caption in _FEATURES.items():
            found = compare_numbers(caption, now[feature], then[feature])
            compared.append(found)
            row = {**asdict(found), "feature": feature}
            rows.append({"round_id": round_id, **group, **row, **size})
    sure = holm(np.array([found.p_value for found in compared]), level)
    for row, found, certain in zip(rows, compared, sure.tolist(), strict=True):
        row["drifted"] = certain and found.effect >= minimum_effect
    return PaceChanges(AnnotatorPace.from_rows(rows))


def _paces(human_labels: pd.DataFrame) -> pd.DataFrame:
    """Return a row per timed annotation: annotator, whether it had pre-annotations, seconds."""
    annotations = annotations_with_regions(human_labels)
    seconds = annotations["lead_time_seconds"]
    paces = pd.DataFrame(
        {
            "annotator": annotations["annotator"],
            "pre_annotated": annotations["weights_sha256"] != "",
            "annotation": seconds,
            "label": seconds / (annotations["regions"] + 1),
        }
    )
    return paces[seconds.notna()]
