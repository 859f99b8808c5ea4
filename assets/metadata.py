"""Figures of use cases as Dagster metadata: counts, numbers and previews."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import pandas as pd

from annotation_platform.pipeline import result
from annotation_platform.reporting import previews
from annotation_platform.schema.keys import raw_key
from annotation_platform.storage.lake import Lake
from resources.pages import PagesResource

_BAR = 16
"""Characters of the longest bar."""


def materialized(
    found: result.Result, lake: Lake, pages: PagesResource
) -> Iterator[dg.MaterializeResult[pd.DataFrame]]:
    """Yield the tables of a result; the first table comes last and has the figures.

    So if a run is interrupted, the first table exists only together with all others.
    """
    lead, *others = found.tables.items()
    for name, table in reversed(others):
        rows = {"preview": result.TableRows(table)}
        shown = {"rows_shown": min(len(table), 5), **metadata(rows, lake, pages)}
        yield dg.MaterializeResult(asset_key=name, value=table, metadata=shown)
    version = dg.DataVersion(found.data_version) if found.data_version else None
    yield dg.MaterializeResult(
        asset_key=lead[0],
        value=lead[1],
        data_version=version,
        metadata=metadata(found.figures, lake, pages),
    )


def metadata(
    figures: Mapping[str, result.Figure], lake: Lake, pages: PagesResource
) -> dict[str, Any]:
    """Return figures as Dagster metadata; without links to own pages if no server serves them."""
    return {
        name: _shown(figure, lake, pages.url)
        for name, figure in figures.items()
        if pages.url or not isinstance(figure, result.OwnPage)
    }


def _shown(figure: result.Figure, lake: Lake, pages: str) -> Any:
    markdown = dg.MetadataValue.md
    match figure:
        case result.Counts(values):
            return counts(values)
        case result.BarChart(values):
            return markdown(_histogram(values))
        case result.TableRows(frame, columns):
            return markdown(previews.table_preview(frame, columns=columns))
        case result.Thumbnails(images, labels, ontology):
            preview = previews.images_preview(images, lake.image, labels=labels, ontology=ontology)
            return markdown(preview)
        case result.Quarantined(rows):
            return markdown(
                previews.quarantine_preview(rows, lambda image: lake.store.get(raw_key(image)))
            )
        case result.Findings(findings, truth):
            return markdown(previews.findings_preview(findings, truth, lake.image))
        case result.PageLink(url):
            return dg.MetadataValue.url(url)
        case result.OwnPage(path):
            return dg.MetadataValue.url(f"{pages}/{path}")
        case result.Markdown(text):
            return markdown(text)
        case float():
            return number(figure)
        case Mapping():
            return dict(figure)
        case _:
            return figure


def _histogram(values: "pd.Series[str]") -> str:
    """Return how often each value occurs as a table with bars, the twenty most frequent first."""
    counted = values.value_counts()
    longest = max(int(counted.max()), 1) if len(counted) else 1
    rows = {"": counted.index.astype(str), "count": counted.to_numpy()}
    rows[" "] = ["█" * max(1, round(_BAR * int(n) / longest)) for n in counted]
    return previews.table_preview(pd.DataFrame(rows), rows=20)


def counts(values: "pd.Series[str]") -> dg.JsonMetadataValue:
    """Return how often each value occurs, most frequent first."""
    return dg.MetadataValue.json({str(key): int(n) for key, n in values.value_counts().items()})


def number(value: float) -> float | None:
    """Return the rounded value, or None for NaN: charts have a gap there."""
    return None if math.isnan(value) else round(float(value), 4)
