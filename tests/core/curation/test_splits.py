import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from annotation_platform.curation.splits import draw_splits
from annotation_platform.params import SplitPolicy
from annotation_platform.schema.tables import empty_table

POLICY = SplitPolicy(train=0.7, val=0.1, test=0.2)
groups = st.sets(st.integers(0, 400).map(lambda n: f"{n:064x}"), max_size=60)


def draw(wanted, known=None, seed=0):
    known = empty_table("splits") if known is None else known
    drawn = draw_splits(wanted, known, POLICY, seed=seed, round_id="round-0001")
    return pd.concat([known, drawn], ignore_index=True) if len(drawn) else known


@given(st.lists(groups, max_size=5))
def test_growing_never_moves_a_group_and_keeps_the_shares(drops):
    known = empty_table("splits")
    for drop in drops:
        before = dict(zip(known["group_id"], known["split"], strict=True))
        known = draw(drop, known)
        after = dict(zip(known["group_id"], known["split"], strict=True))
        assert before.items() <= after.items()
        assert drop <= set(after)
    for split, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        assert abs((known["split"] == split).sum() - share * len(known)) <= 1.0


@given(groups, st.randoms(use_true_random=False))
def test_the_order_of_images_does_not_matter(wanted, random):
    shuffled = sorted(wanted)
    random.shuffle(shuffled)
    assert draw(sorted(wanted)).equals(draw(shuffled))


def test_another_seed_draws_other_groups():
    wanted = [f"{n:064x}" for n in range(100)]
    assert not draw(wanted, seed=0).equals(draw(wanted, seed=1))
