"""One class from several annotations: majority vote, unless gold shows that a model does better.

No rule that uses the annotations alone can distinguish a crowd for which a model of its errors
gains accuracy from one for which it loses. So majority decides, the models are also computed, and
the tasks on which they disagree with majority are the ones to give to an expert. Each expert label
on such a task is a point for the model, for majority, or for neither.
``docs/algorithms/consensus.md`` derives the rule and has the measurements.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.consensus.annotations import (
    TIED,
    BoolArray,
    IntArray,
    Votes,
    code_gold,
    encode,
)
from annotation_platform.consensus.dawid_skene import dawid_skene
from annotation_platform.consensus.majority import Majority, agreement_with_others, majority
from annotation_platform.consensus.one_coin import one_coin
from annotation_platform.schema.geometry import FloatArray

MAJORITY, DAWID_SKENE, ONE_COIN = "majority", "dawid-skene", "one-coin"
METHODS = (MAJORITY, DAWID_SKENE, ONE_COIN)
RELIABILITY, EXPERT, UNDECIDED = "reliability", "expert", "tied"

TOLERANCE = 0.02
"""Expected cost, as a share of tasks, of switching to a worse model, for any number of checks."""

_MOST_CELLS = 100_000_000
"""Above this many numbers Dawid–Skene is left out: 0.8 GB for each of its largest arrays."""

_LABEL_COLUMNS = ["task", "label", "posterior", "annotations", "agreed", "method", "tied"]
_WORKER_COLUMNS = ["worker", "quality", "low", "high", "annotations", "compared", "reliability"]


@dataclass(frozen=True)
class Evidence:
    """The evidence for a model against majority, from the tasks on which the two differ."""

    model: str
    changed: int  # tasks whose label it would change
    asked: int  # of these, tasks with a gold label
    wins: int  # gold labels that the model gives and majority does not
    losses: int  # gold labels that majority gives and the model does not
    lead: float  # wins minus losses; a tie of majority that the model breaks counts in part
    needed: float  # least lead at which the model is used; NaN without gold
    gain: float  # estimated share of all tasks that it corrects; NaN without gold
    iterations: int
    converged: bool


@dataclass(frozen=True)
class ClassConsensus:
    """The labels of all tasks, how they were decided, and which tasks to give to an expert next."""

    labels: pd.DataFrame  # a row per task; see resolve_classes
    method: str  # majority, dawid-skene or one-coin
    reason: str  # a sentence or two, with the numbers
    workers: pd.DataFrame  # a row per worker
    evidence: tuple[Evidence, ...]
    weighable: bool  # whether workers agree enough to break ties by their weights
    by_method: pd.DataFrame = field(repr=False)  # task, and its label under each method alone
    queue: tuple[str, ...] = field(repr=False)  # every task without a gold label, see ask

    def ask(self, n: int) -> list[str]:
        """Return the ``n`` tasks whose gold label would decide most, or all if there are fewer.

        First come the tasks on which a model and majority differ, in an order that is random but
        spread evenly over the kinds of disagreement, so that any prefix is a fair sample of all:
        starting with the clearest would overestimate a model. Then come the tied tasks, then the
        others, the least certain first. Once the labels are added to the gold, the next call
        continues where this one ended.
        """
        return list(self.queue[: max(n, 0)])


@dataclass(frozen=True)
class _Model:
    name: str
    label: IntArray
    posterior: FloatArray
    iterations: int
    converged: bool


def resolve_classes(
    annotations: pd.DataFrame,
    *,
    gold: pd.DataFrame | None = None,
    method: str = "",
    seed: int = 0,
) -> ClassConsensus:
    """Return one label per task; the order of rows does not matter.

    ``labels`` has a row per task, by name. ``posterior`` is the probability of the label under the
    method, ``agreed`` the number of annotations that equal it, and ``method`` the origin of this
    label: ``majority``, ``reliability`` (a tie broken by weights), ``dawid-skene``, ``one-coin``,
    ``expert`` (the gold label, which is final) or ``tied``: no label, for review.

    ``workers`` has a row per worker, by name. ``quality`` is the share of annotations that equal
    the gold label or, without gold, the majority of the others; ``low`` and ``high`` are its 95 %
    interval (Jeffreys), ``compared`` the number of annotations compared. ``reliability`` is the
    agreement with the others beyond chance that breaks ties: 0 for guessing.

    Args:
        annotations: columns ``task``, ``worker`` and ``label``, a row per annotation, taken as
            strings. If a worker annotated a task repeatedly, the last row counts.
        gold: known labels: columns ``task`` and ``label``. Those of other tasks are left out.
        method: one of ``METHODS``, regardless of the evidence; majority if its model is left out.
            Empty: the evidence decides.
        seed: seed of the order of ``queue``.

    Raises:
        TableError: a column or a value is missing.
    """
    votes = encode(annotations)
    known = code_gold(votes, gold)
    if not len(votes.tasks):
        return _nothing()
    plain = majority(votes)
    models, left_out = _models(votes)
    evidence = tuple(_weigh(votes, plain, model, known) for model in models)
    better = [each for each in evidence if each.lead >= each.needed]
    chosen = method or (max(better, key=lambda each: each.gain).model if better else MAJORITY)
    model = next((model for model in models if model.name == chosen), None)
    return ClassConsensus(
        labels=_labels(votes, plain, model, known, gold),
        method=model.name if model else MAJORITY,
        reason=_reason(evidence, chosen, left_out, asked_for=bool(method)),
        workers=_workers(votes, plain, known),
        evidence=evidence,
        weighable=plain.weighable,
        by_method=_by_method(votes, plain, models),
        queue=_queue(votes, plain, models, known, np.random.default_rng(seed)),
    )


def _models(votes: Votes) -> tuple[list[_Model], str]:
    """Return the fitted models, and the reason if one is left out."""
    if len(votes.classes) == 1:
        return [], "All annotations are the same, so no model is needed."
    if votes.annotations.max() == 1:
        return [], "No task has two annotations, so no model of the workers can be fitted."
    models = []
    coin = one_coin(votes)
    models.append(_Model(ONE_COIN, coin.label, coin.posterior, coin.iterations, coin.converged))
    tasks, workers, classes = len(votes.tasks), len(votes.workers), len(votes.classes)
    if tasks * classes + workers * classes**2 > _MOST_CELLS:
        why = f"{workers} workers and {classes} classes are too many for Dawid–Skene: left out."
        return models, why
    fit = dawid_skene(votes)
    largest = fit.posterior.max(axis=1)
    models.insert(0, _Model(DAWID_SKENE, fit.label, largest, fit.iterations, fit.converged))
    return models, ""


def _weigh(votes: Votes, plain: Majority, model: _Model, known: IntArray) -> Evidence:
    """Return the evidence of the gold labels for a model.

    If the model is right with probability p < 1/2 on tasks where exactly one of the two is right,
    the lead ever reaches c with probability (p / (1 - p))^c, and switching to the model then costs
    d (1 - 2p) of all tasks, where d is the share on which exactly one of the two is right. The
    product is less than d / (2 e c) for every p: with c = d / (2 e TOLERANCE) the expected cost
    stays below TOLERANCE at every stopping time.
    """
    differs = model.label != plain.label
    asked = np.flatnonzero(differs & (known != TIED))
    points = _credit(votes, model.label, None, known)[asked]
    points -= _credit(votes, plain.label, plain.leading, known)[asked]
    telling = int((points != 0).sum())
    lead = needed = gain = math.nan
    if len(asked):
        changed = int(differs.sum())
        # A tie that majority would win half the time is worth half a point, and costs half.
        worth = float(np.abs(points).sum()) / telling if telling else 1.0
        lead = float(points.sum()) / worth
        gain = float(points.mean()) * changed / len(votes.tasks)
        share = changed / len(votes.tasks) * telling / len(asked) * worth
        needed = max(1.0, share / (2 * math.e * TOLERANCE))
        if len(asked) == changed:
            # Every task on which they differ has a gold label, so chance plays no part.
            needed = min(needed, 0.5)
    return Evidence(
        model=model.name,
        changed=int(differs.sum()),
        asked=len(asked),
        wins=int((points > 0).sum()),
        losses=int((points < 0).sum()),
        lead=lead,
        needed=needed,
        gain=gain,
        iterations=model.iterations,
        converged=model.converged,
    )


def _credit(
    votes: Votes, label: IntArray, leading: BoolArray | None, known: IntArray
) -> FloatArray:
    """Return by task 1 for the gold label, a share if it is among tied labels, or 0."""
    credit: FloatArray = (label == known).astype(np.float64)
    if leading is not None:
        cells = np.flatnonzero(leading & (votes.cell_label == known[votes.cell_task]))
        credit[votes.cell_task[cells]] = 1 / votes.sum_in_task(leading)[votes.cell_task[cells]]
    credit[known == TIED] = 0.0
    return credit


def _queue(
    votes: Votes,
    plain: Majority,
    models: list[_Model],
    known: IntArray,
    rng: np.random.Generator,
) -> tuple[str, ...]:
    """Return the tasks without a gold label in the order of ``ClassConsensus.ask``."""
    differs = [model.label != plain.label for model in models]
    kind = sum((each.astype(int) << at for at, each in enumerate(differs)), np.zeros_like(known))
    if len(models) > 1:
        kind = 2 * kind + (models[0].label == models[1].label)
    disputed = np.flatnonzero(np.any(differs, axis=0)) if differs else np.zeros(0, dtype=np.intp)
    # Tasks are sorted by kind of disagreement and label, then taken at evenly spread positions.
    chance = rng.random(len(disputed))
    sides = np.lexsort((chance, plain.label[disputed], kind[disputed]))
    first = disputed[sides][_spread(len(disputed), float(rng.random()))]
    rest = np.setdiff1d(np.arange(len(known)), disputed)
    certainty = np.where(plain.label[rest] == TIED, -1.0, plain.posterior[rest])
    order = np.concatenate([first, rest[np.lexsort((rng.random(len(rest)), certainty))]])
    return tuple(votes.tasks[order[known[order] == TIED]].tolist())


def _spread(count: int, start: float) -> npt.NDArray[np.intp]:
    """Return the numbers below ``count`` in an order of which every prefix is spread evenly.

    Multiples of the golden ratio, modulo 1, from a random start: a Kronecker sequence. Each number
    comes first equally often.
    """
    if not count:
        return np.zeros(0, dtype=np.intp)
    # Neighbouring multiples are at most about 1.9 / length apart, so every number occurs.
    steps = np.arange(4 * count + 50)
    positions = np.minimum(
        (((steps * (math.sqrt(5) - 1) / 2) + start) % 1.0 * count).astype(int), count - 1
    )
    _, first = np.unique(positions, return_index=True)
    return np.asarray(positions[np.sort(first)], dtype=np.intp)


def _labels(
    votes: Votes,
    plain: Majority,
    model: _Model | None,
    known: IntArray,
    gold: pd.DataFrame | None,
) -> pd.DataFrame:
    code = plain.label if model is None else model.label
    posterior = plain.posterior if model is None else model.posterior
    tied, is_known = code == TIED, known != TIED
    name = _names(votes, code)
    if model is None:
        method = np.where(plain.by_weight, RELIABILITY, MAJORITY).astype(object)
    else:
        method = np.full(len(code), model.name, dtype=object)
    method[tied] = UNDECIDED
    if gold is not None and is_known.any():
        final = dict(zip(gold["task"].astype("str"), gold["label"].astype("str"), strict=True))
        name[is_known] = [final[task] for task in votes.tasks[is_known]]
        method[is_known] = EXPERT
    same = votes.cell_label == np.where(is_known, known, code)[votes.cell_task]
    columns = [
        votes.tasks,
        name,
        np.where(is_known, 1.0, posterior),
        votes.annotations,
        votes.sum_in_task(votes.cell_votes * same).astype(np.int64),
        method,
        tied & ~is_known,
    ]
    return pd.DataFrame(dict(zip(_LABEL_COLUMNS, columns, strict=True)))


def _names(votes: Votes, code: IntArray) -> npt.NDArray[np.object_]:
    """Return the names of classes, None for ties."""
    name: npt.NDArray[np.object_] = votes.classes[np.maximum(code, 0)]
    name[code == TIED] = None
    return name


def _by_method(votes: Votes, plain: Majority, models: list[_Model]) -> pd.DataFrame:
    codes = {MAJORITY: plain.label, **{model.name: model.label for model in models}}
    columns = {name: _names(votes, code) for name, code in codes.items()}
    return pd.DataFrame({"task": votes.tasks, **columns})


def _workers(votes: Votes, plain: Majority, known: IntArray) -> pd.DataFrame:
    from scipy.special import betaincinv

    right, compared = agreement_with_others(votes, known)
    wrong = compared - right
    with np.errstate(invalid="ignore"):
        quality = right / compared
    low = betaincinv(right + 0.5, wrong + 0.5, 0.025)
    high = betaincinv(right + 0.5, wrong + 0.5, 0.975)
    columns = [
        votes.workers,
        quality,
        np.where(right > 0, low, 0.0),
        np.where(wrong > 0, high, 1.0),
        np.bincount(votes.worker, minlength=len(votes.workers)),
        compared.astype(np.int64),
        plain.reliability,
    ]
    return pd.DataFrame(dict(zip(_WORKER_COLUMNS, columns, strict=True)))


def _reason(evidence: tuple[Evidence, ...], chosen: str, left_out: str, *, asked_for: bool) -> str:
    sentences = [_sentence(each, chosen) for each in evidence]
    begin = f"Moved to {chosen}." if chosen != MAJORITY else "Majority decides."
    if asked_for:
        return " ".join(part for part in [f"{chosen} was requested.", left_out] if part)
    return " ".join(part for part in [begin, *sentences, left_out] if part)


def _sentence(each: Evidence, chosen: str) -> str:
    if not each.changed:
        return f"{each.model} gives every task the same label."
    where = f"{each.model} would change {each.changed} tasks"
    if not each.asked:
        return f"{where}; no gold label shows yet which is right."
    sides = (
        f"{where}: on the {each.asked} of them with a gold label it is right and majority wrong "
        f"{each.wins} times, and the reverse {each.losses} times"
    )
    if each.lead < each.needed:
        return f"{sides}; a lead of {each.lead:.1f}, but {each.needed:.1f} is needed."
    better = "" if each.model == chosen else f", yet {chosen} gains more"
    return f"{sides}; a lead of {each.lead:.1f}, and {each.needed:.1f} is enough{better}."


def _nothing() -> ClassConsensus:
    return ClassConsensus(
        labels=pd.DataFrame({name: [] for name in _LABEL_COLUMNS}),
        method=MAJORITY,
        reason="There are no annotations.",
        workers=pd.DataFrame({name: [] for name in _WORKER_COLUMNS}),
        evidence=(),
        weighable=False,
        by_method=pd.DataFrame({name: [] for name in ["task", MAJORITY]}),
        queue=(),
    )
