"""One turn of the training loop for the classifier: train, calibrate, test, promote or not.

Classifiers have a registry of their own: one detector and one classifier are promoted, each by its
own test.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

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
    classification_figures,
    evaluate_classifications,
    promote_classifier,
)
from annotation_platform.models.classification.predictions import PROFILE
from annotation_platform.models.classification.training import (
    ClassificationExample,
    TrainedClassifier,
    train_classifier,
)
from annotation_platform.models.fitting import TrainingOptions
from annotation_platform.models.kinds import TrainingInputs, judge, starting_weights
from annotation_platform.models.network_inputs import ImagePath, image_paths
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.policy import Policy, TrainingPolicy
from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import AREAS
from annotation_platform.schema.tables import ChoiceFigures, Frame, TrainingSet

_NO_CLASSIFIER = ClassifierPromotion(False, "")
_NO_TEST_IMAGE = ClassifierPromotion(
    False,
    "Not promoted: no test image has a classification yet, so no classifier can be judged. The "
    "test split grows with every round; label more images, or raise splits.test in params.yaml.",
)


@dataclass(frozen=True)
class StoredClassifier:
    """The classifier of a round, and the calibration of its probabilities."""

    trained: TrainedClassifier
    weights_sha256: str
    temperature: Temperature


@dataclass(frozen=True)
class EvaluatedClassifier:
    """A round's classifier on the test images, and the decision on its promotion."""

    weights_sha256: str  # empty: the round has no classifier
    decision: ClassifierPromotion
    evaluation: ClassificationEvaluation | None  # None: no test image, or no classifier
    promoted_accuracy: float | None  # of the classifier promoted before; None: there is none
    figures: Frame[ChoiceFigures]


def classifier_share(train: Frame[TrainingSet], policy: Policy) -> float:
    """Return the classifier's share of the training budget, 0 to 1.

    It is ``training.classification_share`` if the train split has classifications as well as areas,
    and else 1 or 0. Without areas in the ontology there is no detector: the images do not even show
    what is background.
    """
    if not policy.ontology.areas:
        return 1.0
    if not ClassificationTruth.from_labels(train, policy.ontology).image_ids:
        return 0.0
    is_area = train[TrainingSet.shape].isin(AREAS)
    areas = is_area & train[TrainingSet.class_name].isin(policy.ontology.areas)
    return policy.training.classification_share if areas.any() else 1.0


def scaled_budget(policy: TrainingPolicy, share: float) -> TrainingPolicy:
    """Return the policy with this share, above 0, of its seconds and steps."""
    steps = max(1, round(share * policy.steps)) if policy.steps else 0
    return policy.model_copy(update={"cpu_seconds": share * policy.cpu_seconds, "steps": steps})


def train_classifier_round(
    inputs: TrainingInputs,
    *,
    registry: ModelRegistry,
    budget: TrainingPolicy,
    progress: Callable[[float], None] | None = None,
) -> StoredClassifier:
    """Train on the classifications of the train split, calibrate on the val split, store both.

    Training continues from ``starting_weights``. The promoted classifier is calibrated again on
    the same images, in case it stays promoted.

    Args:
        inputs: training set, images and policy.
        registry: of classifiers.
        budget: the classifier's part of the training policy.
        progress: called with the share of the budget used, 0 to 1.
    """
    policy, ontology = inputs.policy, inputs.policy.ontology
    paths = image_paths(inputs.training_set, inputs.image_path)
    truth = ClassificationTruth.from_labels(inputs.split("train"), ontology)
    examples = [
        ClassificationExample(image_id, paths[image_id], truth.names_of(row))
        for row, image_id in enumerate(truth.image_ids)
    ]
    start = starting_weights(registry, inputs.dataset_tag)
    trained = train_classifier(
        examples,
        class_names=ontology.choices,
        choose=ontology.choose,
        policy=budget,
        seed=policy.seed,
        options=TrainingOptions(registry.weights_path(start) if start else None, progress),
    )
    held_out = ClassificationTruth.from_labels(inputs.split("val"), ontology)
    new = ImageClassifier.from_bytes(trained.state, where="the new classifier")
    temperature = _calibrate(registry, new, held_out, paths)
    promoted = registry.promoted()
    if promoted is not None:
        _calibrate(registry, ImageClassifier.from_registry(registry, promoted), held_out, paths)
    card = ModelCard(
        architecture=trained.architecture,
        class_names=tuple(ontology.choices),
        image_width=trained.side,
        dataset_tag=inputs.dataset_tag,
        started_from=trained.started_from,
        train_images=trained.images,
        cpu_seconds=round(trained.cpu_seconds, 3),
        seed=policy.seed,
        policy_digest=policy_digest(budget),
        calibrations={PROFILE: temperature.effective_digest},
    )
    return StoredClassifier(trained, registry.add(trained.state, card), temperature)


def evaluate_classifier(
    round_id: str,
    weights: str,
    dataset_tag: str,
    training_set: Frame[TrainingSet],
    *,
    registry: ModelRegistry,
    image_path: ImagePath,
    ontology: Ontology,
) -> EvaluatedClassifier:
    """Test the new classifier and its predecessors on the same images; promote it or not.

    The comparisons are those of ``kinds.judge``.

    Args:
        round_id: of the classifier.
        weights: of the classifier; empty: the round trained none.
        dataset_tag: of the version that it was trained on.
        training_set: of the round; its test split is used.
        registry: of classifiers.
        image_path: returns the file of an image, given its id and extension.
        ontology: its classifications.
    """
    nothing = ChoiceFigures.empty()
    if not weights:
        return EvaluatedClassifier("", _NO_CLASSIFIER, None, None, nothing)
    test = training_set[training_set[TrainingSet.split] == "test"]
    truth = ClassificationTruth.from_labels(test, ontology)
    if not truth.image_ids:
        return EvaluatedClassifier(weights, _NO_TEST_IMAGE, None, None, nothing)
    kind = _Classifiers(registry, truth, image_paths(training_set, image_path))
    judged = judge(kind, weights, dataset_tag, registry=registry)
    return EvaluatedClassifier(
        weights,
        judged.decision,
        judged.new,
        judged.promoted.accuracy.value if judged.promoted else None,
        classification_figures(round_id, weights, judged.new),
    )


@dataclass(frozen=True)
class _Classifiers:
    """The kind of model that predicts classes of whole images; see ``ModelKind``."""

    registry: ModelRegistry
    truth: ClassificationTruth
    paths: Mapping[str, Path]
    noun: str = "classifier"

    def test(self, weights: str) -> ClassificationEvaluation:
        classifier = ImageClassifier.from_registry(self.registry, weights)
        return evaluate_classifications(
            self.truth, _probabilities(classifier, self.truth, self.paths)
        )

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
    probabilities = _probabilities(classifier, truth, paths)
    found = fit_temperature(probabilities, truth.chosen, choose=truth.choose)
    # Too few images give no calibration: they do not replace one that was fitted to more.
    if found.effective_digest or registry.temperature([classifier.digest], PROFILE) is None:
        registry.calibrate([classifier.digest], PROFILE, found)
    return found


def _probabilities(
    classifier: ImageClassifier, truth: ClassificationTruth, paths: Mapping[str, Path]
) -> FloatArray:
    return predict_classifications(
        classifier,
        {image_id: paths[image_id] for image_id in truth.image_ids},
        class_names=truth.class_names,
        choose=truth.choose,
    )
