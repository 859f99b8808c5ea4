import hashlib
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from annotation_platform.errors import ModelError
from annotation_platform.models.detection.calibration import identity_calibration
from annotation_platform.models.registry import ModelRegistry


@pytest.fixture
def registry(tmp_path):
    return ModelRegistry(tmp_path / "models")


def test_weights_are_stored_by_digest_with_their_card(registry, card):
    sha256 = registry.add(b"weights", card)
    assert sha256 == hashlib.sha256(b"weights").hexdigest()
    assert registry.card(sha256) == card
    assert registry.weights_path(sha256).read_bytes() == b"weights"
    assert stat.S_IMODE(registry.weights_path(sha256).stat().st_mode) == 0o644
    assert sorted(path.suffix for path in registry.folder.iterdir()) == [".json", ".pt"]


def test_adding_again_restores_the_file_and_keeps_the_first_card(registry, card):
    sha256 = registry.add(b"weights", card)
    registry.weights_path(sha256).write_bytes(b"rotten")
    registry.add(b"weights", card.model_copy(update={"seed": 9}))
    assert registry.weights_path(sha256).read_bytes() == b"weights"
    assert registry.card(sha256).seed == 0


def test_calibrations_are_stored_by_weights_and_profile(registry):
    first = identity_calibration()
    second = first.model_copy(update={"images": 7})
    weights = ["a" * 64, "b" * 64]
    assert registry.calibration(weights, "labelling@1") is None
    digest = registry.calibrate(weights, "labelling@1", first)
    assert digest == first.digest
    assert registry.calibration(weights, "labelling@1") == first
    # Another profile, other weights or another order of them have no calibration.
    assert registry.calibration(weights, "serving@1") is None
    assert registry.calibration(weights[::-1], "labelling@1") is None
    assert registry.calibration(weights[:1], "labelling@1") is None
    registry.calibrate(weights, "labelling@1", second)
    assert registry.calibration(weights, "labelling@1") == second

    file = registry.folder / "calibrations" / f"{second.digest}.json"
    file.write_text(first.to_json())
    with pytest.raises(ModelError, match="changed or damaged"):
        registry.calibration(weights, "labelling@1")
    file.unlink()
    with pytest.raises(ModelError, match="the calibration is missing"):
        registry.calibration(weights, "labelling@1")


def test_the_weights_promoted_last_come_first_and_once(registry, card):
    one, two, three = (registry.add(data, card) for data in (b"1", b"2", b"3"))
    assert registry.promoted_last(2) == []
    for weights in (one, two, three, one):
        registry.promote(weights, "better")
    assert registry.promoted_last(2) == [one, three]
    assert registry.promoted_last(9) == [one, three, two]


def test_nothing_is_promoted_in_an_empty_registry(registry):
    assert registry.promoted() is None
    assert registry.history() == ()


def test_promotions_are_recorded_in_order(registry, card):
    first, second = registry.add(b"one", card), registry.add(b"two", card)
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    registry.promote(first, "the first model", now=noon)
    registry.promote(second, "better")
    registry.promote(second, "better, repeated")
    registry.promote(first, "rolled back")
    assert registry.promoted() == first
    history = ModelRegistry(registry.folder).history()
    assert [one.weights_sha256 for one in history] == [first, second, first]
    assert [one.reason for one in history] == ["the first model", "better", "rolled back"]
    assert history[0].promoted_at == noon


def test_simultaneous_promotions_are_all_recorded(registry, card):
    added = [registry.add(bytes([number]), card) for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda sha256: registry.promote(sha256, "race"), added))
    assert sorted(one.weights_sha256 for one in registry.history()) == sorted(added)


@pytest.mark.parametrize("sha256", ["0" * 64, "", "../secret", "ABC"])
def test_unknown_weights_are_refused(registry, card, sha256):
    registry.add(b"weights", card)
    (registry.folder.parent / "secret.pt").write_bytes(b"")
    for method in (
        registry.card,
        registry.weights_path,
        registry.load,
        lambda one: registry.promote(one, "no"),
    ):
        with pytest.raises(ModelError, match="no weights"):
            method(sha256)
    assert registry.promoted() is None


def test_changed_weights_are_not_loaded(registry, card, trained):
    sha256 = registry.add(trained.state, card)
    assert registry.load(sha256).class_names == ("blue", "red")
    data = bytearray(trained.state)
    data[len(data) // 2] ^= 1
    registry.weights_path(sha256).write_bytes(data)
    with pytest.raises(ModelError, match=rf"{sha256}\.pt: the file was changed or damaged"):
        registry.load(sha256)


@pytest.mark.parametrize("content", [b"", b"{}", b"null", b'{"promoted": 3, "history": []}'])
def test_errors_name_damaged_files(registry, card, content):
    sha256 = registry.add(b"weights", card)
    (registry.folder / "promoted.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"promoted\.json: damaged"):
        registry.promoted()
    (registry.folder / f"{sha256}.json").write_bytes(content)
    with pytest.raises(ModelError, match=rf"{sha256}\.json: not a model card"):
        registry.card(sha256)
