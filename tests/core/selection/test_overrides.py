from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from annotation_platform.errors import DataError
from annotation_platform.policy import SelectionPolicy
from annotation_platform.selection.batch import select_batch
from annotation_platform.selection.overrides import SelectionOverrides
from annotation_platform.selection.pool import SelectionInputs
from annotation_platform.storage.objects import LocalObjectStore

NOW = datetime(2026, 1, 2, tzinfo=UTC)
IMAGES = [f"{letter * 64}" for letter in "abcdef"]


@pytest.fixture
def overrides(tmp_path):
    return SelectionOverrides(LocalObjectStore(tmp_path))


def selected(overrides, budget):
    pool = pd.DataFrame({"image_id": IMAGES})
    vectors = pd.DataFrame({"image_id": IMAGES, "vector": list(np.eye(6, dtype=np.float32))})
    policy = SelectionPolicy(budget=budget)
    inputs = SelectionInputs(pool, vectors)
    found = select_batch(inputs, policy=policy, round_id="round-0001", overrides=overrides.read())
    return dict(zip(found.images["image_id"], found.images["reason"], strict=True))


@pytest.mark.parametrize("budget", [0, 1, 2, 5, 9])
def test_an_included_or_excluded_image_is_always_in_or_always_out(overrides, budget):
    overrides.set(IMAGES[4], wanted=True, reason="the new crane", by="ada", now=NOW)
    overrides.set(IMAGES[0], wanted=False, reason="a face", by="ben", now=NOW)
    found = selected(overrides, budget)
    assert next(iter(found.items())) == (IMAGES[4], "wanted by ada: the new crane")
    assert IMAGES[0] not in found
    assert len(found) == (5 if budget == 0 else min(budget, 5))


def test_who_decided_and_what_it_could_not_change_is_told(overrides):
    pool = pd.DataFrame({"image_id": IMAGES[1:]})
    overrides.set(IMAGES[1], wanted=False, reason="a face", by="ben", now=NOW)
    overrides.set(IMAGES[0], wanted=True, reason="the new crane", by="ada", now=NOW)
    vectors = pd.DataFrame({"image_id": IMAGES, "vector": list(np.eye(6, dtype=np.float32))})
    inputs = SelectionInputs(pool, vectors)
    found = select_batch(
        inputs, policy=SelectionPolicy(), round_id="round-0001", overrides=overrides.read()
    )
    assert found.excluded == {IMAGES[1]: "ben: a face"}
    # It was selected before, or is no accepted image: an override does not change that.
    assert found.overridden_elsewhere == (IMAGES[0],)
    assert set(found.images["image_id"]) == set(IMAGES[2:])


def test_the_last_word_on_an_image_holds(overrides):
    overrides.set(IMAGES[0], wanted=False, reason="a face", by="ben", now=NOW)
    overrides.set(IMAGES[0], wanted=True, reason="blurred by now", by="ada", now=NOW)
    assert list(selected(overrides, 1)) == [IMAGES[0]]


def test_a_decision_needs_a_reason(overrides):
    with pytest.raises(DataError, match="--reason"):
        overrides.set(IMAGES[0], wanted=True, reason=" ", by="ada", now=NOW)
    assert overrides.read() == {}
