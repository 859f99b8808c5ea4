"""The model of Dawid and Skene: a confusion matrix per worker, and a class per task.

Dawid and Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm",
1979. It departs from the paper in Dirichlet priors on each row of a worker's confusions, as in Kim
and Ghahramani, "Bayesian Classifier Combination", 2012: without them a worker with two annotations
is estimated to be always right, or always wrong.
"""

from dataclasses import dataclass

import numpy as np

from annotation_platform.consensus.annotations import TIED, IntArray, Votes
from annotation_platform.schema.geometry import FloatArray

_LEVEL = 1e-9
_SMALLEST = 1e-10
"""Replaces a probability of 0, whose logarithm is infinite."""


@dataclass(frozen=True)
class DawidSkene:
    """A fitted model. All probabilities are finite for any annotations."""

    label: IntArray  # (T,) class codes; TIED if two are equally likely
    posterior: FloatArray  # (T, K), rows add up to 1
    confusion: FloatArray  # (W, K, K): worker, true class, given class; the last adds up to 1
    class_rates: FloatArray  # (K,)
    log_likelihood: float  # of the annotations, before the last update of the parameters
    iterations: int
    converged: bool  # the last iteration moved the posteriors by no more than the tolerance


def dawid_skene(
    votes: Votes,
    *,
    diagonal: float = 3.0,
    off_diagonal: float = 1.0,
    class_prior: float = 1.0,
    iterations: int = 200,
    tolerance: float = 1e-5,
) -> DawidSkene:
    """Return the model of the annotations, fitted by expectation maximisation in log space.

    It starts from the shares of the votes, so classes keep their names as long as most annotations
    are right. It ends in a local optimum, which is not necessarily better than majority: see
    ``evidence.py``. Time and memory grow with ``N K + W K²``.

    Args:
        votes: ``N`` annotations, at least one.
        diagonal: right pseudo-annotations for each worker and class.
        off_diagonal: wrong ones, shared by the other classes. If both are 0 it is the model of
            1979; a worker's confusions of a class that no task is likely to have are then all 0.
        class_prior: pseudo-tasks for each class.
        iterations: largest number of iterations, at least 1.
        tolerance: the fit ends when the mean change of probability per task is at most this;
            0 runs all iterations.
    """
    tasks, workers, classes = len(votes.tasks), len(votes.workers), len(votes.classes)
    if classes == 1:
        return _one_class(tasks, workers)
    given = _Given(votes)
    prior = np.full((classes, classes), off_diagonal / (classes - 1))
    np.fill_diagonal(prior, diagonal)
    posterior: FloatArray = np.zeros((tasks, classes))
    shares = votes.cell_votes / votes.annotations[votes.cell_task]
    posterior[votes.cell_task, votes.cell_label] = shares
    made, moved, likelihood = 0, np.inf, 0.0
    while made < iterations and (tolerance == 0 or moved > tolerance):
        # By worker and given class, then true class: the prior is symmetric.
        counts = given.count(posterior).reshape(workers, classes, classes) + prior
        counts /= np.maximum(counts.sum(axis=1, keepdims=True), _SMALLEST)
        rates = posterior.sum(axis=0) + class_prior
        rates /= rates.sum()
        score = given.add_up(np.log(np.maximum(counts, _SMALLEST)).reshape(-1, classes))
        score += np.log(np.maximum(rates, _SMALLEST))
        highest = score.max(axis=1, keepdims=True)
        np.exp(np.subtract(score, highest, out=score), out=score)
        total = score.sum(axis=1, keepdims=True)
        likelihood = float((highest + np.log(total)).sum())
        score /= total
        if tolerance:
            moved = float(np.abs(np.subtract(posterior, score, out=posterior)).sum()) / tasks / 2
        posterior, made = score, made + 1
    return DawidSkene(
        label=likeliest(posterior),
        posterior=posterior,
        confusion=counts.transpose(0, 2, 1),
        class_rates=rates,
        log_likelihood=likelihood,
        iterations=made,
        converged=moved <= tolerance,
    )


def likeliest(posterior: FloatArray) -> IntArray:
    """Return the class with the largest of ``(T, K)`` posteriors; two equal ones are ``TIED``."""
    label = posterior.argmax(axis=1)
    largest = np.take_along_axis(posterior, label[:, None], axis=1)
    equal = (posterior >= largest - _LEVEL).sum(axis=1) > 1
    return np.where(equal, TIED, label)


class _Given:
    """The annotations as a sparse matrix: a row per task, a column per worker and given class."""

    def __init__(self, votes: Votes) -> None:
        from scipy.sparse import csr_matrix

        columns = votes.worker * len(votes.classes) + votes.label
        bounds = np.concatenate([[0], np.cumsum(votes.annotations)])
        shape = (len(votes.tasks), len(votes.workers) * len(votes.classes))
        self._by_task = csr_matrix((np.ones(len(columns)), columns, bounds), shape=shape)
        self._by_column = self._by_task.T.tocsr()

    def count(self, posterior: FloatArray) -> FloatArray:
        """Return the expected annotations by worker and given class, then true class."""
        return np.asarray(self._by_column @ posterior, dtype=np.float64)

    def add_up(self, logarithms: FloatArray) -> FloatArray:
        """Return by task and true class the sum over the annotations."""
        return np.asarray(self._by_task @ logarithms, dtype=np.float64)


def _one_class(tasks: int, workers: int) -> DawidSkene:
    return DawidSkene(
        label=np.zeros(tasks, dtype=np.int64),
        posterior=np.ones((tasks, 1)),
        confusion=np.ones((workers, 1, 1)),
        class_rates=np.ones(1),
        log_likelihood=0.0,
        iterations=0,
        converged=True,
    )
