"""Which images a source landed."""

import pandas as pd


def arrived_from(landed: pd.DataFrame, source: str) -> "pd.Series[bool]":
    """Return which landed files are from a source.

    Args:
        landed: rows of ``raw_images``.
        source: what their sidecars say, or a folder of the landing zone; a slash at its end
            changes nothing.
    """
    source = source.rstrip("/")
    below = landed["source_key"].str.startswith(f"{source}/")
    # Without a sidecar it says nothing.
    return (landed["source"] == source).fillna(value=False) | below


def arrived_only_from(landed: pd.DataFrame, source: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the images of a source, and those that landed from elsewhere as well."""
    own = arrived_from(landed, source)
    images, others = (frozenset(landed["image_id"][each]) for each in (own, ~own))
    return images - others, images & others
