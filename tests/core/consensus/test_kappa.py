from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.consensus.kappa import (
    cohen_kappa_pairs,
    fleiss_kappa,
    krippendorff_alpha,
)
from annotation_platform.errors import TableError


def annotations(*rows):
    return pd.DataFrame(rows, columns=["task", "worker", "label"])


def by_worker(**labels):
    """Return annotations from one text per worker: a character per task, a dot for none."""
    return annotations(
        *(
            (task, worker, None if label == "." else label)
            for worker, text in labels.items()
            for task, label in enumerate(text)
        )
    )


def from_counts(table):
    """Return annotations such that row ``i`` of the table counts the labels of task ``i``."""
    rows = []
    for task, counts in enumerate(table):
        given_labels = [label for label, count in enumerate(counts) for _ in range(count)]
        rows += [(task, f"rater {number}", label) for number, label in enumerate(given_labels)]
    return annotations(*rows)


# Fourteen raters, ten subjects, five categories: the worked example for Fleiss' kappa in
# Wikipedia, which gives P̄ = 0.378, Pe = 0.213 and kappa = 0.210.
FLEISS = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]

# Four observers, twelve units, five values, some missing: Krippendorff, "Computing Krippendorff's
# Alpha-Reliability", 2011, section C, which gives alpha = 0.743 for nominal data.
KRIPPENDORFF = {
    "A": "123321412...",
    "B": "1233224125.3",
    "C": ".3332342251.",
    "D": "12332441251.",
}


def test_cohens_kappa_of_fifty_proposals_is_two_fifths():
    # Two readers, yes or no: 20 both yes, 15 both no, 5 and 10 apart. Observed 35/50, by chance
    # (25/50)(30/50) + (25/50)(20/50) = 1/2, so (7/10 - 1/2) / (1/2) = 2/5.
    table = by_worker(a="y" * 25 + "n" * 25, b="y" * 20 + "n" * 5 + "y" * 10 + "n" * 15)
    assert cohen_kappa_pairs(table)["kappa"].tolist() == pytest.approx([0.4], abs=1e-12)


def test_fleiss_kappa_of_the_worked_example_is_the_published_one():
    raters = 14
    agreeing = [Fraction(sum(n * (n - 1) for n in row), raters * (raters - 1)) for row in FLEISS]
    shares = [Fraction(sum(column), raters * len(FLEISS)) for column in zip(*FLEISS, strict=True)]
    observed, expected = sum(agreeing) / len(FLEISS), sum(share**2 for share in shares)
    exact = (observed - expected) / (1 - expected)
    assert round(float(observed), 3) == 0.378
    assert round(float(expected), 3) == 0.213
    assert fleiss_kappa(from_counts(FLEISS)) == pytest.approx(float(exact), abs=1e-12)
    assert fleiss_kappa(from_counts(FLEISS)) == pytest.approx(0.2099307, abs=1e-6)


def test_krippendorffs_alpha_of_his_own_example_is_the_published_one():
    # His coincidences: 40 pairable values, 7 + 10 + 8 + 4 + 3 = 32 of them on the diagonal, margins
    # 9, 13, 10, 5 and 3, so sum n(n - 1) = 344 and alpha = (39 * 32 - 344) / (40 * 39 - 344).
    alpha = krippendorff_alpha(by_worker(**KRIPPENDORFF))
    assert alpha == pytest.approx(904 / 1216, abs=1e-12)
    assert alpha == pytest.approx(0.743421, abs=1e-6)


def test_fleiss_kappa_weighs_tasks_alike_where_the_numbers_of_annotations_differ():
    # Task 0: two of two say a. Task 1: a, a, b, so 1/3 of the pairs agree. Task 2: b alone.
    # Observed (1 + 1/3) / 2 = 2/3; shares of a (1 + 2/3 + 0) / 3 = 5/9, of b 4/9; chance 41/81.
    table = annotations(
        (0, "x", "a"), (0, "y", "a"), (1, "x", "a"), (1, "y", "a"), (1, "z", "b"), (2, "z", "b")
    )
    expected = (Fraction(2, 3) - Fraction(41, 81)) / (1 - Fraction(41, 81))
    assert fleiss_kappa(table) == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(annotations(), id="no annotations"),
        pytest.param(by_worker(a="xyxy"), id="one rater"),
        pytest.param(by_worker(a="xx", b="xx"), id="one label only"),
        pytest.param(by_worker(a="xy..", b="..yx"), id="no worker shares a task"),
        pytest.param(by_worker(a="..", b=".."), id="nothing but missing labels"),
        pytest.param(by_worker(a="xyx", b="..."), id="the other rater annotates nothing"),
    ],
)
def test_what_cannot_be_told_is_missing_and_never_full_agreement(table):
    for measure in (fleiss_kappa, krippendorff_alpha):
        assert np.isnan(measure(table))
    assert cohen_kappa_pairs(table)["kappa"].isna().all()


def test_systematic_disagreement_is_below_chance():
    table = by_worker(a="xyxy", b="yxyx")
    assert cohen_kappa_pairs(table)["kappa"].tolist() == pytest.approx([-1.0])
    assert fleiss_kappa(table) == pytest.approx(-1.0)
    # Of eight values, four each, 2 * 4 * 4 / 56 = 4/7 of the pairs differ: 1 - 1 / (4/7).
    assert krippendorff_alpha(table) == pytest.approx(-0.75)


def test_pairs_are_listed_once_with_their_tasks():
    pairs = cohen_kappa_pairs(by_worker(c="xy.", a="xyx", b="x.x"))
    assert pairs[["first", "second", "tasks"]].to_numpy().tolist() == [
        ["a", "b", 2],
        ["a", "c", 2],
        ["b", "c", 1],
    ]
    assert pairs["agreement"].tolist() == [1.0, 1.0, 1.0]
    # b gave one label only to what it shares, so it carries no evidence.
    assert pairs["kappa"].isna().tolist() == [True, False, True]


def test_answering_twice_and_a_missing_column_are_refused_by_name():
    with pytest.raises(TableError, match="worker a annotated task 0 twice"):
        krippendorff_alpha(annotations((0, "a", "x"), (0, "a", "y")))
    with pytest.raises(TableError, match="label"):
        fleiss_kappa(pd.DataFrame({"task": [], "worker": []}))


crowds = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from("abc"), st.sampled_from(["x", "y", "z", None])),
    unique_by=lambda row: row[:2],
    max_size=18,
)


@settings(max_examples=80, deadline=None)
@given(crowds, st.randoms(use_true_random=False))
def test_neither_order_nor_names_matter_and_nothing_is_above_one(rows, random):
    table = annotations(*rows)
    shuffled = rows[:]
    random.shuffle(shuffled)
    other = annotations(*shuffled).replace({"label": {"x": "z", "z": "x"}})
    for measure in (fleiss_kappa, krippendorff_alpha):
        value = measure(table)
        assert value == pytest.approx(measure(other), nan_ok=True, abs=1e-12)
        assert np.isnan(value) or value <= 1 + 1e-12


@settings(max_examples=80, deadline=None)
@given(crowds)
def test_alpha_equals_its_definition_by_pairs(rows):
    """Disagreeing pairs within tasks, by those among all pairable values (Krippendorff's words)."""
    tasks = {}
    for task, _, label in rows:
        if label is not None:
            tasks.setdefault(task, []).append(label)
    tasks = [labels for labels in tasks.values() if len(labels) >= 2]
    values = [label for labels in tasks for label in labels]
    n = len(values)
    within = sum(
        sum(a != b for a in labels for b in labels) / (len(labels) - 1) for labels in tasks
    )
    among = sum(a != b for a in values for b in values)
    expected = 1 - (within / n) / (among / (n * (n - 1))) if among else float("nan")
    assert krippendorff_alpha(annotations(*rows)) == pytest.approx(expected, nan_ok=True, abs=1e-12)
