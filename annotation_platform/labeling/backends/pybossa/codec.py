"""The codec of PyBossa's answers: the ``info`` of a task run, as presenters write it."""

import json
from typing import Any

from annotation_platform.labeling.annotations import Canvas, Codec, DecodedAnnotation, Region
from annotation_platform.labeling.backends.label_studio.codec import CODEC as LABEL_STUDIO
from annotation_platform.labeling.backends.regions import decode_labels
from annotation_platform.schema.shapes import UNSURE, Label

NAME = "pybossa/1"
_KEYS = ("result", "answer", "choice", "label")


class PybossaCodec(Codec):
    """Reads a list of regions, by itself or under a key; a choice; or that the author was unsure.

    Presenters draw regions in percent, as the documentation of packages describes them.
    """

    def decode(self, content: Any, canvas: Canvas) -> DecodedAnnotation:
        """Return the regions of an answer, or the one class that was chosen; none of a skip."""
        if is_skipped(content):
            return DecodedAnnotation([], [])
        if is_unsure(content):
            return DecodedAnnotation([Region(UNSURE)], [])
        said = inner(content)
        if isinstance(said, str):
            name = "region choice-0"
            return decode_labels([(name, "choice-0", lambda: Label.choice(said))], canvas)
        return LABEL_STUDIO.decode(said, canvas)

    def values(self, content: Any) -> list[str]:
        """Return the value of each region, or the choice; nothing of a skipped task."""
        if is_skipped(content):
            return []
        if is_unsure(content):
            return ["unsure"]
        said = inner(content)
        return LABEL_STUDIO.values(said) if isinstance(said, list) else [json.dumps(said)]


CODEC = PybossaCodec()


def is_skipped(info: Any) -> bool:
    """Return whether a task run says that its author did not want to answer."""
    return isinstance(info, dict) and info.get("skipped") is True


def is_unsure(info: Any) -> bool:
    """Return whether a task run says that its author could not tell."""
    return isinstance(info, dict) and info.get("unsure") is True


def inner(info: Any) -> Any:
    """Return the regions or the choice in a task run; None if there is neither."""
    if isinstance(info, dict):
        return next((info[key] for key in _KEYS if key in info), None)
    return info
