"""An exact search for close hashes: nothing is missed, however it is gone about."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.images import near_duplicates
from annotation_platform.images.near_duplicates import close_across, groups


def random_hashes(count, rng):
    """Return distinct hashes, evenly drawn, half of them up to 13 bits away from another."""
    hashes = rng.integers(0, 2**64, count // 2, dtype=np.uint64)
    return with_neighbours(hashes, rng)


def skewed_hashes(count, rng):
    """Return distinct hashes as one kind of image has: few bits vary, and those together."""
    mixing = rng.normal(size=(5, 64))
    values = rng.normal(size=(count // 2, 5)) @ mixing + rng.normal(scale=4.0, size=64)
    packed = np.packbits(values > 0, axis=1)
    return with_neighbours(packed.view(">u8").ravel().astype(np.uint64), rng)


def with_neighbours(hashes, rng):
    moved = hashes.copy()
    for change in range(13):
        still_moving = moved[change * len(moved) // 13 :]
        still_moving ^= np.uint64(1) << rng.integers(0, 64, len(still_moving), dtype=np.uint64)
    return rng.permutation(np.unique(np.concatenate([hashes, moved])))


def brute_force(left, right, bits):
    distances = np.bitwise_count(left[:, None] ^ right[None, :])
    rows, columns = np.nonzero(distances <= bits)
    return list(zip(rows, columns, distances[rows, columns], strict=True))


def listed(found):
    return list(zip(found.first, found.second, found.bits, strict=True))


@pytest.mark.parametrize("make", [random_hashes, skewed_hashes])
@pytest.mark.parametrize("bits", [0, 1, 6, 8, 9, 16, 40, 64])
def test_no_pair_is_missed_whatever_the_bands(make, bits):
    hashes = make(300, np.random.default_rng(bits))
    left, right = hashes[:200], hashes[150:]
    across = brute_force(left, right, bits)
    least, most = (bits + 2) // 2, min(bits + 1, 64)
    for bands in [None, 0, *range(least, most + 1, 1 if bits < 16 else 7)]:
        assert listed(close_across(left, right, bits=bits, bands=bands)) == across, bands


@pytest.mark.parametrize("make", [random_hashes, skewed_hashes])
def test_no_pair_is_missed_among_so_many_that_bands_are_chosen(make):
    hashes = make(8_000, np.random.default_rng(0))
    found = close_across(hashes, hashes, bits=8)
    assert len(found) > len(hashes) + 2 * 500
    by_force = close_across(hashes, hashes, bits=8, bands=0)
    for name in ("first", "second", "bits"):
        np.testing.assert_array_equal(getattr(found, name), getattr(by_force, name))


def as_hashes(numbers):
    return np.array(numbers, dtype=np.uint64)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3), max_size=30),
    st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3), max_size=30),
    st.integers(0, 64),
    st.integers(1, 4),
)
def test_the_nearest_of_those_before_are_returned(new, known, bits, most):
    before = [len(known) - place % 3 for place in range(len(new))]
    expected = []
    for place, one in enumerate(new):
        distances = [(one ^ other).bit_count() for other in known[: max(0, before[place])]]
        close = sorted((each, where) for where, each in enumerate(distances) if each <= bits)
        expected += sorted((place, where, each) for each, where in close[:most])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(near_duplicates, "_HELD", 3)
        found = close_across(
            as_hashes(new),
            as_hashes(known),
            bits=bits,
            before=np.array(before, dtype=np.int64),
            most=most,
        )
    assert listed(found) == expected


def test_a_search_refuses_numbers_outside_its_limits():
    equal = np.zeros(2, dtype=np.uint64)
    with pytest.raises(ValueError, match="0 to 64"):
        close_across(equal[:1], equal[:1], bits=65)
    with pytest.raises(ValueError, match="bands"):
        close_across(equal[:1], equal[:1], bits=8, bands=4)
    assert len(close_across(equal[:0], equal[:0], bits=8)) == 0


def test_groups_tie_together_what_pairs_tie_directly_or_through_others():
    assert groups(7, [(5, 6), (1, 0), (3, 1), (6, 5)]) == [[0, 1, 3], [5, 6]]
    assert groups(3, []) == []
