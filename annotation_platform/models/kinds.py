"""Training inputs and promotion, common to all kinds of models: test, compare, promote."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import pandas as pd

from annotation_platform.models.network_inputs import ImagePath
from annotation_platform.models.registry import ModelRegistry, PromotionRecord
from annotation_platform.policy import Policy
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


Tested = TypeVar("Tested")
DecidedT = TypeVar("DecidedT", bound=PromotionDecision)
DecidedT_co = TypeVar("DecidedT_co", bound=PromotionDecision, covariant=True)


class ModelKind(Protocol[Tested, DecidedT_co]):
    """A kind of model: detectors, classifiers."""

    @property
    def noun(self) -> str:
        """Name of such a model in sentences."""

    def test(self, weights: str) -> Tested:
        """Return the evaluation of the model with these weights on the test images."""

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
class Predecessors:
    """The weights that a new model is compared with; empty: there are none."""

    last: str  # promoted last, apart from the new model itself
    best: str  # the best ever promoted, as recorded with the last promotion


@dataclass(frozen=True)
class Judged(Generic[Tested, DecidedT]):
    """The evaluations of a new model and of the promoted one, and the decision."""

    new: Tested
    promoted: Tested | None  # None: no model was promoted before
    decision: DecidedT
    best_sha256: str  # of all models promoted by now; empty: there is none


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


def judge(
    kind: ModelKind[Tested, DecidedT], weights: str, dataset_tag: str, *, registry: ModelRegistry
) -> Judged[Tested, DecidedT]:
    """Test a new model and its predecessors on the same images; promote it or not.

    It is compared with the promoted model and with the best ever promoted, as recorded with that
    promotion. A model that an earlier run of the same job promoted is compared with the one
    promoted before it. If a model of a later version was promoted meanwhile, the new one has to be
    better than that one.

    Args:
        kind: of the model.
        weights: of the new model.
        dataset_tag: of the version that it was trained on.
        registry: of models of this kind.
    """
    others = predecessors(registry, weights)
    last, best = others.last, others.best
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
