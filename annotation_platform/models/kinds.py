"""The kinds of models, and the one loop for all of them: train, calibrate, test, promote or not.

A new kind implements ``ModelKind``; docs/how-to/add-a-model.md shows one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import pandas as pd

from annotation_platform.models.detection.calibration import StoredCalibration
from annotation_platform.models.fitting import TrainingOptions
from annotation_platform.models.network_inputs import ImagePath
from annotation_platform.models.registry import ModelRegistry, ProfileCalibration, PromotionRecord
from annotation_platform.models.training import TrainedNetwork
from annotation_platform.policy import Policy, TrainingPolicy
from annotation_platform.schema.tables import Frame, TrainingSet
from annotation_platform.schema.version_names import version_key


@dataclass(frozen=True)
class TrainingInputs:
    """The inputs of a round's training, the same for every kind of model."""

    training_set: Frame[TrainingSet]
    dataset_tag: str  # of the version of the training set; written on the card
    image_path: ImagePath
    policy: Policy

    def split(self, name: str) -> pd.DataFrame:
        """Return the rows of a split: ``train``, ``val`` or ``test``."""
        return self.training_set[self.training_set[TrainingSet.split] == name]


class PromotionDecision(Protocol):
    """Whether a model is promoted, and why."""

    @property
    def promoted(self) -> bool:
        """Whether it is promoted."""

    @property
    def reason(self) -> str:
        """A sentence with the figures behind it."""


@dataclass(frozen=True)
class NotJudged:
    """The decision on a model that cannot be tested; the reason is empty if there is no model."""

    reason: str
    promoted: bool = False


Tested = TypeVar("Tested")
DecidedT = TypeVar("DecidedT", bound=PromotionDecision)
DecidedT_co = TypeVar("DecidedT_co", bound=PromotionDecision, covariant=True)


class ModelKind(Protocol[Tested, DecidedT_co]):
    """A kind of model, such as detectors, with the inputs of a round's training."""

    @property
    def noun(self) -> str:
        """Name of such a model in sentences."""

    @property
    def registry(self) -> ModelRegistry:
        """The registry of models of this kind."""

    @property
    def inputs(self) -> TrainingInputs:
        """Training set, images and policy."""

    def train(self, budget: TrainingPolicy, options: TrainingOptions) -> TrainedNetwork:
        """Return a model trained on the train split.

        Args:
            budget: this kind's part of ``training`` in the policy.
            options: initial weights and callbacks.
        """

    def calibrate(self, state: bytes) -> ProfileCalibration[StoredCalibration]:
        """Fit the calibration of new weights to the val split, store it and return it.

        The promoted model is calibrated again on the same images, in case it stays promoted.
        """

    @property
    def untestable(self) -> str:
        """A sentence on why no model can be tested; empty if the test split has images for it."""

    def test(self, weights: str) -> Tested:
        """Return the evaluation of the model with these weights on the test split."""

    def decide(self, new: Tested, before: Mapping[str, Tested], *, later: str) -> DecidedT_co:
        """Return whether a new model is promoted.

        Args:
            new: the evaluation of the new model.
            before: those of the models that it must not be worse than, by their name in sentences.
            later: the name of one of them that was trained on a later version, which the new model
                has to exceed; empty: there is none.
        """

    def best(self, known: Mapping[str, Tested]) -> str:
        """Return the weights of the best of these models; of equal ones the last."""


@dataclass(frozen=True)
class StoredModel:
    """The model of a round: the facts of its training, its weights and its calibration."""

    trained: TrainedNetwork
    weights_sha256: str
    calibrated: ProfileCalibration[StoredCalibration]


@dataclass(frozen=True)
class Predecessors:
    """The weights that a new model is compared with; empty: there are none."""

    last: str  # promoted last, apart from the new model itself
    best: str  # the best ever promoted, as recorded with the last promotion


@dataclass(frozen=True)
class Judged(Generic[Tested, DecidedT]):
    """The evaluations of a new model and of the promoted one, and the decision."""

    new: Tested | None  # None: there is no model, or it cannot be tested
    promoted: Tested | None  # None: no model was promoted before
    decision: DecidedT | NotJudged
    best_sha256: str  # of all models promoted by now; empty: there is none


def train_model(
    kind: ModelKind[Tested, DecidedT], budget: TrainingPolicy, options: TrainingOptions
) -> StoredModel:
    """Train a model of this kind, calibrate it, and add it to the registry of its kind.

    Training continues from ``starting_weights``.

    Args:
        kind: of the model.
        budget: this kind's part of ``training`` in the policy.
        options: callbacks.
    """
    inputs, registry = kind.inputs, kind.registry
    start = starting_weights(registry, inputs.dataset_tag)
    path = registry.weights_path(start) if start else None
    trained = kind.train(budget, replace(options, start_from=path))
    found = kind.calibrate(trained.state)
    card = trained.card(dataset_tag=inputs.dataset_tag, policy=budget, seed=inputs.policy.seed)
    card = card.model_copy(update={"calibrations": {found.profile: found.digest}})
    return StoredModel(trained, registry.add(trained.state, card), found)


def starting_weights(registry: ModelRegistry, dataset_tag: str) -> str | None:
    """Return the weights from which training on a version continues; None: from scratch.

    They are the last promoted ones that were trained on another version. Models of the same
    version come from an earlier run of the same job: a repeated run starts where that one did.
    """
    record = _record_last(registry, lambda one: registry.card(one).dataset_tag != dataset_tag)
    return record.weights_sha256 if record else None


def predecessors(registry: ModelRegistry, weights: str) -> Predecessors:
    """Return the models that one with these weights is compared with."""
    record = _record_last(registry, lambda one: one != weights)
    if record is None:
        return Predecessors("", "")
    return Predecessors(record.weights_sha256, record.best_sha256 or record.weights_sha256)


def judge(kind: ModelKind[Tested, DecidedT], weights: str) -> Judged[Tested, DecidedT]:
    """Test a new model and its predecessors on the same images; promote it or not.

    It is compared with the promoted model and with the best ever promoted, as recorded with that
    promotion. A model that an earlier run of the same job promoted is compared with the one
    promoted before it. If a model of a later version was promoted meanwhile, the new one has to be
    better than that one.

    Args:
        kind: of the model; its inputs are those of the new model.
        weights: of the new model; empty: there is none.
    """
    if not weights:
        return Judged(None, None, NotJudged(""), "")
    registry, dataset_tag = kind.registry, kind.inputs.dataset_tag
    others = predecessors(registry, weights)
    last, best = others.last, others.best
    if kind.untestable:
        return Judged(None, None, NotJudged(kind.untestable), best)
    tag = registry.card(last).dataset_tag if last else ""
    overtaken = _version(tag) > _version(dataset_tag)
    current = f"the promoted {kind.noun}, of {tag}," if overtaken else f"the promoted {kind.noun}"
    names = {best: f"the best {kind.noun} so far", last: current}
    new = kind.test(weights)
    before = {one: kind.test(one) for one in names if one}
    decision = kind.decide(
        new,
        {names[one]: tested for one, tested in before.items()},
        later=current if overtaken else "",
    )
    if decision.promoted:
        best = kind.best(before | {weights: new})
        registry.promote(weights, decision.reason, best_sha256=best)
    return Judged(new, before.get(last), decision, best)


def _version(tag: str) -> tuple[int, ...]:
    """Return the numbers of a version's tag; empty if the tag has no version."""
    return version_key(tag.rpartition("@v")[2])


def _record_last(registry: ModelRegistry, wanted: Callable[[str], bool]) -> PromotionRecord | None:
    """Return the last promotion of weights for which ``wanted`` is true."""

    records = reversed(registry.history())
    return next((record for record in records if wanted(record.weights_sha256)), None)
