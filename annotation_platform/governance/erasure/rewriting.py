"""Rewrite one object of the lake without erased content.

Digests identify tables, lists and images throughout the lake, so one rule covers nearly all
objects: rows and entries about an erased image are deleted, and any other occurrence of its id, or
of the digest of a rewritten object, is replaced. No code specific to a table or file is needed.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from annotation_platform.schema.tables import RawImages
from annotation_platform.storage.journal import ERASED
from annotation_platform.storage.table_files import table_parquet, with_origin

_HEX = re.compile(r"(?<![0-9a-f])[0-9a-f]{32,64}(?![0-9a-f])")
_PEOPLE = {"author", "assignee", "person", "annotator", "by", "decided_by"}
"""Names of fields and columns that hold the name of a person."""

_PSEUDONYM = re.compile(r"annotator-[0-9a-f]{10}")
_AT_ONCE = 256
"""Ids in one pattern; more of them would make RE2's automaton too large."""

_GONE = object()

Entries = Callable[[str, int], Mapping[str, Any]]
"""Return the record of the first entries of a journal, by its folder and their number."""


@dataclass
class Rewriting:
    """Deletions and replacements of an erasure.

    Attributes:
        images: ids of the erased images; rows and entries about them are deleted.
        landed: name and change stamp of every arrival with one of them.
        tokens: replacement of each id or digest, in hexadecimal.
        words: replacement of each name, by its lower case. A name is replaced in the fields of
            persons; an address or a pseudonym is replaced anywhere.
        entries: record of a rewritten journal; None where journals do not change.
    """

    images: frozenset[str]
    landed: frozenset[tuple[str, str]]
    tokens: dict[str, str]
    words: dict[str, str] = field(default_factory=dict)
    entries: Entries | None = field(default=None, repr=False)

    def concerns(self, data: bytes) -> bool:
        """Return whether a text may hold erased or replaced content."""
        text = data.decode(errors="replace")
        if self._anywhere is not None and self._anywhere.search(text):
            return True
        if any(f'"{word}"' in text.lower() for word in self._names):
            return True
        return not self.tokens.keys().isdisjoint(_HEX.findall(text))

    def names_one(self, text: str) -> bool:
        """Return whether a text, such as a key, holds the id of an erased image."""
        return not self.images.isdisjoint(_HEX.findall(text))

    def text(self, text: str) -> str:
        """Return a text with every token and word replaced."""
        text = _HEX.sub(lambda match: self.tokens.get(match[0], match[0]), text)
        if self._anywhere is not None:
            text = self._anywhere.sub(lambda match: self.words[match[0].lower()], text)
        return text

    def document(self, data: bytes) -> bytes:
        """Return a JSON document without erased content, in the same layout."""
        if not (self.concerns(data) or self.landed or self.entries):
            return data
        content = json.loads(data)
        new = self._value(content)
        if new == content:
            return data
        indent = 1 if b"\n" in data.strip() else None
        text = json.dumps(new, indent=indent, ensure_ascii=False)
        return text.encode() + (b"\n" if data.endswith(b"\n") else b"")

    def entry(self, data: bytes) -> bytes:
        """Return an entry of a journal; an erased line is replaced by a marker line."""
        if not self.concerns(data):
            return data
        lines = data.splitlines(keepends=True)
        return b"".join(self._line(line) for line in lines)

    def table(self, data: bytes) -> bytes:
        """Return a Parquet file without erased rows; its schema does not change."""
        table = pq.read_table(pa.BufferReader(data))
        new = self._without_rows(table)
        replaced = with_origin(self._with_tokens(new), self.tokens)
        if replaced is table:
            return data
        return table_parquet(replaced)

    @cached_property
    def _names(self) -> set[str]:
        """Words with other meanings, which are replaced only in the fields of persons."""
        return {word for word in self.words if not ("@" in word or _PSEUDONYM.fullmatch(word))}

    def _named(self, name: str) -> str:
        """Return the new name of a person, or the same name."""
        return self.words[name.lower()] if name.lower() in self._names else self.text(name)

    @cached_property
    def _anywhere(self) -> re.Pattern[str] | None:
        """The pattern of the words that are replaced anywhere; None if there are none."""
        words = self.words.keys() - self._names
        if not words:
            return None
        either = "|".join(map(re.escape, sorted(words)))
        return re.compile(rf"(?<![\w.+-])(?:{either})(?![\w-]|\.\w)", re.IGNORECASE)

    def _line(self, line: bytes) -> bytes:
        content = json.loads(line)
        new = self._value(content)
        if new is _GONE:
            named = sorted(self._names_in(line.decode()))
            new = {ERASED: named[0] if named else ""}
        if new == content:
            return line
        end = b"\n" if line.endswith(b"\n") else b""
        return json.dumps(new, ensure_ascii=False).encode() + end

    def _names_in(self, text: str) -> set[str]:
        return {self.tokens[each] for each in _HEX.findall(text) if each in self.images}

    def _value(self, value: Any) -> Any:
        """Return a JSON value without erased content, or ``_GONE``."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            members = [self._value(each) for each in value]
            return [each for each in members if each is not _GONE]
        if not isinstance(value, dict):
            return value
        if value.get("image_id") in self.images or self._has_landed(value):
            return _GONE
        new = {key: self._member(key, each) for key, each in value.items()}
        # An object is deleted with any of its members; a list only loses the member.
        if any(each is _GONE for each in new.values()):
            return _GONE
        return {self.text(key): each for key, each in new.items() if not self.names_one(key)}

    def _member(self, key: str, value: Any) -> Any:
        if key == "journals" and self.entries is not None and isinstance(value, dict):
            return {folder: self.entries(folder, each["count"]) for folder, each in value.items()}
        if key in _PEOPLE and isinstance(value, str):
            return self._named(value)
        return self._value(value)

    def _has_landed(self, value: Mapping[str, Any]) -> bool:
        return (value.get("key"), value.get("stamp")) in self.landed

    def _without_rows(self, table: pa.Table) -> pa.Table:
        keep = None
        if "image_id" in table.column_names:
            gone = pc.is_in(table["image_id"], pa.array(sorted(self.images), pa.large_string()))
            keep = pc.invert(pc.fill_null(gone, False))
        version = RawImages.column(RawImages.arrival_version).find_in(table.column_names)
        if version and RawImages.source_key in table.column_names and self.landed:
            columns = (table[RawImages.source_key], table[version])
            pairs = zip(*(column.to_pylist() for column in columns), strict=True)
            others = pa.chunked_array(
                [pa.array([pair not in self.landed for pair in pairs], pa.bool_())]
            )
            keep = others if keep is None else pc.and_(keep, others)
        if keep is None or pc.all(keep, min_count=0).as_py():
            return table
        return table.filter(keep)

    def _with_tokens(self, table: pa.Table) -> pa.Table:
        for index, name in enumerate(table.column_names):
            column = table[name]
            if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
                continue
            rows = self._concerned(column)
            if not rows:
                continue
            values = column.to_pylist()
            changed = self._named if name in _PEOPLE else self.text
            for row in rows:
                values[row] = changed(values[row])
            new = pa.chunked_array([pa.array(values, column.type)])
            if not new.equals(column):
                table = table.set_column(index, table.schema.field(index), new)
        return table

    def _concerned(self, column: pa.ChunkedArray) -> list[int]:
        """Return the rows of a text column that hold a token or word."""
        sought = [*self.tokens, *self.words]
        longest = pc.max(pc.utf8_length(column)).as_py() or 0
        if not sought or longest < min(map(len, sought)):
            return []
        distinct = column.unique().drop_null()
        found = {
            text
            for batch in _batches(map(re.escape, sought))
            for text in distinct.filter(
                pc.match_substring_regex(distinct, "|".join(batch), ignore_case=True)
            ).to_pylist()
        }
        if not found:
            return []
        rows = pc.indices_nonzero(pc.is_in(column, pa.array(sorted(found), column.type)))
        return list(rows.to_pylist())


def _batches(tokens: Iterable[str]) -> Iterable[list[str]]:
    ordered = sorted(tokens)
    for start in range(0, len(ordered), _AT_ONCE):
        yield ordered[start : start + _AT_ONCE]
