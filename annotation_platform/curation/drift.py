"""Whether a batch resembles the known images: brightness, size, appearance and classes.

Each feature is compared between the images of the batch and those of the reference. The unit is
always an image, because objects of one image are correlated. A feature has drifted if the
difference is significant (Holm's correction over all features: Holm, "A Simple Sequentially
Rejective Multiple Test Procedure", 1979) *and* large enough to matter: with thousands of images
every small difference is significant.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.tables import BatchDrift, Frame, OutlierImages

SCALARS = ("brightness", "sharpness", "entropy", "pixels", "aspect", "objects")
APPEARANCE, CLASSES = "appearance", "classes"
_CHUNK = 512
_LARGE = 1000
"""Most reference images whose vectors are compared; from more images this number is drawn."""
_PERMUTATIONS = 999
_EXACT = 250_000
_NOTHING = 1e-300


@dataclass(frozen=True)
class DriftSample:
    """Images with the features that drift is measured in.

    Attributes:
        images: ``image_id``, ``brightness``, ``sharpness``, ``entropy``, ``width`` and ``height``,
            one row for each image.
        vectors: ``image_id`` and ``vector``, one row for each image with an embedding.
        labels: ``image_id``, ``class_name`` and ``weight``, the expected number of objects: 1 for
            a label, the probability for a prediction.
        counted: the images whose objects are counted in ``labels``; None for all images.
    """

    images: pd.DataFrame
    vectors: pd.DataFrame
    labels: pd.DataFrame
    counted: Collection[str] | None = None


@dataclass(frozen=True)
class Drift:
    """The difference of each feature, and the images that are unlike all known images."""

    features: Frame[BatchDrift]
    outliers: Frame[OutlierImages]

    @property
    def drifted(self) -> list[str]:
        """The features that drifted, the largest difference first."""
        rows = self.features[self.features[BatchDrift.drifted]]
        rows = rows.sort_values(BatchDrift.effect, ascending=False)
        return [str(name) for name in rows[BatchDrift.feature]]

    @property
    def sentence(self) -> str:
        """A summary of the drifted features."""
        if self.features.empty:
            return "There are no earlier images to compare this round with."
        known = int(self.features[BatchDrift.reference_images].max())
        if not self.drifted:
            return f"This round resembles the {known} known images."
        rows = self.features.set_index(BatchDrift.feature)
        details = [str(rows.at[name, BatchDrift.detail]) for name in self.drifted]
        return f"This round differs from the {known} known images: {'; '.join(details)}."


def measure_drift(
    batch: DriftSample,
    reference: DriftSample,
    *,
    round_id: str,
    rng: np.random.Generator,
    level: float = 0.01,
    minimum_effect: float = 0.25,
) -> Drift:
    """Return how a batch differs from the reference.

    Every effect is in ``[0, 1]``. For a number (brightness, sharpness, entropy, pixels, aspect,
    objects) it is the Kolmogorov-Smirnov distance of the two distributions. For the appearance
    (``appearance``) it is the same distance, of each image's cosine distance to the most similar
    reference image; each reference image is compared with the other reference images. For the
    classes it is the total variation between their shares, with a p-value by permutation of images.

    An image is an outlier if its cosine distance exceeds the 99th percentile of the reference's
    own distances, or if its brightness or sharpness is outside the range of the reference.

    Args:
        batch: the new images.
        reference: the known images; without any, the result is empty.
        round_id: of the batch.
        rng: for the permutations; the order of rows does not matter.
        level: probability of a false alarm for a whole batch.
        minimum_effect: a smaller difference is not drift, however significant.
    """
    if batch.images.empty or reference.images.empty:
        return Drift(BatchDrift.empty(), OutlierImages.empty())
    ours, theirs = _numbers(batch), _numbers(reference)
    near, usual = _distances(batch, reference, rng)
    rows = [compare_numbers(name, ours[name], theirs[name]) for name in SCALARS]
    if len(near) and len(usual) > 1:
        rows.append(compare_numbers(APPEARANCE, near, usual))
    rows.append(_classes(batch, reference, rng))
    sure = holm(np.array([row.p_value for row in rows]), level)
    features = [
        {
            "round_id": round_id,
            **asdict(row),
            "drifted": certain and row.effect >= minimum_effect,
            "batch_images": len(batch.images),
            "reference_images": len(reference.images),
        }
        for row, certain in zip(rows, sure.tolist(), strict=True)
    ]
    outliers = _outliers(ours, theirs, near, usual)
    return Drift(
        BatchDrift.from_rows(features),
        OutlierImages.from_rows([{"round_id": round_id, **row} for row in outliers]),
    )


@dataclass(frozen=True)
class Compared:
    """The distance of two samples of a feature, 0 to 1, and the p-value of no difference."""

    feature: str
    effect: float
    p_value: float
    detail: str


def _numbers(batch: DriftSample) -> pd.DataFrame:
    """Return a row of ``SCALARS`` for each image, by image id in order."""
    images = batch.images.drop_duplicates("image_id").set_index("image_id").sort_index()
    width, height = images["width"].astype(float), images["height"].astype(float)
    # Equal sums differ in their last digits: the classifications of an image always add up to 1.
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
    """Return the Kolmogorov-Smirnov distance of two samples, without missing values."""
    # The import takes half a second, and Dagster loads this module.
    from scipy.stats import ks_2samp

    a, b = ours.dropna().to_numpy(dtype=float), theirs.dropna().to_numpy(dtype=float)
    if not len(a) or not len(b):
        return Compared(name, 0.0, 1.0, f"{name} is not known")
    test = ks_2samp(a, b, method="exact" if len(a) * len(b) < _EXACT else "asymp")
    detail = f"{name} {_short(float(np.median(a)))}, known {_short(float(np.median(b)))}"
    return Compared(name, float(test.statistic), float(test.pvalue), detail)


def _classes(batch: DriftSample, reference: DriftSample, rng: np.random.Generator) -> Compared:
    """Return how the shares of the classes differ, with a p-value over permuted images."""
    both = pd.concat([batch.labels, reference.labels], ignore_index=True)
    counts = both.pivot_table(
        index="image_id", columns="class_name", values="weight", aggfunc="sum", fill_value=0.0
    ).sort_index()
    ours = np.asarray(counts.index.isin(batch.images["image_id"]))
    if counts.empty or not ours.any() or ours.all():
        return Compared(CLASSES, 0.0, 1.0, "no class is known on both sides")
    values = counts.to_numpy(dtype=float)
    sides = np.stack([ours, *(rng.permutation(ours) for _ in range(_PERMUTATIONS))])
    here, there = (
        sums / np.maximum(sums.sum(axis=1, keepdims=True), _NOTHING)
        for sums in (sides @ values, ~sides @ values)
    )
    apart = np.abs(here - there).sum(axis=1) / 2
    # Equal sums differ in their last digits.
    p_value = float((apart >= apart[0] - 1e-12).mean())
    most = int(np.abs(here[0] - there[0]).argmax())
    detail = (
        f"{counts.columns[most]} is {here[0, most]:.0%} of the objects, known {there[0, most]:.0%}"
    )
    return Compared(CLASSES, float(min(apart[0], 1.0)), p_value, detail)


def _distances(
    batch: DriftSample, reference: DriftSample, rng: np.random.Generator
) -> tuple["pd.Series[float]", "pd.Series[float]"]:
    """Return each image's cosine distance to the most similar reference image, by image id.

    The second series has the distances of the reference images among themselves.
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


def _without_self(similarity: FloatArray, start: int) -> FloatArray:
    own = np.arange(len(similarity))
    similarity[own, start + own] = -np.inf
    return np.asarray(similarity.max(axis=1))


def _vectors(batch: DriftSample) -> tuple[list[str], FloatArray]:
    """Return ids, in order, and unit vectors; vectors that are zero or not finite are left out."""
    rows = batch.vectors.drop_duplicates("image_id").sort_values("image_id")
    if rows.empty:
        return [], np.zeros((0, 1))
    matrix = np.stack([np.asarray(vector, dtype=float) for vector in rows["vector"]])
    lengths = np.linalg.norm(matrix, axis=1)
    sound = np.isfinite(lengths) & (lengths > 0)
    ids = rows["image_id"].to_numpy()[sound].tolist()
    return ids, matrix[sound] / lengths[sound, None]


def holm(p_values: FloatArray, level: float) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Return which of several tests are significant at a family-wise level, by Holm's method."""
    order = np.argsort(p_values, kind="stable")
    passed = p_values[order] <= level / np.arange(len(p_values), 0, -1)
    sure = np.zeros(len(p_values), dtype=bool)
    sure[order] = np.logical_and.accumulate(passed)
    return sure


def _outliers(
    ours: pd.DataFrame, theirs: pd.DataFrame, near: "pd.Series[float]", usual: "pd.Series[float]"
) -> list[dict[str, object]]:
    """Return the outliers, the farthest first, each with the reason."""
    reasons: dict[str, list[str]] = {}
    far = usual.replace(np.inf, np.nan).dropna()
    limit = float(far.quantile(0.99)) if len(far) else np.inf
    for image_id, distance in near[near > limit].items():
        reasons.setdefault(str(image_id), []).append(f"unlike every known image ({distance:.2f})")
    for name in ("brightness", "sharpness"):
        low, high = float(theirs[name].min()), float(theirs[name].max())
        outside = ours[name][(ours[name] < low) | (ours[name] > high)]
        for image_id, value in outside.items():
            detail = f"{name} {_short(value)}, known {_short(low)} to {_short(high)}"
            reasons.setdefault(str(image_id), []).append(detail)
    distances = {image_id: float(near.get(image_id, 0.0)) for image_id in reasons}
    return [
        {"image_id": image_id, "distance": distances[image_id], "reason": "; ".join(found)}
        for image_id, found in sorted(reasons.items(), key=lambda item: (-distances[item[0]], item))
    ]


def _short(value: float) -> str:
    return f"{float(value):.3g}" if abs(value) < 1000 else f"{float(value):,.0f}"
