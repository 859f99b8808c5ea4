"""Which class an object has, from what several people called it.

The rule is that of ``evidence.py``: most votes, unless known answers have shown that a model does
better. Votes on an object are level more often than on an image, because some of the people asked
did not see it. Then what they drew speaks too: classes differ in size and form, and those on whose
class nobody disagrees say how. That is evidence of its own, not a guess at what is common, which
does harm as often as good.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from annotation_platform.consensus.evidence import (
    RELIABILITY,
    UNDECIDED,
    ClassConsensus,
    resolve_classes,
)
from annotation_platform.consensus.majority import LEVEL
from annotation_platform.consensus.objects import Verdict
from annotation_platform.schema.geometry import FloatArray

Votes = Mapping[str, Sequence[tuple[str, str]]]
"""For each question, who said which class."""

_FEWEST = 5
"""Objects of a class from which on its size is known."""

_USUAL_DEVIATION = 0.1
"""Of the logarithm of a size, counted like five more objects: a class is never all of one size."""

_FREEDOM = 4.0
"""Degrees of freedom of Student's distribution: an odd size makes a class unlikely, not more."""


@dataclass(frozen=True)
class Size:
    """How large the objects of a class are: of ``_size_and_form`` the mean and the deviation."""

    mean: FloatArray = field(default_factory=lambda: np.zeros(2))
    deviation: FloatArray = field(default_factory=lambda: np.ones(2))


@dataclass(frozen=True)
class Naming:
    """What tells classes apart where as many people said one as another.

    Attributes:
        weight: what people's word counts for; empty where the crowd agrees too little for that.
        usual: the size of a class of which too little is known.
        by_class: the size of the others.
    """

    weight: dict[str, float] = field(default_factory=dict)
    usual: Size = field(default_factory=Size)
    by_class: dict[str, Size] = field(default_factory=dict)

    def decide(
        self, question: str, said: Sequence[tuple[str, str]], box: FloatArray | None
    ) -> tuple[str, float]:
        """Return the class of a question and its share among those with the most votes.

        Args:
            question: whose name decides where everything is level.
            said: who said which class; at least one vote.
            box: ``(4,)`` around what is asked about, pixels, if it is a region.
        """
        leading = _leading(said)
        weighed = np.array([_sum(self.weight, said, name) for name in leading])
        if (weighed >= weighed.max() - LEVEL).sum() > 1:
            # People who weigh the same say nothing, and what is left speaks for all.
            weighed = np.zeros(len(leading))
        sizes = [0.0 if box is None else self._size_score(box, name) for name in leading]
        return _likeliest(question, leading, weighed + sizes)

    def _size_score(self, box: FloatArray, name: str) -> float:
        """Return the log likelihood of a box's size if it is of this class."""
        size = self.by_class.get(name, self.usual)
        off = (_size_and_form(box) - size.mean) / size.deviation
        tail = (_FREEDOM + 1) / 2 * np.log1p(off**2 / _FREEDOM)
        return float(-(np.log(size.deviation) + tail).sum())


@dataclass(frozen=True)
class Classes:
    """The decided classes by question, and how they were decided."""

    verdicts: dict[str, Verdict]
    method: str
    reason: str
    workers: pd.DataFrame
    naming: Naming


def decide_classes(
    votes: Votes,
    boxes: Mapping[str, FloatArray] | None = None,
    *,
    gold: pd.DataFrame | None = None,
    method: str = "",
    seed: int = 0,
) -> Classes:
    """Return the class of every question.

    Where votes and everything else are level, the class falls by a coin that lands the same way
    each time; its posterior shows it.

    Args:
        votes: for each question, who said which class; at least one vote each.
        boxes: for questions about a region the ``(4,)`` box around it, pixels.
        gold: known answers: ``task`` (the question) and ``label``.
        method: as for ``resolve_classes``.
        seed: of what is drawn.
    """
    rows = [(task, worker, label) for task, each in votes.items() for worker, label in each]
    annotations = pd.DataFrame(rows, columns=["task", "worker", "label"])
    found = resolve_classes(annotations, gold=gold, method=method, seed=seed)
    boxes = boxes or {}
    naming = _learn(votes, boxes, found)
    verdicts = {}
    columns = [found.labels[name].tolist() for name in ("task", "label", "posterior", "method")]
    for task, found_label, found_posterior, by in zip(*columns, strict=True):
        label, posterior = found_label, found_posterior
        if by == UNDECIDED or (by == RELIABILITY and task in boxes):
            label, posterior = naming.decide(task, votes[task], boxes.get(task))
        verdicts[task] = Verdict(str(label), posterior, level=len(_leading(votes[task])) > 1)
    return Classes(verdicts, found.method, found.reason, found.workers, naming)


def _learn(votes: Votes, boxes: Mapping[str, FloatArray], found: ClassConsensus) -> Naming:
    """Return what tells classes apart, learned from people's agreement and undisputed objects.

    Of a size the geometric mean of the sides, and their ratio, both as logarithms, each by
    Student's distribution about the class's mean. A class with too few objects has those of all.
    """
    weight: dict[str, float] = {}
    if found.weighable:
        skill = found.workers["reliability"].to_numpy()
        weights = np.log((1 + skill) / (1 - skill)).tolist()
        weight = dict(zip(found.workers["worker"], weights, strict=True))
    known: dict[str, list[FloatArray]] = defaultdict(list)
    for task, box in boxes.items():
        names = {name for _, name in votes[task]}
        if len(votes[task]) > 1 and len(names) == 1:
            known[names.pop()].append(_size_and_form(box))
    every = [size for sizes in known.values() for size in sizes]
    enough = {name: sizes for name, sizes in known.items() if len(sizes) >= _FEWEST}
    return Naming(weight, _size(every), {name: _size(sizes) for name, sizes in enough.items()})


def _size_and_form(box: FloatArray) -> FloatArray:
    width, height = np.maximum(box[2:] - box[:2], 1e-3)
    return np.log([np.sqrt(width * height), width / height])


def _size(sizes: Sequence[FloatArray]) -> Size:
    if not sizes:
        return Size()
    count = len(sizes)
    variance = count * np.var(sizes, axis=0) + _FEWEST * _USUAL_DEVIATION**2
    return Size(np.mean(sizes, axis=0), np.sqrt(variance / (count + _FEWEST)))


def _leading(said: Sequence[tuple[str, str]]) -> list[str]:
    """Return the classes that have the most votes."""
    counts = Counter(name for _, name in said)
    most = max(counts.values())
    return sorted(name for name, count in counts.items() if count == most)


def _sum(weight: Mapping[str, float], said: Sequence[tuple[str, str]], name: str) -> float:
    return sum(weight.get(person, 0.0) for person, each in said if each == name)


def _likeliest(task: str, names: Sequence[str], scores: FloatArray) -> tuple[str, float]:
    """Return the class with the best score and its share; of equal ones the one the coin takes."""

    def coin(name: str) -> str:
        return hashlib.sha256(f"{task}\n{name}".encode()).hexdigest()

    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    best = max(range(len(names)), key=lambda at: (round(float(shares[at]), 9), coin(names[at])))
    return names[best], float(shares[best])
