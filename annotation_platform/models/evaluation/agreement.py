"""How far a model's proposals agree with what people then said of the same images."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.labeling.tasks import shown_predictions
from annotation_platform.models.evaluation.findings import matched_images
from annotation_platform.models.evaluation.matches import CONFIDENCE, draw_images, interval
from annotation_platform.schema.dataset import IMAGE_COLUMNS, LABEL_COLUMNS, Dataset
from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import AREAS, CLASSIFICATIONS, UPRIGHT_BOXES
from annotation_platform.schema.tables import ModelAgreement

ALL_CLASSES = ""
_SEED = 20_140_501
_EARLIER = 3


@dataclass(frozen=True)
class AgreementDrop:
    """The last round's agreement against that of the rounds before it."""

    dropped: bool  # by more than chance would
    difference: float  # last F1 less the earlier ones' mean; missing: nothing to compare
    sentence: str


def model_agreement(
    round_id: str,
    predictions: pd.DataFrame,
    consensus_labels: pd.DataFrame,
    human_labels: pd.DataFrame,
    *,
    ontology: Ontology,
    minimum_score: float,
) -> pd.DataFrame:
    """Return the ``model_agreement`` of a round: F1 at IoU 0.5 by class, with its interval.

    A choice agrees with the same choice; where one is chosen, the likeliest is what is proposed.
    People who saw the proposals tend to agree with them, so ``blind`` answers, each for itself,
    are compared apart: their figure is what the model would be worth on its own.

    Args:
        round_id: written beside each.
        predictions: ``model_predictions`` of the round.
        consensus_labels: of the round; every image in it is compared, those with nothing too.
        human_labels: of the round; only the blind answers to ordinary tasks are used.
        ontology: its classes are told apart.
        minimum_score: proposals below it were not shown and do not count.
    """
    blind = human_labels[human_labels["blind"] & (human_labels["purpose"] == "label")]
    # Each answer stands for an image of its own, with that image's proposals.
    annotated = blind[["annotation_id", "image_id"]].drop_duplicates()
    repeated = predictions.merge(annotated, on="image_id").assign(
        image_id=lambda t: t["annotation_id"]
    )
    parts = {
        "consensus": (consensus_labels, predictions),
        "blind": (blind.assign(image_id=blind["annotation_id"]), repeated),
    }
    weights = str(predictions["weights_sha256"].iloc[0]) if len(predictions) else ""
    rows = [
        {"round_id": round_id, "annotations": annotations, "weights_sha256": weights, **row}
        for annotations, (labels, proposed) in parts.items()
        for row in _by_class(labels, proposed, ontology, minimum_score)
    ]
    return ModelAgreement.from_rows(rows)


def agreement_drop(history: pd.DataFrame, *, annotations: str = "consensus") -> AgreementDrop:
    """Return whether the last round's F1 over all classes fell below that of those before it.

    It is compared with the mean of up to three earlier rounds, one-sided at 0.05, by a normal
    test whose standard errors come from the intervals. A drop says that the images have changed,
    or the people, or the model; the slices and findings of the round say which.

    Args:
        history: ``model_agreement`` of several rounds.
        answers: consensus or blind.
    """
    own = history[(history["class_name"] == ALL_CLASSES) & (history["annotations"] == annotations)]
    own = own.dropna(subset=["f1", "f1_low", "f1_high"]).sort_values("round_id")
    if len(own) < 2:
        said = f"{len(own)} rounds with proposals and answers; a comparison needs two."
        return AgreementDrop(False, math.nan, said)
    from scipy.special import ndtri

    width = 2 * float(ndtri((1 + CONFIDENCE) / 2))
    errors = ((own["f1_high"] - own["f1_low"]) / width).to_numpy()
    values = own["f1"].to_numpy()
    before = slice(max(0, len(own) - 1 - _EARLIER), len(own) - 1)
    mean = float(values[before].mean())
    error = math.hypot(errors[-1], math.sqrt((errors[before] ** 2).sum()) / len(errors[before]))
    difference = float(values[-1]) - mean
    dropped = difference < -float(ndtri(CONFIDENCE)) * error
    verdict = "a drop beyond chance" if dropped else "no drop beyond chance"
    said = (
        f"{own['round_id'].iloc[-1]}: F1 {values[-1]:.3f} between proposals and people, "
        f"{mean:.3f} in the mean of the {len(errors[before])} rounds before: {verdict}."
    )
    return AgreementDrop(dropped, difference, said)


def _by_class(
    labels: pd.DataFrame, predictions: pd.DataFrame, ontology: Ontology, minimum_score: float
) -> Iterator[dict[str, object]]:
    """Yield the counts and F1 of all classes together and of each that occurs on either side."""
    image_ids = sorted(set(labels["image_id"]))
    if not image_ids:
        return
    images = pd.DataFrame({"image_id": image_ids}).reindex(columns=IMAGE_COLUMNS)
    boxes = labels.loc[labels["shape"].isin(AREAS), LABEL_COLUMNS]
    shown = shown_predictions(predictions, ontology, minimum_score=minimum_score)
    names = list(ontology.names)
    counts = np.zeros((len(image_ids), len(names), 3), dtype=np.int64)
    place = {name: number for number, name in enumerate(names)}
    proposed = shown[shown["shape"].isin(UPRIGHT_BOXES)]
    per_image = matched_images(Dataset(images, boxes, ontology), proposed, minimum_score)
    for number, image in enumerate(per_image):
        for name, found in zip(image.found_classes, image.match >= 0, strict=True):
            if name in place:
                counts[number, place[name], :2] += (int(found), 1)
        for name in image.classes:
            if name in place:
                counts[number, place[name], 2] += 1
    _count_choices(counts, image_ids, place, shown, labels)
    yield _counted(ALL_CLASSES, counts.sum(axis=1))
    for name in names:
        if counts[:, place[name], 1:].any():
            yield _counted(name, counts[:, place[name]])


def _count_choices(
    counts: npt.NDArray[np.int64],
    image_ids: list[str],
    place: dict[str, int],
    shown: pd.DataFrame,
    labels: pd.DataFrame,
) -> None:
    """Add the matched, proposed and labelled choices of each image to ``counts``."""
    row = {image_id: number for number, image_id in enumerate(image_ids)}
    proposed, said = (
        {
            (row[image_id], place[name])
            for image_id, name in its[["image_id", "class_name"]].itertuples(index=False)
            if image_id in row and name in place
        }
        for its in (each[each["shape"].isin(CLASSIFICATIONS)] for each in (shown, labels))
    )
    for column, cells in enumerate((proposed & said, proposed, said)):
        for cell in cells:
            counts[*cell, column] += 1


def _counted(name: str, counts: npt.NDArray[np.int64]) -> dict[str, object]:
    """Return the row of a class from the matched, proposed and labelled boxes of each image."""
    matched, proposals, labels = (int(one) for one in counts.sum(axis=0))
    weights = draw_images(len(counts), np.random.default_rng(_SEED))
    drawn = weights @ counts
    found = interval(_f1(counts.sum(axis=0)[None])[0], _f1(drawn), images=len(counts))
    return {
        "class_name": name,
        "images": len(counts),
        "proposals": proposals,
        "labels": labels,
        "matched": matched,
        "f1": found.value,
        "f1_low": found.low,
        "f1_high": found.high,
    }


def _f1(counts: npt.NDArray[np.int64]) -> FloatArray:
    both = (counts[:, 1] + counts[:, 2]).astype(np.float64)
    result = np.full(len(counts), math.nan)
    np.divide(2.0 * counts[:, 0], both, out=result, where=both > 0)
    return result
