"""Evaluation of a classifier on test images, and the decision on its promotion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.consensus.intervals import clustered_share, share_interval
from annotation_platform.errors import DataError
from annotation_platform.models.classification.calibration import Choose
from annotation_platform.models.evaluation.matches import (
    Interval,
    draw_images,
    f1_scores,
    interval,
)
from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import CLASSIFICATIONS
from annotation_platform.schema.tables import ClassificationFigures, Frame, TrainingSet

BoolArray = npt.NDArray[np.bool_]

ALL_CLASSES = ""
PREDICTED_FROM = 0.5
"""Where any number of classes can hold, those of this probability or more are predicted."""
_SEED = 20_140_501
_DRAWS = 2000


@dataclass(frozen=True)
class ClassificationTruth:
    """The labelled classes of ``N`` images, of ``C`` classes in all."""

    image_ids: Sequence[str]  # N, sorted
    class_names: Sequence[str]  # C, in the order of the ontology
    chosen: BoolArray  # (N, C)
    choose: Choose

    @classmethod
    def from_labels(cls, labels: pd.DataFrame, ontology: Ontology) -> "ClassificationTruth":
        """Return the classifications among the labels of a training set.

        Images without a classification are left out: their tasks may not have asked for one. Where
        one class holds, images with several are left out too: their labels are from a time when
        the ontology allowed any number.

        Args:
            labels: rows of ``training_set``; ``image_id``, ``shape`` and ``class_name`` are used.
            ontology: its classifications.
        """
        names = ontology.choices
        known = labels[TrainingSet.class_name].isin(names)
        found = labels[labels[TrainingSet.shape].isin(CLASSIFICATIONS) & known]
        found = found.drop_duplicates([TrainingSet.image_id, TrainingSet.class_name])
        if ontology.choose == "one":
            found = found[~found[TrainingSet.image_id].duplicated(keep=False)]
        images = sorted(found[TrainingSet.image_id].unique())
        chosen = np.zeros((len(images), len(names)), dtype=bool)
        rows = pd.Index(images, dtype="str").get_indexer(pd.Index(found[TrainingSet.image_id]))
        chosen[rows, [names.index(name) for name in found[TrainingSet.class_name]]] = True
        return cls(images, names, chosen, ontology.choose)

    def names_of(self, row: int) -> tuple[str, ...]:
        """Return the labelled classes of an image."""
        return tuple(self.class_names[column] for column in np.flatnonzero(self.chosen[row]))


@dataclass(frozen=True)
class ClassificationEvaluation:
    """A classifier's predictions for the images of a truth."""

    truth: ClassificationTruth = field(repr=False)
    predicted: BoolArray = field(repr=False)  # (N, C)

    @property
    def images(self) -> int:
        """The number of images."""
        return len(self.truth.image_ids)

    @property
    def right(self) -> BoolArray:
        """``(N,)``, whether the predicted classes of an image are exactly the labelled ones."""
        return np.asarray((self.predicted == self.truth.chosen).all(axis=1), dtype=np.bool_)

    @property
    def accuracy(self) -> Interval:
        """The share of images that are right, with its 95 % interval (Clopper and Pearson's)."""
        share = clustered_share(self.right, np.arange(self.images))
        ends = share_interval(share)
        return Interval(share.share, ends.low, ends.high)


def evaluate_classifications(
    truth: ClassificationTruth, probabilities: FloatArray
) -> ClassificationEvaluation:
    """Return the predictions that ``(N, C)`` probabilities give.

    They are the most probable class where one holds, and else those of ``PREDICTED_FROM`` or more.
    An image with a probability that is not finite has no prediction.
    """
    sound = np.asarray(np.isfinite(probabilities).all(axis=1, keepdims=True))
    if truth.choose == "many":
        predicted = probabilities >= PREDICTED_FROM
    else:
        predicted = np.zeros(truth.chosen.shape, dtype=bool)
        best = np.where(np.isfinite(probabilities), probabilities, -1.0).argmax(axis=1)
        predicted[np.arange(len(best)), best] = True
    return ClassificationEvaluation(truth, np.asarray(predicted & sound, dtype=np.bool_))


def classification_figures(
    round_id: str, weights: str, found: ClassificationEvaluation
) -> Frame[ClassificationFigures]:
    """Return the ``classification_figures`` of a round: of all classes, then of each that occurs.

    The F1 of all classes is that of their summed counts; intervals come from draws of images.
    """
    accuracy = found.accuracy
    drawn = draw_images(found.images, np.random.default_rng(_SEED))
    chosen = found.truth.chosen
    both = chosen & found.predicted
    counts = np.stack([both, found.predicted, chosen]).astype(np.int64)  # (3, N, C)
    rows = [
        _figures(ALL_CLASSES, counts.sum(axis=2), drawn)
        | {"accuracy": accuracy.value, "accuracy_low": accuracy.low, "accuracy_high": accuracy.high}
    ]
    for column, name in enumerate(found.truth.class_names):
        if counts[1:, :, column].any():
            share = clustered_share(
                found.predicted[chosen[:, column], column], np.flatnonzero(chosen[:, column])
            )
            ends = share_interval(share)
            rows.append(
                _figures(name, counts[:, :, column], drawn)
                | {"accuracy": share.share, "accuracy_low": ends.low, "accuracy_high": ends.high}
            )
    same = {"round_id": round_id, "weights_sha256": weights, "images": found.images}
    return ClassificationFigures.from_rows([{**same, **row} for row in rows])


@dataclass(frozen=True)
class ClassifierPromotion:
    """Whether the new classifier is promoted, and the reason as a sentence."""

    promoted: bool
    reason: str
    difference: Interval | None = None  # of the accuracies, to the decisive model


def promote_classifier(
    new: ClassificationEvaluation,
    before: Mapping[str, ClassificationEvaluation],
    *,
    later: str = "",
) -> ClassifierPromotion:
    """Return whether ``new`` is promoted: it is not worse than any ``before``, beyond chance.

    The rules are those of ``decide_promotion`` for detectors, without the margin: on few images a
    single one exceeds it. Accuracies are compared on the same 2,000 draws of the same images.

    Args:
        new: the candidate.
        before: the promoted classifier and the best so far, by their names in the reason.
        later: which of ``before`` was trained on a later version than ``new``, and is replaced only
            by a better one; empty: none.

    Raises:
        DataError: they come from different images.
    """
    if not before:
        figures = f"accuracy {new.accuracy.value:.3f} on {new.images} test images"
        return ClassifierPromotion(True, f"Promoted: the first classifier, {figures}.")
    differences = {name: _difference(new, other) for name, other in before.items()}
    name = min(differences, key=lambda each: differences[each].value)
    worse = [each for each, found in differences.items() if found.high < 0]
    not_better = bool(later) and differences[later].low <= 0
    if worse:
        name = worse[0]
    elif not_better:
        name = later
    found = differences[name]
    figures = (
        f"accuracy {new.accuracy.value:.3f} against {before[name].accuracy.value:.3f} of {name} on "
        f"the same {new.images} test images (difference {found.value:+.3f}, {found.low:+.3f} to "
        f"{found.high:+.3f})"
    )
    if worse:
        reason = f"Kept the promoted classifier: the new one is worse beyond chance: {figures}."
    elif not_better:
        reason = (
            "Kept the promoted classifier, which is of a later version: the new one is not better "
            f"beyond chance: {figures}."
        )
    else:
        return ClassifierPromotion(True, f"Promoted: {figures}.", found)
    return ClassifierPromotion(False, reason, found)


def _difference(new: ClassificationEvaluation, old: ClassificationEvaluation) -> Interval:
    if list(new.truth.image_ids) != list(old.truth.image_ids):
        raise DataError(
            f"the new classifier was tested on {new.images} images, the other on {old.images} or "
            "on others. Evaluate both on the test split of the same version."
        )
    each = new.right.astype(np.float64) - old.right.astype(np.float64)
    draws = draw_images(new.images, np.random.default_rng(_SEED), draws=_DRAWS)
    # Plain percentiles: a mean has no bias to correct, and on few images many draws are equal.
    low, high = np.quantile(draws @ each / new.images, [0.025, 0.975]).tolist()
    return Interval(float(each.mean()), low, high)


def _figures(
    name: str, counts: npt.NDArray[np.int64], drawn: npt.NDArray[np.int64]
) -> dict[str, object]:
    """Return the counts and the F1 of ``(3, N)`` right, predicted and labelled classes."""
    right, predicted, chosen = (int(each) for each in counts.sum(axis=1))
    images = counts.shape[1]
    total = f1_scores(counts.sum(axis=1)[None])[0]
    f1 = interval(total, f1_scores(drawn @ counts.T), images=images)
    return {
        "class_name": name,
        "labelled": chosen,
        "predicted": predicted,
        "correct": right,
        "f1": f1.value,
        "f1_low": f1.low,
        "f1_high": f1.high,
    }
