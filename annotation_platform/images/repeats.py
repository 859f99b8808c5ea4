"""Duplicates and near-duplicates of accepted images among new images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from annotation_platform.images.signature import SignatureTable, same_image
from annotation_platform.images.similar_pairs import find_similar
from annotation_platform.schema.tables import CleanedImages, Frame


@dataclass(frozen=True)
class NewImage:
    """An acceptable image that is not in the lake yet.

    ``row`` is the row of its signature, ``aspect`` its width divided by its height; an image that a
    person restored is never dropped as near.
    """

    image_id: str
    row: int
    pixel_sha256: str
    aspect: float
    is_released: bool = False


@dataclass(frozen=True)
class DuplicateStatus:
    """The relation of an image to the images accepted before it.

    ``repeats`` is the kind of duplicate of ``original``: ``exact_pixels`` or ``near``; empty if the
    image is accepted. ``similar_to`` is the accepted image that it is most similar to, if any;
    ``joins`` are further groups from earlier rounds with similar images.
    """

    group_id: str
    repeats: str = ""
    original: str | None = None
    similar_to: str | None = None
    joins: tuple[str, ...] = ()


def find_duplicate_status(
    new: Sequence[NewImage], known: Frame[CleanedImages], signatures: SignatureTable, *, bits: int
) -> dict[str, DuplicateStatus]:
    """Return the status of each new image by its image id.

    In order, each image is compared with the images accepted before it. It is dropped as ``near``
    if it is similar to one without turning or cropping and `same_image` holds: of several, it
    repeats the one nearest by hash, then the first. Other similar images, such as a crop, a stamp
    or a mirror image, are accepted into the group of the image that they are similar to: of
    several, the oldest group; groups from earlier rounds are never merged. The id of a new group
    is that of its first image.

    Args:
        new: images in the order in which they may become originals; none of them is known.
        known: accepted rows of ``cleaned_images``, oldest first.
        signatures: of the known images, in their order, and after them of the new ones.
        bits: number of bits of 64 in which hashes of near-duplicates may differ.
    """
    accepted = _AcceptedImages(new, known, signatures, bits)
    statuses = {one.image_id: accepted.add(one) for one in new}
    return {
        image_id: replace(status, group_id=accepted.groups.name(status.group_id))
        for image_id, status in statuses.items()
    }


class _AcceptedImages:
    """The images accepted so far. An image is identified by its row of ``signatures``.

    Images of the same pixels are similar to the same others, so the search has one *face* for all
    of them: the faces of the known images come first, in order, then those of the new ones.
    """

    def __init__(
        self,
        new: Sequence[NewImage],
        known: Frame[CleanedImages],
        signatures: SignatureTable,
        bits: int,
    ) -> None:
        ids, group_ids = known[CleanedImages.image_id], known[CleanedImages.group_id]
        self._ids = dict(enumerate(ids)) | {one.row: one.image_id for one in new}
        self._group = dict(enumerate(group_ids))
        self.groups = _Groups(group_ids)
        pixels = known[CleanedImages.pixel_sha256]
        self._by_pixels = dict(zip(pixels, range(len(known)), strict=True))
        first: dict[str, int] = {}
        for one in new:
            if one.pixel_sha256 not in self._by_pixels:
                first.setdefault(one.pixel_sha256, one.row)
        self._face = {pixels: face for face, pixels in enumerate(first, start=len(known))}
        rows = np.array([*range(len(known)), *first.values()], dtype=np.int64)
        self._pairs = find_similar(signatures, rows, known=len(known), bits=bits)
        self._ends = np.searchsorted(self._pairs.later, np.arange(len(rows) + 1)).tolist()
        # The image of a face: the accepted one, or else the original that it repeats.
        self._accepted = dict(enumerate(range(len(known))))
        self._grey, self._aspects = signatures["grey"], np.zeros(len(signatures))
        widths, heights = known[CleanedImages.width], known[CleanedImages.height]
        self._aspects[: len(known)] = widths / heights
        self._aspects[[one.row for one in new]] = [one.aspect for one in new]

    def add(self, one: NewImage) -> DuplicateStatus:
        """Return the status of a new image, and add it unless it is a duplicate."""
        same_pixels = self._by_pixels.get(one.pixel_sha256)
        if same_pixels is not None:
            group, original_id = self._group[same_pixels], self._ids[same_pixels]
            return DuplicateStatus(group, "exact_pixels", original_id)
        face = self._face[one.pixel_sha256]
        similar = self._similar(face)
        near = [row for row, is_near in similar.items() if is_near and not one.is_released]
        original = self._original(near, one.row)
        if original is not None:
            self._accepted.setdefault(face, original)
            return DuplicateStatus(self._group[original], "near", self._ids[original])
        self._by_pixels[one.pixel_sha256] = one.row
        self._accepted[face] = one.row
        group, joins = self.groups.join([self._group[row] for row in similar], one.image_id)
        self._group[one.row] = group
        similar_to = next((self._ids[row] for row in similar), None)
        return DuplicateStatus(group, similar_to=similar_to, joins=joins)

    def _similar(self, face: int) -> dict[int, bool]:
        """Return the images similar to a face, nearest first, and whether without turn or crop.

        A dropped image is replaced by its original: of any number of copies of one image, a new
        image is compared with the original only.
        """
        part = slice(self._ends[face], self._ends[face + 1])
        similar: dict[int, bool] = {}
        for earlier, is_near in zip(
            self._pairs.earlier[part].tolist(), self._pairs.near[part].tolist(), strict=True
        ):
            row = self._accepted[earlier]
            similar[row] = similar.get(row, False) or is_near
        return similar

    def _original(self, near: list[int], own: int) -> int | None:
        """Return the first of these rows that shows the same image as the row ``own``."""
        if not near:
            return None
        ours, theirs = np.full(len(near), own), np.array(near)
        same = same_image(
            self._grey[ours], self._grey[theirs], self._aspects[ours], self._aspects[theirs]
        )
        return near[int(same.argmax())] if same.any() else None


class _Groups:
    """Groups of near-duplicates by union-find; groups from earlier rounds never change."""

    def __init__(self, known: Iterable[str]) -> None:
        self._age = {name: age for age, name in enumerate(dict.fromkeys(known))}
        self._known = len(self._age)
        self._into: dict[str, str] = {}

    def name(self, group: str) -> str:
        """Return the current name of a group."""
        while group in self._into:
            group = self._into[group]
        return group

    def join(self, groups: Iterable[str], image_id: str) -> tuple[str, tuple[str, ...]]:
        """Return the group of a new image similar to these groups, and further known groups."""
        names = sorted({self.name(group) for group in groups}, key=self._age.__getitem__)
        if not names:
            self._age.setdefault(image_id, len(self._age))
            return image_id, ()
        known = [name for name in names if self._age[name] < self._known]
        for name in names[1:]:
            if name not in known:
                self._into[name] = names[0]
        return names[0], tuple(name for name in known if name != names[0])
