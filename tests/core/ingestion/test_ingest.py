import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from annotation_platform.ingestion.landing_zone import Put
from annotation_platform.schema.keys import raw_key
from tests.core.ingestion.conftest import form_round


def test_a_name_that_is_not_utf8_is_quarantined_and_the_rest_goes_on(lake):
    Path(os.fsdecode(os.fsencode(lake.landing.folder) + b"/caf\xe9.jpg")).write_bytes(b"x")
    (lake.landing.folder / "sound.jpg").write_bytes(b"y")
    raw = lake.ingest(form_round(lake), maximum_bytes=10**9)
    assert raw.set_index("source_key")["problem"].to_dict() == {
        "caf\\xe9.jpg": "its name is not UTF-8; rename it and it lands again",
        "sound.jpg": "",
    }


def test_what_cannot_be_read_keeps_its_row_with_the_reason(lake):
    landing = lake.landing.folder
    outside = landing.parent / "secret.txt"
    outside.write_text("not yours")
    (landing / "link.jpg").symlink_to(outside)
    os.mkfifo(landing / "pipe.jpg")
    for name in ("gone.jpg", "changed.jpg"):
        (landing / name).write_bytes(b"x")
    (landing / "sound.jpg").write_bytes(b"y")
    round_id = form_round(lake)
    (landing / "gone.jpg").unlink()
    (landing / "changed.jpg").write_bytes(b"longer")
    raw = lake.ingest(round_id, maximum_bytes=10**9).set_index("source_key")
    assert raw["problem"].to_dict() == {
        "changed.jpg": "replaced after its round was formed",
        "gone.jpg": "cannot be read: No such file or directory",
        "link.jpg": "cannot be read: Too many levels of symbolic links",
        "pipe.jpg": "not a regular file",
        "sound.jpg": "",
    }
    assert raw.loc["sound.jpg", "byte_size"] == 1
    # The new content under the old name is a new object of the next round.
    assert [item.key for item in lake.manifests.read(form_round(lake))] == ["changed.jpg"]


def test_what_goes_or_changes_in_s3_between_listing_and_reading_is_named(s3_lake):
    bucket = s3_lake.landing.bucket
    for name in ("changed.jpg", "gone.jpg", "sound.jpg"):
        bucket.put(name, b"x")
    round_id = form_round(s3_lake)
    bucket.put("changed.jpg", b"y")
    bucket.client.delete_object(Bucket=bucket.name, Key="landing/gone.jpg")
    problems = s3_lake.ingest(round_id, maximum_bytes=10**9).set_index("source_key")["problem"]
    assert problems["changed.jpg"].endswith("replaced since it was listed.")
    assert problems["gone.jpg"].endswith("there is no such object.")
    assert problems["sound.jpg"] == ""
    assert [item.key for item in s3_lake.manifests.read(form_round(s3_lake))] == ["changed.jpg"]


def test_ingesting_twice_gives_the_same_table_even_from_an_emptied_place(lake):
    path = lake.landing.folder / "a.jpg"
    path.write_bytes(b"a")
    path.with_name("a.json").write_text('{"licence": "CC0"}')
    round_id = form_round(lake)
    first = lake.ingest(round_id, maximum_bytes=10**9)
    path.unlink()
    path.with_name("a.json").write_text('{"licence": "other"}')
    assert first.equals(lake.ingest(round_id, maximum_bytes=10**9))
    assert first["licence"].tolist() == ["CC0"]


def test_the_same_file_from_two_sources_is_stored_once_with_both_origins(any_lake):
    for camera in ("pier", "crane"):
        sidecar = json.dumps({"source": camera, "geo": [53.5, 9.9], "weather": {"rain": True}})
        for became in (Put.COPIED, Put.KNOWN):
            put = any_lake.landing.put(f"{camera}/1.jpg", b"same", sidecar=sidecar.encode())
            assert put is became
        assert any_lake.landing.put(f"{camera}/1.jpg", b"same", sidecar=b"{}") is Put.DIFFERS
    raw = any_lake.ingest(form_round(any_lake), maximum_bytes=10**9)
    assert raw["source"].tolist() == ["crane", "pier"]
    assert raw["image_id"].nunique() == 1
    assert any_lake.store.get(raw_key(raw["image_id"].iloc[0])) == b"same"
    assert raw["latitude"].tolist() == [53.5, 53.5]
    assert set(raw["other_metadata"]) == {'{"weather": {"rain": true}}'}
    assert form_round(any_lake).startswith("No new image")


@pytest.mark.parametrize(
    ("sidecar", "problem"),
    [
        pytest.param(b"{", "not JSON", id="broken"),
        pytest.param(b"[1]", "not a JSON object", id="list"),
        pytest.param(b'{"geo": [91, 0]}', "geo", id="beyond the pole"),
        pytest.param(b'{"geo": [true, 0]}', "geo", id="no number"),
        pytest.param(b'{"captured_at": "yesterday"}', "captured_at", id="no time"),
        pytest.param(b'{"captured_at": "0001-01-01T00:00:00+14:00"}', "captured_at", id="year 0"),
        pytest.param(b'{"licence": "\\ud800"}', "not JSON", id="half a character"),
        pytest.param(b'{"licence": 3}', "licence", id="no text"),
        pytest.param(b'{"a": 1, "a": 2}', "a field is repeated", id="twice"),
        pytest.param(b"[" * 100_000, "not JSON", id="deep"),
        pytest.param(b'{"a": ' + b"9" * 10_000 + b"}", "not JSON", id="huge number"),
        pytest.param(b'{"a": ' + b"[" * 50 + b"]" * 50 + b"}", "deep", id="nested"),
        pytest.param(b'{"labels": {"boxes": 1}}', "labels", id="labels"),
    ],
)
def test_a_sidecar_that_cannot_be_used_is_named_and_its_image_kept(lake, sidecar, problem):
    lake.landing.put("a.jpg", b"a", sidecar=sidecar)
    raw = lake.ingest(form_round(lake), maximum_bytes=10**9).iloc[0]
    assert raw["problem"].startswith("bad metadata: ")
    assert problem in raw["problem"]
    assert lake.store.get(raw_key(raw["image_id"])) == b"a"


def test_times_are_kept_in_utc(lake):
    for name, time in (("a", "2026-05-01T12:00:00+02:00"), ("b", "2026-05-01T10:00:00")):
        lake.landing.put(f"{name}.jpg", b"a", sidecar=json.dumps({"captured_at": time}).encode())
    raw = lake.ingest(form_round(lake), maximum_bytes=10**9)
    assert set(raw["captured_at"]) == {datetime(2026, 5, 1, 10, tzinfo=UTC)}


def test_an_object_beyond_the_limit_is_not_read_and_the_rest_goes_on(any_lake):
    for name, size in (("large.jpg", 101), ("small.jpg", 100)):
        any_lake.landing.put(name, b"x" * size)
    raw = any_lake.ingest(form_round(any_lake), maximum_bytes=100).set_index("source_key")
    assert raw["problem"].to_dict() == {
        "large.jpg": "too many bytes: 101, at most 100",
        "small.jpg": "",
    }


def test_a_sidecar_that_is_gone_says_so(lake):
    lake.landing.put("a.jpg", b"a", sidecar=b'{"licence": "CC0"}')
    round_id = form_round(lake)
    (lake.landing.folder / "a.jpg.json").unlink()
    (problem,) = lake.ingest(round_id, maximum_bytes=10**9)["problem"]
    assert problem == "bad metadata: a.jpg.json cannot be read: No such file or directory"


def test_two_who_send_other_images_under_one_name_lose_none(any_lake):
    names = [("DCIM/1.jpg", f"{number}".encode(), b'{"n": %d}' % number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        put = list(pool.map(lambda each: any_lake.landing.put(*each[:2], sidecar=each[2]), names))
    assert put == [Put.COPIED] * 8
    raw = any_lake.ingest(form_round(any_lake), maximum_bytes=10**9)
    assert (raw["problem"] == "").all()
    stored = {
        any_lake.store.get(raw_key(row.image_id)): row.other_metadata for row in raw.itertuples()
    }
    assert stored == {f"{number}".encode(): f'{{"n": {number}}}' for number in range(8)}
