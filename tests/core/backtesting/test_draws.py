"""A policy would have had any annotations of one batch, and those of later batches after them."""

from collections import Counter

import numpy as np
import pytest

from annotation_platform.backtesting.draws import Draws
from annotation_platform.policy import LabelingPolicy
from annotation_platform.schema.shapes import Label
from tests.core.backtesting.past import ONE, human_labels, task_of

DAY, NIGHT = Label.choice("day"), Label.choice("night")


def annotated(annotations, *, later=()):
    """Return labels of choices, ``{image: "dnd"}``; those of people in ``later`` came in
    batch 1.
    """
    names = {"d": DAY, "n": NIGHT}
    labels = human_labels(
        ONE,
        {
            image: {f"p{at}": [names[each]] for at, each in enumerate(votes)}
            for image, votes in annotations.items()
        },
    )
    return labels.assign(batch=labels["annotator"].isin(later).astype(int))


def people_of(draws, draw):
    """Return who was drawn, by image."""
    chosen = draws.annotations[draw.chosen]
    return {
        task: frozenset(rows["annotator"]) for task, rows in chosen.groupby("task_id", sort=True)
    }


def test_every_pair_of_three_annotations_is_drawn_as_often():
    draws = Draws(annotated({"a": "ddn"}), LabelingPolicy(annotations_per_task=2), {})
    rng = np.random.default_rng(0)
    seen = Counter(people_of(draws, draws.draw(rng))[task_of(ONE, "a")] for _ in range(900))
    assert set(map(len, seen)) == {2}
    assert len(seen) == 3
    # 300 each; the deviation of such a count is 14.
    assert all(abs(count - 300) < 60 for count in seen.values())


def test_later_waves_are_drawn_after_the_first_one():
    labels = annotated({"a": "ddnnd"}, later=["p0", "p1"])
    draws = Draws(labels, LabelingPolicy(annotations_per_task=4), {})
    rng = np.random.default_rng(0)
    seen = {people_of(draws, draws.draw(rng))[task_of(ONE, "a")] for _ in range(50)}
    assert seen == {frozenset({"p2", "p3", "p4", last}) for last in ("p0", "p1")}


def test_a_task_with_too_few_annotations_has_all_of_them_and_is_short():
    draws = Draws(annotated({"a": "dd", "b": "ddd"}), LabelingPolicy(annotations_per_task=3), {})
    draw = draws.draw(np.random.default_rng(0))
    short = dict(zip(draws.tasks, draw.short, strict=True))
    assert short == {task_of(ONE, "a"): True, task_of(ONE, "b"): False}
    assert draw.chosen.all()


def test_more_annotations_are_asked_for_where_a_class_is_proposed():
    policy = LabelingPolicy(annotations_per_task=1, annotations_by_class={"day": 3})
    predicted = {task_of(ONE, "a"): frozenset({"day"})}
    draws = Draws(annotated({"a": "ddd", "b": "ddd"}), policy, predicted)
    drawn = people_of(draws, draws.draw(np.random.default_rng(0)))
    sizes = {task: len(people) for task, people in drawn.items()}
    assert sizes == {task_of(ONE, "a"): 3, task_of(ONE, "b"): 1}


@pytest.mark.parametrize(
    ("votes", "sizes", "short"),
    [
        # Two that agree margin by two.
        pytest.param("ddddd", {2}, False, id="all agree"),
        # One each, then two more: three to one vote_margins by two, two each asks for two more, and
        # so on.
        pytest.param("ddddn", {2, 4}, False, id="one disagrees"),
        pytest.param("ddn", {2, 3}, True, id="there is no fourth"),
        pytest.param("ddnndn", {2, 4, 6}, False, id="until there are as many as are allowed"),
    ],
)
def test_annotations_are_asked_for_until_they_lead(votes, sizes, short):
    policy = LabelingPolicy(vote_margin=2, maximum_annotations=6)
    draws = Draws(annotated({"a": votes}), policy, {})
    rng = np.random.default_rng(0)
    drawn = [draws.draw(rng) for _ in range(100)]
    assert {int(each.chosen.sum()) for each in drawn} == sizes
    assert any(each.short.any() for each in drawn) == short


def test_the_rows_of_a_draw_are_whole_annotations():
    annotations = {"a": {"ann": [Label.box("cat", 0, 0, 9, 9), DAY], "ben": [NIGHT]}}
    labels = human_labels(ONE, annotations).assign(batch=0)
    draws = Draws(labels, LabelingPolicy(annotations_per_task=1), {})
    rng = np.random.default_rng(0)
    sizes = {
        tuple(rows["annotator"]) for rows in (draws.rows(draws.draw(rng).chosen) for _ in range(20))
    }
    assert sizes == {("ann", "ann"), ("ben",)}


def test_the_order_of_the_rows_does_not_matter():
    labels = annotated({"a": "ddn", "b": "dnn", "c": "nnn"})
    policy = LabelingPolicy(annotations_per_task=2)
    first, second = (
        people_of(draws, draws.draw(np.random.default_rng(3)))
        for draws in (
            Draws(labels, policy, {}),
            Draws(labels.sample(frac=1, random_state=0), policy, {}),
        )
    )
    assert first == second
