"""A chain of lines names the first line that is not as it was written, whatever was done to it."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_platform.storage.chain import (
    ChainLink,
    check_chain,
    digest_of,
    json_object,
    last_link,
    make_line,
    split_lines,
)

TEXTS = ["one", "zwei é", 'with "quotes" and \\', "line\nend", "\udc80 no text", "six"]


def chained(texts, last=None):
    last, lines = last or ChainLink(), []
    for text in texts:
        line = make_line(last, {"text": text})
        last = ChainLink(last.number + 1, digest_of(line))
        lines.append(line)
    return lines


def check(lines, *, appended=False, end=b"\n"):
    data = b"\n".join(lines) + end
    return check_chain(split_lines("log", io.BytesIO(data), len(data)), appended=appended)


@given(st.lists(st.text(), max_size=8))
def test_what_was_written_is_whole_and_reads_back(texts):
    lines = chained(texts)
    found = check(lines) if lines else check_chain([])
    assert (found.problem, found.lines, found.notes) == (None, len(texts), [])
    assert [json_object(line)["text"] for line in lines] == texts
    assert found.last == last_link(reversed(lines))


@pytest.mark.parametrize("appended", [True, False])
@pytest.mark.parametrize("row", range(1, 6))
def test_every_byte_of_a_line_counts(row, appended):
    lines = chained(TEXTS)
    for at in range(len(lines[row - 1])):
        line = bytearray(lines[row - 1])
        line[at] ^= 1
        changed = [*lines[: row - 1], bytes(line), *lines[row:]]
        problem = check(changed, appended=appended).problem
        assert problem is not None
        assert problem.line == row, (bytes(line), problem.sentence)


def test_of_the_last_two_lines_either_may_have_been_changed():
    lines = chained(TEXTS)
    swapped = lines[-1].replace(b'"previous": "', b'"previous": "0')
    problem = check([*lines[:-1], swapped]).problem
    assert (problem.line, "log:6" in problem.what) == (5, True)
    # Nothing in the log tells of its last line: others have to.
    assert check([*lines[:-1], make_line(last_link(reversed(lines[:-1])), {})]).problem is None


@pytest.mark.parametrize(
    ("order", "row", "says"),
    [
        pytest.param([0, 1, 3, 4, 5], 3, "missing before it: 3", id="one taken out"),
        pytest.param([0, 4, 5], 2, "missing before it: 2 to 4", id="three taken out"),
        pytest.param([1, 2, 3, 4, 5], 1, "missing before it: 1", id="the first taken out"),
        pytest.param([0, 2, 1, 3, 4, 5], 2, "2 comes later", id="a pair swapped"),
        pytest.param([0, 1, 2, 3, 5, 4], 5, "5 comes later", id="the last pair swapped"),
        pytest.param([0, 1, 3, 4, 2, 5], 3, "3 comes later", id="one moved down"),
        pytest.param([0, 4, 1, 2, 3, 5], 2, "added", id="one moved up"),
        pytest.param([0, 1, 1, 2, 3, 4, 5], 3, "added a second time", id="one said twice"),
        pytest.param([0, 1, 2, 3, 0, 4, 5], 5, "added", id="one said again later"),
    ],
)
def test_lines_taken_out_moved_and_repeated_are_named(order, row, says):
    lines = chained(TEXTS)
    problem = check([lines[each] for each in order]).problem
    assert problem.line == row
    assert says in problem.what


@pytest.mark.parametrize("row", [1, 3, 6])
@pytest.mark.parametrize("number", [None, 2, 3, 77])
def test_an_added_line_is_named_even_if_it_fits_on_the_one_before(row, number):
    lines = chained(TEXTS)
    before = last_link(reversed(lines[: row - 1]))
    added = make_line(before if number is None else ChainLink(number - 1, "0" * 64), {"text": "x"})
    problem = check([*lines[: row - 1], added, *lines[row - 1 :]]).problem
    assert problem.line == row
    assert "added" in problem.what


@pytest.mark.parametrize(
    "line", [b"", b"{}", b"[" * 100_000, b'{"number": true, "previous": "begin"}', b"\xff"]
)
def test_what_is_no_line_is_named(line):
    lines = chained(TEXTS)
    for row in (1, 4):
        problem = check([*lines[: row - 1], line, *lines[row - 1 :]], appended=True).problem
        assert (problem.line, "added" in problem.what) == (row, True)
        problem = check([*lines[: row - 1], line, *lines[row:]], appended=True).problem
        assert (problem.line, "changed" in problem.what) == (row, True)


def test_a_line_that_was_broken_off_is_a_note_and_the_next_one_vouches_for_it():
    lines = chained(TEXTS)
    half = lines[3][: len(lines[3]) // 2]
    at_end = check([*lines[:3], half], appended=True, end=b"")
    assert at_end.problem is None
    assert at_end.notes == ["log:4 is incomplete: its writer was stopped"]

    going_on = chained(["next"], last_link(reversed([*lines[:3], half])))
    found = check([*lines[:3], half, *going_on], appended=True)
    assert (found.problem, found.last.number) == (None, 5)
    assert found.notes == ["log:4 is truncated: its writer was stopped"]
    problem = check([*lines[:3], half + b" ", *going_on], appended=True).problem
    assert problem.line == 4
    # What was written whole cannot be broken off.
    assert check([*lines[:3], half], end=b"").problem.line == 4
    assert check(lines, end=b"").problem.line == 6


def test_a_log_may_begin_late_where_its_beginning_may_go():
    lines = chained(TEXTS)
    found = check(lines[2:], appended=True)
    assert (found.problem, found.first, found.lines) == (None, 3, 4)
    assert "were deleted" in found.notes[0]
    renumbered = lines[2].replace(b'"number": 3', b'"number": 7')
    assert check([renumbered, *lines[3:]], appended=True).problem.line == 1
    assert check([*lines[2:4], *lines[5:]], appended=True).problem.line == 3


def test_lines_from_before_there_was_a_chain_come_first_and_end_in_it():
    older = [b'{"at": "2026-05-01", "action": "get"}', b'{"at": "2026-05-02", "action": "put"}']
    lines = chained(TEXTS, last_link(reversed(older)))
    found = check([*older, *lines], appended=True)
    assert (found.problem, found.lines) == (None, 8)
    assert found.notes == ["2 lines are older than the chain"]
    assert check([*older[:1], *lines], appended=True).problem.line == 1
    assert check([*older, *lines[:2], older[0], *lines[2:]], appended=True).problem.line == 5
    assert check(lines, appended=True).begins_late
