"""Which new pictures repeat one that is accepted, and which merely look like one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from annotation_platform.images.alike import AlikePairs, find_alike
from annotation_platform.images.likeness import LikenessTable, same_picture


@dataclass(frozen=True)
class Newcomer:
    """A sound picture that is not in the lake yet.

    ``row`` is that of its likeness, ``aspect`` its width by its height; one that a person released
    is never dropped as near.
    """

    image_id: str
    row: int
    pixel_sha256: str
    aspect: float
    is_released: bool = False


@dataclass(frozen=True)
class Standing:
    """What a picture is to those accepted before it.

    ``repeats`` says how it repeats ``original``: ``exact_pixels`` or ``near``; empty if it is
    accepted itself. ``similar_to`` is the accepted picture that it resembles most, if any;
    ``joins_groups`` whether it resembles pictures of several groups that were there before.
    """

    group_id: str
    repeats: str = ""
    original: str | None = None
    similar_to: str | None = None
    joins_groups: bool = False


def find_standings(
    new: Sequence[Newcomer], known: pd.DataFrame, likenesses: LikenessTable, *, bits: int
) -> dict[str, Standing]:
    """Return the standing of each new picture by its image id.

    In order, each is compared with the pictures accepted before it. It is dropped as ``near`` if
    it looks like one as it stands and `same_picture` holds: of several it repeats the one nearest
    by hash, then the first. What looks alike otherwise, a crop, a stamp, a mirror image, is
    accepted into the group of what it resembles: of several, the group that is oldest; groups
    from earlier rounds never become one. A new group is named by its first picture.

    Args:
        new: pictures to be judged, in the order in which they may become originals; none is known.
        known: accepted rows of ``cleaned_images``, oldest first.
        likenesses: of the known pictures, in their order, and further down of the new ones.
        bits: how many bits of 64 two hashes of look-alikes may differ in.
    """
    judging = _Judging(new, known, likenesses, bits)
    standings = {one.image_id: judging.judge(one) for one in new}
    return {
        image_id: replace(standing, group_id=judging.groups.name(standing.group_id))
        for image_id, standing in standings.items()
    }


class _Judging:
    """What was accepted so far. A picture is named by its row of ``likenesses``."""

    def __init__(
        self, new: Sequence[Newcomer], known: pd.DataFrame, likenesses: LikenessTable, bits: int
    ) -> None:
        self._ids = dict(enumerate(known["image_id"])) | {one.row: one.image_id for one in new}
        self._grey, self._aspects = likenesses["grey"], np.zeros(len(likenesses))
        self._aspects[: len(known)] = known["width"] / known["height"]
        self._aspects[[one.row for one in new]] = [one.aspect for one in new]
        self._group = dict(enumerate(known["group_id"]))
        self.groups = _Groups(known["group_id"])
        # Pictures of the same pixels look like the same others: the first one is searched for.
        self._look = _distinct(new, known)
        rows = np.array([*range(len(known)), *self._look.values()], dtype=np.int64)
        pairs = find_alike(likenesses, rows, known=len(known), bits=bits)
        self._pairs = AlikePairs(rows[pairs.earlier], rows[pairs.later], pairs.near, pairs.bits)
        ends = np.searchsorted(self._pairs.later, np.arange(len(likenesses) + 1))
        self._ends = ends.tolist()
        # Who stands for a row: itself once it is accepted, or what it repeats.
        self._accepted = dict(enumerate(range(len(known))))
        self._by_pixels = dict(zip(known["pixel_sha256"], range(len(known)), strict=True))

    def judge(self, one: Newcomer) -> Standing:
        twin = self._by_pixels.get(one.pixel_sha256)
        if twin is not None:
            return Standing(self._group[twin], "exact_pixels", self._ids[twin])
        look = self._look[one.pixel_sha256]
        resembled = self._resembled(look)
        near = [row for row, is_near in resembled.items() if is_near and not one.is_released]
        original = self._original(near, look)
        if original is not None:
            self._accepted.setdefault(look, original)
            return Standing(self._group[original], "near", self._ids[original])
        self._by_pixels[one.pixel_sha256] = one.row
        self._accepted[look] = one.row
        group, joins = self.groups.join([self._group[row] for row in resembled], one.image_id)
        self._group[one.row] = group
        similar_to = next((self._ids[row] for row in resembled), None)
        return Standing(group, similar_to=similar_to, joins_groups=joins)

    def _resembled(self, look: int) -> dict[int, bool]:
        """Return what the picture in a row resembles, nearest first, and whether as it stands.

        For a picture that was dropped stands what it repeats: however many copies of one picture
        there are, a new one is compared with the original alone.
        """
        part = slice(self._ends[look], self._ends[look + 1])
        resembled: dict[int, bool] = {}
        for earlier, is_near in zip(
            self._pairs.earlier[part].tolist(), self._pairs.near[part].tolist(), strict=True
        ):
            row = self._accepted[earlier]
            resembled[row] = resembled.get(row, False) or is_near
        return resembled

    def _original(self, near: list[int], look: int) -> int | None:
        """Return the first of these rows that shows the same as the picture in a row."""
        if not near:
            return None
        rows, own = np.array(near), np.full(len(near), look)
        same = same_picture(
            self._grey[rows], self._grey[own], self._aspects[rows], self._aspects[own]
        )
        return near[int(same.argmax())] if same.any() else None


def _distinct(new: Sequence[Newcomer], known: pd.DataFrame) -> dict[str, int]:
    """Return the first row of each new content of pixels; what is known repeats exactly."""
    there = set(known["pixel_sha256"])
    rows: dict[str, int] = {}
    for one in new:
        if one.pixel_sha256 not in there:
            rows.setdefault(one.pixel_sha256, one.row)
    return rows


class _Groups:
    """Groups of look-alikes by union-find; those that were there before never change."""

    def __init__(self, known: Iterable[str]) -> None:
        self._age = {name: age for age, name in enumerate(dict.fromkeys(known))}
        self._known = len(self._age)
        self._into: dict[str, str] = {}

    def name(self, group: str) -> str:
        """Return what a group is called by now."""
        while group in self._into:
            group = self._into[group]
        return group

    def join(self, groups: Iterable[str], newcomer: str) -> tuple[str, bool]:
        """Return the group of a newcomer that resembles these, and whether it joins known ones."""
        names = sorted({self.name(group) for group in groups}, key=self._age.__getitem__)
        if not names:
            self._age.setdefault(newcomer, len(self._age))
            return newcomer, False
        known = [name for name in names if self._age[name] < self._known]
        for name in names[1:]:
            if name not in known:
                self._into[name] = names[0]
        return names[0], len(known) > 1
