from annotation_platform.storage.objects import LocalObjectStore
from annotation_platform.storage.pseudonyms import pseudonym_of


def test_pseudonyms_are_stable_and_do_not_hold_the_name(tmp_path):
    store = LocalObjectStore(tmp_path / "one")
    name = pseudonym_of(store, "zoe@example.org")
    assert name == pseudonym_of(store, "Zoe@Example.org")
    assert "zoe" not in name
    assert name != pseudonym_of(LocalObjectStore(tmp_path / "two"), "zoe@example.org")
