import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.errors import DataError
from annotation_platform.images.ingest import (
    Landed,
    RoundManifests,
    copy_to_landing,
    ingest_round,
    list_landed,
    plan_round,
)
from annotation_platform.params import RoundPolicy
from annotation_platform.schema.rounds import LandedObject
from annotation_platform.storage.objects import LocalObjectStore

EAGER = RoundPolicy(minimum_images=1, settle_seconds=0)


def form_round(landing, manifests, *, policy=EAGER, now=None):
    landed = list_landed(landing, now=now or datetime.now(UTC) + timedelta(seconds=1))
    taken = manifests.taken()
    plan = plan_round(landed, taken.objects, policy)
    if plan.objects and manifests.create(taken.next_round, plan.objects):
        return taken.next_round
    return None


@pytest.fixture
def landing(tmp_path):
    (tmp_path / "landing").mkdir()
    return tmp_path / "landing"


@pytest.fixture
def store(tmp_path):
    return LocalObjectStore(tmp_path / "lake")


# What may happen between two ticks: files come late with early names, are written over, or go;
# a tick comes twice, or a second sensor process ticks at the same moment.
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "remove", "tick", "tick twice at once"]),
        st.sampled_from(["a.jpg", "b.jpg", "folder/a.jpg", "0-late.jpg"]),
        st.binary(min_size=1, max_size=4),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(EVENTS)
def test_every_landed_content_is_in_exactly_one_round(events):
    with tempfile.TemporaryDirectory() as place:
        landing = Path(place) / "landing"
        landing.mkdir()
        manifests = RoundManifests(LocalObjectStore(Path(place) / "lake"))
        stamp, present = 0, {}
        for event, name, data in [*events, ("tick", "", b"")]:
            if event == "write":
                stamp += 1
                path = landing / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
                os.utime(path, ns=(stamp, stamp))
                present[name] = f"{len(data)}-{stamp}"
            elif event == "remove":
                (landing / name).unlink(missing_ok=True)
                present.pop(name, None)
            elif event == "tick":
                form_round(landing, manifests)
            else:
                with ThreadPoolExecutor(2) as pool:
                    list(pool.map(lambda _: form_round(landing, manifests), range(2)))
        rounds = [manifests.read(key) for key in manifests.rounds()]
        listed = [(item.key, item.stamp) for objects in rounds for item in objects]
        assert len(listed) == len(set(listed))
        assert set(present.items()) <= set(listed)


def test_a_round_waits_until_there_are_enough_or_the_first_waited_long(landing, store):
    policy = RoundPolicy(minimum_images=3, maximum_wait_seconds=60, settle_seconds=2)
    manifests = RoundManifests(store)
    (landing / "a.jpg").write_bytes(b"a")
    now = datetime.now(UTC)
    early = plan_round(list_landed(landing, now=now), set(), policy)
    assert (early.objects, "still changing" in early.waits_for) == ([], True)
    later = plan_round(list_landed(landing, now=now + timedelta(seconds=10)), set(), policy)
    assert later.waits_for == "1 new images; a round starts at 3."
    assert form_round(landing, manifests, policy=policy, now=now + timedelta(seconds=90))


def test_what_landed_before_does_not_hurry_the_next_round(landing, store):
    policy = RoundPolicy(minimum_images=3, maximum_wait_seconds=60, settle_seconds=2)
    manifests = RoundManifests(store)
    (landing / "old.jpg").write_bytes(b"old")
    later = datetime.now(UTC) + timedelta(seconds=90)
    assert form_round(landing, manifests, policy=policy, now=later)
    landed = list_landed(landing, now=later)
    fresh = LandedObject(key="new.jpg", stamp="1-1", byte_size=1)
    both = Landed([*landed.objects, fresh], {**landed.ages, fresh: 5.0})
    plan = plan_round(both, manifests.taken().objects, policy)
    assert plan.waits_for == "1 new images; a round starts at 3."


def test_a_clock_that_runs_ahead_does_not_hold_up_a_round(landing, store):
    (landing / "a.jpg").write_bytes(b"a")
    ahead = (datetime.now(UTC) + timedelta(days=365)).timestamp()
    os.utime(landing / "a.jpg", (ahead, ahead))
    assert form_round(landing, RoundManifests(store))


def test_a_name_that_is_not_utf8_is_quarantined_and_the_rest_goes_on(landing, store):
    manifests = RoundManifests(store)
    Path(os.fsdecode(os.fsencode(landing) + b"/caf\xe9.jpg")).write_bytes(b"x")
    (landing / "sound.jpg").write_bytes(b"y")
    raw = ingest_round(form_round(landing, manifests), landing, manifests, store)
    assert raw.set_index("source_key")["problem"].to_dict() == {
        "caf\\xe9.jpg": "its name is not UTF-8; rename it and it lands anew",
        "sound.jpg": "",
    }


def test_unfinished_transfers_are_left_alone(landing, store):
    for name in ("a.jpg.part", ".hidden.jpg", "b.tmp"):
        (landing / name).write_bytes(b"half")
    assert list_landed(landing, now=datetime.now(UTC)).objects == []


def test_what_cannot_be_read_keeps_its_row_with_the_reason(landing, store):
    manifests = RoundManifests(store)
    outside = landing.parent / "secret.txt"
    outside.write_text("not yours")
    (landing / "link.jpg").symlink_to(outside)
    os.mkfifo(landing / "pipe.jpg")
    (landing / "gone.jpg").write_bytes(b"x")
    (landing / "changed.jpg").write_bytes(b"x")
    (landing / "sound.jpg").write_bytes(b"y")
    round_id = form_round(landing, manifests)
    (landing / "gone.jpg").unlink()
    (landing / "changed.jpg").write_bytes(b"longer")
    raw = ingest_round(round_id, landing, manifests, store).set_index("source_key")
    assert raw["problem"].to_dict() == {
        "changed.jpg": "replaced after its round was formed",
        "gone.jpg": "cannot be read: No such file or directory",
        "link.jpg": "cannot be read: Too many levels of symbolic links",
        "pipe.jpg": "not a regular file",
        "sound.jpg": "",
    }
    assert raw.loc["sound.jpg", "byte_size"] == 1
    # The new content under the old name is a new object of the next round.
    assert [item.key for item in manifests.read(form_round(landing, manifests))] == ["changed.jpg"]


def test_ingesting_twice_gives_the_same_table(landing, store):
    manifests = RoundManifests(store)
    (landing / "a.jpg").write_bytes(b"a")
    round_id = form_round(landing, manifests)
    first = ingest_round(round_id, landing, manifests, store)
    # What is in the lake stays in its round, whatever becomes of the landing folder.
    (landing / "a.jpg").unlink()
    assert first.equals(ingest_round(round_id, landing, manifests, store))


def test_a_folder_is_put_into_the_landing_place_whole(tmp_path, landing):
    (tmp_path / "camera" / "day").mkdir(parents=True)
    (tmp_path / "camera" / "day" / "a.jpg").write_bytes(b"a")
    assert copy_to_landing(tmp_path / "camera", landing) == 1
    assert (landing / "camera" / "day" / "a.jpg").read_bytes() == b"a"
    assert copy_to_landing(tmp_path / "camera", landing) == 0
    # Another camera with the same names takes nothing away.
    (tmp_path / "other" / "camera" / "day").mkdir(parents=True)
    (tmp_path / "other" / "camera" / "day" / "a.jpg").write_bytes(b"b")
    assert copy_to_landing(tmp_path / "other" / "camera", landing) == 1
    found = {path.read_bytes() for path in (landing / "camera" / "day").iterdir()}
    assert found == {b"a", b"b"}
    with pytest.raises(DataError, match="nowhere"):
        copy_to_landing(tmp_path / "nowhere", landing)
