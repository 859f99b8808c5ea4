import numpy as np
import pytest

from annotation_platform.selection.balance import rarest_first

COMMON, RARE = 0, 1


def test_the_rarest_class_comes_first_and_what_is_common_never():
    expected = np.array([[9.0, 0.0], [1.0, 0.4], [0.0, 0.9], [5.0, 0.0]])
    picks = rarest_first(expected, np.array([90, 10]), 4)
    assert [pick.row for pick in picks] == [2, 1]
    assert {pick.class_number for pick in picks} == {RARE}
    # Counts of 10 and 10.9 objects: log(11.9 / 11), then log(12.3 / 11.9).
    assert [pick.gain for pick in picks] == pytest.approx([np.log(11.9 / 11), np.log(12.3 / 11.9)])


def test_two_rare_classes_are_served_in_turn():
    expected = np.array([[0, 1, 0]] * 5 + [[0, 0, 1]] * 5 + [[1, 0, 0]] * 90, dtype=float)
    picks = rarest_first(expected, np.array([60, 3, 3]), 6)
    assert [pick.class_number for pick in picks] == [1, 2, 1, 2, 1, 2]


def test_a_class_counts_no_longer_once_it_is_common():
    expected = np.array([[0.0, 1.0]] * 50)
    # Mean count: (20 + 10 + 30) / 2 = 30 with thirty more of them, so twenty are wanted.
    assert len(rarest_first(expected, np.array([20, 10]), 30)) == 20


@pytest.mark.parametrize("digits", [0, 6])
def test_the_greedy_choice_is_that_of_working_out_every_gain_each_time(digits):
    rng = np.random.default_rng(3)
    # Whole numbers make many rows equal.
    expected = np.round(rng.gamma(0.3, 1.0, (1500, 5)) * np.array([6, 3, 1, 0.3, 0.1]), digits)
    known, wanted = np.array([800, 600, 10, 4, 0]), 60
    target = (known + wanted * expected.mean(axis=0)).mean()
    counts, left, chosen = known.astype(float), list(range(1500)), []
    for _ in range(wanted):
        after = np.log1p(np.minimum(counts + expected[left], target))
        gains = (after - np.log1p(np.minimum(counts, target))).sum(axis=1)
        chosen.append(left.pop(int(np.argmax(gains))))
        counts += expected[chosen[-1]]
    assert [pick.row for pick in rarest_first(expected, known, wanted)] == chosen


def test_nothing_expected_gives_nothing():
    assert rarest_first(np.zeros((4, 2)), np.array([1, 1]), 3) == []
    assert rarest_first(np.zeros((4, 0)), np.zeros(0, dtype=int), 3) == []
