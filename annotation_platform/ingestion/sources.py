"""The images that arrived from a source."""

import pandas as pd

from annotation_platform.schema.tables import Frame, RawImages


def arrived_from(landed: Frame[RawImages], source: str) -> "pd.Series[bool]":
    """Return which landed files are from a source.

    Args:
        landed: rows of ``raw_images``.
        source: the source in their sidecars, or a folder of the landing zone; a trailing slash is
            ignored.
    """
    source = source.rstrip("/")
    below = landed[RawImages.source_key].str.startswith(f"{source}/")
    # A file without a sidecar has no source.
    return (landed[RawImages.source] == source).fillna(value=False) | below


def arrived_only_from(
    landed: Frame[RawImages], source: str
) -> tuple[frozenset[str], frozenset[str]]:
    """Return the images of one source only, and those of this and other sources, by image id."""
    own = arrived_from(landed, source)
    images, others = (frozenset(landed[RawImages.image_id][each]) for each in (own, ~own))
    return images - others, images & others
