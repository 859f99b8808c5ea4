import hashlib
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.errors import DataError
from annotation_platform.policy import SelectionPolicy
from annotation_platform.selection.batch import select_batch
from annotation_platform.selection.pool import SelectionInputs

STRATEGIES = ["combined", "uncertainty", "entropy", "diversity", "balance", "random"]
ROUND = "round-0003"


def image(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


class World:
    """A pool with groups of near-duplicates, vectors, proposals and labels so far."""

    def __init__(self, groups=20, members=1, *, seed=0, width=16):
        rng = np.random.default_rng(seed)
        self.rng = rng
        self.ids = [image(n) for n in range(groups * members)]
        self.pool = pd.DataFrame(
            {
                "image_id": self.ids,
                "group_id": [image(n // members * members) for n in range(groups * members)],
                "outcome": "accepted",
            }
        )
        middles = rng.normal(size=(groups, width)).repeat(members, axis=0)
        vectors = middles + rng.normal(0, 0.05, middles.shape)
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        self.vectors = pd.DataFrame(
            {"image_id": self.ids, "embedder": "drawn-1", "vector": list(vectors)}
        )
        boxes = rng.integers(0, 6, len(self.ids))
        self.predictions = pd.DataFrame(
            {
                "image_id": np.repeat(self.ids, boxes),
                "shape": "box",
                "class_name": rng.choice(["boat", "buoy"], boxes.sum(), p=[0.9, 0.1]),
                "score": rng.random(boxes.sum()),
            }
        )
        self.labels = pd.DataFrame({"class_name": ["boat"] * 90 + ["buoy"] * 10 + [None]})

    def select(self, *, seed=0, predictions=True, choose="one", **policy):
        policy = SelectionPolicy(**{"calibration_share": 0.0, **policy})
        known = (self.predictions, self.labels) if predictions else ()
        inputs = SelectionInputs(self.pool, self.vectors, *known)
        return select_batch(inputs, policy=policy, round_id=ROUND, seed=seed, choose=choose)

    def group_of(self, images):
        group = dict(zip(self.pool["image_id"], self.pool["group_id"], strict=True))
        return [group[one] for one in images["image_id"]]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("outliers", "calibration_share"), [("keep", 0.1), ("mine", 1.0)])
def test_exactly_the_budget_or_everything_once(strategy, outliers, calibration_share):
    world = World(10, 4)
    for budget in (0, 1, 7, 39, 40, 1000):
        found = world.select(
            budget=budget, strategy=strategy, outliers=outliers, calibration_share=calibration_share
        ).images
        assert len(found) == (40 if budget == 0 else min(budget, 40))
        assert found["image_id"].is_unique
        assert found["rank"].tolist() == list(range(len(found)))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_group_is_covered_before_any_second_member(strategy):
    # 60 % of the 100 images repeat another: 20 groups of four, 20 loners.
    world = World(20, 4)
    loners = World(20, seed=1)
    loners.ids = [image(f"loner {n}") for n in range(20)]
    loners.pool["image_id"] = loners.pool["group_id"] = loners.ids
    loners.vectors["image_id"] = loners.ids
    world.pool = pd.concat([world.pool, loners.pool], ignore_index=True)
    world.vectors = pd.concat([world.vectors, loners.vectors], ignore_index=True)
    for budget, most in [(15, 1), (40, 1), (41, 2), (60, 2), (80, 3), (99, 4)]:
        found = world.select(budget=budget, strategy=strategy).images
        taken = Counter(world.group_of(found))
        assert len(taken) == min(budget, 40)
        assert max(taken.values()) == most


def test_a_group_asked_about_before_counts_as_covered():
    world = World(10, 2)
    selected_before, pool = world.pool.iloc[::2][:5], world.pool.drop(world.pool.index[:10:2])
    policy = SelectionPolicy(budget=5, calibration_share=0.0)
    inputs = SelectionInputs(pool, world.vectors, selected_before=selected_before)
    found = select_batch(inputs, policy=policy, round_id=ROUND).images
    assert not set(world.group_of(found)) & set(selected_before["group_id"])


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(STRATEGIES), st.integers(1, 30), st.integers(0, 10**6))
def test_the_order_of_the_rows_does_not_matter(strategy, budget, seed):
    world = World(10, 3)
    policy = {"strategy": strategy, "budget": budget, "calibration_share": 0.2, "outliers": "mine"}
    first = world.select(seed=seed, **policy).images
    for name in ("pool", "vectors", "predictions", "labels"):
        shuffled = getattr(world, name).sample(frac=1, random_state=seed)
        setattr(world, name, shuffled)
    pd.testing.assert_frame_equal(world.select(seed=seed, **policy).images, first)


@pytest.mark.long
def test_the_audit_is_a_simple_random_sample_of_the_whole_pool():
    # Groups, proposals and outliers must not matter: every image is drawn equally often, and
    # every pair too, near-duplicates included.
    world = World(10, 2)
    drawn, together = Counter(), 0
    for seed in range(400):
        images = world.select(
            seed=seed, budget=10, calibration_share=0.4, strategy="balance"
        ).images
        audit = images[images["calibration_sample"]]
        assert (audit["rule"] == "calibration").all()
        assert audit["rank"].tolist() == [0, 1, 2, 3]
        drawn.update(audit["image_id"])
        together += max(Counter(world.group_of(audit)).values()) > 1
    # Each of 20 is drawn with probability 4/20: 80 of 400, standard deviation 8.
    assert set(drawn) == set(world.ids)
    assert all(abs(times - 80) < 4.5 * 8 for times in drawn.values())
    # No pair: C(10, 4) * 2**4 / C(20, 4) = 3360 / 4845; so 123 of 400, standard deviation 9.2.
    assert abs(together - 123) < 4 * 9.2


def test_other_settings_leave_the_audit_as_it_is():
    world = World(40)
    audits = set()
    for policy in [{}, {"outliers": "drop"}, {"strategy": "random"}, {"rare_share": 1.0,
                   "diverse_share": 0.0}]:  # fmt: skip
        images = world.select(budget=20, calibration_share=0.25, **policy).images
        audits.add(tuple(images.loc[images["calibration_sample"], "image_id"]))
    assert len(audits) == 1
    assert len(audits.pop()) == 5


def test_each_rule_gets_its_share_and_says_why():
    world = World(60)
    found = world.select(budget=20, calibration_share=0.1, rare_share=0.3, diverse_share=0.2).images
    # 2 of 20 by lot; of the other 18 round(5.4), round(3.6) and what is left.
    assert found["rule"].value_counts().to_dict() == {
        "calibration": 2, "rare": 5, "uncertain": 9, "diverse": 4,
    }  # fmt: skip
    reason = dict(zip(found["rule"], found["reason"], strict=True))
    assert reason["calibration"] == (
        "drawn at random from the whole pool, to measure the quality of labels"
    )
    assert "buoy, a class with 10 labels so far" in reason["rare"]
    assert "of its predictions are expected to be wrong" in reason["uncertain"]
    assert reason["diverse"] == "unlike those before it"
    numbered = found["rule"].isin(["rare", "uncertain"])
    assert (found.loc[numbered, "score"] > 0).all()
    assert found.loc[~numbered, "score"].isna().all()


def test_without_proposals_images_are_chosen_to_be_unlike_each_other():
    world = World(30)
    first = world.select(budget=10, predictions=False)
    assert set(first.images["rule"]) == {"diverse"}
    same = world.select(budget=10, predictions=False, strategy="diversity")
    assert first.images["image_id"].tolist() == same.images["image_id"].tolist()


def test_images_without_a_vector_are_told_and_not_lost():
    world = World(20)
    nan = np.full(16, np.nan, dtype=np.float32)
    world.vectors.at[3, "vector"] = nan
    world.vectors.at[4, "vector"] = None
    world.vectors = world.vectors.drop(index=5)
    lost = {world.ids[n] for n in (3, 4, 5)}
    found = world.select(budget=17, strategy="diversity", predictions=False)
    assert set(found.without_vector) == lost
    assert not set(found.images["image_id"]) & lost
    found = world.select(budget=18, strategy="diversity", predictions=False)
    assert found.images["rule"].value_counts().to_dict() == {"diverse": 17, "remaining": 1}
    # What the model is unsure of needs no vector.
    world.predictions = pd.DataFrame(
        {
            "image_id": [world.ids[4]] * 3,
            "shape": "box",
            "class_name": "boat",
            "score": [0.5, 0.5, np.nan],
        }
    )
    found = world.select(budget=1, strategy="uncertainty")
    assert found.images["image_id"].tolist() == [world.ids[4]]
    assert found.images["score"].tolist() == [1.0]
    assert found.unscored_predictions == 1


@pytest.mark.parametrize(
    ("choose", "wanted", "bits"),
    # Three choices nearly alike: log2 3 together, 0.92 each; two even ones are a bit, or two.
    [("one", 2, np.log2(3)), ("many", 2, 2.755)],
)
def test_choices_are_one_question_where_one_is_chosen_else_one_each(choose, wanted, bits):
    world = World(8)
    chances = {2: [0.34, 0.33, 0.33], 5: [0.5, 0.5, 0.0], 7: [0.98, 0.01, 0.01]}
    choices = [
        {"image_id": world.ids[at], "shape": "choice", "class_name": name, "score": score}
        for at, scores in chances.items()
        for name, score in zip(["day", "dusk", "night"], scores, strict=True)
    ]
    box = {"image_id": world.ids[3], "shape": "box", "class_name": "boat", "score": 0.5}
    world.predictions = pd.DataFrame([*choices, box])
    found = world.select(budget=1, strategy="entropy", choose=choose).images
    assert found["image_id"].tolist() == [world.ids[wanted]]
    assert found["score"].iloc[0] == pytest.approx(bits, abs=1e-3)


def test_no_vector_at_all_and_no_image_at_all_are_no_error():
    world = World(8)
    world.vectors = world.vectors[:0]
    assert len(world.select(budget=5).images) == 5
    world.pool = world.pool[:0]
    assert world.select(budget=5).images.empty


def test_equal_images_are_chosen_by_id():
    world = World(12)
    world.vectors["vector"] = [np.ones(16, dtype=np.float32) / 4] * 12
    world.predictions = pd.DataFrame(
        {"image_id": world.ids, "shape": "box", "class_name": "boat", "score": [0.5] * 12}
    )
    for strategy in ("diversity", "uncertainty", "entropy"):
        found = world.select(budget=5, strategy=strategy).images
        assert found["image_id"].tolist() == sorted(world.ids)[:5]


def test_what_cannot_be_asked_about_is_left_out_and_counted():
    world = World(10)
    world.pool.loc[:2, "outcome"] = "quarantined"
    world.pool.loc[3, "outcome"] = "duplicate"
    world.pool = pd.concat([world.pool, world.pool[-2:]], ignore_index=True)
    found = world.select(budget=0)
    assert sorted(found.images["image_id"]) == sorted(world.ids[4:])
    assert found.unusable == {"quarantined": 3, "duplicate": 1, "repeated": 2}


def test_vectors_of_two_embedders_are_refused():
    world = World(6)
    world.vectors.loc[2, "embedder"] = "another-2"
    with pytest.raises(DataError, match="another-2 and drawn-1 cannot be compared"):
        world.select(budget=3)


@pytest.mark.parametrize(("outliers", "chosen"), [("keep", None), ("drop", 0), ("mine", 3)])
def test_outliers_are_flagged_and_treated_as_policy_says(outliers, chosen):
    world = World(200, width=64)
    middle = world.rng.normal(size=64) * 2
    vectors = world.rng.normal(size=(200, 64)) + middle
    vectors[:3] -= middle
    world.vectors["vector"] = list(
        (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    )
    planted = set(world.ids[:3])
    found = world.select(budget=20, outliers=outliers, strategy="uncertainty")
    assert set(found.outliers) == planted
    assert min(found.outliers.values()) >= 3.5
    if chosen is not None:
        assert len(planted & set(found.images["image_id"])) == chosen
    if outliers == "mine":
        assert found.images["rule"].tolist()[:3] == ["outlier"] * 3
        assert (found.images["outlier_score"][:3] >= 3.5).all()
    everything = world.select(budget=0, outliers=outliers)
    assert len(everything.images) == (197 if outliers == "drop" else 200)
    assert set(everything.outliers) == planted
