"""One turn of the learning loop for choices: train the classifier, test, promote or keep, propose.

Its weights stand in a registry of their own, beside the detector's: one of each is promoted, and
each takes over by its own test.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from annotation_platform.models.cards import ModelCard, policy_digest
from annotation_platform.models.classification.calibration import Temperature, fit_temperature
from annotation_platform.models.classification.classifier import (
    ImageClassifier,
    predict_classifications,
)
from annotation_platform.models.classification.metrics import (
    ClassificationEvaluation,
    ClassificationTruth,
    ClassifierPromotion,
    choice_figures,
    evaluate_classifications,
    promote_classifier,
)
from annotation_platform.models.classification.predictions import PROFILE
from annotation_platform.models.classification.training import (
    ClassificationExample,
    TrainedClassifier,
    train_classifier,
)
from annotation_platform.models.kinds import judge, starting_weights
from annotation_platform.models.network_inputs import ImagePath, image_paths
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.policy import Policy, TrainingPolicy
from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import AREAS
from annotation_platform.schema.tables import ChoiceFigures, Frame

_NO_CLASSIFIER = ClassifierPromotion(False, "")
_NO_TEST_IMAGE = ClassifierPromotion(
    False,
    "Not promoted: no test image has a choice yet, so no classifier can be judged. The test "
    "split grows with every round; label more images, or raise splits.test in params.yaml.",
)


@dataclass(frozen=True)
class TrainedClassifications:
    """The classifier of a round, and what its probabilities mean."""

    trained: TrainedClassifier
    weights_sha256: str
    temperature: Temperature


@dataclass(frozen=True)
class EvaluatedClassifier:
    """How a round's classifier does on the test images, and whether it now proposes."""

    weights_sha256: str  # empty: the round has none
    decision: ClassifierPromotion
    evaluation: ClassificationEvaluation | None  # None: there is no test image, or no classifier
    promoted_accuracy: float | None  # of the one promoted before; None: there is none
    figures: Frame[ChoiceFigures]


def choice_share(train: pd.DataFrame, policy: Policy) -> float:
    """Return which share of the budget of training the classifier gets, 0 to 1.

    Where the train split has choices as well as areas to learn from that is
    ``training.choice_share``, else all or nothing. Images of an ontology without areas teach a
    detector nothing, not even what is background.
    """
    if not policy.ontology.areas:
        return 1.0
    if not ClassificationTruth.of(train, policy.ontology).image_ids:
        return 0.0
    areas = train["shape"].isin(AREAS) & train["class_name"].isin(policy.ontology.areas)
    return policy.training.choice_share if areas.any() else 1.0


def part_of(policy: TrainingPolicy, share: float) -> TrainingPolicy:
    """Return the policy with this share, above 0, of its budget of seconds and of steps."""
    steps = max(1, round(share * policy.steps)) if policy.steps else 0
    return policy.model_copy(update={"cpu_seconds": share * policy.cpu_seconds, "steps": steps})


def train_classifier_round(
    training_set: pd.DataFrame,
    *,
    dataset_tag: str,
    registry: ModelRegistry,
    image_path: ImagePath,
    policy: Policy,
    budget: TrainingPolicy,
    progress: Callable[[float], None] | None = None,
) -> TrainedClassifications:
    """Train on the choices of the train split, learn from the val split what they mean, keep both.

    Learning goes on from the classifier promoted last that learned from another version. What the
    promoted one's probabilities mean is learned again, for the case that it stays.

    Args:
        training_set: of the round.
        dataset_tag: written on the card.
        registry: of classifiers.
        image_path: gives the file of an image for its id and extension.
        policy: its ontology and seed.
        budget: what of its training policy is for this.
        progress: told the share of the budget that is used.
    """
    ontology, paths = policy.ontology, image_paths(training_set, image_path)
    truth = ClassificationTruth.of(_split(training_set, "train"), ontology)
    examples = [
        ClassificationExample(image_id, paths[image_id], truth.names_of(row))
        for row, image_id in enumerate(truth.image_ids)
    ]
    start = starting_weights(registry, dataset_tag)
    trained = train_classifier(
        examples,
        class_names=ontology.choices,
        choose=ontology.choose,
        policy=budget,
        seed=policy.seed,
        start_from=registry.weights_path(start) if start else None,
        progress=progress,
    )
    held_out = ClassificationTruth.of(_split(training_set, "val"), ontology)
    new = ImageClassifier.from_bytes(trained.state, where="the new classifier")
    temperature = _calibrate(registry, new, held_out, paths)
    promoted = registry.promoted()
    if promoted is not None:
        _calibrate(registry, ImageClassifier.from_registry(registry, promoted), held_out, paths)
    card = ModelCard(
        architecture=trained.architecture,
        class_names=tuple(ontology.choices),
        image_width=trained.side,
        dataset_tag=dataset_tag,
        started_from=trained.started_from,
        train_images=trained.images,
        cpu_seconds=round(trained.cpu_seconds, 3),
        seed=policy.seed,
        policy_digest=policy_digest(budget),
        calibrations={PROFILE: temperature.meaning},
    )
    return TrainedClassifications(trained, registry.add(trained.state, card), temperature)


def judge_classifications(
    round_id: str,
    weights: str,
    dataset_tag: str,
    training_set: pd.DataFrame,
    *,
    registry: ModelRegistry,
    image_path: ImagePath,
    ontology: Ontology,
) -> EvaluatedClassifier:
    """Test the new classifier and those before it on the same images; promote it or not.

    As ``evaluate_round`` does with detectors: it is compared with the promoted one and with the
    best as known when that took over, and a round that runs again after a classifier of a later
    version was promoted must give a better one than that.

    Args:
        round_id: of the classifier.
        weights: of the classifier; empty: the round trained none.
        dataset_tag: of the version that it learned from.
        training_set: of the round; its test split is looked at.
        registry: of classifiers.
        image_path: gives the file of an image for its id and extension.
        ontology: its choices.
    """
    nothing = ChoiceFigures.empty()
    if not weights:
        return EvaluatedClassifier("", _NO_CLASSIFIER, None, None, nothing)
    truth = ClassificationTruth.of(_split(training_set, "test"), ontology)
    if not truth.image_ids:
        return EvaluatedClassifier(weights, _NO_TEST_IMAGE, None, None, nothing)
    kind = _Classifiers(registry, truth, image_paths(training_set, image_path))
    judged = judge(kind, weights, dataset_tag, registry=registry)
    return EvaluatedClassifier(
        weights,
        judged.decision,
        judged.new,
        judged.promoted.accuracy.value if judged.promoted else None,
        choice_figures(round_id, weights, judged.new),
    )


@dataclass(frozen=True)
class _Classifiers:
    """The kind of model that chooses classes of whole images; see ``ModelKind``."""

    registry: ModelRegistry
    truth: ClassificationTruth
    paths: Mapping[str, Path]
    noun: str = "classifier"

    def test(self, weights: str) -> ClassificationEvaluation:
        classifier = ImageClassifier.from_registry(self.registry, weights)
        return evaluate_classifications(self.truth, _looked_at(classifier, self.truth, self.paths))

    def decide(
        self,
        new: ClassificationEvaluation,
        before: Mapping[str, ClassificationEvaluation],
        *,
        later: str,
    ) -> ClassifierPromotion:
        return promote_classifier(new, before, later=later)

    def best(self, known: Mapping[str, ClassificationEvaluation]) -> str:
        return max(reversed(list(known)), key=lambda one: known[one].accuracy.value)


def _calibrate(
    registry: ModelRegistry,
    classifier: ImageClassifier,
    truth: ClassificationTruth,
    paths: Mapping[str, Path],
) -> Temperature:
    probabilities = _looked_at(classifier, truth, paths)
    found = fit_temperature(probabilities, truth.chosen, choose=truth.choose)
    # Too few images teach nothing: they are no reason to forget what more of them taught.
    if found.meaning or registry.temperature([classifier.digest], PROFILE) is None:
        registry.calibrate([classifier.digest], PROFILE, found)
    return found


def _looked_at(
    classifier: ImageClassifier, truth: ClassificationTruth, paths: Mapping[str, Path]
) -> FloatArray:
    return predict_classifications(
        classifier,
        {image_id: paths[image_id] for image_id in truth.image_ids},
        class_names=truth.class_names,
        choose=truth.choose,
    )


def _split(training_set: pd.DataFrame, split: str) -> pd.DataFrame:
    return training_set[training_set["split"] == split]
