"""A hint makes the next look come sooner; without any, and with wrong clocks, looks still come."""

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_platform.errors import SettingsError
from annotation_platform.labeling.change_signals import ChangeSignals, PollSchedule

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def ago(seconds):
    return NOW - timedelta(seconds=seconds)


class HintedAt:
    """Hints whose last came at a moment; None for never."""

    def __init__(self, at):
        self.at = at

    def last(self):
        return self.at


@pytest.mark.parametrize(
    ("looked_at", "hinted_at", "expected"),
    [
        pytest.param(None, None, True, id="never looked"),
        pytest.param(ago(59), None, False, id="no hint ever"),
        pytest.param(ago(60), None, True, id="the interval is over"),
        pytest.param(ago(30), ago(29), True, id="a hint since"),
        pytest.param(ago(30), ago(40), False, id="a hint before"),
        pytest.param(ago(30), ago(31), True, id="a hint before that may not have been readable"),
        pytest.param(ago(30), ago(-1), True, id="the giver's clock is a second ahead"),
        pytest.param(ago(30), ago(-3600), False, id="left over from a clock that was set back"),
        pytest.param(ago(-3600), None, True, id="the last look is in the future"),
    ],
)
def test_a_look_is_due_in_a_minute_or_at_a_hint(looked_at, hinted_at, expected):
    assert PollSchedule(HintedAt(hinted_at), 60.0).due(NOW, looked_at) is expected


moments = st.none() | st.floats(-1e6, 1e6).map(ago)


@given(moments, moments)
def test_without_an_interval_every_tick_looks(looked_at, hinted_at):
    assert PollSchedule(HintedAt(hinted_at), 0.0).due(NOW, looked_at)


@given(st.floats(0, 1e6), moments)
def test_no_hint_and_no_clock_puts_a_look_off_beyond_the_interval(since, hinted_at):
    assert PollSchedule(HintedAt(hinted_at), 60.0).due(NOW, ago(since)) or since < 60


def test_a_hint_is_kept_with_its_moment_and_a_later_one_replaces_it(tmp_path):
    hints = ChangeSignals(tmp_path / "hints")
    assert hints.last() is None
    before = datetime.now(UTC)
    hints.give()
    first = hints.last()
    # A file keeps its time a little coarser than the clock gives it.
    assert before - timedelta(milliseconds=1) <= first <= datetime.now(UTC)
    os.utime(hints.path, (0, 0))
    hints.give()
    assert hints.last() >= first
    assert PollSchedule(hints, 60.0).due(datetime.now(UTC), first - timedelta(seconds=5))
    assert hints.path.read_bytes() == b""
    assert hints.path.stat().st_mode & 0o777 == 0o600


def give_many(path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: ChangeSignals(path).give(), range(200)))


def test_many_threads_and_processes_give_hints_at_once(tmp_path):
    path = tmp_path / "hints"
    begun = datetime.now(UTC)
    givers = [multiprocessing.Process(target=give_many, args=(path,)) for _ in range(4)]
    for giver in givers:
        giver.start()
    for giver in givers:
        giver.join()
        assert giver.exitcode == 0
    assert begun <= ChangeSignals(path).last() <= datetime.now(UTC)


def test_a_place_that_takes_no_file_is_named(tmp_path):
    hints = ChangeSignals(tmp_path / "missing" / "hints")
    assert hints.last() is None
    with pytest.raises(SettingsError, match=r"missing/hints.*ANNOTATION_HOME"):
        hints.give()
