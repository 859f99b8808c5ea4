from concurrent.futures import ThreadPoolExecutor

import pytest

from annotation_platform.errors import DataError
from annotation_platform.storage.objects import LocalObjectStore


def test_of_many_who_create_a_key_at_once_one_wins(tmp_path):
    store = LocalObjectStore(tmp_path)
    contents = [str(number).encode() for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda data: store.create("manifests/round-0001.json", data), contents))
    assert sum(won) == 1
    assert store.get("manifests/round-0001.json") == contents[won.index(True)]
    assert list(store.list("manifests")) == ["manifests/round-0001.json"]


def test_who_reads_an_object_while_it_is_replaced_reads_all_of_the_old_one(tmp_path):
    store = LocalObjectStore(tmp_path)
    old, new = b"old " * 1000, b"new"
    store.put("tables/splits/round-0001.parquet", old)
    with store.local_path("tables/splits/round-0001.parquet").open("rb") as reader:
        store.put("tables/splits/round-0001.parquet", new)
        assert reader.read() == old
    assert store.get("tables/splits/round-0001.parquet") == new
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["round-0001.parquet"]


@pytest.mark.parametrize("key", ["../outside", "/etc/passwd", "images/../../outside"])
def test_a_key_never_leaves_the_lake(tmp_path, key):
    with pytest.raises(DataError, match="lake"):
        LocalObjectStore(tmp_path / "lake").put(key, b"x")
    assert not (tmp_path / "outside").exists()


def test_a_private_object_is_its_owners_alone(tmp_path):
    store = LocalObjectStore(tmp_path)
    store.create("ledger/key", b"secret", private=True)
    assert store.local_path("ledger/key").stat().st_mode & 0o777 == 0o600


def test_a_missing_object_is_named(tmp_path):
    with pytest.raises(DataError, match=r"images/none\.jpg"):
        LocalObjectStore(tmp_path).get("images/none.jpg")
