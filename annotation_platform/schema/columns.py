"""What a table declares of its columns.

pandera checks it and says what is wrong. It takes two milliseconds a column, and a round has
thousands of columns, so a table that plainly is as declared, as nearly all are, is not put to it;
nor is it imported for whoever asks for a type or a description alone.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import pandera.pandas as pandera

IntArray = npt.NDArray[np.int_]
TEXT = "string[pyarrow]"


@cache
def _dtype(name: str) -> object:
    """Return the type of that name; pandas takes a while to find one."""
    return pd.api.types.pandas_dtype(name)


@dataclass(frozen=True)
class Column:
    """A column: its type for pandas, what it holds, and which values it may have.

    Attributes:
        dtype: name of the type.
        about: what it holds, with its unit.
        nullable: whether values may be missing.
        pattern: what a text has to match; empty: anything.
        one_of: the values there are, read at each check, for a registry may grow; None: any.
        low, high: the smallest and the largest number; None: no end.
    """

    dtype: str
    about: str
    nullable: bool = False
    pattern: str = ""
    one_of: Collection[str] | None = None
    low: float | None = None
    high: float | None = None

    def plainly_fits(self, values: pd.Series) -> bool:
        """Return whether values have the very type and all are as declared.

        What pandera would turn into the type, or take with another reading of a pattern, is not.
        """
        if values.dtype != _dtype(self.dtype):
            return False
        known = values
        if values.hasnans:
            if not self.nullable:
                return False
            known = values.dropna()
        if self.pattern:
            found = pc.match_substring_regex(pa.array(known), self.pattern)
            if not pc.all(found, min_count=0).as_py():
                return False
        return bool(
            (self.one_of is None or known.isin(self.one_of).all())
            and (self.low is None or known.empty or known.min() >= self.low)
            and (self.high is None or known.empty or known.max() <= self.high)
        )

    def to_pandera(self) -> "pandera.Column":
        """Return the column as pandera checks it."""
        import pandera.pandas as pandera

        checks = []
        if self.pattern:
            checks.append(pandera.Check.str_matches(self.pattern))
        if self.one_of is not None:
            checks.append(pandera.Check.isin(list(self.one_of)))
        if self.low is not None:
            checks.append(pandera.Check.ge(self.low))
        if self.high is not None:
            checks.append(pandera.Check.le(self.high))
        # Times come in other units and zones.
        coerce = self.dtype.startswith("datetime64")
        return pandera.Column(self.dtype, checks, nullable=self.nullable, coerce=coerce)


@dataclass(frozen=True)
class Table:
    """A table: what a row is, its columns in order, and the columns that tell rows apart."""

    name: str
    about: str
    columns: Mapping[str, Column] = field(repr=False)
    key: Sequence[str]

    def plainly_fits(self, frame: pd.DataFrame, *, part: IntArray | None = None) -> bool:
        """Return whether a table is as declared without a doubt: pandera would pass it as it is.

        Of several tables in one frame ``part`` numbers that of each row: a key is unique in each.
        """
        keys = frame[list(self.key)] if list(frame) == list(self.columns) else None
        return (
            keys is not None
            and all(column.plainly_fits(frame[name]) for name, column in self.columns.items())
            and not (keys if part is None else keys.assign(_part=part)).duplicated().any()
        )

    @cached_property
    def checked(self) -> "pandera.DataFrameSchema":
        """The table as pandera checks it."""
        import pandera.pandas as pandera

        return pandera.DataFrameSchema(
            {name: column.to_pandera() for name, column in self.columns.items()},
            name=self.name,
            unique=list(self.key),
            strict=True,
            ordered=True,
        )


def text(about: str, *, pattern: str = "", one_of: Collection[str] | None = None) -> Column:
    """Return a column of text that is always there."""
    return Column(TEXT, about, pattern=pattern, one_of=one_of)


def optional_text(about: str, *, pattern: str = "") -> Column:
    """Return a column of text that may be missing."""
    return Column(TEXT, about, nullable=True, pattern=pattern)


def count(about: str, *, low: float | None = 0) -> Column:
    """Return a column of whole numbers."""
    return Column("int64", about, low=low)


def number(about: str, low: float | None = None, high: float | None = None) -> Column:
    """Return a column of numbers that may be missing."""
    return Column("float64", about, nullable=True, low=low, high=high)


def flag(about: str) -> Column:
    """Return a column of yes and no."""
    return Column("bool", about)


def time(about: str) -> Column:
    """Return a column of moments in UTC, to the microsecond, that may be missing."""
    return Column("datetime64[us, UTC]", about, nullable=True)
