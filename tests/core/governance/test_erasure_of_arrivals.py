"""Arrivals without an image id are erased from tables of this release and of older ones."""

import io

import pandas as pd
import pyarrow.parquet as pq
import pytest

from annotation_platform.governance.erasure.rewriting import Rewriting
from annotation_platform.schema.tables import RawImages
from annotation_platform.storage.table_files import parquet_bytes, table_bytes

ROWS = [
    {
        "round_id": "round-0001", "source_key": key, "arrival_version": version, "byte_size": 9,
        "problem": "cannot be read", "other_metadata": "",
    }
    for key, version in (("a.jpg", "1"), ("a.jpg", "2"), ("b.jpg", "1"))
]  # fmt: skip


def earlier(frame: pd.DataFrame) -> bytes:
    return parquet_bytes(frame.rename(columns={"arrival_version": "stamp"}))


@pytest.mark.parametrize(
    "file_of",
    [
        pytest.param(lambda frame: table_bytes(RawImages, frame), id="this release"),
        pytest.param(earlier, id="v0.1.0"),
    ],
)
def test_only_the_erased_content_of_a_name_leaves_the_table(file_of):
    rewriting = Rewriting(frozenset(), frozenset({("a.jpg", "2")}), {})
    data = rewriting.table(file_of(RawImages.from_rows(ROWS)))
    left = pq.read_table(io.BytesIO(data)).to_pandas()
    version = "stamp" if "stamp" in left else "arrival_version"
    assert left[["source_key", version]].to_numpy().tolist() == [["a.jpg", "1"], ["b.jpg", "1"]]
