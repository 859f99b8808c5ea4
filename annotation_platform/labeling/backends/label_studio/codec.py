"""The codec of Label Studio's regions: percent coordinates, as its API and exports give them."""

import json
from typing import Any

from annotation_platform.formats.label_studio.results import read_result, read_review
from annotation_platform.schema.annotations import Canvas, Codec, DecodedAnnotation

NAME = "label-studio/1"


class LabelStudioCodec(Codec):
    """Reads the ``result`` of an annotation or a prediction; it may be anything."""

    def decode(self, content: Any, canvas: Canvas) -> DecodedAnnotation:
        """Return the regions of an annotation."""
        return read_result(content, **vars(canvas))

    def decode_review(self, content: Any, canvas: Canvas) -> DecodedAnnotation:
        """Return the regions and the decision of a reviewer's annotation."""
        return read_review(content, **vars(canvas))

    def values(self, content: Any) -> list[str]:
        """Return the value of each region; ids and origins do not matter."""
        regions = content if isinstance(content, list) else [content]
        found = (each.get("value") if isinstance(each, dict) else each for each in regions)
        return [json.dumps(value, sort_keys=True) for value in found]


CODEC = LabelStudioCodec()
