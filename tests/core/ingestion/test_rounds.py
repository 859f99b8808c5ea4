import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.ingestion.lake import open_lake
from annotation_platform.ingestion.landing_zone import FolderLandingZone
from annotation_platform.ingestion.rounds import Arrivals, new_objects, pair_sidecars, plan_round
from annotation_platform.policy import RoundPolicy
from annotation_platform.schema.rounds import Arrival
from tests.core.ingestion.conftest import form_round

# What may happen between two looks: files come late with early names, are written over, or go;
# a look comes twice, or a second process looks at the same moment; one starts from an old cursor.
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "remove", "look", "look twice at once"]),
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
        lake = open_lake(Path(place) / "lake", landing)
        stamp, present = 0, {}
        for event, name, data in [*events, ("look", "", b"")]:
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
            elif event == "look":
                form_round(lake)
            else:
                with ThreadPoolExecutor(2) as pool:
                    list(pool.map(lambda _: form_round(lake), range(2)))
        rounds = [lake.manifests.read(key) for key in lake.manifests.rounds()]
        listed = [(item.key, item.stamp) for objects in rounds for item in objects]
        assert len(listed) == len(set(listed))
        assert set(present.items()) <= set(listed)


POLICY = RoundPolicy(minimum_images=3, maximum_wait_seconds=60, settle_seconds=2)


def test_a_round_waits_until_there_are_enough_or_the_first_waited_long(lake):
    (lake.landing.folder / "a.jpg").write_bytes(b"a")
    assert "still changing" in form_round(lake, policy=POLICY, after=0)
    assert form_round(lake, policy=POLICY, after=10) == "1 new images; a round starts at 3."
    assert form_round(lake, policy=POLICY, after=90) == "round-0001"


def test_more_than_a_round_may_hold_makes_several(lake):
    for number in range(5):
        (lake.landing.folder / f"{number}.jpg").write_bytes(b"x")
    policy = RoundPolicy(minimum_images=1, maximum_images=2, settle_seconds=0)
    keys = [form_round(lake, policy=policy) for _ in range(3)]
    assert [len(lake.manifests.read(key)) for key in keys] == [2, 2, 1]


def test_what_landed_before_does_not_hurry_the_next_round(lake):
    (lake.landing.folder / "old.jpg").write_bytes(b"old")
    assert form_round(lake, policy=POLICY, after=90) == "round-0001"
    landed = lake.landed(now=datetime.now(UTC) + timedelta(seconds=90))
    fresh = Arrival(key="new.jpg", stamp="1-1", byte_size=1)
    both = Arrivals([*landed.objects, fresh], {**landed.ages, fresh: 5.0})
    plan = plan_round(both, lake.manifests.taken().objects, POLICY)
    assert (plan.waits_for, plan.poll_again_seconds) == ("1 new images; a round starts at 3.", 55.0)


def test_a_clock_that_runs_ahead_does_not_hold_up_a_round(lake):
    path = lake.landing.folder / "a.jpg"
    path.write_bytes(b"a")
    for years in (1, -30):
        when = (datetime.now(UTC) + timedelta(days=365 * years)).timestamp()
        os.utime(path, (when, when))
        assert form_round(lake).startswith("round-")


def test_unfinished_transfers_are_left_alone(lake):
    for name in ("a.jpg.part", ".hidden.jpg", "b.tmp", ".tmp-x"):
        (lake.landing.folder / name).write_bytes(b"half")
    landed = lake.landed(now=datetime.now(UTC)).objects
    assert [item.key for item in landed] == [".hidden.jpg"]


def test_a_sidecar_goes_with_its_image_and_alone_it_waits(tmp_path):
    names = ["a.jpg", "a.jpg.json", "b.png", "b.json", "c.json", "d", "d.json", "e.jpg"]
    for name in names:
        (tmp_path / name).write_bytes(b"{}")
    landed = FolderLandingZone(tmp_path).list(now=datetime.now(UTC) + timedelta(seconds=10))
    assert {item.key: item.sidecar for item in landed.objects} == {
        "a.jpg": "a.jpg.json",
        "b.png": "b.json",
        "c.json": "",
        "d": "d.json",
        "e.jpg": "",
    }
    policy = RoundPolicy(minimum_images=1, maximum_wait_seconds=60, settle_seconds=0)
    plan = plan_round(landed, set(), policy)
    assert [item.key for item in plan.objects] == ["a.jpg", "b.png", "d", "e.jpg"]
    later = plan_round(landed, set(plan.objects), policy)
    assert "1 metadata files without their image" in later.waits_for
    # Images may be taken away; what described them is then no image that waits.
    alone = [item for item in landed.objects if item.key == "c.json"]
    rest = [*alone, Arrival("a.jpg.json", "2-2", 2)]
    assert new_objects(Arrivals(rest, {}), set(plan.objects)) == alone
    long = Arrivals(landed.objects, dict.fromkeys(landed.objects, 61.0))
    assert [item.key for item in plan_round(long, set(plan.objects), policy).objects] == ["c.json"]


def test_metadata_that_comes_later_makes_no_new_object():
    image = Arrival("a.jpg", "1-1", 1)
    sidecar = Arrival("a.jpg.json", "2-2", 2)
    assert set(pair_sidecars([image, sidecar])) == {image}


def test_a_steady_stream_does_not_hold_up_what_is_stable():
    items = [Arrival(f"{number}.jpg", "1-1", 1) for number in range(5)]
    ages = dict(zip(items, [9.0, 8.0, 7.0, 1.0, 0.0], strict=True))
    assert plan_round(Arrivals(items, ages), set(), POLICY).objects == items[:3]
    # A sidecar that is still being written holds back its image alone.
    first = replace(items[0], sidecar="0.jpg.json")
    growing = {**ages, Arrival("0.jpg.json", "1-1", 1): 0.5}
    plan = plan_round(Arrivals([first, *items[1:]], growing), set(), POLICY)
    assert (plan.objects, plan.poll_again_seconds) == ([], 2.0)


def test_a_round_records_the_policy_that_it_was_formed_under(tmp_path):
    lake = open_lake(tmp_path / "lake", tmp_path)
    objects = [Arrival("a.jpg", "1", 9)]
    # A manifest of v0.1.0 names no policy.
    assert lake.manifests.create("round-0001", objects)
    assert lake.manifests.create("round-0002", objects, policy_digest="d" * 64)
    assert [lake.manifests.policy_digest(key) for key in lake.manifests.rounds()] == ["", "d" * 64]
    assert lake.manifests.read("round-0002") == objects == lake.manifests.read("round-0001")
    assert b"policy" not in lake.store.get("manifests/round-0001.json")
