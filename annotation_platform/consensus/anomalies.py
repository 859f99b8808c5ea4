"""Labels and annotations that are outliers in size, aspect ratio, number of regions or time.

The usual range is estimated from the labels themselves, by median and median absolute deviation,
which a minority of absurd labels does not move (Iglewicz and Hoaglin, "How to Detect and Handle
Outliers", 1993). Nothing is removed: each finding names the annotation, the value and the usual
range, for a manual check.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from annotation_platform.consensus.units import need_columns
from annotation_platform.schema.geometry import BOX_COLUMNS, FloatArray, as_boxes
from annotation_platform.schema.shapes import AREAS, REGIONS, UNSURE
from annotation_platform.schema.tables import HumanLabels, records

FINDINGS = [
    "kind",
    "annotator",
    "image_id",
    "annotation_id",
    "label_id",
    "value",
    "usual_low",
    "usual_high",
    "detail",
]
"""``label_id`` is missing if the finding is about the whole annotation."""

_BOX_DEVIATIONS = 5.0
"""Deviations from the median beyond which a size or ratio is a finding."""
_COUNT_DEVIATIONS = 5.0
"""The same for the number of regions; a difference of one or two never is."""
_TIME_DEVIATIONS = 3.5
"""Deviations below the median beyond which an annotation is too fast."""
_LEAST_LABELS = 20
"""A class with fewer regions is compared with all classes together; with fewer than that in all,
sizes and ratios are not judged. The same minimum holds for numbers and times."""
_LEAST_SECONDS = 1.5
"""An annotation that took less is too fast regardless of the others."""
_NORMAL = 1.4826  # makes the median absolute deviation of a normal distribution its deviation
_LEAST_SPREAD = 0.15  # of a logarithm: labels that are all equal are taken to vary by 15 %
_SIDE = 1e-9  # pixels; a box thinner than this has no area


def label_anomalies(human_labels: pd.DataFrame) -> pd.DataFrame:
    """Return outlying regions, and annotations made too fast or with an unusual number of regions.

    All values are compared as logarithms. Sizes (the square root of the area of the enclosing box)
    and ratios of width to height are compared within a class. Numbers of regions are compared with
    those of the other annotations of the same task; annotations without such peers are compared
    with each other, and then only too many regions are a finding. Times are compared with those of
    annotations with as many regions.

    Args:
        human_labels: a ``human_labels`` table.

    Returns:
        One row per finding, in the order of kind and annotation, with the columns ``FINDINGS``.
        ``kind`` is ``empty`` (a box without area), ``small``, ``large``, ``wide``, ``tall``,
        ``few``, ``many`` or ``too-fast``; ``value`` and the usual range are in pixels, as a ratio,
        as a number of regions or in seconds. The order of rows does not matter.

    Raises:
        TableError: a column is missing.
    """
    need_columns(
        human_labels,
        ["task_id", "image_id", "annotation_id", "annotator", "label_id", "lead_time_seconds"],
    )
    need_columns(human_labels, ["shape", "class_name", *BOX_COLUMNS])
    annotations = annotations_with_regions(human_labels)
    found = [
        *_unusual_boxes(human_labels),
        *_unusual_counts(annotations),
        *_too_fast(annotations),
    ]
    findings = pd.DataFrame(found, columns=FINDINGS)
    return findings.sort_values(["kind", "annotation_id", "label_id"], ignore_index=True)


def _unusual_boxes(human_labels: pd.DataFrame) -> list[dict[str, Any]]:
    areas = human_labels[human_labels[HumanLabels.shape].isin(AREAS)]
    boxes = as_boxes(areas[BOX_COLUMNS].to_numpy(dtype=np.float64))
    sides = boxes[:, 2:] - boxes[:, :2]
    flat = pd.Series((sides <= _SIDE).any(axis=1), index=areas.index)
    found = [
        _finding("empty", row, value=0.0, usual=(_SIDE, float("inf")), detail="has no area")
        for row in records(areas.loc[flat])
    ]
    solid, sides = areas.loc[~flat], sides[~flat.to_numpy()]
    size, ratio = np.sqrt(sides.prod(axis=1)), sides[:, 0] / sides[:, 1]
    for values, below, above, unit in (
        (size, "small", "large", "pixels across"),
        (ratio, "tall", "wide", "times as wide as high"),
    ):
        low, high = _usual_by_class(values, solid[HumanLabels.class_name])
        unusual = np.flatnonzero((values < low) | (values > high))
        for at, row in zip(unusual, records(solid.iloc[unusual, :]), strict=True):
            kind = below if values[at] < low[at] else above
            usual = (float(low[at]), float(high[at]))
            detail = (
                f"is {values[at]:.3g} {unit}; usual for {row['class_name']} is "
                f"{usual[0]:.3g} to {usual[1]:.3g}"
            )
            found.append(_finding(kind, row, value=float(values[at]), usual=usual, detail=detail))
    return found


def _usual_by_class(values: FloatArray, classes: pd.Series) -> tuple[FloatArray, FloatArray]:
    """Return the ends of the usual range for each value, unbounded if there are too few values."""
    low, high = np.zeros(len(values)), np.full(len(values), np.inf)
    if len(values) < _LEAST_LABELS:
        return low, high
    low[:], high[:] = _usual(values, _BOX_DEVIATIONS)
    for positions in classes.reset_index(drop=True).groupby(classes.to_numpy()).indices.values():
        if len(positions) >= _LEAST_LABELS:
            low[positions], high[positions] = _usual(values[positions], _BOX_DEVIATIONS)
    return low, high


def _usual(values: FloatArray, deviations: float) -> tuple[float, float]:
    """Return the usual range of positive values, by the median and deviation of logarithms."""
    logs = np.log(values)
    middle = float(np.median(logs))
    spread = max(_NORMAL * float(np.median(np.abs(logs - middle))), _LEAST_SPREAD)
    reach = deviations * spread
    return float(np.exp(middle - reach)), float(np.exp(middle + reach))


def annotations_with_regions(human_labels: pd.DataFrame) -> pd.DataFrame:
    """Return one row per annotation with its number of ``regions`` and whether it is ``unsure``."""
    first = human_labels.drop_duplicates("annotation_id")
    drawn = (
        human_labels[human_labels[HumanLabels.shape].isin(REGIONS)].groupby("annotation_id").size()
    )
    regions = first["annotation_id"].map(drawn).fillna(0).astype(np.int64)
    unsure = human_labels.loc[
        human_labels[HumanLabels.shape] == UNSURE.shape, HumanLabels.annotation_id
    ]
    counted = first.assign(regions=regions, unsure=first["annotation_id"].isin(unsure))
    return counted.sort_values(["task_id", "annotation_id"], ignore_index=True)


def _unusual_counts(annotations: pd.DataFrame) -> list[dict[str, Any]]:
    """Compare each number of regions with the median of the others on the task, if any."""
    judged = annotations[~annotations["unsure"]].reset_index(drop=True)
    counts = judged["regions"].to_numpy(dtype=np.float64)
    expected = np.full(len(counts), np.nan)
    for positions in judged.groupby("task_id").indices.values():
        if len(positions) > 1:
            for at in positions:
                peers: FloatArray = counts[positions[positions != at]]
                expected[at] = float(np.median(peers))
    # One is added to both counts, so that 0 against 1 differs as much as 1 against 3.
    has_peers = ~np.isnan(expected)
    least, most = np.zeros(len(counts)), np.full(len(counts), np.inf)
    if has_peers.sum() >= _LEAST_LABELS:
        low, high = _usual((counts[has_peers] + 1) / (expected[has_peers] + 1), _COUNT_DEVIATIONS)
        least[has_peers] = low * (expected[has_peers] + 1) - 1
        most[has_peers] = high * (expected[has_peers] + 1) - 1
    if (~has_peers).sum() >= _LEAST_LABELS:
        # An image may hold few objects, so without peers only too many are unusual.
        _, high = _usual(counts[~has_peers] + 1, _COUNT_DEVIATIONS)
        expected[~has_peers], most[~has_peers] = np.median(counts[~has_peers]), high - 1
    unusual = ((counts < least) | (counts > most)) & (np.abs(counts - expected) > 2)
    return [
        _finding(
            "few" if counts[at] < least[at] else "many",
            judged.iloc[at].to_dict(),
            value=float(counts[at]),
            usual=(max(float(least[at]), 0.0), float(most[at])),
            detail=f"holds {counts[at]:.0f} regions where {expected[at]:g} were expected",
            whole_annotation=True,
        )
        for at in np.flatnonzero(unusual)
    ]


def _too_fast(annotations: pd.DataFrame) -> list[dict[str, Any]]:
    """Compare seconds per region, counting one more region for viewing the image."""
    timed = annotations[annotations["lead_time_seconds"].notna()]
    seconds = timed["lead_time_seconds"].to_numpy(dtype=np.float64)
    work = timed["regions"].to_numpy(dtype=np.float64) + 1.0
    low, high = 0.0, np.inf
    positive = seconds > 0
    if positive.sum() >= _LEAST_LABELS:
        low, high = _usual(seconds[positive] / work[positive], _TIME_DEVIATIONS)
    least, most = np.maximum(low * work, _LEAST_SECONDS), high * work
    return [
        _finding(
            "too-fast",
            timed.iloc[at].to_dict(),
            value=float(seconds[at]),
            usual=(float(least[at]), float(most[at])),
            detail=f"took {seconds[at]:.1f} s for {work[at] - 1:.0f} regions; "
            f"usual is at least {least[at]:.1f} s",
            whole_annotation=True,
        )
        for at in np.flatnonzero(seconds < least)
    ]


def _finding(
    kind: str,
    row: Mapping[Any, object],
    *,
    value: float,
    usual: tuple[float, float],
    detail: str,
    whole_annotation: bool = False,
) -> dict[str, Any]:
    return {
        "kind": kind,
        **{name: row[name] for name in ("annotator", "image_id", "annotation_id")},
        "label_id": None if whole_annotation else row["label_id"],
        "value": value,
        "usual_low": usual[0],
        "usual_high": usual[1],
        "detail": detail,
    }
