"""What differs between two versions: images that came, went or moved, and labels one by one.

A version numbers the labels of an image anew, so labels are paired by what they say and where they
are, never by their ids: first those that are alike, then those that overlap most.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.schema.shapes import CLASSIFICATIONS, POINTS
from annotation_platform.versioning.reuse import find_reusable, is_in

SAME_PLACE = 0.5
"""Least IoU of two boxes for one to be the other, moved; as in COCO's AP50."""

KINDS = ["image_added", "image_removed", "image_moved",
         "label_added", "label_removed", "label_changed"]  # fmt: skip
"""What a change is. A label of an image that came or went is one that came or went, too."""

CHANGE_COLUMNS = [
    *("kind", "what", "image_id", "shape", "iou"),
    *(f"{name}_{side}" for name in ("label_id", "class_name", "origin", "round_id", "split")
      for side in ("before", "now")),
]  # fmt: skip
"""The columns of a table of changes.

``what`` says of a changed label whether its ``class``, its ``place``, ``class and place`` or only
its ``votes`` (who saw it, how many answered, where it is from) is another; it is empty for other
kinds. ``iou`` is that of the enclosing boxes of a changed region. What is not there is missing.
"""

_EDGES = ["x1", "y1", "x2", "y2"]
_SAYS = ["image_id", "shape", "class_name", *_EDGES, "geometry"]
_VOTES = ["support", "annotations", "origin"]
_BARE = ["none", "unsure"]
_BEFORE, _NOW = "_before", "_now"


def find_changes(before: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """Return the changes from one ``training_set`` to another, as ``CHANGE_COLUMNS``.

    Sorted by image, images before labels. Rows without a label (``none``, ``unsure``) make no
    change of a label: what they say is that there is none.

    Args:
        before: the older one, sorted by image and label.
        now: the newer one, likewise.
    """
    stays = find_reusable(now, before)
    old, new = before[~stays.before], now[~stays.now]
    images = _images(old, new)
    old_labels, new_labels = (side[~is_in(side["shape"], _BARE)] for side in (old, new))
    alike, old_left, new_left = _alike(old_labels, new_labels)
    moved, old_left, new_left = _overlapping(old_left, new_left)
    changed = _changed(pd.concat([alike, moved], ignore_index=True))
    gone, came = _one_sided(old_left, "removed", _BEFORE), _one_sided(new_left, "added", _NOW)
    found = pd.concat([images, changed, gone, came], ignore_index=True)
    rank = found["kind"].map({kind: place for place, kind in enumerate(KINDS)})
    # Labels of one image by what is known of them, so that no order of rows is by chance.
    label = found["label_id_before"].fillna("") + " " + found["label_id_now"].fillna("")
    order = np.lexsort((label, rank, found["image_id"]))
    return _filled(found.iloc[order].reset_index(drop=True))


def _images(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Return the images that came, went or are in another split."""
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


def _alike(old: pd.DataFrame, new: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the pairs that say the same, and what is left of both sides."""
    # The same label may be there twice in one image.
    sides = [side.assign(_copy=side.groupby(_SAYS, dropna=False).cumcount()) for side in (old, new)]
    pairs = sides[0].merge(sides[1], on=[*_SAYS, "_copy"], suffixes=(_BEFORE, _NOW))
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
    """Return the pairs that are one label changed, and what is left of both sides.

    Of all labels of one shape in one image the two that overlap most, then the next two; of equal
    ones those of one class. An image's choices overlap wholly, keypoints by nearness alone.
    """
    pairs = _near(old, new)
    same = pairs["class_name_before"] == pairs["class_name_now"]
    order = np.lexsort((pairs["label_id_now"], pairs["label_id_before"], ~same, -pairs["iou"]))
    pairs = pairs.iloc[order]
    chosen = []
    while len(pairs):
        # The best of both its labels is nobody else's; the others are looked at again without.
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
    """Return all pairs of one shape in one image that overlap enough, some images at a time."""
    columns = ["image_id", "shape", "label_id", "class_name", *_EDGES, "width", "height"]
    sides = [side[columns].sort_values("image_id", kind="stable") for side in (old, new)]
    shared = sorted({*sides[0]["image_id"]} & {*sides[1]["image_id"]})
    found = []
    for start in range(0, max(1, len(shared)), _IMAGES):
        ids = shared[start : start + _IMAGES]
        parts = [side[is_in(side["image_id"], ids)] for side in sides]
        pairs = parts[0].merge(parts[1], on=["image_id", "shape"], suffixes=(_BEFORE, _NOW))
        pairs = pairs.assign(iou=_iou(pairs))
        found.append(pairs[pairs["iou"] >= SAME_PLACE])
    return pd.concat(found, ignore_index=True)


def _iou(pairs: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return the IoU of the enclosing boxes; 1 for choices, and for keypoints by distance."""
    a, b = (
        pairs[[f"{edge}{end}" for edge in _EDGES]].to_numpy(np.float64) for end in (_BEFORE, _NOW)
    )
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = [(side[:, 2:] - side[:, :2]).prod(axis=1) for side in (a, b)]
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = shared / (areas[0] + areas[1] - shared)
    # A point has no area: one that moved by less than a fiftieth of the image is the same.
    sides = pairs[["width_now", "height_now"]].to_numpy(np.float64).max(axis=1)
    apart = np.hypot(*(a[:, :2] - b[:, :2]).T) / np.maximum(sides, 1.0)
    near = np.clip(1.0 - apart / (2 * _POINT), 0.0, 1.0)
    whole, points = (is_in(pairs["shape"], names) for names in (CLASSIFICATIONS, POINTS))
    return np.select([whole, points], [1.0, near], np.nan_to_num(iou))


_POINT = 0.02
_IMAGES = 10_000
"""So many images are compared at a time: of every label with every other of its image."""


def _changed(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs that differ in anything that a label says or that is known of it."""
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
