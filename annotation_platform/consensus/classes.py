"""Which class an object has, from what several people called it.

The rule is that of ``evidence.py``: most votes, unless known answers have shown that a model does
better. Votes on an object are level more often than on a picture, because some of the people asked
did not see it. Then what they drew speaks too: classes differ in size and form, and those on whose
class nobody disagrees say how. That is evidence of its own, not a guess at what is common, which
does harm as often as good.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.consensus.evidence import (
    MAJORITY,
    RELIABILITY,
    UNDECIDED,
    resolve_classes,
)
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
class Classes:
    """The decided classes by question, and how they were decided."""

    verdicts: dict[str, Verdict]
    method: str
    reason: str
    workers: pd.DataFrame


def decide_classes(
    votes: Votes,
    boxes: Mapping[str, FloatArray] | None = None,
    *,
    gold: pd.DataFrame | None = None,
    seed: int = 0,
) -> Classes:
    """Return the class of every question.

    Where votes and everything else are level, the class falls by a coin that lands the same way
    each time; its posterior shows it.

    Args:
        votes: for each question, who said which class; at least one vote each.
        boxes: for questions about a region the ``(4,)`` box around it, pixels.
        gold: known answers: ``task`` (the question) and ``label``.
        seed: of what is drawn.
    """
    rows = [(task, worker, label) for task, each in votes.items() for worker, label in each]
    answers = pd.DataFrame(rows, columns=["task", "worker", "label"])
    found = resolve_classes(answers, gold=gold, seed=seed)
    sizes = Sizes(votes, boxes or {})
    skill = found.workers["reliability"].to_numpy()
    weight = dict(zip(found.workers["worker"], np.log((1 + skill) / (1 - skill)), strict=True))
    verdicts = {}
    columns = [found.labels[name].tolist() for name in ("task", "label", "posterior", "method")]
    for task, found_label, found_posterior, method in zip(*columns, strict=True):
        leading = _leading(votes[task])
        label, posterior = found_label, found_posterior
        if method == UNDECIDED or (method == RELIABILITY and task in sizes.of):
            weighed = weight if method == RELIABILITY else {}
            scores = np.array([sizes.score(task, name) for name in leading])
            scores += [_sum(weighed, votes[task], name) for name in leading]
            label, posterior = _likeliest(task, leading, scores)
        verdicts[task] = Verdict(str(label), posterior, level=len(leading) > 1)
    return Classes(verdicts, found.method, found.reason, found.workers)


def merge_classes(decided: Sequence[Classes]) -> Classes:
    """Return several kinds of questions, none of them in common, as one."""
    if not decided:
        return Classes({}, MAJORITY, "Nobody named a class.", pd.DataFrame())
    return Classes(
        {question: verdict for each in decided for question, verdict in each.verdicts.items()},
        method=", ".join(dict.fromkeys(each.method for each in decided)),
        reason=" ".join(dict.fromkeys(each.reason for each in decided)),
        workers=pd.concat([each.workers for each in decided], ignore_index=True),
    )


class Sizes:
    """How large and how wide the objects of each class are, learned from undisputed objects.

    The geometric mean of the sides, and their ratio, both as logarithms, each by Student's
    distribution about the class's mean. A class with too few objects has those of all classes.
    """

    def __init__(self, votes: Votes, boxes: Mapping[str, FloatArray]) -> None:
        self.of = {task: _size_and_form(box) for task, box in boxes.items()}
        known: dict[str, list[FloatArray]] = defaultdict(list)
        for task, size in self.of.items():
            names = {name for _, name in votes[task]}
            if len(votes[task]) > 1 and len(names) == 1:
                known[names.pop()].append(size)
        every = [size for sizes in known.values() for size in sizes]
        self._usual = _mean_and_deviation(every)
        self._by_class = {
            name: _mean_and_deviation(sizes)
            for name, sizes in known.items()
            if len(sizes) >= _FEWEST
        }

    def score(self, task: str, name: str) -> float:
        """Return the log likelihood of an object's size if it is of this class; 0 if unknown."""
        if task not in self.of:
            return 0.0
        mean, deviation = self._by_class.get(name, self._usual)
        off = (self.of[task] - mean) / deviation
        tail = (_FREEDOM + 1) / 2 * np.log1p(off**2 / _FREEDOM)
        return float(-(np.log(deviation) + tail).sum())


def _size_and_form(box: FloatArray) -> FloatArray:
    width, height = np.maximum(box[2:] - box[:2], 1e-3)
    return np.log([np.sqrt(width * height), width / height])


def _mean_and_deviation(sizes: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
    if not sizes:
        return np.zeros(2), np.ones(2)
    count = len(sizes)
    variance = count * np.var(sizes, axis=0) + _FEWEST * _USUAL_DEVIATION**2
    return np.mean(sizes, axis=0), np.sqrt(variance / (count + _FEWEST))


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
