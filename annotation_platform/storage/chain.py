"""Lines of JSON, each with the SHA-256 of the line before: what is changed afterwards shows.

A line has its running ``number`` and, as ``previous``, the digest of the bytes of the line before
it, without the line's end; the first line has a fixed word there. Whoever changes a line has to
write anew all that come after it.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

BEGIN = "begin"
"""What the first line has for the digest of the line before."""


@dataclass(frozen=True)
class Link:
    """Where a chain stands: the number of its last line, and the SHA-256 of that line."""

    number: int = 0
    sha256: str = BEGIN


@dataclass(frozen=True)
class Line:
    """A line where it was found; ``row`` counts from 1 in its file.

    ``whole`` is whether it has its end: only of a writer that was killed the last line has none.
    """

    file: str
    row: int
    data: bytes
    whole: bool = True

    @property
    def place(self) -> str:
        """File and row, as messages name them."""
        return f"{self.file}:{self.row}"


@dataclass(frozen=True)
class Problem:
    """What is wrong with a log, and where; ``line`` 0 means the file.

    With ``or_next`` it may be the line after it just as well: nothing follows that would tell.
    """

    file: str
    line: int
    what: str
    or_next: bool = False

    @property
    def sentence(self) -> str:
        """Place and problem, for people."""
        return f"{self.file}:{self.line}: {self.what}" if self.line else f"{self.file}: {self.what}"


@dataclass(frozen=True)
class Chain:
    """What checking a chain found.

    Attributes:
        lines: how many there are, up to the problem if there is one.
        first: number of the first line.
        begins_late: whether the lines before it are gone.
        last: where the chain stands.
        problem: the first line that is not as it was written; None if all are.
        notes: what is odd and no sign of a change, a sentence each.
    """

    lines: int
    first: int
    begins_late: bool
    last: Link
    problem: Problem | None = None
    notes: list[str] = field(default_factory=list)


def make_line(last: Link, content: Mapping[str, Any]) -> bytes:
    """Return the line that follows on ``last``, without its end."""
    entry = {"number": last.number + 1, **content, "previous": last.sha256}
    # Names of files may hold bytes that are no text: their escapes are JSON's as well.
    return json.dumps(entry, ensure_ascii=False).encode(errors="backslashreplace")


def digest_of(line: bytes) -> str:
    """Return the SHA-256 under which the next line knows a line."""
    return hashlib.sha256(line).hexdigest()


def json_object(line: bytes) -> dict[str, Any]:
    """Return the JSON object in a line; an empty one if there is none."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return what a line says; None if it is no line of a chain."""
    content = json_object(line)
    fits = type(content.get("number")) is int and isinstance(content.get("previous"), str)
    return content if fits else None


def last_link(backwards: Iterable[bytes]) -> Link:
    """Return where a chain stands, from its lines, the last one first.

    Lines that were broken off count like any other; no more lines are asked for than are needed.
    """
    sha256 = ""
    for broken_off, line in enumerate(backwards):
        sha256 = sha256 or digest_of(line)
        content = parse_line(line)
        if content is not None:
            return Link(content["number"] + broken_off, sha256)
    return Link(0, sha256 or BEGIN)


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
    seen: Callable[[Line, dict[str, Any], Link], None] | None = None,
) -> Chain:
    """Return how much of a log is as it was written, and the first line that is not.

    The last lines of a log can be taken away without a trace in those before: only what others
    noted of the log, such as the ``Link`` of a line, shows that.

    Args:
        lines: in order.
        appended: whether lines were appended to files instead of written with them. Then a writer
            may have been stopped at one, which is a note; the first lines may be gone; and lines
            without a number, from before there was a chain, may come first.
        seen: is told of each line, with what it says, if that can be read, and the link it makes.
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
    """A line, taken apart; ``number`` and ``previous`` are what it says itself."""

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
    """Goes from line to line; knows the last two links and the line of the last."""

    def __init__(
        self,
        appended: bool,
        seen: Callable[[Line, dict[str, Any], Link], None] | None,
    ) -> None:
        self._appended = appended
        self._seen = seen
        self._before_last, self._last = Link(), Link()
        self._last_line: Line | None = None
        self._lines = self._older = self._first = 0
        self._next: _Read | None = None
        self._begins_late = False
        self._notes: list[str] = []

    def step(self, line: Line, following: Line | None, rest: Iterator[Line]) -> Problem | None:
        this = self._next or _read(line)
        self._next = _read(following) if following is not None else None
        if not line.whole and not self._appended:
            return _problem(line, "this line was changed: it has lost its end")
        if this.content is None:
            return self._without_number(this)
        if Link(this.number - 1, this.previous) != self._last:
            # Its beginning may go with the days that nobody needs; lines follow on it all the same.
            if not self._appended or self._first or self._older or this.number < 1:
                return self._explain(this, rest)
            self._begins_late = True
            self._notes.append(
                f"{line.place} is number {this.number}: the lines before it are not kept"
            )
        self._first = self._first or this.number
        self._take(this, Link(this.number, this.sha256))
        return None

    def result(self, problem: Problem | None) -> Chain:
        if self._older:
            self._notes.insert(0, f"{self._older} lines are from before there was a chain")
        return Chain(self._lines, self._first, self._begins_late, self._last, problem, self._notes)

    def _take(self, this: _Read, link: Link) -> None:
        self._before_last, self._last, self._last_line = self._last, link, this.line
        self._lines += 1
        if self._seen is not None:
            self._seen(this.line, this.content or {}, link)

    def _without_number(self, this: _Read) -> Problem | None:
        """Go over a line that is none of a chain, or say what is wrong with it."""
        line = this.line
        is_older = self._appended and not self._first and _is_older(line.data)
        if is_older:
            self._older += 1
            self._take(this, Link(0, this.sha256))
            return None
        vouched_for = self._next is not None and self._next.previous == this.sha256
        if self._appended and (vouched_for or (self._next is None and not line.whole)):
            what = "was broken off" if vouched_for else "is incomplete"
            self._notes.append(f"{line.place} {what}: its writer was stopped at it")
            number = self._last.number + 1 if self._first else 0
            self._take(this, Link(number, this.sha256))
            return None
        if self._next is not None and self._next.previous == self._last.sha256:
            return _problem(line, "this line was added: the next one follows on the one before it")
        return _problem(line, "this line was changed: it is no line of this log any more")

    def _explain(self, this: _Read, rest: Iterator[Line]) -> Problem:
        """Say which line is at fault where one does not follow on the one before it."""
        line, expected = this.line, self._last.number + 1
        before = self._last_line or line
        if this.previous == self._last.sha256:
            return _problem(line, f"this line was changed: its number is not {expected}")
        added = self._added(this, before)
        if added is not None:
            return added
        vouched_for = _follows(self._next, Link(this.number, this.sha256))
        # Of a first line that follows on none, nothing else tells that its number was another one.
        renumbered = self._lines == 1 and self._begins_late
        if this.number != expected and not (renumbered and vouched_for):
            return self._out_of_order(this, expected, rest)
        if self._lines and self._next is None:
            what = f"this line was changed, or the last one, {line.place}, that follows on it"
            return Problem(before.file, before.row, what, or_next=True)
        if self._lines and vouched_for:
            return _problem(before, "this line was changed: the next one does not follow on it")
        return _problem(
            line, "this line, if not the one before it too, was changed: they do not fit together"
        )

    def _added(self, this: _Read, before: Line) -> Problem | None:
        """Return which line was added, if it is one: without it the chain would hold."""
        line, following = this.line, self._next
        if this.sha256 == self._last.sha256:
            return _problem(line, f"line number {this.number} was added once more")
        moved_up = following is not None and this.previous == following.sha256
        if _follows(following, self._last) and not moved_up:
            return _problem(line, "this line was added: the next one follows on the one before it")
        if self._lines and this.previous == self._before_last.sha256:
            return _problem(
                before, f"this line was added: {line.place} follows on the one before it"
            )
        return None

    def _out_of_order(self, this: _Read, expected: int, rest: Iterator[Line]) -> Problem:
        line, number = this.line, this.number
        if number < expected:
            return _problem(line, f"number {number} is out of order: {expected} should be here")
        later = itertools.chain([self._next] if self._next else [], map(_read, rest))
        if any(each.number == expected for each in later):
            return _problem(line, f"number {number} is out of order: {expected} comes later")
        missing = f"{expected} to {number - 1}" if number - 1 > expected else str(expected)
        return _problem(line, f"before this line, number {number}, is missing what was {missing}")


def _read(line: Line) -> _Read:
    return _Read(line, parse_line(line.data), digest_of(line.data))


def _follows(line: _Read | None, last: Link) -> bool:
    return line is not None and Link(line.number - 1, line.previous) == last


def _problem(line: Line, what: str) -> Problem:
    return Problem(line.file, line.row, what)


def _is_older(line: bytes) -> bool:
    content = json_object(line)
    return bool(content) and not {"number", "previous"} & content.keys()
