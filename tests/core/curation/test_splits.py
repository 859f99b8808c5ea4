import hashlib
import random
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.curation.splits import draw_splits, split_keys
from annotation_platform.policy import SplitPolicy
from annotation_platform.schema.tables import Splits

POLICY = SplitPolicy(train=0.7, val=0.1, test=0.2)
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def digest(name):
    return hashlib.sha256(str(name).encode()).hexdigest()


def draw(keys, known=None, *, classes=None, seed=0, policy=POLICY):
    known = Splits.empty() if known is None else known
    drawn = draw_splits(keys, classes or {}, known, policy, seed=seed, round_id="round-0001")
    parts = [part for part in (known, drawn.rows) if len(part)]
    return drawn, pd.concat(parts, ignore_index=True) if parts else known


def keyed(image, *shared):
    return {digest(image): [digest(image), *(digest(f"shared {each}") for each in shared)]}


drops = st.lists(
    st.dictionaries(st.integers(0, 300), st.sets(st.integers(0, 40), max_size=3), max_size=25),
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(drops)
def test_over_growing_drops_no_image_moves_and_nothing_that_is_shared_crosses(growing):
    known, keys, before = Splits.empty(), {}, {}
    for drop in growing:
        for image, shared in drop.items():
            keys = keyed(image, *shared) | keys
        drawn, known = draw(keys, known)
        assert before.items() <= drawn.split_of.items()
        assert set(drawn.split_of) | set(drawn.left_out) == set(keys)
        assert not set(drawn.split_of) & set(drawn.left_out)
        splits = defaultdict(set)
        for image, split in drawn.split_of.items():
            for key in keys[image]:
                splits[key].add(split)
        assert all(len(found) == 1 for found in splits.values())
        # An image that is left out shares keys with two splits.
        for image in drawn.left_out:
            assert len(set.union(*(splits[key] for key in keys[image]))) > 1
        before = drawn.split_of


@settings(max_examples=40, deadline=None)
@given(drops.filter(len), st.randoms(use_true_random=False))
def test_the_order_of_images_does_not_matter(growing, chance):
    keys = {}
    for image, shared in growing[0].items():
        keys |= keyed(image, *shared)
    order = sorted(keys)
    chance.shuffle(order)
    assert draw({image: keys[image] for image in order})[1].equals(draw(keys)[1])


def test_another_seed_draws_others():
    keys = {digest(n): [digest(n)] for n in range(100)}
    assert draw(keys, seed=0)[0].split_of != draw(keys, seed=1)[0].split_of


@pytest.mark.parametrize("seed", range(5))
def test_over_twenty_drops_every_class_has_its_share_in_every_split(seed):
    rng = np.random.default_rng(seed)
    names = ["common", "usual", "seldom", "rare"]
    odds = [0.9, 0.4, 0.1, 0.03]
    known, keys, classes = Splits.empty(), {}, {}
    for drop in range(20):
        for number in range(40):
            image = digest(f"{seed} {drop} {number}")
            video = [digest(f"{seed} {drop} video {number // 3}")] if number < 12 else []
            keys[image] = [image, *video]
            classes[image] = {name for name, odd in zip(names, odds, strict=True)
                              if rng.random() < odd}  # fmt: skip
        drawn, known = draw(keys, known, classes=classes, seed=seed)
    assert drawn.left_out == {}
    for name in names:
        shown = [image for image in keys if name in classes[image]]
        for split, share in SHARES.items():
            there = sum(drawn.split_of[image] == split for image in shown)
            assert abs(there / len(shown) - share) <= 0.02 + 1.5 / len(shown), (name, split)
    for split, share in SHARES.items():
        assert abs(sum(s == split for s in drawn.split_of.values()) / 800 - share) <= 0.01


def test_a_late_image_that_belongs_to_two_splits_is_in_none_and_says_why():
    keys = {digest(n): [digest(n), digest(f"group {n}")] for n in range(30)}
    drawn, known = draw(keys)
    trained = next(image for image, split in drawn.split_of.items() if split == "train")
    tested = next(image for image, split in drawn.split_of.items() if split == "test")
    late = digest("late")
    keys[late] = [late, keys[trained][1], keys[tested][1]]
    again, known = draw(keys, known)
    assert again.left_out == {late: "it belongs with images of test and train"}
    assert {image: again.split_of[image] for image in drawn.split_of} == drawn.split_of
    # What comes with it alone goes with neither, and what belongs to one of them goes there.
    keys[digest("later")] = [digest("later"), keys[tested][1]]
    assert draw(keys, known)[0].split_of[digest("later")] == "test"


def test_new_images_that_are_linked_over_others_go_together_and_with_what_was_drawn():
    first, known = draw({digest("old"): [digest("old"), digest("video")]})
    chain = {
        digest("a"): [digest("a"), digest("ab")],
        digest("b"): [digest("b"), digest("ab"), digest("bc")],
        digest("c"): [digest("c"), digest("bc"), digest("video")],
    }
    drawn, _ = draw(chain, known)
    assert set(drawn.split_of.values()) == set(first.split_of.values())
    for seed in range(8):
        assert len(set(draw(chain, seed=seed)[0].split_of.values())) == 1


def test_what_drawn_images_turn_out_to_share_draws_newcomers_to_them():
    keys = {digest(n): [digest(n)] for n in range(40)}
    drawn, known = draw(keys)
    more = {image: [*shared, digest(f"source {image}")] for image, shared in keys.items()}
    new = {digest(f"new {image}"): more[image][-1] for image in keys}
    more |= {image: [image, key] for image, key in new.items()}
    again, _ = draw(more, known)
    assert all(again.split_of[digest(f"new {image}")] == drawn.split_of[image] for image in keys)


def test_a_split_without_a_share_gets_nothing():
    policy = SplitPolicy(train=0.8, val=0.0, test=0.2)
    drawn, _ = draw({digest(n): [digest(n)] for n in range(50)}, policy=policy)
    assert sorted(set(drawn.split_of.values())) == ["test", "train"]


def test_look_alikes_and_what_policy_names_are_kept_together():
    row = {"joins": "", "other_metadata": "", "source": None}
    a, b, c, d, e = (digest(name) for name in "abcde")
    images = pd.DataFrame(
        [
            {**row, "image_id": a, "group_id": a, "other_metadata": '{"video": "v1"}'},
            {**row, "image_id": b, "group_id": b, "other_metadata": '{"video": "v1"}'},
            {**row, "image_id": c, "group_id": a, "joins": f"{b},{d}", "source": "west"},
            {**row, "image_id": d, "group_id": d, "source": "west"},
            {**row, "image_id": e, "group_id": e, "other_metadata": '{"video": {"no": 1}}'},
        ]
    )
    keys = split_keys(images, POLICY)
    assert keys[a] == [a, keys[b][-1]]
    assert keys[c] == [c, a, b, d]
    assert keys[d] == [d]
    assert keys[e] == [e]
    by_source = split_keys(images, SplitPolicy(keep_together=("source",)))
    assert by_source[c][-1] == by_source[d][-1] != d
    assert by_source[a] == [a]


def test_a_thousand_images_at_once_take_no_time_that_grows_with_their_square():
    chance = random.Random(0)
    keys = {digest(n): [digest(n), digest(f"g{chance.randrange(6000)}")] for n in range(20_000)}
    drawn, _ = draw(keys)
    assert len(drawn.split_of) == 20_000


def test_what_no_person_labelled_trains_with_all_that_is_new_beside_it_and_counts_nowhere():
    alone = {image: keys for n in range(300) for image, keys in keyed(n).items()}
    unseen = {digest(n) for n in range(200)}
    twin = keyed(0, "look-alike") | keyed(1000, "look-alike")
    keys = alone | twin
    drawn = draw_splits(
        keys,
        {},
        Splits.empty(),
        POLICY,
        seed=0,
        round_id="round-0001",
        train_only=unseen,
    )
    assert {drawn.split_of[image] for image in unseen} == {"train"}
    assert drawn.split_of[digest(1000)] == "train"
    people = pd.Series(drawn.split_of).drop(list(unseen))
    # The 101 others are shared out as if they were alone.
    assert people.value_counts(normalize=True).to_dict() == pytest.approx(SHARES, abs=0.02)


def test_what_no_person_labelled_is_left_out_where_its_look_alikes_test():
    keys = keyed(1, "look-alike")
    known = pd.DataFrame(
        {"round_id": "round-0001", "key": [digest("shared look-alike")], "split": "test"}
    )
    drawn = draw_splits(
        keys, {}, known, POLICY, seed=0, round_id="round-0002", train_only=[digest(1)]
    )
    assert drawn.split_of == {}
    assert "images of test" in drawn.left_out[digest(1)]
