"""The class of an object, from the classes that several annotators gave it.

The rule is that of ``evidence.py``: most votes, unless gold has shown that a model does better.
Votes on an object are tied more often than votes on an image, because some annotators did not draw
it. Ties are then broken by the drawn box: classes differ in size and aspect ratio, which are
learned from the objects with an undisputed class. This is independent evidence, unlike class
frequencies, which do harm as often as good.
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
from annotation_platform.consensus.objects import ClassVerdict
from annotation_platform.schema.geometry import FloatArray

VotesByQuestion = Mapping[str, Sequence[tuple[str, str]]]
"""For each question, the pairs of annotator and class."""

_FEWEST = 5
"""Least number of objects of a class that gives its size."""

_USUAL_DEVIATION = 0.1
"""Of the logarithm of a size, counted like five more objects: sizes of a class always vary."""

_FREEDOM = 4.0
"""Degrees of freedom of Student's distribution: an outlier makes a class unlikely, not more."""


@dataclass(frozen=True)
class Size:
    """The size of the objects of a class: mean and deviation of ``_size_and_ratio``."""

    mean: FloatArray = field(default_factory=lambda: np.zeros(2))
    deviation: FloatArray = field(default_factory=lambda: np.ones(2))


@dataclass(frozen=True)
class Naming:
    """The learned evidence that breaks ties of votes between classes.

    Attributes:
        weight: weight of each annotator; empty if the crowd agrees too little to be weighed.
        usual: size of classes with too few objects.
        by_class: size of the other classes.
    """

    weight: dict[str, float] = field(default_factory=dict)
    usual: Size = field(default_factory=Size)
    by_class: dict[str, Size] = field(default_factory=dict)

    def decide(
        self, question: str, votes: Sequence[tuple[str, str]], box: FloatArray | None
    ) -> tuple[str, float]:
        """Return the class of a question and its share among those with the most votes.

        Args:
            question: its name, which decides if everything is tied.
            votes: pairs of annotator and class; at least one.
            box: ``(4,)`` box around the object, pixels, if it is a region.
        """
        leading = _leading(votes)
        weighed = np.array([_sum(self.weight, votes, name) for name in leading])
        if (weighed >= weighed.max() - LEVEL).sum() > 1:
            # Equal weights carry no evidence, so the size decides among all leading classes.
            weighed = np.zeros(len(leading))
        sizes = [0.0 if box is None else self._size_score(box, name) for name in leading]
        return _likeliest(question, leading, weighed + sizes)

    def _size_score(self, box: FloatArray, name: str) -> float:
        """Return the log likelihood of a box's size under this class."""
        size = self.by_class.get(name, self.usual)
        off = (_size_and_ratio(box) - size.mean) / size.deviation
        tail = (_FREEDOM + 1) / 2 * np.log1p(off**2 / _FREEDOM)
        return float(-(np.log(size.deviation) + tail).sum())


@dataclass(frozen=True)
class Classes:
    """The decided classes by question, with the method and its reason."""

    verdicts: dict[str, ClassVerdict]
    method: str
    reason: str
    workers: pd.DataFrame
    naming: Naming


def decide_classes(
    votes: VotesByQuestion,
    boxes: Mapping[str, FloatArray] | None = None,
    *,
    method: str = "",
) -> Classes:
    """Return the class of every question.

    If votes and all other evidence are tied, a deterministic pseudo-random choice decides, which
    the posterior shows.

    Args:
        votes: for each question, pairs of annotator and class; at least one each.
        boxes: for questions about a region the ``(4,)`` box around it, pixels.
        method: as for ``resolve_classes``.
    """
    rows = [(task, worker, label) for task, each in votes.items() for worker, label in each]
    annotations = pd.DataFrame(rows, columns=["task", "worker", "label"])
    found = resolve_classes(annotations, method=method)
    boxes = boxes or {}
    naming = _learn(votes, boxes, found)
    verdicts = {}
    columns = [found.labels[name].tolist() for name in ("task", "label", "posterior", "method")]
    for task, found_label, found_posterior, by in zip(*columns, strict=True):
        label, posterior = found_label, found_posterior
        if by == UNDECIDED or (by == RELIABILITY and task in boxes):
            label, posterior = naming.decide(task, votes[task], boxes.get(task))
        verdicts[task] = ClassVerdict(str(label), posterior, level=len(_leading(votes[task])) > 1)
    return Classes(verdicts, found.method, found.reason, found.workers, naming)


def _learn(
    votes: VotesByQuestion, boxes: Mapping[str, FloatArray], found: ClassConsensus
) -> Naming:
    """Return the evidence that breaks ties, learned from agreement and from undisputed objects.

    A size is the geometric mean of the sides and their ratio, both as logarithms; each has
    Student's distribution about the mean of the class. A class with too few objects has the size
    of all objects.
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
            known[names.pop()].append(_size_and_ratio(box))
    every = [size for sizes in known.values() for size in sizes]
    enough = {name: sizes for name, sizes in known.items() if len(sizes) >= _FEWEST}
    return Naming(weight, _size(every), {name: _size(sizes) for name, sizes in enough.items()})


def _size_and_ratio(box: FloatArray) -> FloatArray:
    width, height = np.maximum(box[2:] - box[:2], 1e-3)
    return np.log([np.sqrt(width * height), width / height])


def _size(sizes: Sequence[FloatArray]) -> Size:
    if not sizes:
        return Size()
    count = len(sizes)
    variance = count * np.var(sizes, axis=0) + _FEWEST * _USUAL_DEVIATION**2
    return Size(np.mean(sizes, axis=0), np.sqrt(variance / (count + _FEWEST)))


def _leading(votes: Sequence[tuple[str, str]]) -> list[str]:
    """Return the classes that have the most votes."""
    counts = Counter(name for _, name in votes)
    most = max(counts.values())
    return sorted(name for name, count in counts.items() if count == most)


def _sum(weight: Mapping[str, float], votes: Sequence[tuple[str, str]], name: str) -> float:
    return sum(weight.get(person, 0.0) for person, each in votes if each == name)


def _likeliest(task: str, names: Sequence[str], scores: FloatArray) -> tuple[str, float]:
    """Return the class with the best score and its share; ties are broken by a hash."""

    def random(name: str) -> str:
        return hashlib.sha256(f"{task}\n{name}".encode()).hexdigest()

    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    best = max(range(len(names)), key=lambda at: (round(float(shares[at]), 9), random(names[at])))
    return names[best], float(shares[best])
