import numpy as np
import pandas as pd
import pytest

from annotation_platform.curation.annotator_pace import measure_pace

SLOW, FAST = 9.0, 4.0


def annotations(name, rng, *, people, proposals=False, objects=3.0):
    """Return the labels of 30 answers of each person, who takes so many seconds a label."""
    rows = []
    for person, seconds in people.items():
        for number in range(30):
            count = int(rng.poisson(objects))
            taken = seconds * (count + 1) * rng.lognormal(0.0, 0.3)
            annotation = {
                "annotation_id": f"{name}/{person}/{number}",
                "task_id": f"{name}/{number}",
                "annotator": person,
                "lead_time_seconds": taken,
                "weights_sha256": "a" * 64 if proposals else "",
            }
            rows += [annotation | {"shape": "box"}] * count or [annotation | {"shape": "none"}]
    return pd.DataFrame(rows)


def pace(now, before):
    return measure_pace("round-0002", now, before)


@pytest.mark.parametrize(
    ("change", "drifted"),
    [
        pytest.param({"people": {"ada": FAST, "bo": SLOW}}, [("ada", "label")], id="faster"),
        pytest.param({"people": {"ada": SLOW, "bo": 3 * SLOW}}, [("bo", "label")], id="slower"),
        pytest.param({"people": {"ada": SLOW, "bo": SLOW}}, [], id="as before"),
        pytest.param({"people": {"cy": FAST}}, [], id="other people"),
        pytest.param({"people": {"ada": FAST}, "proposals": True}, [], id="with proposals"),
    ],
)
def test_who_takes_another_time_than_before_is_named(change, drifted):
    rng = np.random.default_rng(1)
    before = annotations("before", rng, people={"ada": SLOW, "bo": SLOW})
    found = pace(annotations("now", rng, **change), before)
    rows = found.table[found.table["drifted"]]
    changed = [*zip(rows["annotator"], rows["feature"], strict=True)]
    assert set(drifted) <= set(changed)
    assert {who for who, _ in changed} == {who for who, _ in drifted}
    assert bool(found.changed) == bool(drifted)


def test_more_objects_take_longer_but_not_by_label():
    rng = np.random.default_rng(2)
    before = annotations("before", rng, people={"ada": SLOW})
    found = pace(annotations("now", rng, people={"ada": SLOW}, objects=15.0), before).table
    assert list(found.set_index("feature")["drifted"][["annotation", "label"]]) == [True, False]
    assert list(found["earlier_annotations"]) == [30, 30]


def test_too_few_annotations_are_not_compared_and_times_may_be_missing():
    rng = np.random.default_rng(3)
    before = annotations("before", rng, people={"ada": SLOW})
    now = annotations("now", rng, people={"ada": FAST})
    few = now[now["annotation_id"].isin([f"now/ada/{number}" for number in range(7)])]
    for found in (pace(few, before), pace(now, before.iloc[:0]),
                  pace(now.assign(lead_time_seconds=np.nan), before)):  # fmt: skip
        assert found.table.empty
        assert found.sentence.startswith("No annotator has enough annotations")
    assert "Some of 1 annotators changed their pace" in pace(now, before).sentence


@pytest.mark.long
def test_as_fast_as_before_is_seldom_called_a_change():
    rng = np.random.default_rng(4)
    people = dict.fromkeys("abcdef", SLOW)
    alarms = sum(
        bool(
            pace(
                annotations("now", rng, people=people), annotations("before", rng, people=people)
            ).changed
        )
        for _ in range(60)
    )
    # At most one in a hundred rounds is expected.
    assert alarms <= 3
