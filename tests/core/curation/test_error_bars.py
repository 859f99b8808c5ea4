import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

from annotation_platform.curation.error_bars import (
    ALL,
    certificate_bars,
    error_bars,
    image_error_bars,
    plan_label_audit,
    release_allowed,
    review_findings,
)
from annotation_platform.schema.tables import Certificates
from benchmarks.error_bars import by_image, by_label, version

ROUND = "round-0001"


def labels_of(**counts):
    names = [name for name, count in counts.items() for _ in range(count)]
    table = pd.DataFrame({"label_id": [f"{n:05d}" for n in range(len(names))]})
    return table.assign(shape="box", class_name=names)


def looked_at(plan, wrong):
    return plan.sample[["item"]].assign(wrong=plan.sample["item"].isin(wrong))


def test_each_class_has_its_own_exact_interval_and_what_is_known_in_full_has_none():
    labels = labels_of(cat=30, dog=70)
    empty = labels.head(1).assign(label_id="nothing", shape="none", class_name=None)
    plan = plan_label_audit(pd.concat([labels, empty]), size=100, rng=np.random.default_rng(0))
    bars = error_bars(plan, looked_at(plan, ["00000", "00099"]), labels, round_id=ROUND)
    found = {row.class_name: (row.low, row.rate, row.high) for row in bars.itertuples()}
    assert found == {
        ALL: (0.02, 0.02, 0.02),
        "cat": pytest.approx((1 / 30,) * 3),
        "dog": pytest.approx((1 / 70,) * 3),
    }


def test_of_many_labels_the_interval_is_clopper_and_pearsons():
    labels = labels_of(cat=100_000)
    plan = plan_label_audit(labels, size=100, rng=np.random.default_rng(0))
    seen = looked_at(plan, plan.sample["item"].head(5))
    bar = error_bars(plan, seen, labels, round_id=ROUND).iloc[0]
    ends = beta.ppf(0.025, 5, 96), beta.ppf(0.975, 6, 95)
    assert (bar["low"], bar["high"]) == pytest.approx(ends, abs=2e-4)


def test_a_class_nobody_looked_at_may_be_anything():
    labels = labels_of(cat=500, dog=1)
    plan = plan_label_audit(labels, size=50, rng=np.random.default_rng(0))
    assert "00500" not in set(plan.sample["item"])
    bars = error_bars(plan, looked_at(plan, []), labels, round_id=ROUND).set_index("class_name")
    assert (bars.loc["dog", "low"], bars.loc["dog", "high"]) == (0.0, 1.0)
    assert np.isnan(bars.loc["dog", "rate"])


def test_labels_of_one_image_that_are_wrong_together_count_as_one():
    findings = pd.DataFrame(
        {
            "image_id": np.repeat([f"{number}" for number in range(40)], 5),
            "class_name": "cat",
            "wrong": np.repeat([True, True, *[False] * 38], 5),
        }
    )
    together = image_error_bars(findings, round_id=ROUND).iloc[0]
    apart = findings.assign(image_id=[str(number) for number in range(200)])
    alone = image_error_bars(apart, round_id=ROUND).iloc[0]
    assert together["rate"] == alone["rate"] == 0.05
    # As wide as from 40 images, not from 200 labels.
    assert together["high"] - together["low"] > 1.8 * (alone["high"] - alone["low"])


def covered(versions, rates):
    rng = np.random.default_rng(8)
    inside, widths = {"labels": [], "images": []}, []
    for _ in range(versions):
        labels = version(rng.uniform(*rates), rng)
        share = labels["wrong"].mean()
        one, whole = by_label(labels, rng).iloc[0], by_image(labels, rng)[0].iloc[0]
        inside["labels"].append(one["low"] <= share <= one["high"])
        inside["images"].append(whole["low"] <= share <= whole["high"])
        widths.append(one["high"] - one["low"])
    return inside, float(np.median(widths))


@pytest.mark.long
def test_the_interval_holds_the_truth_as_often_as_it_says_and_is_narrow():
    inside, width = covered(20, (0.01, 0.1))
    # Of 20 that cover 95 %, fewer than 17 do with a chance of 1.6 %.
    assert sum(inside["labels"]) >= 17
    assert width <= 0.05


@pytest.mark.long
def test_over_500_versions_it_covers_at_least_as_often_as_it_says():
    inside, width = covered(500, (0.01, 0.1))
    assert np.mean(inside["labels"]) >= 0.95
    assert np.mean(inside["images"]) >= 0.93
    assert width <= 0.05


@pytest.mark.parametrize(
    ("wrong", "limit", "allowed", "says"),
    [
        pytest.param(0, 0.05, True, "0 of 100", id="shown to be good"),
        pytest.param(3, 0.05, False, "Audit more", id="not shown either way"),
        pytest.param(20, 0.05, False, "Review", id="shown to be bad"),
        pytest.param(20, 0.0, True, "No limit", id="no limit"),
    ],
)
def test_a_release_needs_labels_that_are_shown_to_be_good(wrong, limit, allowed, says):
    labels = labels_of(cat=5000)
    plan = plan_label_audit(labels, size=100, rng=np.random.default_rng(0))
    bars = error_bars(
        plan, looked_at(plan, plan.sample["item"].head(wrong)), labels, round_id=ROUND
    )
    verdict = release_allowed(bars, limit)
    assert verdict.allowed == allowed
    assert says in verdict.reason


def test_without_an_audit_a_limit_is_not_met():
    assert not release_allowed(error_bars_of_nothing(), 0.05).allowed


def error_bars_of_nothing():
    labels = labels_of(cat=10)
    plan = plan_label_audit(labels, size=0, rng=np.random.default_rng(0))
    return error_bars(plan, looked_at(plan, []), labels, round_id=ROUND)


HERE, THERE = (10.0, 10.0, 50.0, 50.0), (100.0, 100.0, 150.0, 150.0)


def rows_of(image, *labels, decision="fixed"):
    columns = ["shape", "class_name", "x1", "y1", "x2", "y2"]
    table = pd.DataFrame([[shape, name, *box] for shape, name, box in labels], columns=columns)
    return table.assign(image_id=image, geometry="", decision=decision)


CAT, DOG = ("box", "cat", HERE), ("box", "dog", THERE)


@pytest.mark.parametrize(
    ("left", "decision", "found"),
    [
        pytest.param([CAT, DOG], "accepted", [("cat", False), ("dog", False)], id="as it was"),
        pytest.param(
            [("box", "cat", (12.0, 10.0, 52.0, 50.0)), DOG],
            "fixed", [("cat", False), ("dog", False)], id="moved a little",
        ),
        pytest.param([CAT], "fixed", [("cat", False), ("dog", True)], id="removed"),
        pytest.param(
            [CAT, DOG, ("box", "cat", THERE)],
            "fixed", [("cat", False), ("cat", True), ("dog", False)], id="added",
        ),
        pytest.param(
            [("box", "dog", HERE), DOG],
            "fixed", [("cat", True), ("dog", False), ("dog", True)], id="another class",
        ),
        pytest.param(
            [("keypoint", "cat", (30.0, 30.0, 30.0, 30.0)), DOG],
            "fixed", [("cat", True), ("cat", True), ("dog", False)], id="another shape",
        ),
        pytest.param([CAT, DOG], "rejected", [("cat", True), ("dog", True)], id="rejected"),
    ],
)  # fmt: skip
def test_what_reviewers_left_says_which_labels_were_right_and_what_was_missed(
    left, decision, found
):
    findings = review_findings(
        rows_of("a", CAT, DOG), rows_of("a", *left, decision=decision), {"a": (200.0, 200.0)}
    )
    assert sorted(zip(findings["class_name"], findings["wrong"], strict=True)) == found


def test_nothing_seen_where_nothing_is_holds_no_error_and_what_is_found_there_is_missed():
    nothing = rows_of("a", ("none", None, (np.nan,) * 4))
    sizes = {"a": (200.0, 200.0)}
    assert review_findings(nothing, nothing, sizes).empty
    choice = rows_of("a", ("choice", "cat", (np.nan,) * 4))
    assert not review_findings(choice, choice, sizes)["wrong"].any()
    assert review_findings(nothing, rows_of("a", CAT), sizes)["wrong"].tolist() == [True]


def test_a_image_that_is_looked_at_more_often_counts_for_less():
    # Of 40 hard images all are looked at, of 400 easy ones every tenth; half the hard are wrong.
    findings = pd.DataFrame(
        {
            "image_id": [str(number) for number in range(80)],
            "class_name": "cat",
            "wrong": [number < 20 for number in range(80)],
            "weight": [1.0] * 40 + [10.0] * 40,
        }
    )
    bar = image_error_bars(findings, round_id=ROUND, labels={"cat": 440}).iloc[0]
    assert bar["rate"] == pytest.approx(20 / 440)
    assert bar["low"] < 20 / 440 < bar["high"] < 0.2
    assert (bar["labels"], bar["reviewed"]) == (440, 80)


def test_labels_without_a_person_have_the_bound_of_their_certificate():
    columns = dict.fromkeys(Certificates.empty().columns, 0)
    one = columns | {"class_name": "", "bound": 0.04, "delta": 0.1, "accepted_labels": 200}
    rows = [one | {"errors": 2}, one | {"class_name": "cat", "bound": np.nan}]
    bars = certificate_bars(pd.DataFrame(rows), {"cat": 900}, round_id=ROUND)
    assert bars["class_name"].tolist() == [ALL]
    bar = bars.iloc[0]
    assert (bar["low"], bar["rate"], bar["high"], bar["level"]) == (0.0, 0.01, 0.04, 0.9)
    assert (bar["origin"], bar["labels"]) == ("auto", 900)
    assert release_allowed(bars, 0.05).allowed
    # Imported labels, which are not reviewed, are part of the version too.
    came = image_error_bars(
        pd.DataFrame(columns=["image_id", "class_name", "wrong"]),
        round_id=ROUND, origin="coco:a.json", labels={"cat": 3},
    )  # fmt: skip
    verdict = release_allowed(pd.concat([bars, came]), 0.05)
    assert not verdict.allowed
    assert "from coco:a.json" in verdict.reason
