"""The codec of PyBossa's annotations: the ``info`` of a task run, as presenters write it."""

import json
from typing import Any

from annotation_platform.labeling.backends.label_studio.codec import CODEC as LABEL_STUDIO
from annotation_platform.labeling.backends.regions import decode_labels
from annotation_platform.schema.annotations import Canvas, Codec, DecodedAnnotation, Region
from annotation_platform.schema.shapes import UNSURE, Label

NAME = "pybossa/1"
_KEYS = ("result", "answer", "choice", "label")


class PybossaCodec(Codec):
    """Reads a list of regions, by itself or under a key; a choice; or ``unsure``.

    Presenters draw regions in percent, as the documentation of packages describes.
    """

    def decode(self, content: Any, canvas: Canvas) -> DecodedAnnotation:
        """Return the regions of an annotation, or the chosen class; none of a skip."""
        if is_skipped(content):
            return DecodedAnnotation([], [])
        if is_unsure(content):
            return DecodedAnnotation([Region(UNSURE)], [])
        regions = inner(content)
        if isinstance(regions, str):
            name = "region choice-0"
            return decode_labels([(name, "choice-0", lambda: Label.choice(regions))], canvas)
        return LABEL_STUDIO.decode(regions, canvas)

    def values(self, content: Any) -> list[str]:
        """Return the value of each region, or the choice; nothing of a skipped task."""
        if is_skipped(content):
            return []
        if is_unsure(content):
            return ["unsure"]
        regions = inner(content)
        return LABEL_STUDIO.values(regions) if isinstance(regions, list) else [json.dumps(regions)]


CODEC = PybossaCodec()


def is_skipped(info: Any) -> bool:
    """Return whether the author of a task run skipped the task."""
    return isinstance(info, dict) and info.get("skipped") is True


def is_unsure(info: Any) -> bool:
    """Return whether the author of a task run was unsure."""
    return isinstance(info, dict) and info.get("unsure") is True


def inner(info: Any) -> Any:
    """Return the regions or the choice of a task run; None if it has neither."""
    if isinstance(info, dict):
        return next((info[key] for key in _KEYS if key in info), None)
    return info
