"""The consensus against a truth that is known: BCCD, seen by simulated people."""

import pytest

from annotation_platform.consensus.agreement import pooled_f1
from annotation_platform.consensus.resolve import resolve_consensus
from benchmarks.box_consensus import CROWDS, FOUR, bccd, compare, plain_majority, score, simulate


@pytest.fixture(scope="module")
def cells(public):
    public("bccd")
    return bccd(60)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_three_of_four_people_are_fused_into_what_is_there(cells, seed):
    found = compare(cells, FOUR, seed)
    assert found["consensus"] >= 0.97
    assert found["consensus"] > found["plain_majority"]
    assert found["consensus"] > max(found["each_person"])
    # What no rule can settle is little enough for a person to look at.
    assert found["images_to_review"] <= 12


def test_in_a_crowd_of_unequal_people_the_good_ones_are_heard(cells):
    _, asked = simulate(cells, CROWDS["two careless"], seed=0)
    labels = resolve_consensus(asked, ontology=cells.ontology, images=cells.images).labels
    # A plain majority loses four points here.
    assert score(labels, cells) > pooled_f1(plain_majority(asked), cells.labels) + 0.02
