"""Where in the lake the bytes of an image are."""


def raw_key(image_id: str) -> str:
    """Return the lake's key of the bytes of an image as they landed."""
    return f"raw/{image_id[:2]}/{image_id}"


def image_key(image_id: str, extension: str) -> str:
    """Return the lake's key of the cleaned image: what models see, and people unless masked."""
    return f"images/{image_id}.{extension}"


SHOWN = "shown"
"""The folder of the lake with what people see instead, where something is kept from them.

It is built like a lake, with ``images`` in it, so that it can be handed to a server alone.
"""


def shown_key(image_id: str, masks: str, extension: str) -> str:
    """Return the lake's key of an image as people see it; ``masks`` names what is masked."""
    return f"{SHOWN}/images/{image_id}-{masks}.{extension}"


def is_shown(key: str) -> bool:
    """Return whether what is under ``key`` was made for people who must not see everything."""
    return key.startswith(f"{SHOWN}/")


def sidecar_key(digest: str) -> str:
    """Return the lake's key of a sidecar as it landed, by its SHA-256."""
    return f"sidecars/{digest[:2]}/{digest}.json"
