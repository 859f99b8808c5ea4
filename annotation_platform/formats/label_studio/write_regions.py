"""Writes one label, in pixels of an image, as Label Studio regions."""

from typing import Any

from annotation_platform.formats.label_studio.control_names import IMAGE_NAME, UNSURE_NAME
from annotation_platform.formats.label_studio.region_codecs import CODECS
from annotation_platform.schema.shapes import NOTHING, UNSURE, Label


def write_region(label: Label, key: str, width: int, height: int) -> list[dict[str, Any]]:
    """Return the regions of one label: none for "nothing here", one for each outline.

    Args:
        label: a label in pixels of an image.
        key: the ``id`` of the region; further outlines are its children, with numbered ids.
        width: width of the image in pixels.
        height: height of the image in pixels.
    """
    if label.shape == NOTHING.shape:
        return []
    chosen: str | None = UNSURE_NAME
    kind, control, values = "choices", UNSURE_NAME, [dict[str, Any]()]
    if label.shape != UNSURE.shape:
        codec = CODECS[label.shape]
        kind, control, chosen = codec.kind, codec.control, label.class_name
        values = codec.write(label, width, height)
    about = {
        "type": kind,
        "from_name": control,
        "to_name": IMAGE_NAME,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
    }
    return [
        {
            **({"id": f"{key}-{number}", "parentID": key} if number else {"id": key}),
            **about,
            "value": {**value, kind: [chosen]},
        }
        for number, value in enumerate(values)
    ]
