import pytest

from annotation_platform.errors import DataError
from annotation_platform.storage.objects import LocalObjectStore
from annotation_platform.storage.read_once import ReadOnceStore

KEY, OTHER = "tables/cleaned_images/round-0001.parquet", "tables/label_tasks/round-0001.parquet"


@pytest.fixture
def stores(tmp_path):
    below = LocalObjectStore(tmp_path)
    return below, ReadOnceStore(below, ("tables/cleaned_images",))


def test_an_object_below_the_folder_is_read_once_and_others_every_time(stores):
    below, once = stores
    for key in (KEY, OTHER):
        below.put(key, b"first")
        assert once.get(key) == b"first"
        below.put(key, b"second")
    assert once.get(KEY) == b"first"
    assert once.get(OTHER) == b"second"


def test_what_was_written_is_what_is_read(stores):
    below, once = stores
    once.put(KEY, b"first")
    assert once.get(KEY) == b"first"
    once.put(KEY, b"second")
    assert once.get(KEY) == below.get(KEY) == b"second"


def test_stores_of_a_run_share_what_they_read(stores):
    below, once = stores
    below.put(KEY, b"first")
    assert once.get(KEY) == b"first"
    below.put(KEY, b"second")
    assert ReadOnceStore(below, once.folders, once.held).get(KEY) == b"first"
    assert ReadOnceStore(below, once.folders).get(KEY) == b"second"


def test_what_is_removed_is_gone(stores):
    _, once = stores
    once.put(KEY, b"first")
    once.remove(KEY)
    assert not once.exists(KEY)
    with pytest.raises(DataError):
        once.get(KEY)
