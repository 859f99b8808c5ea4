from dataclasses import dataclass

import pandas as pd

from annotation_platform.pipeline.result import Result


@dataclass(frozen=True, kw_only=True)
class Made(Result):
    second: pd.DataFrame
    first: pd.DataFrame
    absent: pd.DataFrame | None = None


def test_the_tables_of_a_result_are_its_fields_in_their_order_without_those_that_are_none():
    one, two = pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [2]})
    made = Made(first=one, second=two, figures={"rows": 1})
    assert list(made.tables) == ["second", "first"]
    assert made.tables["first"] is one
