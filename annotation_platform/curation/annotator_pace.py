"""Whether people answer as fast as they did in the rounds before.

Each person is compared with themselves, so that other people, or more of one of them, are no
change; and answers that began from proposals only with such answers, because checking is faster
than drawing. Single answers that were too fast are ``consensus/anomalies.py``'s.
"""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from annotation_platform.consensus.anomalies import annotations_with_regions
from annotation_platform.curation.drift import Compared, compare_numbers, holm
from annotation_platform.schema.tables import AnnotatorPace, Frame

_LEAST_ANNOTATIONS = 8
"""On each side; of fewer a difference that is no chance would have to be absurd."""
_FEATURES = {"answer": "seconds per answer", "label": "seconds per label"}


@dataclass(frozen=True)
class Pace:
    """Person by person how the time they take has changed."""

    table: Frame[AnnotatorPace]

    @property
    def changed(self) -> list[str]:
        """A phrase for each change, the largest first."""
        rows = self.table[self.table["drifted"]].sort_values("effect", ascending=False)
        return [
            f"{who} {detail} {'with' if shown else 'without'} proposals"
            for who, detail, shown in zip(
                rows["annotator"], rows["detail"], rows["proposals"], strict=True
            )
        ]

    @property
    def sentence(self) -> str:
        """The same as a sentence."""
        people = self.table["annotator"].nunique()
        if not people:
            return "Nobody answered enough, in this round and before, to compare how fast."
        if not self.changed:
            return f"{people} people are as fast as they were."
        return f"Of {people} people some are not as fast as before: {'; '.join(self.changed)}."


def measure_pace(
    round_id: str,
    human_labels: pd.DataFrame,
    earlier: pd.DataFrame,
    *,
    level: float = 0.01,
    least_effect: float = 0.25,
) -> Pace:
    """Return how the seconds that each person takes differ from those of earlier rounds.

    Compared are seconds per answer and per label, one label more being counted for the look at
    the image. The effect, 0 to 1, is the largest distance of the two distributions (Kolmogorov
    and Smirnov), an answer being the unit. It counts if chance hardly makes it (Holm's correction
    over all comparisons of the round) and it is large enough to matter. Who gave fewer than eight
    answers of a kind on either side is not compared.

    Args:
        round_id: of the new answers.
        human_labels: its ``human_labels``.
        earlier: those of rounds before it.
        level: chance of a false alarm for a whole round.
        least_effect: a smaller difference is none, however sure.
    """
    ours, theirs = _paces(human_labels), _paces(earlier)
    before = dict(iter(theirs.groupby(["annotator", "proposals"])))
    rows: list[dict[str, object]] = []
    compared: list[Compared] = []
    for key, now in ours.groupby(["annotator", "proposals"], sort=True):
        then = before.get(key)
        if then is None or min(len(now), len(then)) < _LEAST_ANNOTATIONS:
            continue
        who = {"annotator": key[0], "proposals": key[1]}
        size = {"annotations": len(now), "earlier_annotations": len(then)}
        for feature, said in _FEATURES.items():
            found = compare_numbers(said, now[feature], then[feature])
            compared.append(found)
            rows.append({"round_id": round_id, **who, **asdict(found), "feature": feature, **size})
    sure = holm(np.array([found.p_value for found in compared]), level)
    for row, found, certain in zip(rows, compared, sure.tolist(), strict=True):
        row["drifted"] = certain and found.effect >= least_effect
    return Pace(AnnotatorPace.from_rows(rows))


def _paces(human_labels: pd.DataFrame) -> pd.DataFrame:
    """Return a row per timed answer: who, whether it began from proposals, and its seconds."""
    annotations = annotations_with_regions(human_labels)
    seconds = annotations["lead_time_seconds"]
    paces = pd.DataFrame(
        {
            "annotator": annotations["annotator"],
            "proposals": annotations["weights_sha256"] != "",
            "answer": seconds,
            "label": seconds / (annotations["regions"] + 1),
        }
    )
    return paces[seconds.notna()]
