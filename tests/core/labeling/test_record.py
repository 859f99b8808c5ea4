from datetime import UTC, datetime, timedelta

import pytest

from annotation_platform.errors import LabelingError
from annotation_platform.labeling.round_decisions import Decision, RoundRecord
from annotation_platform.storage.objects import LocalObjectStore

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def record(tmp_path):
    return RoundRecord(LocalObjectStore(tmp_path), "round-0001")


def decide(record, *actions):
    for hours, action in enumerate(actions, start=len(record.read())):
        record.write(
            action,
            reason=f"why it is {action}",
            by="ada",
            now=NOON + timedelta(hours=hours),
            entries=10 * hours,
        )


def test_a_round_that_nobody_decided_about_is_open(record):
    assert (record.read(), record.last, record.state) == ([], None, "open")


@pytest.mark.parametrize(
    ("actions", "state"),
    [
        pytest.param(["closed"], "closed", id="closed"),
        pytest.param(["cancelled"], "cancelled", id="cancelled"),
        pytest.param(["closed", "reopened"], "open", id="opened again"),
        pytest.param(["cancelled", "reopened"], "open", id="revived"),
        pytest.param(["closed", "cancelled"], "cancelled", id="closed, then cancelled"),
        pytest.param(["closed", "reopened", "closed"], "closed", id="closed twice"),
    ],
)
def test_the_last_decision_says_how_a_round_stands(record, actions, state):
    decide(record, *actions)
    assert record.state == state
    assert record.last.action == actions[-1]


def test_every_decision_stays_with_its_reason_author_time_and_ledger(record, tmp_path):
    decide(record, "closed", "reopened", "cancelled")
    read = RoundRecord(LocalObjectStore(tmp_path), "round-0001").read()
    assert read == [
        Decision("closed", "why it is closed", "ada", NOON, 0),
        Decision("reopened", "why it is reopened", "ada", NOON + timedelta(hours=1), 10),
        Decision("cancelled", "why it is cancelled", "ada", NOON + timedelta(hours=2), 20),
    ]
    assert RoundRecord(LocalObjectStore(tmp_path), "round-0002").read() == []


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_without_a_reason_nothing_is_decided(record, reason):
    with pytest.raises(LabelingError, match="--reason"):
        record.write("closed", reason=reason, by="ada", now=NOON, entries=0)
    assert record.state == "open"


@pytest.mark.parametrize(
    ("before", "action"),
    [([], "reopened"), (["closed"], "closed"), (["cancelled"], "cancelled")],
)
def test_what_is_so_already_is_not_decided_again(record, before, action):
    decide(record, *before)
    with pytest.raises(LabelingError, match=r"already; nothing was changed"):
        decide(record, action)
    assert len(record.read()) == len(before)


def test_of_two_who_decide_at_once_the_second_is_told(tmp_path):
    class Overtaken(LocalObjectStore):
        """A store in which another process cancels the round just before this one is written to."""

        def create(self, key, data, *, private=False):
            other = RoundRecord(LocalObjectStore(tmp_path), "round-0001")
            if not other.read():
                decide(other, "cancelled")
            return super().create(key, data, private=private)

    with pytest.raises(LabelingError, match=r"another decision was recorded .* try again"):
        decide(RoundRecord(Overtaken(tmp_path), "round-0001"), "closed")
    assert RoundRecord(LocalObjectStore(tmp_path), "round-0001").state == "cancelled"


def test_a_reason_in_any_script_is_kept_as_it_was_written(record):
    reason = "Abbruch: „Größe“ fehlt\n第二行"
    record.write("cancelled", reason=f" {reason} ", by="ünal", now=NOON, entries=0)
    assert (record.last.reason, record.last.by) == (reason, "ünal")
