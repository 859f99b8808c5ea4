"""What auto-accept certifies, how often wrongly, and how much of what an oracle would accept.

    python benchmarks/auto_accept.py
    python benchmarks/auto_accept.py --rounds 100 --audit 300

Each row is a simulated model and 1,000 rounds with it; of 20 pools a plan each, of each plan 50
audits. An image has six objects on average, of three classes (60, 30, 10 %); how hard it is moves
all its objects together.

- **error** is wrong and missed by accepted labels over all images: what taking everything would
  cost. **oracle** is the share of labels that somebody could accept who knows which images are
  wrong: those of the least share of errors first, while errors by labels stay within alpha. It
  is generous: no model sees which of two images it is equally sure of is the wrong one.
- **ideal** is the largest share that any threshold on the model's confidence could accept, its
  true error known.
- **violations** are rounds whose certificate is untrue: the true error of what it accepts, of all
  classes or of one, is above what it says. At most delta of them may be.
- **batches** are those with more wrong among 1,000 accepted images than alpha: chance moves a
  batch about its expectation.

``drift`` has batches from another camera: the share of them refused, at a level of 0.01.
"""

import argparse
from dataclasses import dataclass

import numpy as np

from annotation_platform.curation.certificates import (
    Units,
    accepted,
    certify,
    plan_certificate,
)
from annotation_platform.curation.exchangeability import compare_samples

CLASSES = (0.6, 0.3, 0.1)


@dataclass(frozen=True)
class Model:
    """A simulated model; ``sure`` and ``spread`` are of the log odds of its boxes."""

    sure: float = 4.0
    spread: float = 1.5
    overconfidence: float = 1.0  # factor of the log odds it states
    by_class: tuple[float, ...] = (0.0, 0.0, 0.0)  # log odds it states too much, by class
    wrong_together: float = 0.0  # share of images in which most boxes fail, unseen by it
    random: bool = False  # its scores say nothing

    def images(self, count, rng, *, harder=0.0):
        """Return what the model says of images, what is true of them, and their embeddings."""
        objects = 1 + rng.poisson(5, count)
        hard = rng.normal(size=count) + harder
        image = np.repeat(np.arange(count), objects)
        kind = rng.choice(len(CLASSES), len(image), p=CLASSES)
        odds = self.sure - 1.2 * hard[image] + self.spread * rng.normal(size=len(image))
        said = 1 / (1 + np.exp(-odds))
        true = 1 / (1 + np.exp(-(odds - np.array(self.by_class)[kind]) / self.overconfidence))
        right = rng.random(len(image)) < (rng.permutation(true) if self.random else true)
        together = rng.random(count) < self.wrong_together
        right &= ~(together[image] & (rng.random(len(image)) < 0.8))

        def table(weight):
            found = np.zeros((count, len(CLASSES)))
            np.add.at(found, (image, kind), weight)
            return found

        taken = said >= 0.5
        labels = table(taken.astype(float))
        errors = table((taken != right).astype(float))
        unseen = rng.poisson(0.02 * np.exp(0.5 * hard))
        errors[np.arange(count), rng.choice(len(CLASSES), count, p=CLASSES)] += unseen
        expected = table(np.where(taken, 1 - said, said))
        size = labels.sum(axis=1)
        confidence = np.where(size > 0, 1 - expected.sum(axis=1) / np.maximum(size, 1), np.nan)
        looks = rng.normal(size=(count, 16))
        looks[:, 0] += hard
        return Units(confidence, labels, expected), Units(confidence, labels, errors), looks


MODELS = {
    "calibrated": Model(),
    "calibrated, blurrier scores": Model(spread=2.0),
    "over-confident, 1.5": Model(overconfidence=1.5),
    "over-confident, 1.2": Model(overconfidence=1.2),
    "over-confident in one class": Model(by_class=(0.0, 0.0, 2.0)),
    "2 % of images wrong together": Model(wrong_together=0.02),
    "5 % of images wrong together": Model(wrong_together=0.05),
    "scores say nothing": Model(random=True),
}


@dataclass(frozen=True)
class Outcome:
    """What became of the rounds of one model."""

    error: float
    oracle: float
    ideal: float
    automated: float  # share of labels, mean over rounds, refused ones count as nothing
    refused: float
    violations: int
    batches: float
    rounds: int


def largest_share(order, labels, errors, alpha):
    """Return the largest share of labels, taken in this order, that keeps alpha."""
    keeps = errors[order].cumsum() <= alpha * labels[order].cumsum()
    return labels[order][: keeps.nonzero()[0].max(initial=-1) + 1].sum() / labels.sum()


def simulate(model, *, rounds, audit, alpha=0.05, delta=0.1, class_alpha=None, plans=20, seed=0):
    """Return what ``rounds`` rounds with a model come to."""
    rng = np.random.default_rng(seed)
    _, truth, _ = model.images(60_000, rng)
    labels, errors = truth.labels.sum(axis=1), truth.errors.sum(axis=1)
    shares, violations, batches = [], 0, 0
    for number in range(rounds):
        if number % max(1, rounds // plans) == 0:
            pool, _, _ = model.images(2000, rng)
            plan = plan_certificate(
                pool,
                alpha=alpha,
                delta=delta,
                audit_size=audit,
                rng=rng,
                class_alpha=class_alpha,
            )
        found = certify(plan, truth.take(rng.integers(0, len(truth), audit)))
        if found.stage is None:
            shares.append(0.0)
            continue
        inside = accepted(found.stage, found.threshold, truth)
        shares.append(labels[inside].sum() / labels.sum())
        worse = errors[inside].sum() > alpha * labels[inside].sum()
        if class_alpha is not None:
            own = list(found.stage.classes)
            sums = truth.errors[inside][:, own].sum(axis=0)
            worse |= (sums > class_alpha * truth.labels[inside][:, own].sum(axis=0)).any()
        violations += bool(worse)
        batch = rng.choice(inside.nonzero()[0], 1000)
        batches += errors[batch].sum() > alpha * labels[batch].sum()
    good = np.argsort(errors / np.maximum(labels, 0.5), kind="stable")
    by_score = np.argsort(-np.nan_to_num(truth.confidence, nan=-1.0), kind="stable")
    return Outcome(
        errors.sum() / labels.sum(),
        largest_share(good, labels, errors, alpha),
        largest_share(by_score, labels, errors, alpha),
        float(np.mean(shares)),
        float(np.mean(np.array(shares) == 0)),
        violations,
        batches / max(1, rounds),
        rounds,
    )


def drift(*, rounds, audit, harder, seed=0):
    """Return the share of batches taken for something else than what was audited."""
    rng = np.random.default_rng(seed)
    refused = 0
    for _ in range(rounds):
        sides = []
        for count, shift in ((audit, 0.0), (1000, harder)):
            said, _, looks = MODELS["calibrated"].images(count, rng, harder=shift)
            sides.append({"confidence": said.confidence, "embedding": looks})
        refused += bool(compare_samples(*sides, level=0.01, rng=rng).reason)
    return refused / rounds


def main():
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--audit", type=int, default=500)
    asked = parser.parse_args()
    print(f"alpha 0.05, delta 0.1, {asked.audit} audited images, {asked.rounds} rounds")
    head = "error  oracle  ideal  automated  of oracle  refused  violations  batches"
    print(f"{'model':49}{head}")
    for name, model in MODELS.items():
        for class_alpha in (None, 0.15):
            row = simulate(model, rounds=asked.rounds, audit=asked.audit, class_alpha=class_alpha)
            label = name if class_alpha is None else f"{name}, each class {class_alpha}"
            print(
                f"{label:49}{row.error:5.3f}{row.oracle:8.2f}{row.ideal:7.2f}{row.automated:11.2f}"
                f"{row.automated / row.oracle:11.2f}{row.refused:9.2f}"
                f"{row.violations / row.rounds:12.3f}{row.batches:9.3f}",
                flush=True,
            )
    for harder in (0.0, 0.25, 0.5, 1.0):
        share = drift(rounds=min(200, asked.rounds), audit=asked.audit, harder=harder)
        print(f"drift, images harder by {harder:g} standard deviations: refused {share:.2f}")


if __name__ == "__main__":
    main()
