"""Prediction profiles: one pass per image for serving; tiles, flips and ensembles for labeling."""

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
    select_windows,
    tile_windows,
)
from annotation_platform.models.protocols import LOWEST_SCORE, Detections, Detector
from annotation_platform.policy import ProfilePolicy

# Number of windows per call of a detector, which divides them into its own batches.
_WINDOWS_PER_CALL = 64


class ProfiledDetector:
    """Detectors applied to images with the settings of a profile; a ``protocols.Detector`` itself.

    A *view* is one detector applied to one image, plain or mirrored left to right, to the whole
    image and to tiles if the profile has tiles and the image is larger than one. The detections in
    the windows of a view are joined (``tiling.py``), and the views are fused (``box_fusion.py``).
    Each view gets an equal part of the passes allowed for an image, one of them for the whole
    image. With fewer passes than views, the last views are left out, starting with the mirrored
    one of the last detector.

    Args:
        members: the detectors, the newest first; those beyond the profile's ensemble are left out.
        name: of the profile.
        policy: its settings.
    """

    def __init__(self, members: Sequence[Detector], *, name: str, policy: ProfilePolicy) -> None:
        self.members = tuple(members[: policy.ensemble])
        self.profile = profile_name(name, policy)
        self._policy = policy
        views = [(member, flip) for member in self.members for flip in _flips(policy)]
        self._views = views[: policy.maximum_passes] if policy.maximum_passes else views

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
        """SHA-256 of the files of all members with a view, the newest first."""
        return tuple(dict.fromkeys(member.digest for member, _ in self._views))

    @property
    def device(self) -> str:
        """Device of the newest member."""
        return self.members[0].device

    def predict(
        self, images: Sequence[Pixels], *, minimum_score: float = LOWEST_SCORE
    ) -> list[Detections]:
        """Return the fused detections of all views; see ``protocols.Detector``."""
        first, flip = self._views[0]
        whole = _detect(first, images, [_whole(one) for one in images], flip=flip)
        windows = [self._windows(image, one) for image, one in zip(images, whole, strict=True)]
        found = []
        for number, (member, flip) in enumerate(self._views):
            known = whole if number == 0 else None
            found.append(self._detect_view(member, images, windows, flip=flip, whole=known))
        return [fuse_boxes(each, minimum_score=minimum_score) for each in zip(*found, strict=True)]

    def _windows(self, image: Pixels, whole: Detections) -> Windows:
        """Return the windows of each view, the whole image first."""
        height, width = image.shape[:2]
        policy = self._policy
        if policy.tile_side == 0 or max(width, height) <= policy.tile_side:
            return _whole(image)
        tiles = tile_windows(width, height, side=policy.tile_side, overlap=policy.tile_overlap)
        if policy.maximum_passes:
            most = policy.maximum_passes // len(self._views) - 1
            tiles = select_windows(tiles, image, whole, most=max(0, most))
        return np.vstack([_whole(image), tiles])

    def _detect_view(
        self,
        member: Detector,
        images: Sequence[Pixels],
        windows: Sequence[Windows],
        *,
        flip: bool,
        whole: Sequence[Detections] | None,
    ) -> list[Detections]:
        """Return one view of every image; ``whole``: its known detections in whole images."""
        if whole is None:
            return _detect(member, images, windows, flip=flip)
        tiled = [n for n, own in enumerate(windows) if len(own) > 1]
        result = list(whole)
        rest = _detect_windows(
            member,
            [images[n] for n in tiled],
            [windows[n][1:] for n in tiled],
            flip=flip,
        )
        for n, parts in zip(tiled, rest, strict=True):
            height, width = images[n].shape[:2]
            result[n] = join_windows(windows[n], [whole[n], *parts], width=width, height=height)
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


def _detect(
    member: Detector, images: Sequence[Pixels], windows: Sequence[Windows], *, flip: bool
) -> list[Detections]:
    """Return a member's detections of each image, joined from its windows."""
    parts = _detect_windows(member, images, windows, flip=flip)
    joined = []
    for image, own, found in zip(images, windows, parts, strict=True):
        height, width = image.shape[:2]
        single = len(own) == 1
        joined.append(found[0] if single else join_windows(own, found, width=width, height=height))
    return joined


def _detect_windows(
    member: Detector, images: Sequence[Pixels], windows: Sequence[Windows], *, flip: bool
) -> list[list[Detections]]:
    """Return a member's detections in each window of each image, in pixels of the window."""
    crops = [
        image[y1:y2, x1:x2]
        for image, own in zip(images, windows, strict=True)
        for x1, y1, x2, y2 in own.tolist()
    ]
    found: list[Detections] = []
    for start in range(0, len(crops), _WINDOWS_PER_CALL):
        chunk = crops[start : start + _WINDOWS_PER_CALL]
        part = member.predict([crop[:, ::-1] for crop in chunk] if flip else chunk)
        if flip:
            part = [mirrored(d, width=c.shape[1]) for d, c in zip(part, chunk, strict=True)]
        found.extend(part)
    ends = np.cumsum([0, *(len(own) for own in windows)])
    return [found[first:last] for first, last in itertools.pairwise(ends)]
