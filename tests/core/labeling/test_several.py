"""One round, several assignments where people label."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_platform.errors import SettingsError
from annotation_platform.labeling.backends.protocol import LabelingBackend
from annotation_platform.labeling.backends.several import SeveralLabeling, share_rounds
from annotation_platform.labeling.backends.simulated import SimulatedLabeling
from annotation_platform.labeling.backends.vendor.annotations import ReturnedAnnotation
from annotation_platform.labeling.backends.vendor.backend import VendorLabeling
from annotation_platform.schema.annotations import Payload
from annotation_platform.schema.tables import LabelTasks
from annotation_platform.storage.objects import LocalObjectStore
from annotation_platform.storage.round_tables import RoundTables
from tests.core.labeling.outside import (
    LATER,
    ONTOLOGY,
    ROUND,
    consensus_of,
    in_pixels,
    make_copies,
    put_images,
    tasks_of,
    what_people_say,
)

HALVES = {"simulated": 1, "handoff": 1}


@pytest.fixture
def store(tmp_path):
    return LocalObjectStore(tmp_path / "lake")


@pytest.fixture
def clients(tmp_path, store):
    put_images(store, 20)
    house = SimulatedLabeling(tmp_path / "house.sqlite")
    return {"simulated": house, "handoff": VendorLabeling(store)}


def annotation(clients, backend, backend_tasks, each):
    """Annotate a task in its back end."""
    if backend == "simulated":
        task = backend_tasks[each.task_id, each.assignment]
        result = in_pixels(each.result)
        clients[backend].submit(task, each.author, result, each.seconds, now=each.ended_at)
        return
    given_ = ReturnedAnnotation(
        where="", key=f"place {each.assignment}", package="", task_id=each.task_id,
        assignments=(each.assignment,), annotator=each.author, image="", image_sha256=None, width=0,
        height=0, finished_at=each.ended_at, lead_time_seconds=each.seconds, skipped=False,
        payload=Payload("label-studio/1", each.result),
    )  # fmt: skip
    assert clients[backend].store_annotations(ROUND, [given_], now=LATER) == 1


def test_half_the_tasks_there_and_half_here_give_one_consensus_and_provenance(
    clients, store, tmp_path
):
    replicas = make_copies(10, 3)
    drawn = what_people_say(replicas)
    several: LabelingBackend = SeveralLabeling(clients, HALVES, store, home="simulated")
    ids = several.publish(ROUND, ONTOLOGY, replicas)
    backends = {replica.task_id: several.backend_of(replica.task_id) for replica in replicas}
    assert Counter(backends.values()) == {"simulated": 5, "handoff": 5}
    # What another process reads is the same.
    again = SeveralLabeling(clients, HALVES, store, home="simulated")
    assert {task: again.backend_of(task) for task in backends} == backends
    assert again.publish(ROUND, ONTOLOGY, replicas) == ids

    stamps = {several.change_token(ROUND)}
    for each in drawn:
        annotation(clients, backends[each.task_id], ids, each)
        stamps.add(several.change_token(ROUND))
    assert len(stamps) == 31
    assert several.progress(ROUND).annotations == 30
    assert all(each.backend == backends[each.task_id] for each in several.collect(ROUND))

    alone = SimulatedLabeling(tmp_path / "alone.sqlite")
    ids = alone.publish(ROUND, ONTOLOGY, replicas)
    for each in drawn:
        annotation({"simulated": alone}, "simulated", ids, each)
    mine, labels = consensus_of(several, replicas)
    theirs, alone_labels = consensus_of(alone, replicas)
    assert mine.equals(theirs)
    assert labels.equals(alone_labels)


def test_a_task_stays_where_it_is_when_shares_change_and_tasks_are_added(clients, store):
    several = SeveralLabeling(clients, {"handoff": 1}, store, home="simulated")
    several.publish(ROUND, ONTOLOGY, make_copies(4, 2))
    later = SeveralLabeling(clients, {"simulated": 3, "handoff": 1}, store, home="simulated")
    later.publish(ROUND, ONTOLOGY, make_copies(16, 2))
    backends = Counter(later.backend_of(replica.task_id) for replica in make_copies(16, 1))
    assert backends == {"simulated": 12, "handoff": 4}
    first = {later.backend_of(replica.task_id) for replica in make_copies(4, 1)}
    assert first == {"handoff"}
    assert len(clients["handoff"].replicas(ROUND)) == 8

    gone = {"simulated": clients["simulated"]}
    only = SeveralLabeling(gone, {"simulated": 1}, store, home="simulated")
    with pytest.raises(SettingsError, match="handoff, which is not among"):
        only.collect(ROUND)
    with pytest.raises(SettingsError, match="share of 0"):
        only.publish(ROUND, ONTOLOGY, make_copies(4, 2))


@given(
    st.dictionaries(st.sampled_from("abcd"), st.floats(0.01, 10), min_size=1),
    st.integers(0, 60),
    st.integers(0, 5),
)
def test_every_back_end_gets_its_share_to_the_task(tmp_path_factory, shares, tasks, seed):
    store = LocalObjectStore(tmp_path_factory.mktemp("lake"))
    named = {name: Named(name) for name in shares}
    several = SeveralLabeling(named, shares, store, home=min(shares), seed=seed)
    routes = several.routes(ROUND, [f"{ROUND}/labels/{n}" for n in range(tasks)])
    counts = Counter(routes.values())
    for name, share in shares.items():
        assert abs(counts[name] - tasks * share / sum(shares.values())) < len(shares)


@dataclass(frozen=True)
class Named:
    """A back end of which nothing is asked but its name, and whether it takes reviews."""

    name: str
    takes_reviews = True


def test_who_publishes_at_the_same_moment_agrees_on_the_routes(clients, store):
    replicas = make_copies(20, 1)
    asked = [[replica.task_id for replica in replicas[n % 5 :]] for n in range(12)]

    def routes(number):
        shares = {"simulated": 1 + number, "handoff": 1}
        return SeveralLabeling(clients, shares, store, home="simulated", seed=number).routes(
            ROUND, asked[number]
        )

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(routes, range(12)))
    final = SeveralLabeling(clients, HALVES, store, home="simulated").routes(ROUND, asked[0])
    assert all(each.items() <= final.items() for each in found)


def test_reviews_are_never_handed_off(clients, store):
    reviews = make_copies(6, 1, purpose="review")
    name = f"{ROUND}-review"
    several = SeveralLabeling(clients, {"handoff": 1}, store, home="simulated")
    several.publish(name, ONTOLOGY, reviews)
    fresh = SeveralLabeling(clients, {"handoff": 1}, store, home="simulated")
    assert {fresh.backend_of(replica.task_id) for replica in reviews} == {"simulated"}
    outside = {"handoff": clients["handoff"]}
    alone = SeveralLabeling(outside, {"handoff": 1}, store, home="handoff")
    with pytest.raises(SettingsError, match=r"review\.gate"):
        alone.publish("round-0002-review", ONTOLOGY, reviews)


def test_a_back_end_that_has_nothing_of_a_round_is_not_asked(clients, store):
    # Whatever it is asked but its name fails.
    everything = {**clients, "broken": Named("broken")}
    several = SeveralLabeling(everything, HALVES, store, home="simulated")
    several.publish(ROUND, ONTOLOGY, make_copies(2, 1))
    assert several.collect(ROUND) == []
    assert several.collect("round-0009") == []
    assert several.progress("round-0009").annotations == 0
    assert several.round_url(ROUND) == ""


def test_people_are_asked_where_they_are_known_and_nobody_by_name_at_a_vendors(clients, store):
    clients["simulated"].add_annotator("ben")
    clients["simulated"].add_annotator("ada")
    several = SeveralLabeling(clients, HALVES, store, home="simulated")
    assert several.annotators() == ["ada", "ben"]
    people = several.people_for(ROUND, [replica.task_id for replica in make_copies(4, 1)])
    by_backend = {several.backend_of(task): names for task, names in people.items()}
    assert by_backend == {"simulated": ["ada", "ben"], "handoff": []}


def test_a_round_that_began_at_home_stays_there_when_vendors_join_and_leave(clients, store):
    home, vendors = clients["simulated"], {"handoff": clients["handoff"]}
    assert share_rounds(home, vendors, {}, store) is home
    replicas = make_copies(6, 1)
    ids = home.publish(ROUND, ONTOLOGY, replicas)
    RoundTables(store).write(LabelTasks, ROUND, tasks_of(home, replicas))
    drawn = what_people_say(replicas)
    annotation(clients, "simulated", ids, drawn[0])
    both = share_rounds(home, vendors, {"simulated": 1, "handoff": 2}, store)
    assert both.change_token(ROUND).endswith(home.change_token(ROUND))
    assert len(both.collect(ROUND)) == 1
    assert both.publish(ROUND, ONTOLOGY, replicas) == ids
    assert {both.backend_of(replica.task_id) for replica in replicas} == {"simulated"}

    both.publish("round-0002", ONTOLOGY, copies_of_round_2())
    # No new tasks go to vendors now; their tasks are still collected.
    left = share_rounds(home, vendors, {}, store)
    assert Counter(left.backend_of(replica.task_id) for replica in copies_of_round_2()) == {
        "simulated": 2,
        "handoff": 4,
    }


def copies_of_round_2():
    return [
        replace(replica, task_id=replica.task_id.replace(ROUND, "round-0002"))
        for replica in make_copies(6, 1)
    ]


@pytest.mark.parametrize(
    "shares",
    [{}, {"handoff": 0}, {"handoff": -1, "simulated": 2}, {"handoff": 1, "chalk": 1},
     {"handoff": float("nan")}],
)  # fmt: skip
def test_shares_that_divide_nothing_are_refused(clients, store, shares):
    with pytest.raises(SettingsError, match="shares"):
        SeveralLabeling(clients, shares, store, home="simulated")
