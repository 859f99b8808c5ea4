"""Annotate images in rounds, settle what people disagree on, publish dataset versions.

An ordinary library: nothing in here but the composition root ``definitions.py`` knows Dagster.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from annotation_platform.versioning.loading import LoadedVersion

__version__ = "0.1.0"


def query(sql: str, *, home: str | Path | None = None) -> "pd.DataFrame":
    """Return the result of a SELECT over the catalog; see ``catalog.query``."""
    # Importing the package stays free of pandas and DuckDB.
    from annotation_platform.catalog.query import query as run_select

    return run_select(sql, home=home)


def load(
    version: str,
    *,
    registry: str | Path = "",
    remote: str = "",
    folder: str | Path | None = None,
) -> "LoadedVersion":
    """Return a published version: its labels as a table, its images as torch samples.

    See ``versioning.loading``.
    """
    from annotation_platform.versioning.loading import load as loaded

    return loaded(version, registry=registry, remote=remote, folder=folder)
