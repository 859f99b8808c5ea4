"""Reconciliation: every arrival of a round has exactly one outcome."""

import pandas as pd
import pytest

from annotation_platform.curation.gates import missing_outcomes
from annotation_platform.schema.rounds import Arrival


@pytest.mark.parametrize(
    ("cleaned", "expected"),
    [
        pytest.param(["a.jpg", "b.jpg"], [], id="one each"),
        pytest.param(["a.jpg"], ["'b.jpg' has 0 outcomes"], id="none"),
        pytest.param(["a.jpg", "b.jpg", "b.jpg"], ["'b.jpg' has 2 outcomes"], id="two"),
        pytest.param(["a.jpg", "b.jpg", "c.jpg"], ["'c.jpg' never landed"], id="without arrival"),
    ],
)
def test_an_arrival_without_exactly_one_outcome_is_named(cleaned, expected):
    arrivals = [Arrival(name, "stamp", 7) for name in ("a.jpg", "b.jpg")]
    rows = pd.DataFrame({"source_key": cleaned, "arrival_version": "stamp"})
    assert missing_outcomes(arrivals, rows) == expected
