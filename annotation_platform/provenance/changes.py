"""Find the changes between two versions: images added, removed or moved, and labels one by one.

Each version numbers the labels of an image from 0, so labels are paired by content and location,
never by id: first equal ones, then those with the largest overlap.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.schema.shapes import CLASSIFICATIONS, POINTS
from annotation_platform.versioning.reuse import find_reusable, is_in

SAME_LABEL_IOU = 0.5
"""Least IoU of two boxes that are one moved label; as in COCO's AP50."""

KINDS = ["image_added", "image_removed", "image_moved",
         "label_added", "label_removed", "label_changed"]  # fmt: skip
"""The kinds of changes. Labels of an added or removed image are added or removed, too."""

CHANGE_COLUMNS = [
    *("kind", "what", "image_id", "shape", "iou"),
    *(f"{name}_{side}" for name in ("label_id", "class_name", "origin", "round_id", "split")
      for side in ("before", "now")),
]  # fmt: skip
"""The columns of a table of changes.

``what`` is the changed part of a changed label: ``class``, ``place``, ``class and place`` or only
``votes`` (support, number of annotations, origin); it is empty for other kinds. ``iou`` is that of
the enclosing boxes of a changed region. Absent values are missing.
"""

_EDGES = ["x1", "y1", "x2", "y2"]
_CONTENT = ["image_id", "shape", "class_name", *_EDGES, "geometry"]
_VOTES = ["support", "annotations", "origin"]
_BARE = ["none", "unsure"]
_BEFORE, _NOW = "_before", "_now"


def find_changes(before: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """Return the changes from one ``training_set`` to another, as ``CHANGE_COLUMNS``.

    Sorted by image, images before labels. Rows without a label (``none``, ``unsure``) are not
    changes of labels: they state that there is none.

    Args:
        before: the older one, sorted by image and label.
        now: the newer one, sorted likewise.
    """
    stays = find_reusable(now, before)
    old, new = before[~stays.before], now[~stays.now]
    images = _images(old, new)
    old_labels, new_labels = (side[~is_in(side["shape"], _BARE)] for side in (old, new))
    equal, old_left, new_left = _equal(old_labels, new_labels)
    moved, old_left, new_left = _overlapping(old_left, new_left)
    changed = _changed(pd.concat([equal, moved], ignore_index=True))
    removed, added = _one_sided(old_left, "removed", _BEFORE), _one_sided(new_left, "added", _NOW)
    found = pd.concat([images, changed, removed, added], ignore_index=True)
    rank = found["kind"].map({kind: rank for rank, kind in enumerate(KINDS)})
    # Labels of one image are sorted by their ids, so that the order of rows is defined.
    label = found["label_id_before"].fillna("") + " " + found["label_id_now"].fillna("")
    order = np.lexsort((label, rank, found["image_id"]))
    return _filled(found.iloc[order].reset_index(drop=True))


def _images(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Return the images that were added, removed or moved to another split."""
    columns = ["image_id", "split", "round_id", "origin"]
    both = _first(old)[columns].merge(
        _first(new)[columns], on="image_id", how="outer", suffixes=(_BEFORE, _NOW), indicator=True
    )
    kind = both["_merge"].map(
        {"left_only": "image_removed", "right_only": "image_added", "both": "image_moved"}
    )
    stayed = (both["_merge"] == "both") & (both["split_before"] == both["split_now"])
    return _filled(both.assign(kind=kind.astype("str"), what="")[~stayed])


def _first(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop_duplicates("image_id")


def _equal(old: pd.DataFrame, new: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the pairs with equal content, and the remaining labels of both sides."""
    # An image can hold the same label twice.
    sides = [
        side.assign(_copy=side.groupby(_CONTENT, dropna=False).cumcount()) for side in (old, new)
    ]
    pairs = sides[0].merge(sides[1], on=[*_CONTENT, "_copy"], suffixes=(_BEFORE, _NOW))
    for name in ("class_name", *_EDGES, "geometry"):
        pairs[f"{name}{_BEFORE}"] = pairs[f"{name}{_NOW}"] = pairs[name]
    left = [
        side[~is_in(side["label_id"], pairs[f"label_id{end}"])]
        for side, end in ((old, _BEFORE), (new, _NOW))
    ]
    return pairs.drop(columns=["class_name", *_EDGES, "geometry", "_copy"]), left[0], left[1]


def _overlapping(
    old: pd.DataFrame, new: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the pairs that are one changed label, and the remaining labels of both sides.

    Labels of one shape in one image are paired by descending overlap; of equal overlaps, those of
    one class first. Classifications of an image overlap fully, keypoints by distance.
    """
    pairs = _near(old, new)
    same = pairs["class_name_before"] == pairs["class_name_now"]
    order = np.lexsort((pairs["label_id_now"], pairs["label_id_before"], ~same, -pairs["iou"]))
    pairs = pairs.iloc[order]
    chosen = []
    while len(pairs):
        # A pair that is the best one of both its labels is taken; the others are tried again.
        best = pairs[~pairs["label_id_before"].duplicated() & ~pairs["label_id_now"].duplicated()]
        chosen.append(best)
        taken = [is_in(pairs[name], best[name]) for name in ("label_id_before", "label_id_now")]
        pairs = pairs[~(taken[0] | taken[1])]
    found = pd.concat(chosen, ignore_index=True) if chosen else pairs
    found = found[["label_id_before", "label_id_now", "iou"]]
    for side, end in ((old, _BEFORE), (new, _NOW)):
        known = side if end == _BEFORE else side.drop(columns=["image_id", "shape"])
        names = {name: f"{name}{end}" for name in known if name not in {"image_id", "shape"}}
        found = found.merge(known.rename(columns=names), on=f"label_id{end}")
    return (
        found,
        old[~is_in(old["label_id"], found["label_id_before"])],
        new[~is_in(new["label_id"], found["label_id_now"])],
    )


def _near(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Return all pairs of one shape in one image with enough overlap, in batches of images."""
    columns = ["image_id", "shape", "label_id", "class_name", *_EDGES, "width", "height"]
    sides = [side[columns].sort_values("image_id", kind="stable") for side in (old, new)]
    shared = sorted({*sides[0]["image_id"]} & {*sides[1]["image_id"]})
    found = []
    for start in range(0, max(1, len(shared)), _IMAGES):
        ids = shared[start : start + _IMAGES]
        parts = [side[is_in(side["image_id"], ids)] for side in sides]
        pairs = parts[0].merge(parts[1], on=["image_id", "shape"], suffixes=(_BEFORE, _NOW))
        pairs = pairs.assign(iou=_iou(pairs))
        found.append(pairs[pairs["iou"] >= SAME_LABEL_IOU])
    return pd.concat(found, ignore_index=True)


def _iou(pairs: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return the IoU of the enclosing boxes; 1 for classifications; by distance for keypoints."""
    a, b = (
        pairs[[f"{edge}{end}" for edge in _EDGES]].to_numpy(np.float64) for end in (_BEFORE, _NOW)
    )
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = [(side[:, 2:] - side[:, :2]).prod(axis=1) for side in (a, b)]
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = shared / (areas[0] + areas[1] - shared)
    # A point has no area: it is the same within a fiftieth of the longer side of the image.
    sides = pairs[["width_now", "height_now"]].to_numpy(np.float64).max(axis=1)
    apart = np.hypot(*(a[:, :2] - b[:, :2]).T) / np.maximum(sides, 1.0)
    near = np.clip(1.0 - apart / (2 * _POINT), 0.0, 1.0)
    whole, points = (is_in(pairs["shape"], names) for names in (CLASSIFICATIONS, POINTS))
    return np.select([whole, points], [1.0, near], np.nan_to_num(iou))


_POINT = 0.02
_IMAGES = 10_000
"""Images per batch: each label is compared with every other label of its image."""


def _changed(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs that differ in content or votes."""
    moved = pd.Series(False, index=pairs.index)
    for name in (*_EDGES, "geometry"):
        moved |= _differ(pairs, name)
    renamed = _differ(pairs, "class_name")
    votes = pd.Series(False, index=pairs.index)
    for name in _VOTES:
        votes |= _differ(pairs, name)
    what = np.select(
        [moved & renamed, renamed, moved, votes], ["class and place", "class", "place", "votes"], ""
    )
    return _filled(pairs.assign(kind="label_changed", what=what)[what != ""])


def _differ(pairs: pd.DataFrame, name: str) -> "pd.Series[bool]":
    before, now = pairs[f"{name}{_BEFORE}"], pairs[f"{name}{_NOW}"]
    return (before != now) & ~(before.isna() & now.isna())


def _one_sided(labels: pd.DataFrame, became: str, end: str) -> pd.DataFrame:
    columns = ["label_id", "class_name", "origin", "round_id", "split"]
    renamed = labels.rename(columns={name: f"{name}{end}" for name in columns})
    return _filled(renamed.assign(kind=f"label_{became}", what=""))


def _filled(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with all columns of a table of changes."""
    texts: Sequence[str] = [name for name in CHANGE_COLUMNS if name != "iou"]
    missing = {name: None for name in texts if name not in rows}
    rows = rows.assign(**missing, **({} if "iou" in rows else {"iou": np.nan}))
    return rows[CHANGE_COLUMNS].astype({**dict.fromkeys(texts, "str"), "iou": "float64"})
