"""Which new images repeat one that is accepted, and which merely look like one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from annotation_platform.images.signature import SignatureTable, same_image
from annotation_platform.images.similar_pairs import find_similar


@dataclass(frozen=True)
class Newcomer:
    """A sound image that is not in the lake yet.

    ``row`` is that of its signature, ``aspect`` its width by its height; one that a person released
    is never dropped as near.
    """

    image_id: str
    row: int
    pixel_sha256: str
    aspect: float
    is_released: bool = False


@dataclass(frozen=True)
class Standing:
    """What an image is to those accepted before it.

    ``repeats`` says how it repeats ``original``: ``exact_pixels`` or ``near``; empty if it is
    accepted itself. ``similar_to`` is the accepted image that it resembles most, if any;
    ``joins`` are further groups, from earlier rounds, of which it resembles images too.
    """

    group_id: str
    repeats: str = ""
    original: str | None = None
    similar_to: str | None = None
    joins: tuple[str, ...] = ()


def find_standings(
    new: Sequence[Newcomer], known: pd.DataFrame, signatures: SignatureTable, *, bits: int
) -> dict[str, Standing]:
    """Return the standing of each new image by its image id.

    In order, each is compared with the images accepted before it. It is dropped as ``near`` if
    it looks like one as it stands and `same_image` holds: of several it repeats the one nearest
    by hash, then the first. What looks alike otherwise, a crop, a stamp, a mirror image, is
    accepted into the group of what it resembles: of several, the group that is oldest; groups
    from earlier rounds never become one. A new group is named by its first image.

    Args:
        new: images to be judged, in the order in which they may become originals; none is known.
        known: accepted rows of ``cleaned_images``, oldest first.
        signatures: of the known images, in their order, and further down of the new ones.
        bits: how many bits of 64 two hashes of near-duplicates may differ in.
    """
    judging = _Judging(new, known, signatures, bits)
    standings = {one.image_id: judging.judge(one) for one in new}
    return {
        image_id: replace(standing, group_id=judging.groups.name(standing.group_id))
        for image_id, standing in standings.items()
    }


class _Judging:
    """What was accepted so far. An image is named by its row of ``signatures``.

    Images of the same pixels look like the same others, so one *face* is searched for for all
    of them: those of the known images come first, in order, then those of the new ones.
    """

    def __init__(
        self, new: Sequence[Newcomer], known: pd.DataFrame, signatures: SignatureTable, bits: int
    ) -> None:
        self._ids = dict(enumerate(known["image_id"])) | {one.row: one.image_id for one in new}
        self._group = dict(enumerate(known["group_id"]))
        self.groups = _Groups(known["group_id"])
        self._by_pixels = dict(zip(known["pixel_sha256"], range(len(known)), strict=True))
        first: dict[str, int] = {}
        for one in new:
            if one.pixel_sha256 not in self._by_pixels:
                first.setdefault(one.pixel_sha256, one.row)
        self._face = {pixels: face for face, pixels in enumerate(first, start=len(known))}
        rows = np.array([*range(len(known)), *first.values()], dtype=np.int64)
        self._pairs = find_similar(signatures, rows, known=len(known), bits=bits)
        self._ends = np.searchsorted(self._pairs.later, np.arange(len(rows) + 1)).tolist()
        # Who stands for a face: an image that was accepted, or else what it repeats.
        self._accepted = dict(enumerate(range(len(known))))
        self._grey, self._aspects = signatures["grey"], np.zeros(len(signatures))
        self._aspects[: len(known)] = known["width"] / known["height"]
        self._aspects[[one.row for one in new]] = [one.aspect for one in new]

    def judge(self, one: Newcomer) -> Standing:
        twin = self._by_pixels.get(one.pixel_sha256)
        if twin is not None:
            return Standing(self._group[twin], "exact_pixels", self._ids[twin])
        face = self._face[one.pixel_sha256]
        resembled = self._resembled(face)
        near = [row for row, is_near in resembled.items() if is_near and not one.is_released]
        original = self._original(near, one.row)
        if original is not None:
            self._accepted.setdefault(face, original)
            return Standing(self._group[original], "near", self._ids[original])
        self._by_pixels[one.pixel_sha256] = one.row
        self._accepted[face] = one.row
        group, joins = self.groups.join([self._group[row] for row in resembled], one.image_id)
        self._group[one.row] = group
        similar_to = next((self._ids[row] for row in resembled), None)
        return Standing(group, similar_to=similar_to, joins=joins)

    def _resembled(self, face: int) -> dict[int, bool]:
        """Return the images that a face resembles, nearest first, and whether as they stand.

        For an image that was dropped stands what it repeats: however many copies of one image
        there are, a new one is compared with the original alone.
        """
        part = slice(self._ends[face], self._ends[face + 1])
        resembled: dict[int, bool] = {}
        for earlier, is_near in zip(
            self._pairs.earlier[part].tolist(), self._pairs.near[part].tolist(), strict=True
        ):
            row = self._accepted[earlier]
            resembled[row] = resembled.get(row, False) or is_near
        return resembled

    def _original(self, near: list[int], own: int) -> int | None:
        """Return the first of these rows that shows the same as the image in a row."""
        if not near:
            return None
        ours, theirs = np.full(len(near), own), np.array(near)
        same = same_image(
            self._grey[ours], self._grey[theirs], self._aspects[ours], self._aspects[theirs]
        )
        return near[int(same.argmax())] if same.any() else None


class _Groups:
    """Groups of near-duplicates by union-find; those that were there before never change."""

    def __init__(self, known: Iterable[str]) -> None:
        self._age = {name: age for age, name in enumerate(dict.fromkeys(known))}
        self._known = len(self._age)
        self._into: dict[str, str] = {}

    def name(self, group: str) -> str:
        """Return what a group is called by now."""
        while group in self._into:
            group = self._into[group]
        return group

    def join(self, groups: Iterable[str], newcomer: str) -> tuple[str, tuple[str, ...]]:
        """Return the group of a newcomer that resembles these, and further ones known before."""
        names = sorted({self.name(group) for group in groups}, key=self._age.__getitem__)
        if not names:
            self._age.setdefault(newcomer, len(self._age))
            return newcomer, ()
        known = [name for name in names if self._age[name] < self._known]
        for name in names[1:]:
            if name not in known:
                self._into[name] = names[0]
        return names[0], tuple(name for name in known if name != names[0])
