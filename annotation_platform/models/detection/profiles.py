"""How thoroughly images are looked at: one look for serving, several for proposing labels."""

import hashlib
import itertools
import json
from collections.abc import Sequence

import numpy as np

from annotation_platform.images.decoding import Pixels
from annotation_platform.models.detection.box_fusion import fuse_boxes
from annotation_platform.models.detection.tiling import (
    Windows,
    join_windows,
    mirrored,
    most_useful,
    tile_windows,
)
from annotation_platform.models.protocols import LOWEST_SCORE, Detections, Detector
from annotation_platform.policy import ProfilePolicy

# Windows that are looked at together. The detector makes its own batches of them.
_TOGETHER = 64


class ProfiledDetector:
    """Detectors that look at images as a profile says; itself a ``port.Detector``.

    A *look* is one detector at one image, plain or mirrored left to right, whole and in tiles
    where the profile has tiles and the image is larger than one. What the windows of a look show
    is joined (``tiling.py``), and the looks are fused (``box_fusion.py``). Of all passes allowed
    for an image every look gets an equal part, one of them for the whole image; where there are
    fewer passes than looks, the later looks are left out: first the mirrored one of the last
    detector.

    Args:
        members: the detectors, the newest first; more than the profile's ensemble are left out.
        name: of the profile.
        policy: its settings.
    """

    def __init__(self, members: Sequence[Detector], *, name: str, policy: ProfilePolicy) -> None:
        self.members = tuple(members[: policy.ensemble])
        self.profile = profile_name(name, policy)
        self._policy = policy
        looks = [(member, flip) for member in self.members for flip in _flips(policy)]
        self._looks = looks[: policy.most_passes] if policy.most_passes else looks

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of the newest member."""
        return self.members[0].class_names

    @property
    def digest(self) -> str:
        """SHA-256 of the file of the newest member."""
        return self.members[0].digest

    @property
    def weights(self) -> tuple[str, ...]:
        """SHA-256 of the files of all members that look, the newest first."""
        return tuple(dict.fromkeys(member.digest for member, _ in self._looks))

    @property
    def device(self) -> str:
        """Where the newest member runs."""
        return self.members[0].device

    def predict(
        self, images: Sequence[Pixels], *, minimum_score: float = LOWEST_SCORE
    ) -> list[Detections]:
        """Return what all looks together see in each image, as ``port.Detector`` says."""
        first, flip = self._looks[0]
        whole = _look(first, images, [_whole(one) for one in images], flip=flip)
        windows = [self._tiles(image, one) for image, one in zip(images, whole, strict=True)]
        found = []
        for number, (member, flip) in enumerate(self._looks):
            known = whole if number == 0 else None
            found.append(self._looked(member, images, windows, flip=flip, whole=known))
        return [fuse_boxes(each, minimum_score=minimum_score) for each in zip(*found, strict=True)]

    def _tiles(self, image: Pixels, whole: Detections) -> Windows:
        """Return the windows of each look, the whole image first."""
        height, width = image.shape[:2]
        policy = self._policy
        if policy.tile_side == 0 or max(width, height) <= policy.tile_side:
            return _whole(image)
        tiles = tile_windows(width, height, side=policy.tile_side, overlap=policy.tile_overlap)
        if policy.most_passes:
            most = policy.most_passes // len(self._looks) - 1
            tiles = most_useful(tiles, image, whole, most=max(0, most))
        return np.vstack([_whole(image), tiles])

    def _looked(
        self,
        member: Detector,
        images: Sequence[Pixels],
        windows: Sequence[Windows],
        *,
        flip: bool,
        whole: Sequence[Detections] | None,
    ) -> list[Detections]:
        """Return one look at every image; ``whole`` is what is known of it already."""
        if whole is None:
            return _look(member, images, windows, flip=flip)
        tiled = [n for n, its in enumerate(windows) if len(its) > 1]
        result = list(whole)
        rest = _look_apart(
            member,
            [images[n] for n in tiled],
            [windows[n][1:] for n in tiled],
            flip=flip,
        )
        for n, parts in zip(tiled, rest, strict=True):
            height, width = images[n].shape[:2]
            seen = [whole[n], *parts]
            result[n] = join_windows(windows[n], seen, width=width, height=height)
        return result


def profile_name(name: str, policy: ProfilePolicy) -> str:
    """Return the name of a profile with the start of its settings' SHA-256: ``serving@1f…``."""
    text = json.dumps(policy.model_dump(mode="json"), sort_keys=True)
    return f"{name}@{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _flips(policy: ProfilePolicy) -> tuple[bool, ...]:
    return (False, True) if policy.flips else (False,)


def _whole(image: Pixels) -> Windows:
    height, width = image.shape[:2]
    return np.array([[0, 0, width, height]], dtype=np.int64)


def _look(
    member: Detector, images: Sequence[Pixels], windows: Sequence[Windows], *, flip: bool
) -> list[Detections]:
    """Return what a member sees of each image in its windows together."""
    parts = _look_apart(member, images, windows, flip=flip)
    joined = []
    for image, its, seen in zip(images, windows, parts, strict=True):
        height, width = image.shape[:2]
        alone = len(its) == 1
        joined.append(seen[0] if alone else join_windows(its, seen, width=width, height=height))
    return joined


def _look_apart(
    member: Detector, images: Sequence[Pixels], windows: Sequence[Windows], *, flip: bool
) -> list[list[Detections]]:
    """Return what a member sees in each window of each image, in pixels of the window."""
    crops = [
        image[y1:y2, x1:x2]
        for image, its in zip(images, windows, strict=True)
        for x1, y1, x2, y2 in its.tolist()
    ]
    found: list[Detections] = []
    for start in range(0, len(crops), _TOGETHER):
        some = crops[start : start + _TOGETHER]
        seen = member.predict([crop[:, ::-1] for crop in some] if flip else some)
        if flip:
            seen = [mirrored(s, width=c.shape[1]) for s, c in zip(seen, some, strict=True)]
        found.extend(seen)
    ends = np.cumsum([0, *(len(its) for its in windows)])
    return [found[first:last] for first, last in itertools.pairwise(ends)]
