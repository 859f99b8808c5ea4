"""The registry of back ends and codecs, from which resources and commands get them by name.

A further back end is a module of its own and one line in each of the two tables here; see
``docs/how-to/add-a-labelling-back-end.md``. Modules are imported on first use.
"""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from annotation_platform.errors import DataError, SettingsError
from annotation_platform.labeling.backends.protocol import LabelingBackend
from annotation_platform.schema.annotations import (
    Canvas,
    Codec,
    DecodedAnnotation,
    Payload,
    Review,
    review_of,
    same_labels,
)
from annotation_platform.storage.objects import ObjectStore

if TYPE_CHECKING:
    from annotation_platform.policy import Policy
    from annotation_platform.settings import Settings

Factory = Callable[["Settings", ObjectStore], LabelingBackend]
"""Creates a back end from a deployment's settings and the lake's objects; connects to nothing."""

_VENDOR = "handoff"
_BACKENDS = "annotation_platform.labeling.backends"

BACKENDS: dict[str, str | Factory] = {
    "label-studio": f"{_BACKENDS}.label_studio.running:from_settings",
    "simulated": f"{_BACKENDS}.simulated:from_settings",
    _VENDOR: f"{_BACKENDS}.vendor.backend:from_settings",
}
"""Factories by the name that tables record, or where to import them from: ``module:name``."""


CODECS: dict[str, str | Codec] = {
    "label-studio/1": f"{_BACKENDS}.label_studio.codec:CODEC",
    "regions/1": f"{_BACKENDS}.regions:CODEC",
    "vendor-answers/1": f"{_BACKENDS}.vendor.codecs:ANNOTATIONS_CODEC",
    "vendor-coco/1": f"{_BACKENDS}.vendor.codecs:COCO_CODEC",
    "pybossa/1": f"{_BACKENDS}.pybossa.codec:CODEC",
}
"""Codecs by the name that the ledger records, or where to import them from: ``module:name``."""


def check_backend(name: str) -> None:
    """Raise a SettingsError that lists the back ends, unless one has this name."""
    if name not in BACKENDS:
        known = ", ".join(sorted(BACKENDS))
        raise SettingsError(f"{name!r:.60} is not a labelling back end. Choose one of: {known}.")


def make_backend(name: str, settings: "Settings", store: ObjectStore) -> LabelingBackend:
    """Return the back end with a name; nothing is connected yet.

    Raises:
        SettingsError: no back end has this name, or it lacks a setting.
    """
    check_backend(name)
    factory: Factory = _imported(BACKENDS[name])
    return factory(settings, store)


def labeling_of(settings: "Settings", store: ObjectStore, policy: "Policy") -> LabelingBackend:
    """Return the deployment's own back end, alone or shared by policy.

    Args:
        settings: the deployment's settings; ``labeling`` names its own back end.
        store: the lake's objects.
        policy: ``labeling.backends`` divides tasks among back ends.

    Raises:
        SettingsError: no back end has such a name, or one lacks a setting.
    """
    from annotation_platform.labeling.backends.several import share_rounds

    own = make_backend(settings.labeling, settings, store)
    shares = policy.labeling.backends
    # Vendors may have tasks of earlier rounds, whatever the shares are now.
    names = {_VENDOR, *shares} - {own.name}
    others = {name: make_backend(name, settings, store) for name in sorted(names)}
    return share_rounds(own, others, shares, store, seed=policy.seed)


def decode(payload: Payload, canvas: Canvas) -> DecodedAnnotation:
    """Return the regions of a payload.

    Raises:
        DataError: no codec has the payload's name.
    """
    return _codec(payload).decode(payload.content, canvas)


def decode_review(payload: Payload, shown: Payload | None, canvas: Canvas) -> Review | None:
    """Return the decision in a reviewer's annotation on the shown labels; None if it has none."""
    annotation = _codec(payload).decode_review(payload.content, canvas)
    return review_of(annotation, decode(shown, canvas).labels if shown else [])


def is_changed(payload: Payload, shown: Payload | None, canvas: Canvas) -> bool:
    """Return whether an annotation differs from the pre-annotations that were shown.

    Payloads of one codec are compared by the values of their regions, others by their labels.
    """
    if shown is None:
        return bool(count_regions(payload))
    if payload.codec == shown.codec:
        values = _codec(payload).values
        return sorted(values(payload.content)) != sorted(values(shown.content))
    decoded = decode(payload, canvas)
    return bool(decoded.refused) or not same_labels(decoded.labels, decode(shown, canvas).labels)


def count_regions(payload: Payload) -> int:
    """Return how many regions a payload holds, unusable ones included."""
    return len(_codec(payload).values(payload.content))


def _codec(payload: Payload) -> Codec:
    if payload.codec not in CODECS:
        raise DataError(
            f"no codec {payload.codec!r:.60} reads this annotation. Install the release, or the"
            " back end, that wrote it into the ledger."
        )
    codec: Codec = _imported(CODECS[payload.codec])
    return codec


def _imported(entry: Any) -> Any:
    if not isinstance(entry, str):
        return entry
    module, _, name = entry.partition(":")
    return getattr(import_module(module), name)
