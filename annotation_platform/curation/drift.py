"""Whether a batch is of the kind that is known: its light, its size, its look, its classes.

Each feature is compared between the images of the batch and those of the reference, an image
being the unit throughout, because what stands in one image goes together. A feature has drifted
if chance would hardly make such a difference (Holm's correction over all features: Holm, "A Simple
Sequentially Rejective Multiple Test Procedure", 1979) *and* the difference is large enough to
matter: with thousands of images any trifle is no chance.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.tables import BatchDrift, Frame, OddImages

SCALARS = ("brightness", "sharpness", "entropy", "pixels", "aspect", "objects")
LOOK, CLASSES = "look", "classes"
_CHUNK = 512
_LARGE = 1000
"""Images of either side that are compared by their looks; of more, so many are drawn."""
_PERMUTATIONS = 999
_EXACT = 250_000
_NOTHING = 1e-300


@dataclass(frozen=True)
class Batch:
    """What is known of some images.

    ``images`` has ``image_id``, ``brightness``, ``sharpness``, ``entropy``, ``width`` and
    ``height``, a row each. ``vectors`` has a row for each of them that has an embedding:
    ``image_id`` and ``vector``. ``labels`` has ``image_id``, ``class_name`` and ``weight``: how
    many objects of the class are expected, 1 for a label that stands, a probability for a
    proposal.
    """

    images: pd.DataFrame
    vectors: pd.DataFrame
    labels: pd.DataFrame
    counted: Collection[str] | None = None


@dataclass(frozen=True)
class Drift:
    """Feature by feature what has changed, and the images that are unlike all that is known."""

    features: Frame[BatchDrift]
    odd: Frame[OddImages]

    @property
    def drifted(self) -> list[str]:
        """The features that drifted, the largest difference first."""
        rows = self.features[self.features["drifted"]]
        return [str(name) for name in rows.sort_values("effect", ascending=False)["feature"]]

    @property
    def sentence(self) -> str:
        """What there is to say, for people."""
        if self.features.empty:
            return "Nothing is known yet that this round could differ from."
        known = int(self.features["reference_images"].max())
        if not self.drifted:
            return f"This round is like the {known} images that are known."
        rows = self.features.set_index("feature")
        said = [str(rows.at[name, "detail"]) for name in self.drifted]
        return f"This round differs from the {known} images that are known: {'; '.join(said)}."


def measure_drift(
    batch: Batch,
    reference: Batch,
    *,
    round_id: str,
    rng: np.random.Generator,
    level: float = 0.01,
    least_effect: float = 0.25,
) -> Drift:
    """Return how a batch differs from the reference.

    The effect, 0 to 1, of a number (brightness, sharpness, entropy, pixels, aspect, objects) is
    the largest distance of the two distributions (Kolmogorov and Smirnov); of the look the same,
    of each image's cosine distance to the most alike image of the reference, for which each
    image of the reference is compared with the others; of the classes the total variation
    between their shares, with a p-value by permutation of images.

    An image is odd if its look is farther from the reference than all but 1 % of the reference's
    own, or its light or sharpness is outside of all that is known.

    Args:
        batch: what came.
        reference: what is known; without images in it, nothing can be said.
        round_id: of the batch.
        rng: for the permutations; the order of rows does not matter.
        level: chance of a false alarm for a whole batch.
        least_effect: a smaller difference is no drift, however sure.
    """
    if batch.images.empty or reference.images.empty:
        return Drift(BatchDrift.empty(), OddImages.empty())
    ours, theirs = _numbers(batch), _numbers(reference)
    near, usual = _looks(batch, reference, rng)
    rows = [compare_numbers(name, ours[name], theirs[name]) for name in SCALARS]
    if len(near) and len(usual) > 1:
        rows.append(compare_numbers(LOOK, near, usual))
    rows.append(_classes(batch, reference, rng))
    sure = holm(np.array([row.p_value for row in rows]), level)
    features = [
        {
            "round_id": round_id,
            **asdict(row),
            "drifted": certain and row.effect >= least_effect,
            "batch_images": len(batch.images),
            "reference_images": len(reference.images),
        }
        for row, certain in zip(rows, sure.tolist(), strict=True)
    ]
    odd = _odd(ours, theirs, near, usual)
    return Drift(
        BatchDrift.from_rows(features),
        OddImages.from_rows([{"round_id": round_id, **row} for row in odd]),
    )


@dataclass(frozen=True)
class Compared:
    """How far two samples of a feature are apart, 0 to 1, and how likely chance makes that."""

    feature: str
    effect: float
    p_value: float
    detail: str


def _numbers(batch: Batch) -> pd.DataFrame:
    """Return a row of ``SCALARS`` for each image, by image id in order."""
    images = batch.images.drop_duplicates("image_id").set_index("image_id").sort_index()
    width, height = images["width"].astype(float), images["height"].astype(float)
    # Equal sums differ in their last digits: the choices of an image always add up to 1.
    objects = batch.labels.groupby("image_id")["weight"].sum().round(6)
    counted = (
        images.index if batch.counted is None else images.index.intersection(list(batch.counted))
    )
    return images[["brightness", "sharpness", "entropy"]].assign(
        pixels=width * height,
        aspect=width / height,
        objects=objects.reindex(counted, fill_value=0.0).reindex(images.index),
    )


def compare_numbers(name: str, ours: "pd.Series[float]", theirs: "pd.Series[float]") -> Compared:
    """Return how far two samples are apart (Kolmogorov and Smirnov), without missing values."""
    # Half a second to import, and Dagster loads this module.
    from scipy.stats import ks_2samp

    a, b = ours.dropna().to_numpy(dtype=float), theirs.dropna().to_numpy(dtype=float)
    if not len(a) or not len(b):
        return Compared(name, 0.0, 1.0, f"{name} is not known")
    test = ks_2samp(a, b, method="exact" if len(a) * len(b) < _EXACT else "asymp")
    detail = f"{name} {_short(float(np.median(a)))}, known {_short(float(np.median(b)))}"
    return Compared(name, float(test.statistic), float(test.pvalue), detail)


def _classes(batch: Batch, reference: Batch, rng: np.random.Generator) -> Compared:
    """Return how the shares of the classes differ, with a p-value over permuted images."""
    both = pd.concat([batch.labels, reference.labels], ignore_index=True)
    counts = both.pivot_table(
        index="image_id", columns="class_name", values="weight", aggfunc="sum", fill_value=0.0
    ).sort_index()
    ours = np.asarray(counts.index.isin(batch.images["image_id"]))
    if counts.empty or not ours.any() or ours.all():
        return Compared(CLASSES, 0.0, 1.0, "no class is known on both sides")
    values = counts.to_numpy(dtype=float)
    lots = np.stack([ours, *(rng.permutation(ours) for _ in range(_PERMUTATIONS))])
    here, there = (
        sums / np.maximum(sums.sum(axis=1, keepdims=True), _NOTHING)
        for sums in (lots @ values, ~lots @ values)
    )
    apart = np.abs(here - there).sum(axis=1) / 2
    # As good as equal counts as equal: sums differ in their last digits.
    p_value = float((apart >= apart[0] - 1e-12).mean())
    most = int(np.abs(here[0] - there[0]).argmax())
    detail = (
        f"{counts.columns[most]} is {here[0, most]:.0%} of the objects, known {there[0, most]:.0%}"
    )
    return Compared(CLASSES, float(min(apart[0], 1.0)), p_value, detail)


def _looks(
    batch: Batch, reference: Batch, rng: np.random.Generator
) -> tuple["pd.Series[float]", "pd.Series[float]"]:
    """Return each image's distance to the most alike one of the reference, by image id.

    The second holds the same of the reference's own images among themselves.
    """
    ids, ours = _vectors(batch)
    known, theirs = _vectors(reference)
    if len(known) > _LARGE:
        chosen = np.sort(rng.choice(len(known), size=_LARGE, replace=False))
        known, theirs = [known[position] for position in chosen], theirs[chosen]
    if not known or not ids:
        return pd.Series(dtype=float), pd.Series(dtype=float)
    among = np.concatenate(
        [
            _without_self(theirs[start : start + _CHUNK] @ theirs.T, start)
            for start in range(0, len(theirs), _CHUNK)
        ]
    )
    near = [
        (ours[start : start + _CHUNK] @ theirs.T).max(axis=1)
        for start in range(0, len(ours), _CHUNK)
    ]
    return (
        pd.Series(1.0 - np.concatenate(near), index=ids),
        pd.Series(1.0 - among, index=known),
    )


def _without_self(signature: FloatArray, start: int) -> FloatArray:
    own = np.arange(len(signature))
    signature[own, start + own] = -np.inf
    return np.asarray(signature.max(axis=1))


def _vectors(batch: Batch) -> tuple[list[str], FloatArray]:
    """Return ids, in order, and unit vectors; those that hold no numbers are left out."""
    rows = batch.vectors.drop_duplicates("image_id").sort_values("image_id")
    if rows.empty:
        return [], np.zeros((0, 1))
    matrix = np.stack([np.asarray(vector, dtype=float) for vector in rows["vector"]])
    lengths = np.linalg.norm(matrix, axis=1)
    sound = np.isfinite(lengths) & (lengths > 0)
    ids = rows["image_id"].to_numpy()[sound].tolist()
    return ids, matrix[sound] / lengths[sound, None]


def holm(p_values: FloatArray, level: float) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Return which of several tests hold at a level for all of them together, by Holm."""
    order = np.argsort(p_values, kind="stable")
    passed = p_values[order] <= level / np.arange(len(p_values), 0, -1)
    sure = np.zeros(len(p_values), dtype=bool)
    sure[order] = np.logical_and.accumulate(passed)
    return sure


def _odd(
    ours: pd.DataFrame, theirs: pd.DataFrame, near: "pd.Series[float]", usual: "pd.Series[float]"
) -> list[dict[str, object]]:
    """Return the odd images, the farthest first, each with what is odd about it."""
    reasons: dict[str, list[str]] = {}
    far = usual.replace(np.inf, np.nan).dropna()
    limit = float(far.quantile(0.99)) if len(far) else np.inf
    for image_id, distance in near[near > limit].items():
        reasons.setdefault(str(image_id), []).append(f"looks like nothing known ({distance:.2f})")
    for name in ("brightness", "sharpness"):
        low, high = float(theirs[name].min()), float(theirs[name].max())
        outside = ours[name][(ours[name] < low) | (ours[name] > high)]
        for image_id, value in outside.items():
            said = f"{name} {_short(value)}, known {_short(low)} to {_short(high)}"
            reasons.setdefault(str(image_id), []).append(said)
    distances = {image_id: float(near.get(image_id, 0.0)) for image_id in reasons}
    return [
        {"image_id": image_id, "distance": distances[image_id], "why": "; ".join(why)}
        for image_id, why in sorted(reasons.items(), key=lambda item: (-distances[item[0]], item))
    ]


def _short(value: float) -> str:
    return f"{float(value):.3g}" if abs(value) < 1000 else f"{float(value):,.0f}"
