"""The results of use cases: tables by name, and figures about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TypeAlias

import pandas as pd

from annotation_platform.schema.ontology import Ontology


@dataclass(frozen=True)
class Counts:
    """How often each value occurs."""

    values: "pd.Series[str]"


@dataclass(frozen=True)
class BarChart:
    """How often each value occurs, drawn as bars."""

    values: "pd.Series[str]"


@dataclass(frozen=True)
class TableRows:
    """The first rows of a table; without ``columns`` all of its columns."""

    frame: pd.DataFrame
    columns: Sequence[str] = ()


@dataclass(frozen=True)
class Thumbnails:
    """The first of some images, with their labels.

    ``images`` needs ``image_id`` and ``extension``; ``labels`` are drawn where they are given.
    """

    images: pd.DataFrame
    labels: pd.DataFrame | None = None
    ontology: Ontology | None = None


@dataclass(frozen=True)
class Quarantined:
    """The images of ``cleaned_images`` rows that were quarantined, each with the reason."""

    rows: pd.DataFrame


@dataclass(frozen=True)
class Findings:
    """The worst findings about a model, cut out of their images.

    ``truth`` needs ``image_id``, ``extension`` and boxes.
    """

    findings: pd.DataFrame
    truth: pd.DataFrame


@dataclass(frozen=True)
class PageLink:
    """The address of a page."""

    url: str


@dataclass(frozen=True)
class OwnPage:
    """A page of the platform, by its path without a leading slash."""

    path: str


@dataclass(frozen=True)
class Markdown:
    """A text in Markdown."""

    text: str


Figure: TypeAlias = (
    int
    | float
    | str
    | bool
    | Mapping[str, object]
    | Sequence[str]
    | Counts
    | BarChart
    | TableRows
    | Thumbnails
    | Quarantined
    | Findings
    | PageLink
    | OwnPage
    | Markdown
    | None
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The base of all results; a field that holds a table has the name of the table.

    Attributes:
        figures: by name, about the first table of the result; charts have a gap where a float is
            NaN.
        data_version: of the first table, if another digest than its own identifies it better.
    """

    figures: Mapping[str, Figure] = field(default_factory=dict)
    data_version: str = ""

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables by name, in the order of the fields; those that are None are left out."""
        every = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in every.items() if isinstance(value, pd.DataFrame)}
