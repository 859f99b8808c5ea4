"""The base of all tables: what a column declares, and a class per table that checks its frames.

Every table is checked on every write and on most reads. A check looks at whole columns at once:
a round has thousands of columns.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from annotation_platform.errors import TableError

if TYPE_CHECKING:
    from typing_extensions import TypeAliasType

    T = TypeVar("T")
    Frame = TypeAliasType("Frame", pd.DataFrame, type_params=(T,))
else:

    class Frame:
        """``Frame[HumanLabels]`` is a DataFrame with the columns of ``HumanLabels``."""

        def __class_getitem__(cls, _: object) -> type[pd.DataFrame]:
            return pd.DataFrame


IntArray = npt.NDArray[np.int_]
BoolArray = npt.NDArray[np.bool_]
TEXT = "string[pyarrow]"
TIME = "datetime64[us, UTC]"
ARROW_TYPES = {
    TEXT: pa.string(),
    "int64": pa.int64(),
    "Int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    TIME: pa.timestamp("us", tz="UTC"),
    "object": pa.list_(pa.float32()),
}
"""What each type of a column is in Arrow; the one ``object`` is a vector."""


@cache
def _dtype(name: str) -> Any:
    """Return the pandas type of that name; pandas takes a while to find one."""
    return pd.api.types.pandas_dtype(name)


@dataclass(frozen=True)
class Column:
    """A column of a table. On the class of its table it is its name: ``Splits.split == "split"``.

    Attributes:
        dtype: name of its pandas type.
        about: what it holds.
        unit: unit of its numbers; empty: none, or as ``about`` says.
        nullable: whether values may be missing.
        pattern: regular expression that a text has to match; empty: any text.
        one_of: the allowed values, read at each check, because a registry may grow; None: any.
        low, high: the smallest and the largest number; None: no limit.
        key: whether it is a part of the key, of which a table holds each value once.
        renamed_from: its names in files of older releases, the latest first.
        default: its value where rows, or files of older releases, lack it. With None a nullable
            column is empty there, and any other one is an error.
        renamed_values: texts in files of older releases, each with the text that replaces it.
        name: its name in its tables, once a class has it.
    """

    dtype: str
    about: str
    unit: str = ""
    nullable: bool = False
    pattern: str = ""
    one_of: Collection[str] | None = None
    low: float | None = None
    high: float | None = None
    key: bool = False
    renamed_from: tuple[str, ...] = ()
    default: object = None
    renamed_values: Mapping[str, str] = field(default_factory=dict)
    name: str = ""

    def __set_name__(self, owner: type, name: str) -> None:
        """Take the name of the attribute; tables may share a column only under one name."""
        if self.name not in ("", name):
            raise TypeError(f"{owner.__name__}.{name} is the column {self.name} of another table")
        object.__setattr__(self, "name", name)

    def __get__(self, instance: object, owner: type | None = None) -> str:
        """Return the name of the column."""
        return self.name

    def as_key(self) -> "Column":
        """Return the column as a part of a key."""
        return replace(self, key=True)

    def or_else(self, default: object) -> "Column":
        """Return the column with a value for rows and older files that lack it."""
        return replace(self, default=default)

    def formerly(self, *names: str, **values: str) -> "Column":
        """Return the column with what files of older releases hold instead.

        Args:
            names: the names of the column there, the latest first.
            values: texts of older releases, each with the text that replaces it.
        """
        return replace(self, renamed_from=names, renamed_values=values)

    def find_in(self, held: Iterable[str]) -> str | None:
        """Return the name under which a file with these columns holds it; None: it does not."""
        names = set(held)
        return next((each for each in (self.name, *self.renamed_from) if each in names), None)

    def has_type(self, dtype: object) -> bool:
        """Return whether values of this pandas type may be in the column.

        Texts may mark missing values either way that pandas knows (``string`` or ``str``).
        """
        is_text = self.dtype == TEXT and isinstance(dtype, pd.StringDtype)
        return is_text or dtype == _dtype(self.dtype)

    def problem(self, values: pd.Series) -> str:
        """Return what is wrong with values, with the first such value and its row; or nothing."""
        if not self.has_type(values.dtype):
            return f"has the type {values.dtype}, not {self.dtype}"
        if self.dtype in ("object", TIME):  # without limits
            lost = values.isna()
            return f"has no value in row {_first(lost)}" if lost.any() and not self.nullable else ""
        # Arrow does this in a tenth of the time that pandas takes for a short column.
        held = pa.array(values)
        if held.null_count and not self.nullable:
            return f"has no value in row {_first(held.is_null())}"
        known = held.drop_null() if held.null_count else held
        for is_wrong, expected in self._limits(known):
            first = _first(is_wrong)
            value = known[first].as_py()
            row = int(np.flatnonzero(held.is_valid())[first]) if held.null_count else first
            shown = repr(value) if isinstance(value, str) else str(value)
            return f"holds {shown} in row {row}, which {expected}"
        return ""

    def _limits(self, known: Any) -> Iterable[tuple[BoolArray, str]]:
        """Yield which values break a limit, for each that is broken, and the end of a sentence."""
        if self.pattern:
            matches = np.asarray(pc.match_substring_regex(known, self.pattern), dtype=bool)
            if not matches.all():
                yield ~matches, f"does not match {self.pattern}"
        if self.one_of is not None:
            allowed = np.asarray(pc.is_in(known, pa.array(list(self.one_of), known.type)))
            if not allowed.all():
                yield ~allowed, f"is none of {', '.join(map(repr, self.one_of))}"
        if (self.low is not None or self.high is not None) and len(known):
            numbers = np.asarray(known)
            if self.low is not None and numbers.min() < self.low:
                yield numbers < self.low, f"is below {self.low:g}"
            if self.high is not None and numbers.max() > self.high:
                yield numbers > self.high, f"is above {self.high:g}"


def _first(mask: Any) -> int:
    """Return the position of the first True."""
    return int(np.flatnonzero(np.asarray(mask, dtype=bool))[0])


class Table:
    """A table of the lake: a subclass names its columns, in order, and says what a row is.

    ``class Splits(Table, name="splits"): …`` with the columns as attributes. Every file carries
    the table's name and version. A column that is added, renamed or dropped raises the version;
    ``renamed_from`` and ``default`` of its columns then say how an older file is read.

    Attributes:
        table_name: its name in the lake, in SQL and in lineage.
        schema_version: the version of its columns, from 1. Files of v0.1.0 are version 0.
        old_names: its names in older releases, the latest first.
        about: what a row is, the docstring.
        columns: its columns by name, in order.
        key_columns: the names of those that tell rows apart.
    """

    table_name: ClassVar[str] = ""
    schema_version: ClassVar[int] = 0
    old_names: ClassVar[tuple[str, ...]] = ()
    about: ClassVar[str] = ""
    columns: ClassVar[Mapping[str, Column]] = MappingProxyType({})
    key_columns: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(
        cls, *, name: str = "", version: int = 1, renamed_from: Sequence[str] = ()
    ) -> None:
        """Collect the columns. Without a name the class only lends them to its subclasses."""
        own = {key: value for key, value in vars(cls).items() if isinstance(value, Column)}
        cls.columns = MappingProxyType({**cls.columns, **own})
        cls.key_columns = tuple(key for key, column in cls.columns.items() if column.key)
        cls.table_name, cls.schema_version, cls.old_names = name, version, tuple(renamed_from)
        cls.about = " ".join((cls.__doc__ or "").split())

    @classmethod
    def column(cls, name: str) -> Column:
        """Return a column by its name; a KeyError if there is none."""
        return cls.columns[name]

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the default of each column that has one, by name."""
        return {
            key: column.default for key, column in cls.columns.items() if column.default is not None
        }

    @classmethod
    def maps_older_files(cls) -> bool:
        """Return whether files of an older release hold anything under other names or defaults."""
        columns = cls.columns.values()
        changed = any(
            each.renamed_from or each.renamed_values or each.default is not None for each in columns
        )
        return changed or bool(cls.old_names)

    @classmethod
    def empty(cls) -> "Frame[Self]":
        """Return the table with no rows and the declared columns and types."""
        return _empty(cls).copy(deep=False)

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, object]]) -> "Frame[Self]":
        """Return rows as the checked table; no rows give the empty table.

        A row that lacks a column has its default there.
        """
        defaults = cls.defaults()
        filled = [{**defaults, **row} for row in rows] if defaults else rows
        return cls.conform(pd.DataFrame(filled, columns=list(cls.columns)))

    @classmethod
    def conform(cls, frame: pd.DataFrame, *, where: str = "") -> "Frame[Self]":
        """Return ``frame`` as the checked table: its columns in order, of their types.

        Further columns are left out; missing ones have their default, or no values.
        """
        if frame.empty:
            return cls.empty()
        missing = {key: value for key, value in cls.defaults().items() if key not in frame}
        frame = frame.assign(**missing).reindex(columns=list(cls.columns)).reset_index(drop=True)
        for key, column in cls.columns.items():
            if column.dtype == TIME:
                # A column in which all are missing has no time zone to start from.
                frame[key] = pd.to_datetime(frame[key], utc=True)
        types = {
            key: _dtype(column.dtype)
            for (key, column), held in zip(cls.columns.items(), frame.dtypes, strict=True)
            if column.dtype != "object" and held != _dtype(column.dtype)
        }
        return cls.check(frame.astype(types), where=where)

    @classmethod
    def check(cls, frame: pd.DataFrame, *, where: str = "") -> "Frame[Self]":
        """Return ``frame`` if it is as declared; otherwise raise a TableError naming the column.

        An empty frame is given the declared types, because pandas cannot infer them. Times
        in other units and zones become what is declared. ``where`` names the frame in the error.
        """
        if frame.empty:
            return cls.empty()
        frame = _with_times(cls, frame)
        problem = cls._problem(frame)
        if problem:
            place = f" ({where})" if where else ""
            raise TableError(
                f"table {cls.table_name}{place} is not as declared: {problem}. "
                "See docs/reference/tables.md for its columns."
            )
        return frame

    @classmethod
    def fits(cls, frame: pd.DataFrame, *, part: IntArray | None = None) -> bool:
        """Return whether a frame is as declared, types included.

        For several tables in one frame ``part`` numbers the table of each row: a key is unique
        in each.
        """
        return not cls._problem(frame, part=part)

    @classmethod
    def _problem(cls, frame: pd.DataFrame, *, part: IntArray | None = None) -> str:
        """Return the first thing in which a frame is not as declared, as a phrase; or nothing."""
        held, declared = list(frame), list(cls.columns)
        if held != declared:
            return _other_columns(held, declared)
        for name, column in cls.columns.items():
            problem = column.problem(frame[name])
            if problem:
                return f"column {name} {problem}"
        keys = frame[list(cls.key_columns)]
        again = (keys if part is None else keys.assign(_part=part)).duplicated()
        if again.any():
            row = _first(again)
            values = ", ".join(f"{name} {value!r}" for name, value in keys.iloc[row].items())
            return f"row {row} repeats the key of an earlier row, {values}"
        return ""


_EMPTY: dict[type[Table], pd.DataFrame] = {}


def _empty(table: type[Table]) -> pd.DataFrame:
    if table not in _EMPTY:
        _EMPTY[table] = pd.DataFrame(
            {name: pd.Series([], dtype=column.dtype) for name, column in table.columns.items()}
        )
    return _EMPTY[table]


def _with_times(table: type[Table], frame: pd.DataFrame) -> pd.DataFrame:
    """Return a copy of ``frame`` in which times of other units and zones are as declared."""
    frame = frame.copy(deep=False)
    for name, column in table.columns.items():
        if column.dtype != TIME or name not in frame or frame[name].dtype == _dtype(TIME):
            continue
        values = frame[name]
        kind = pd.api.types.infer_dtype(values, skipna=True)
        if kind in ("datetime64", "datetime", "empty") or values.isna().all():
            frame[name] = pd.to_datetime(values, utc=True).astype(_dtype(TIME))
    return frame


def _other_columns(held: Sequence[object], declared: Sequence[str]) -> str:
    """Return in what the columns of a frame differ from those declared, as a phrase."""
    missing = [name for name in declared if name not in held]
    foreign = [name for name in held if name not in declared]
    if missing or foreign:
        parts = [f"column {name} is missing" for name in missing[:1]]
        return ", ".join(parts + [f"column {name} is not declared" for name in foreign[:1]])
    at, name = next(
        (at, name) for at, name in enumerate(held) if at >= len(declared) or name != declared[at]
    )
    return f"column {name} is at position {at}, where it does not belong"


def text(
    about: str, *, pattern: str = "", one_of: Collection[str] | None = None, key: bool = False
) -> Column:
    """Return a column of text that is always there."""
    return Column(TEXT, about, pattern=pattern, one_of=one_of, key=key)


def states(about: str, kinds: type[StrEnum], *, or_empty: bool = False) -> Column:
    """Return a column of text that holds a member of ``kinds``, or also the empty text."""
    values = [each.value for each in kinds]
    return text(about, one_of=[*values, ""] if or_empty else values)


def optional_text(about: str, *, pattern: str = "") -> Column:
    """Return a column of text that may be missing."""
    return Column(TEXT, about, nullable=True, pattern=pattern)


def count(about: str, *, low: float | None = 0, unit: str = "", key: bool = False) -> Column:
    """Return a column of whole numbers."""
    return Column("int64", about, low=low, unit=unit, key=key)


def number(
    about: str, low: float | None = None, high: float | None = None, *, unit: str = ""
) -> Column:
    """Return a column of numbers that may be missing."""
    return Column("float64", about, nullable=True, low=low, high=high, unit=unit)


def flag(about: str, *, key: bool = False) -> Column:
    """Return a column of yes and no."""
    return Column("bool", about, key=key)


def time(about: str) -> Column:
    """Return a column of moments in UTC, to the microsecond, that may be missing."""
    return Column(TIME, about, nullable=True)
