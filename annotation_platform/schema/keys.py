"""The lake's keys of image bytes."""


def raw_key(image_id: str) -> str:
    """Return the lake's key of an image's original bytes."""
    return f"raw/{image_id[:2]}/{image_id}"


def image_key(image_id: str, extension: str) -> str:
    """Return the lake's key of a cleaned image: for models, and for people unless it is masked."""
    return f"images/{image_id}.{extension}"


SHOWN = "shown"
"""The lake's folder of masked images, which people see in place of the cleaned ones.

It has the layout of a lake, with a folder ``images``, so that a server can be given it alone.
"""


def shown_key(image_id: str, masks: str, extension: str) -> str:
    """Return the lake's key of a masked image; ``masks`` identifies the masked regions."""
    return f"{SHOWN}/images/{image_id}-{masks}.{extension}"


def is_shown(key: str) -> bool:
    """Return whether ``key`` is that of a masked image."""
    return key.startswith(f"{SHOWN}/")


def sidecar_key(digest: str) -> str:
    """Return the lake's key of an original sidecar, by its SHA-256."""
    return f"sidecars/{digest[:2]}/{digest}.json"
