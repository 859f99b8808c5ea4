"""What an asset's page shows: a count, a number to act on, and something to look at."""

import math
from collections.abc import Sequence

import dagster as dg
import pandas as pd

from annotation_platform.reporting.previews import (
    findings_preview,
    kept_out_preview,
    pictures_preview,
    table_preview,
)
from annotation_platform.schema.ontology import Ontology
from annotation_platform.storage.keys import raw_key
from annotation_platform.storage.lake import Lake

_BAR = 16
"""Signs of the longest bar."""


def table(frame: pd.DataFrame, columns: Sequence[str] = ()) -> dg.MarkdownMetadataValue:
    """Return the first rows of a table for an asset's page."""
    return dg.MetadataValue.md(table_preview(frame, columns=columns))


def pictures(
    images: pd.DataFrame,
    lake: Lake,
    labels: pd.DataFrame | None = None,
    ontology: Ontology | None = None,
) -> dg.MarkdownMetadataValue:
    """Return thumbnails of some images, with their boxes if given, for an asset's page.

    ``images`` needs ``image_id`` and ``extension``; the first eight are shown.
    """
    preview = pictures_preview(images, lake.picture, labels=labels, ontology=ontology)
    return dg.MetadataValue.md(preview)


def kept_out(rows: pd.DataFrame, lake: Lake) -> dg.MarkdownMetadataValue:
    """Return thumbnails of pictures that were kept out, each with its id and the reason."""
    preview = kept_out_preview(rows, lambda image_id: lake.store.get(raw_key(image_id)))
    return dg.MetadataValue.md(preview)


def finding_pictures(
    findings: pd.DataFrame, lake: Lake, truth: pd.DataFrame
) -> dg.MarkdownMetadataValue:
    """Return the worst of what a model got wrong, cut out, with the truth and what it proposed.

    ``truth`` needs ``image_id``, ``extension`` and boxes.
    """
    return dg.MetadataValue.md(findings_preview(findings, truth, lake.picture))


def histogram(values: pd.Series) -> dg.MarkdownMetadataValue:
    """Return how often each value occurs as a table with bars, the twenty most frequent first."""
    counted = values.value_counts()
    longest = max(int(counted.max()), 1) if len(counted) else 1
    rows = {"": counted.index.astype(str), "count": counted.to_numpy()}
    rows[" "] = ["█" * max(1, round(_BAR * int(n) / longest)) for n in counted]
    return dg.MetadataValue.md(table_preview(pd.DataFrame(rows), rows=20))


def counts(values: pd.Series) -> dg.JsonMetadataValue:
    """Return how often each value occurs, most frequent first."""
    return dg.MetadataValue.json({str(key): int(n) for key, n in values.value_counts().items()})


def number(value: float) -> float | None:
    """Return the value, or nothing where it is not a number: charts have a gap there."""
    return None if math.isnan(value) else round(float(value), 4)
