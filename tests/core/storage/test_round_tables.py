"""Tables of several rounds as one, and tables that were decoded before."""

import io

import pandas as pd
import pytest

from annotation_platform.errors import NotReadyError, TableError
from annotation_platform.schema.tables import SelectedImages
from annotation_platform.storage import table_files
from annotation_platform.storage.cache import Cache
from annotation_platform.storage.objects import LocalObjectStore
from annotation_platform.storage.round_tables import RoundTables, table_key

ROUNDS = [f"round-{number:04}" for number in range(1, 5)]


def selected(round_id, *images):
    row = {"round_id": round_id, "rule": "all", "reason": "", "calibration_sample": False}
    return SelectedImages.from_rows(
        [{**row, "image_id": image * 64, "rank": rank} for rank, image in enumerate(images)],
    )


@pytest.fixture
def tables(tmp_path):
    tables = RoundTables(LocalObjectStore(tmp_path))
    # An image may be asked about in two rounds; a round may ask about none.
    for round_id, images in zip(ROUNDS, ["ab", "", "bc"], strict=False):
        tables.write(SelectedImages, round_id, selected(round_id, *images))
    return tables


def test_rounds_read_as_one_table_are_what_each_of_them_is(tables):
    apart = [tables.read(SelectedImages, key) for key in (ROUNDS[2], ROUNDS[0])]
    together = tables.read_rounds(SelectedImages, [ROUNDS[2], ROUNDS[3], ROUNDS[1], ROUNDS[0]])
    pd.testing.assert_frame_equal(together, pd.concat(apart, ignore_index=True))
    nothing = tables.read_rounds(SelectedImages, [ROUNDS[1], ROUNDS[3]])
    pd.testing.assert_frame_equal(nothing, SelectedImages.empty())


@pytest.mark.parametrize("images", [["a", "a"], ["a", "x"]], ids=["a key twice", "a bad value"])
def test_a_round_that_is_not_as_declared_is_named(tables, tmp_path, images):
    frame = pd.concat([selected(ROUNDS[3], "a"), selected(ROUNDS[3], images[1].replace("x", "b"))])
    frame["image_id"] = [image * 64 for image in images]
    frame["image_id"] = frame["image_id"].astype("string[pyarrow]")
    sink = io.BytesIO()
    frame.to_parquet(sink, index=False)
    (tmp_path / table_key("selected_images", ROUNDS[3])).write_bytes(sink.getvalue())
    with pytest.raises(TableError, match=f"selected_images .{ROUNDS[3]}."):
        tables.read_all(SelectedImages)


def test_some_columns_are_read_without_the_others(tables):
    found = tables.read_columns(SelectedImages, ROUNDS[0], ["image_id", "rank"])
    assert found["image_id"].tolist() == ["a" * 64, "b" * 64]
    assert found["rank"].tolist() == [0, 1]
    with pytest.raises(NotReadyError, match="selected_images of round-0004 does not exist yet"):
        tables.read_columns(SelectedImages, ROUNDS[3], ["rank"])


def test_what_somebody_does_to_a_table_is_not_seen_by_the_next_reader(tables):
    one = tables.read(SelectedImages, ROUNDS[0])
    one.loc[0, "rank"] = 7
    one["rule"] = "random"
    again = tables.read(SelectedImages, ROUNDS[0])
    assert again["rank"].tolist() == [0, 1]
    assert set(again["rule"]) == {"all"}
    # Nor is a table that was written anew taken for the one of before.
    tables.write(SelectedImages, ROUNDS[0], selected(ROUNDS[0], "c"))
    assert tables.read(SelectedImages, ROUNDS[0])["image_id"].tolist() == ["c" * 64]


def test_decoded_tables_are_cached_by_their_size_in_memory(tables, monkeypatch):
    sizes = []
    keep = Cache.get

    def counted(cache, key, make):
        def made():
            size, frame = make()
            sizes.append((size, int(frame.memory_usage(index=False).sum())))
            return size, frame

        return keep(cache, key, made)

    monkeypatch.setattr(Cache, "get", counted)
    monkeypatch.setattr(table_files, "_DECODED", Cache(2**20))
    for _ in range(3):
        tables.read(SelectedImages, ROUNDS[0])
    assert len(sizes) == 1
    assert sizes[0][0] == sizes[0][1] > 0


def test_a_frame_becomes_a_table_by_its_columns():
    row = {"round_id": ROUNDS[0], "further": 1, "image_id": "a" * 64, "rank": 0, "rule": "all",
           "reason": "", "calibration_sample": True}  # fmt: skip
    made = SelectedImages.conform(pd.DataFrame([row], index=[5]))
    pd.testing.assert_frame_equal(made, SelectedImages.from_rows([row]))
