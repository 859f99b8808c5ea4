"""Where in the lake the bytes of an image are."""


def raw_key(image_id: str) -> str:
    """Return the lake's key of the bytes of an image as they landed."""
    return f"raw/{image_id[:2]}/{image_id}"


def image_key(image_id: str, extension: str) -> str:
    """Return the lake's key of the cleaned picture: what people and models see."""
    return f"images/{image_id}.{extension}"


def sidecar_key(digest: str) -> str:
    """Return the lake's key of a sidecar as it landed, by its SHA-256."""
    return f"sidecars/{digest[:2]}/{digest}.json"
