from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_platform.errors import LabelingError
from annotation_platform.labeling.skills import Skills
from annotation_platform.storage.objects import LocalObjectStore

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def store(tmp_path):
    return LocalObjectStore(tmp_path)


def test_a_skill_holds_from_the_moment_it_is_granted_until_it_is_taken_away(store):
    skills = Skills(store)
    skills.set("ada", "agronomy", granted=True, now=NOON)
    skills.set("ada", "agronomy", granted=False, now=NOON + 2 * HOUR)
    skills.set("ada", "agronomy", granted=True, now=NOON + 4 * HOUR)
    had = [skills.had("ada", "agronomy", NOON + hours * HOUR) for hours in range(-1, 6)]
    assert had == [False, True, True, False, False, True, True]


@given(st.lists(st.integers(0, 20), unique=True, max_size=6), st.integers(-1, 21))
def test_what_somebody_had_at_a_moment_is_what_the_last_word_before_it_said(hours, moment):
    skills = Skills(Remembered())
    for number, hour in enumerate(sorted(hours)):
        skills.set("ada", "birds", granted=number % 2 == 0, now=NOON + hour * HOUR)
    changes = sum(hour <= moment for hour in hours)
    assert skills.had("ada", "birds", NOON + moment * HOUR) == (changes % 2 == 1)
    assert skills.of("ada") == (["birds"] if len(hours) % 2 else [])


def test_who_knows_what_is_remembered_by_address_in_any_spelling(store):
    skills = Skills(store)
    skills.set("Ada@Example.org", "agronomy", granted=True, now=NOON)
    skills.set("ben@example.org", "agronomy", granted=True, now=NOON)
    skills.set("ben@example.org", "birds", granted=True, now=NOON)
    skills.set("ben@example.org", "agronomy", granted=False, now=NOON + HOUR)
    for known in (skills, Skills(store)):
        assert known.of("ada@example.org") == ["agronomy"]
        assert known.of("BEN@example.org") == ["birds"]
        assert known.of("cam@example.org") == []
        assert known.people("agronomy") == ["ada@example.org"]
        assert known.had("ADA@example.org", "agronomy", NOON)
        assert not known.had("ada@example.org", "birds", NOON + HOUR)


def test_everybody_has_the_empty_skill_always(store):
    assert Skills(store).had("ben", "", NOON - 1000 * HOUR)


@pytest.mark.parametrize("skill", ["", "  ", "two\nlines", "x" * 101])
def test_what_is_no_short_word_is_no_skill(store, skill):
    skills = Skills(store)
    with pytest.raises(LabelingError, match="Use a short word"):
        skills.set("ada", skill, granted=True, now=NOON)
    assert Skills(store).of("ada") == []


def test_what_is_so_already_is_not_said_again(store, tmp_path):
    skills = Skills(store)
    with pytest.raises(LabelingError, match="does not have"):
        skills.set("ada", "birds", granted=False, now=NOON)
    skills.set("ada", "birds", granted=True, now=NOON)
    with pytest.raises(LabelingError, match="already"):
        skills.set("ADA", "birds", granted=True, now=NOON + HOUR)
    # Addresses stand in it.
    assert [path.stat().st_mode & 0o777 for path in tmp_path.rglob("*.jsonl")] == [0o600]


class Remembered:
    """A store without a disk, for hundreds of histories."""

    def __init__(self):
        self._held = {}

    def create(self, key, data, *, private):
        assert private
        return self._held.setdefault(key, data) is data

    def get(self, key):
        return self._held[key]

    def list(self, prefix):
        return (key for key in sorted(self._held) if key.startswith(prefix))
