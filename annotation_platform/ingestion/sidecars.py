"""Sidecars: JSON files that land with images and contain their metadata and existing labels.

The sidecar of ``a.jpg`` is ``a.jpg.json`` or ``a.json``, one JSON object::

    {"source": "pier 4", "captured_at": "2026-05-01T12:00:00+02:00", "geo": [53.5, 9.9],
     "device": "X100", "licence": "CC-BY-4.0", "consent": "signs at the gate",
     "labels": {"origin": "coco", "width": 640, "height": 480,
                "boxes": [{"class": "boat", "box": [10, 20, 110, 90]}]}}

Every field is optional. Fields of other names are stored unchanged. Boxes are ``x1 y1 x2 y2`` in
pixels of an image of the given width and height.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from annotation_platform.errors import DataError

MAXIMUM_BYTES = 20_000_000
_MAXIMUM_DEPTH = 32
_TEXTS = ("source", "device", "licence", "consent")


@dataclass(frozen=True)
class ImportedBox:
    """A box of an existing label: corners in pixels, ``x1 < x2`` and ``y1 < y2``."""

    class_name: str
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class SidecarLabels:
    """The existing labels of an image; no boxes means that it is labelled as empty.

    ``origin`` is the source of the labels; ``width`` and ``height`` are the size of the image on
    which they were drawn, in pixels.
    """

    origin: str
    width: int
    height: int
    boxes: tuple[ImportedBox, ...]


@dataclass(frozen=True)
class Sidecar:
    """A checked sidecar. ``metadata`` has the columns of ``schema.tables.METADATA``."""

    metadata: dict[str, object]
    labels: SidecarLabels | None


_UNREADABLE = "could not be read"

NO_METADATA: dict[str, object] = {
    "source": None, "captured_at": None, "latitude": None, "longitude": None, "device": None,
    "licence": None, "consent": None, "other_metadata": "",
}  # fmt: skip


def read_sidecar(data: bytes) -> Sidecar:
    """Return the content of a sidecar; an unusable one is a DataError that names the field."""
    fields = sidecar_fields(data)
    if set(fields) == {_UNREADABLE}:
        raise DataError(str(fields[_UNREADABLE]))
    metadata = dict(NO_METADATA)
    for name in _TEXTS:
        metadata[name] = _text(name, fields.pop(name, None))
    metadata["captured_at"] = _time(fields.pop("captured_at", None))
    metadata["latitude"], metadata["longitude"] = _geo(fields)
    labels = _labels(fields.pop("labels", None))
    if fields:
        metadata["other_metadata"] = json.dumps(fields, sort_keys=True, ensure_ascii=False)
    return Sidecar(metadata, labels)


def unreadable_sidecar(why: str) -> bytes:
    """Return the object that replaces an unreadable sidecar in the lake, with the reason."""
    return json.dumps({_UNREADABLE: why}, ensure_ascii=False).encode()


def sidecar_fields(data: bytes) -> dict[str, Any]:
    """Return the JSON object of a sidecar with unchecked values; other data is a DataError."""
    if len(data) > MAXIMUM_BYTES:
        raise DataError(f"{len(data)} bytes, at most {MAXIMUM_BYTES}")
    try:
        fields = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_without_repetition)
        # JSON can contain lone surrogates, which cannot be stored in a table.
        json.dumps(fields, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        # Python refuses numbers of thousands of digits with a ValueError too.
        raise DataError(f"not JSON: {str(error)[:120]}") from error
    if not isinstance(fields, dict):
        raise DataError("not a JSON object")
    if _depth(fields) > _MAXIMUM_DEPTH:
        raise DataError(f"nested more than {_MAXIMUM_DEPTH} deep")
    return fields


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field is repeated")
    return fields


def _depth(value: Any) -> int:
    deepest, open_ = 0, [(value, 1)]
    while open_:
        value, depth = open_.pop()
        deepest = max(deepest, depth)
        if isinstance(value, dict | list):
            inner = value.values() if isinstance(value, dict) else value
            open_ += [(each, depth + 1) for each in inner]
    return deepest


def _text(name: str, value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise DataError(f"{name}: a text is needed, not {type(value).__name__}")
    return value


def _time(value: Any) -> datetime | None:
    if value is None or value == "":
        return None
    try:
        time = datetime.fromisoformat(value)
        # A time without a zone is in UTC.
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError("captured_at: a time like 2026-05-01T12:00:00+02:00 is needed") from error


def _geo(fields: dict[str, Any]) -> tuple[float | None, float | None]:
    location = fields.pop("geo", None)
    if isinstance(location, dict):
        latitude, longitude = location.get("latitude"), location.get("longitude")
    elif isinstance(location, list) and len(location) == 2:
        latitude, longitude = location
    elif location is None:
        latitude, longitude = fields.pop("latitude", None), fields.pop("longitude", None)
    else:
        raise DataError("geo: [latitude, longitude] is needed, in degrees")
    if latitude is None and longitude is None:
        return None, None
    north, east = _number("geo", latitude), _number("geo", longitude)
    if abs(north) > 90 or abs(east) > 180:
        raise DataError(f"geo: {north:g}, {east:g} is not a latitude and longitude in degrees")
    return north, east


def _number(name: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) < 1e9:
        raise DataError(f"{name}: a number is needed, not {value!r:.40}")
    return float(value)


def _labels(value: Any) -> SidecarLabels | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("boxes"), list):
        raise DataError("labels: an object with origin, width, height and boxes is needed")
    width, height = (
        int(_number(f"labels.{side}", value.get(side))) for side in ("width", "height")
    )
    boxes = tuple(_box(number, entry) for number, entry in enumerate(value["boxes"]))
    return SidecarLabels(_text("labels.origin", value.get("origin")) or "", width, height, boxes)


def _box(number: int, entry: Any) -> ImportedBox:
    where = f"labels.boxes[{number}]"
    if not isinstance(entry, dict) or not isinstance(entry.get("box"), list):
        raise DataError(f'{where}: {{"class": …, "box": [x1, y1, x2, y2]}} is needed')
    name = _text(f"{where}.class", entry.get("class"))
    if name is None or len(entry["box"]) != 4:
        raise DataError(f"{where}: a class and four numbers are needed")
    return ImportedBox(name, *(_number(where, each) for each in entry["box"]))
