"""The split of each image, drawn once together with the images that must share it.

Images are kept together by *keys*: the image's own id, its duplicate group, further groups that it
resembles, and the values of metadata that the policy names (a video, a camera). The split of a key
is drawn once, and images that share a key share the split.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from annotation_platform.policy import SplitPolicy
from annotation_platform.schema.tables import Frame, Splits
from annotation_platform.schema.tables.shared import SPLITS


@dataclass(frozen=True)
class DrawnSplits:
    """The split of every image, and the images left out of all splits.

    ``rows`` are the new ``splits`` rows, for keys that had no split.
    """

    split_of: dict[str, str]
    left_out: dict[str, str]  # image -> reason
    rows: Frame[Splits]


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
        other = json.loads(row["other_metadata"] or "{}")
        values = {name: row.get(name, other.get(name)) for name in policy.keep_together}
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
    """Return the split of each image; splits drawn before do not change.

    New images that share keys form a unit. A unit that shares a key with images drawn before joins
    their split. The other units are drawn, those with the rarest classes first, each into the
    split with the largest deficit of the unit's contents: of its classes, each relative to its
    total, and of images (Sechidis, Tsoumakas, Vlahavas, "On the stratification of multi-label
    data", 2011, for units instead of images). Ties are broken by names and the seed alone, so the
    order in which images arrived does not matter.

    Images of ``train_only`` go to the train split, together with all new images of their unit; one
    that belongs with images of another split is left out. They are not counted, so the shares are
    those of the other images.

    An image that arrives late and shares keys with two splits would leak from one to the other: it
    is left out of all splits, and the splits do not change.

    Args:
        keys: the keys of each image that needs a split, from ``split_keys``.
        classes: the classes of each image; a missing image has none.
        known: a ``splits`` table with every key drawn so far.
        policy: the shares, which add up to one.
        seed: changes the order of drawing.
        round_id: written into the new rows.
        train_only: images that must neither validate nor test: no person labelled them.
    """
    shares = {"train": policy.train, "val": policy.val, "test": policy.test}
    drawn = dict(zip(known[Splits.key], known[Splits.split], strict=True))
    drawing = _Drawing(keys, classes, frozenset(train_only), shares, drawn)
    waiting = [image for image in keys if image not in drawing.split_of]
    while waiting:
        waiting = drawing.without_conflicts(waiting)
        units = _units({image: keys[image] for image in waiting}, drawing.drawn)
        for unit in sorted(units, key=lambda each: _order(each, classes, drawing.totals, seed)):
            drawing.assign(unit)
        waiting = [image for image in waiting if image not in drawing.split_of]
    drawing.leave_out_train_only()
    rows: list[dict[str, object]] = [
        {"round_id": round_id, "key": key, "split": drawing.new[key]} for key in sorted(drawing.new)
    ]
    return DrawnSplits(drawing.split_of, drawing.left_out, Splits.from_rows(rows))


class _Drawing:
    """The splits of keys and images during a drawing, and the contents of each split.

    Attributes:
        drawn: key to split, with the keys drawn before.
        new: the part of ``drawn`` that is new.
        split_of: image to split.
        left_out: image to reason.
        totals: contents of all images that count.
        counts: contents of each split.
    """

    def __init__(
        self,
        keys: Mapping[str, Sequence[str]],
        classes: Mapping[str, Collection[str]],
        train_only: frozenset[str],
        shares: Mapping[str, float],
        drawn: dict[str, str],
    ) -> None:
        """Start from the keys drawn before; their images keep their splits."""
        self.keys, self.classes, self.shares = keys, classes, shares
        self.train_only, self.drawn = train_only, drawn
        self.split_of = {image: drawn[image] for image in keys if image in drawn}
        self.left_out: dict[str, str] = {}
        self.totals = Counter[str]()
        self.counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        for image in keys.keys() - train_only:
            content = _content(image, classes)
            self.totals.update(content)
            if image in self.split_of:
                self.counts[self.split_of[image]].update(content)
        self.new = _met_since({image: keys[image] for image in self.split_of}, drawn)
        drawn.update(self.new)

    def without_conflicts(self, images: Sequence[str]) -> list[str]:
        """Leave out the images that share keys with two splits, and return the others."""
        for image in images:
            met = {self.drawn[key] for key in self.keys[image] if key in self.drawn}
            if len(met) > 1:
                self.left_out[image] = f"it belongs with images of {' and '.join(sorted(met))}"
        return [image for image in images if image not in self.left_out]

    def assign(self, unit: Sequence[str]) -> None:
        """Assign a unit to its split, without images that also have keys of another split."""
        content = sum((_content(image, self.classes) for image in unit), Counter[str]())
        split = _split_of(unit, self.keys, self.drawn)
        if not split and any(image in self.train_only for image in unit):
            split = "train"
        split = split or _largest_deficit(content, self.totals, self.counts, self.shares)
        # Images with keys of another split wait: some turn out to belong with two splits.
        joining = [
            image
            for image in unit
            if {self.drawn.get(key, split) for key in self.keys[image]} == {split}
        ]
        for image in joining:
            self.split_of[image] = split
            if image not in self.train_only:
                self.counts[split].update(_content(image, self.classes))
            for key in self.keys[image]:
                if key not in self.drawn:
                    self.drawn[key] = self.new[key] = split

    def leave_out_train_only(self) -> None:
        """Leave out images without human labels that are not in the train split."""
        found = self.train_only & self.split_of.keys()
        for image in sorted(image for image in found if self.split_of[image] != "train"):
            split = self.split_of.pop(image)
            reason = f"no person labelled it, and it belongs with images of {split}"
            self.left_out[image] = reason


def _met_since(keys: Mapping[str, Sequence[str]], drawn: Mapping[str, str]) -> dict[str, str]:
    """Return the split of each new key that drawn images share, such as a newly named source.

    If these images are in several splits, it is the split with most of them: drawn images do not
    move.
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
    """Return the split with which the unit shares most keys; empty if it shares none."""
    met = Counter(drawn[key] for image in unit for key in keys[image] if key in drawn)
    # Ties go to the test split: a test image is worth more than a further training image.
    return max(met, key=lambda split: (met[split], SPLITS.index(split)), default="")


def _content(image: str, classes: Mapping[str, Collection[str]]) -> Counter[str]:
    """Return the contents of an image: the image itself as ``""``, and each class once."""
    return Counter(["", *set(classes.get(image, ()))])


def _units(keys: Mapping[str, Sequence[str]], drawn: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Return the connected components of images that share keys without a split."""
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
                linked = [each for each in images_of.pop(key, ()) if each not in seen]
                seen.update(linked)
                stack += linked
        units.append(tuple(sorted(unit)))
    return units


def _order(
    unit: Sequence[str], classes: Mapping[str, Collection[str]], totals: Counter[str], seed: int
) -> tuple[int, str]:
    shown: Iterable[str] = (name for image in unit for name in classes.get(image, ()))
    rarest = min((totals[name] for name in shown), default=totals[""])
    return rarest, hashlib.sha256(f"{seed}:{unit[0]}".encode()).hexdigest()


def _largest_deficit(
    content: Counter[str],
    totals: Counter[str],
    counts: Mapping[str, Counter[str]],
    shares: Mapping[str, float],
) -> str:
    """Return the split with the largest deficit of a unit's contents, relative to their totals."""
    deficits = {
        split: sum(shares[split] - counts[split][name] / totals[name] for name in content)
        for split in SPLITS
        if shares[split] > 0
    }
    return max(deficits, key=lambda split: (round(deficits[split], 9), shares[split]))
