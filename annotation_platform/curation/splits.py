"""Which split an image belongs to: drawn once with everything it must not be parted from.

Images are kept together by *keys*: an image's own id, its group of near-duplicates and further
groups
that it resembles, and the values of metadata that the policy names (a video, a camera). A key is
drawn once, and what shares a key shares the split.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from annotation_platform.policy import SplitPolicy
from annotation_platform.schema.tables import Splits
from annotation_platform.schema.tables.shared import SPLITS


@dataclass(frozen=True)
class DrawnSplits:
    """The split of every image, and what is left out of all three.

    ``rows`` are the ``splits`` rows for what had none.
    """

    split_of: dict[str, str]
    left_out: dict[str, str]  # image -> why
    rows: pd.DataFrame


def split_keys(images: pd.DataFrame, policy: SplitPolicy) -> dict[str, list[str]]:
    """Return the keys of each image, its own first.

    Args:
        images: accepted ``cleaned_images`` rows with the metadata of ``raw_images``.
        policy: which metadata keep images together.
    """
    columns = ["image_id", "group_id", "joins", "other_metadata"]
    named = [name for name in policy.keep_together if name in images]
    keys: dict[str, list[str]] = {}
    for row in images[[*columns, *named]].to_dict("records"):
        more = json.loads(row["other_metadata"] or "{}")
        values = {name: row.get(name, more.get(name)) for name in policy.keep_together}
        found = [row["group_id"], *filter(None, (row["joins"] or "").split(","))]
        found += [
            hashlib.sha256(f"{name}:{value}".encode()).hexdigest()
            for name, value in values.items()
            if isinstance(value, str | int | float) and pd.notna(value) and value != ""
        ]
        keys[row["image_id"]] = list(dict.fromkeys([row["image_id"], *found]))
    return keys


def draw_splits(
    keys: Mapping[str, Sequence[str]],
    classes: Mapping[str, Collection[str]],
    known: pd.DataFrame,
    policy: SplitPolicy,
    *,
    seed: int,
    round_id: str,
    train_only: Collection[str] = (),
) -> DrawnSplits:
    """Return the split of each image; what was drawn before stays as it was.

    New images that share keys make a unit. One that shares a key with what was drawn before goes
    there; the others are drawn, those with the rarest classes first, each into the split that
    lacks most of what it holds: of its classes, each by its share of all, and of images
    (Sechidis, Tsoumakas, Vlahavas, "On the stratification of multi-label data", 2011, for units
    instead of images). Only names and the seed decide between equals, so the order in which
    images arrived does not matter.

    Images of ``train_only`` are drawn for training, with all that is new and kept together with
    them; one that belongs with images of another split is left out. They count nowhere, so the
    shares are those of the other images.

    An image that arrives late and shares keys with two splits would let one see the other: it is
    left out of all of them, and the splits stay as they are.

    Args:
        keys: of each image that is to have a split, from ``split_keys``.
        classes: what each image shows; images that are missing show nothing.
        known: a ``splits`` table with every key drawn so far.
        policy: the shares, which add up to one.
        seed: changes the order of drawing.
        round_id: written beside what is drawn now.
        train_only: images that must neither validate nor test: no person labelled them.
    """
    only = set(train_only)
    drawn = dict(zip(known["key"], known["split"], strict=True))
    split_of = {image: drawn[image] for image in keys if image in drawn}
    totals = Counter[str]()
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for image in keys.keys() - only:
        content = _content(image, classes)
        totals.update(content)
        if image in split_of:
            counts[split_of[image]].update(content)
    new: dict[str, str] = {}
    for key, split in _met_since({image: keys[image] for image in split_of}, drawn).items():
        drawn[key] = new[key] = split
    left_out: dict[str, str] = {}
    shares = {"train": policy.train, "val": policy.val, "test": policy.test}
    waiting = [image for image in keys if image not in split_of]
    while waiting:
        for image in waiting:
            met = {drawn[key] for key in keys[image] if key in drawn}
            if len(met) > 1:
                left_out[image] = f"it belongs with images of {' and '.join(sorted(met))}"
        waiting = [image for image in waiting if image not in left_out]
        units = _units({image: keys[image] for image in waiting}, drawn)
        for unit in sorted(units, key=lambda each: _order(each, classes, totals, seed)):
            content = sum((_content(image, classes) for image in unit), Counter[str]())
            split = _split_of(unit, keys, drawn) or (
                "train"
                if any(image in only for image in unit)
                else _emptiest(content, totals, counts, shares)
            )
            # Who came from elsewhere waits: of those between, some turn out to belong to neither.
            here = [
                image for image in unit if {drawn.get(key, split) for key in keys[image]} == {split}
            ]
            for image in here:
                split_of[image] = split
                if image not in only:
                    counts[split].update(_content(image, classes))
                for key in keys[image]:
                    if key not in drawn:
                        drawn[key] = new[key] = split
        waiting = [image for image in waiting if image not in split_of]
    for image in sorted(image for image in only & split_of.keys() if split_of[image] != "train"):
        split = split_of.pop(image)
        left_out[image] = f"no person labelled it, and it belongs with images of {split}"
    rows: list[dict[str, object]] = [
        {"round_id": round_id, "key": key, "split": new[key]} for key in sorted(new)
    ]
    return DrawnSplits(split_of, left_out, Splits.from_rows(rows))


def _met_since(keys: Mapping[str, Sequence[str]], drawn: Mapping[str, str]) -> dict[str, str]:
    """Return the split of each key that drawn images turn out to share, such as a named source.

    Where they lie in several it is the one with most of them: what was drawn does not move.
    """
    met_by: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for image, shared in keys.items():
        for key in shared:
            if key not in drawn:
                met_by[key][drawn[image]] += 1
    return {
        key: max(met, key=lambda split: (met[split], SPLITS.index(split)))
        for key, met in met_by.items()
    }


def _split_of(
    unit: Sequence[str], keys: Mapping[str, Sequence[str]], drawn: Mapping[str, str]
) -> str:
    """Return the split with which images of a unit share most keys; empty if with none."""
    met = Counter(drawn[key] for image in unit for key in keys[image] if key in drawn)
    # Test first among equals: what is tested is worth more than one more thing to learn from.
    return max(met, key=lambda split: (met[split], SPLITS.index(split)), default="")


def _content(image: str, classes: Mapping[str, Collection[str]]) -> Counter[str]:
    """Return what an image counts for: itself, and each class once."""
    return Counter(["", *set(classes.get(image, ()))])


def _units(keys: Mapping[str, Sequence[str]], drawn: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Return images that share keys which are not drawn yet, directly or over others."""
    images_of: defaultdict[str, list[str]] = defaultdict(list)
    for image in sorted(keys):
        for key in keys[image]:
            if key not in drawn:
                images_of[key].append(image)
    units, seen = [], set[str]()
    for first in sorted(keys):
        if first in seen:
            continue
        seen.add(first)
        unit, stack = [], [first]
        while stack:
            image = stack.pop()
            unit.append(image)
            for key in keys[image]:
                near = [each for each in images_of.pop(key, ()) if each not in seen]
                seen.update(near)
                stack += near
        units.append(tuple(sorted(unit)))
    return units


def _order(
    unit: Sequence[str], classes: Mapping[str, Collection[str]], totals: Counter[str], seed: int
) -> tuple[int, str]:
    shown: Iterable[str] = (name for image in unit for name in classes.get(image, ()))
    rarest = min((totals[name] for name in shown), default=totals[""])
    return rarest, hashlib.sha256(f"{seed}:{unit[0]}".encode()).hexdigest()


def _emptiest(
    content: Counter[str],
    totals: Counter[str],
    counts: Mapping[str, Counter[str]],
    shares: Mapping[str, float],
) -> str:
    """Return the split that lacks most of what a unit holds, as a share of all there is of it."""
    lacks = {
        split: sum(shares[split] - counts[split][name] / totals[name] for name in content)
        for split in SPLITS
        if shares[split] > 0
    }
    return max(lacks, key=lambda split: (round(lacks[split], 9), shares[split]))
