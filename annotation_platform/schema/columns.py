"""What a table declares of its columns; pandera checks it, and is imported when it first does.

Whoever asks for a type or a description, as most commands do, waits for no validation library.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandera.pandas as pa

TEXT = "string[pyarrow]"


@dataclass(frozen=True)
class Column:
    """A column: its type for pandas, what it holds, and which values it may have.

    Attributes:
        dtype: name of the type.
        about: what it holds, with its unit.
        nullable: whether values may be missing.
        pattern: what a text has to match; empty: anything.
        one_of: the values there are; None: any.
        low, high: the smallest and the largest number; None: no end.
    """

    dtype: str
    about: str
    nullable: bool = False
    pattern: str = ""
    one_of: tuple[str, ...] | None = None
    low: float | None = None
    high: float | None = None

    def to_pandera(self) -> "pa.Column":
        """Return the column as pandera checks it."""
        import pandera.pandas as pa

        checks = []
        if self.pattern:
            checks.append(pa.Check.str_matches(self.pattern))
        if self.one_of is not None:
            checks.append(pa.Check.isin(list(self.one_of)))
        if self.low is not None:
            checks.append(pa.Check.ge(self.low))
        if self.high is not None:
            checks.append(pa.Check.le(self.high))
        # Times come in other units and zones.
        coerce = self.dtype.startswith("datetime64")
        return pa.Column(self.dtype, checks, nullable=self.nullable, coerce=coerce)


@dataclass(frozen=True)
class Table:
    """A table: what a row is, its columns in order, and the columns that tell rows apart."""

    name: str
    about: str
    columns: Mapping[str, Column] = field(repr=False)
    key: Sequence[str]

    @cached_property
    def checked(self) -> "pa.DataFrameSchema":
        """The table as pandera checks it."""
        import pandera.pandas as pa

        return pa.DataFrameSchema(
            {name: column.to_pandera() for name, column in self.columns.items()},
            name=self.name,
            unique=list(self.key),
            strict=True,
            ordered=True,
        )


def text(about: str, *, pattern: str = "", one_of: Sequence[str] | None = None) -> Column:
    """Return a column of text that is always there."""
    return Column(TEXT, about, pattern=pattern, one_of=None if one_of is None else tuple(one_of))


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
