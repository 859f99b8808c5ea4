"""Lines of JSON, each with the SHA-256 of the previous line, so that later changes are detected.

A line has a consecutive ``number`` and, as ``previous``, the digest of the bytes of the previous
line without its line break; the first line has a fixed word there. A change to one line requires
all following lines to be rewritten.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

BEGIN = "begin"
"""The value of ``previous`` in the first line."""


@dataclass(frozen=True)
class ChainLink:
    """The end of a chain: the number of its last line, and the SHA-256 of that line."""

    number: int = 0
    sha256: str = BEGIN


@dataclass(frozen=True)
class Line:
    """A line and its location; ``row`` counts from 1 in its file.

    ``whole`` is whether the line ends with a line break; the last line of a killed writer does not.
    """

    file: str
    row: int
    data: bytes
    whole: bool = True

    @property
    def place(self) -> str:
        """File and row, for messages."""
        return f"{self.file}:{self.row}"


@dataclass(frozen=True)
class ChainProblem:
    """A problem of a log and its location; ``line`` 0 means the file.

    With ``or_next`` the next line may be the changed one instead: no further line decides it.
    """

    file: str
    line: int
    what: str
    or_next: bool = False

    @property
    def sentence(self) -> str:
        """Location and problem as text."""
        return f"{self.file}:{self.line}: {self.what}" if self.line else f"{self.file}: {self.what}"


@dataclass(frozen=True)
class Chain:
    """The result of checking a chain.

    Attributes:
        lines: number of lines, up to the problem if there is one.
        first: number of the first line.
        begins_late: whether lines before the first one are missing.
        last: the end of the chain.
        problem: the first line that was changed; None if there is none.
        notes: a sentence for each irregularity that is not a sign of a change.
    """

    lines: int
    first: int
    begins_late: bool
    last: ChainLink
    problem: ChainProblem | None = None
    notes: list[str] = field(default_factory=list)


def make_line(last: ChainLink, content: Mapping[str, Any]) -> bytes:
    """Return the line that follows on ``last``, without its end."""
    entry = {"number": last.number + 1, **content, "previous": last.sha256}
    # File names may contain bytes that are not text: their escapes are valid in JSON too.
    return json.dumps(entry, ensure_ascii=False).encode(errors="backslashreplace")


def digest_of(line: bytes) -> str:
    """Return the SHA-256 of a line, which the next line has as ``previous``."""
    return hashlib.sha256(line).hexdigest()


def json_object(line: bytes) -> dict[str, Any]:
    """Return the JSON object in a line; an empty one if there is none."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the content of a line; None if it is not a line of a chain."""
    content = json_object(line)
    fits = type(content.get("number")) is int and isinstance(content.get("previous"), str)
    return content if fits else None


def last_link(backwards: Iterable[bytes]) -> ChainLink:
    """Return the end of a chain from its lines, the last one first.

    Truncated lines count like any other; no more lines are read than are needed.
    """
    sha256 = ""
    for truncated, line in enumerate(backwards):
        sha256 = sha256 or digest_of(line)
        content = parse_line(line)
        if content is not None:
            return ChainLink(content["number"] + truncated, sha256)
    return ChainLink(0, sha256 or BEGIN)


def split_lines(file: str, stream: BinaryIO, size: int) -> Iterator[Line]:
    """Yield the lines in the next ``size`` bytes of a file."""
    row = 0
    while data := stream.readline(size):
        row, size = row + 1, size - len(data)
        yield Line(file, row, data.removesuffix(b"\n"), whole=data.endswith(b"\n"))


def check_chain(
    lines: Iterable[Line],
    *,
    appended: bool = False,
    seen: Callable[[Line, dict[str, Any], ChainLink], None] | None = None,
) -> Chain:
    """Return how many lines of a log are unchanged, and the first changed line.

    Removal of the last lines leaves no trace in the lines before them: only a record kept
    elsewhere, such as the ``ChainLink`` of a line, shows it.

    Args:
        lines: in order.
        appended: whether lines were appended to files instead of written together with them. Then
            a line may be truncated because its writer was stopped, which is a note; the first
            lines may be missing; and lines without a number, older than the chain, may come first.
        seen: called with each line, its content (empty if unreadable) and its link.
    """
    walk = _Walk(appended, seen)
    stream = iter(lines)
    this = next(stream, None)
    while this is not None:
        following = next(stream, None)
        problem = walk.step(this, following, stream)
        if problem is not None:
            return walk.result(problem)
        this = following
    return walk.result(None)


@dataclass(frozen=True)
class _Read:
    """A parsed line; ``number`` and ``previous`` are the line's own values."""

    line: Line
    content: dict[str, Any] | None
    sha256: str

    @property
    def number(self) -> int:
        return int(self.content["number"]) if self.content else 0

    @property
    def previous(self) -> str:
        return str(self.content["previous"]) if self.content else ""


class _Walk:
    """Checks line after line; keeps the last two links and the last line."""

    def __init__(
        self,
        appended: bool,
        seen: Callable[[Line, dict[str, Any], ChainLink], None] | None,
    ) -> None:
        self._appended = appended
        self._seen = seen
        self._before_last, self._last = ChainLink(), ChainLink()
        self._last_line: Line | None = None
        self._lines = self._older = self._first = 0
        self._next: _Read | None = None
        self._begins_late = False
        self._notes: list[str] = []

    def step(self, line: Line, following: Line | None, rest: Iterator[Line]) -> ChainProblem | None:
        this = self._next or _read(line)
        self._next = _read(following) if following is not None else None
        if not line.whole and not self._appended:
            return _problem(line, "this line was changed: its line break is missing")
        if this.content is None:
            return self._without_number(this)
        if ChainLink(this.number - 1, this.previous) != self._last:
            # The beginning may have been deleted with old days; the chain is checked from here on.
            if not self._appended or self._first or self._older or this.number < 1:
                return self._explain(this, rest)
            self._begins_late = True
            self._notes.append(
                f"{line.place} is number {this.number}: the lines before it were deleted"
            )
        self._first = self._first or this.number
        self._take(this, ChainLink(this.number, this.sha256))
        return None

    def result(self, problem: ChainProblem | None) -> Chain:
        if self._older:
            self._notes.insert(0, f"{self._older} lines are older than the chain")
        return Chain(self._lines, self._first, self._begins_late, self._last, problem, self._notes)

    def _take(self, this: _Read, link: ChainLink) -> None:
        self._before_last, self._last, self._last_line = self._last, link, this.line
        self._lines += 1
        if self._seen is not None:
            self._seen(this.line, this.content or {}, link)

    def _without_number(self, this: _Read) -> ChainProblem | None:
        """Accept a line that is not part of the chain, or return the problem with it."""
        line = this.line
        is_older = self._appended and not self._first and _is_older(line.data)
        if is_older:
            self._older += 1
            self._take(this, ChainLink(0, this.sha256))
            return None
        is_confirmed = self._next is not None and self._next.previous == this.sha256
        if self._appended and (is_confirmed or (self._next is None and not line.whole)):
            state = "is truncated" if is_confirmed else "is incomplete"
            self._notes.append(f"{line.place} {state}: its writer was stopped")
            number = self._last.number + 1 if self._first else 0
            self._take(this, ChainLink(number, this.sha256))
            return None
        if self._next is not None and self._next.previous == self._last.sha256:
            return _problem(line, "this line was added: the next line continues the previous one")
        return _problem(line, "this line was changed: it is not a valid line of this log")

    def _explain(self, this: _Read, rest: Iterator[Line]) -> ChainProblem:
        """Return which line was changed if a line does not continue the previous one."""
        line, expected = this.line, self._last.number + 1
        before = self._last_line or line
        if this.previous == self._last.sha256:
            return _problem(line, f"this line was changed: its number is not {expected}")
        added = self._added(this, before)
        if added is not None:
            return added
        is_confirmed = _follows(self._next, ChainLink(this.number, this.sha256))
        # Only the next line shows that a first line without a predecessor was renumbered.
        renumbered = self._lines == 1 and self._begins_late
        if this.number != expected and not (renumbered and is_confirmed):
            return self._out_of_order(this, expected, rest)
        if self._lines and self._next is None:
            problem = f"this line was changed, or the last line after it, {line.place}"
            return ChainProblem(before.file, before.row, problem, or_next=True)
        if self._lines and is_confirmed:
            return _problem(before, "this line was changed: the next line does not continue it")
        return _problem(
            line, "this line was changed, and perhaps the previous one: they do not fit together"
        )

    def _added(self, this: _Read, before: Line) -> ChainProblem | None:
        """Return the added line, if one was added: the chain is valid without it."""
        line, following = this.line, self._next
        if this.sha256 == self._last.sha256:
            return _problem(line, f"line number {this.number} was added a second time")
        moved_up = following is not None and this.previous == following.sha256
        if _follows(following, self._last) and not moved_up:
            return _problem(line, "this line was added: the next line continues the previous one")
        if self._lines and this.previous == self._before_last.sha256:
            return _problem(
                before, f"this line was added: {line.place} continues the line before it"
            )
        return None

    def _out_of_order(self, this: _Read, expected: int, rest: Iterator[Line]) -> ChainProblem:
        line, number = this.line, this.number
        if number < expected:
            return _problem(line, f"number {number} is out of order: {expected} should be here")
        later = itertools.chain([self._next] if self._next else [], map(_read, rest))
        if any(each.number == expected for each in later):
            return _problem(line, f"number {number} is out of order: {expected} comes later")
        missing = f"{expected} to {number - 1}" if number - 1 > expected else str(expected)
        return _problem(line, f"this is number {number}; missing before it: {missing}")


def _read(line: Line) -> _Read:
    return _Read(line, parse_line(line.data), digest_of(line.data))


def _follows(line: _Read | None, last: ChainLink) -> bool:
    return line is not None and ChainLink(line.number - 1, line.previous) == last


def _problem(line: Line, problem: str) -> ChainProblem:
    return ChainProblem(line.file, line.row, problem)


def _is_older(line: bytes) -> bool:
    content = json_object(line)
    return bool(content) and not {"number", "previous"} & content.keys()
