"""Cost and wiring of a round: how often it reads what, and that each table has one writer."""

from collections import Counter, defaultdict

import dagster as dg
import pytest

from annotation_platform.definitions import defs
from annotation_platform.labeling import ledger
from annotation_platform.labeling.backends.simulated import SimulatedLabeling
from annotation_platform.storage.objects import LocalObjectStore
from annotation_platform.storage.read_once import ReadOnceStore
from resources.storage import TableIOManager

ONE, TWO = "round-0001", "round-0002"
JOBS = ("start_round", "merge_round", "train_model")
MOST_READS_OF_IMAGES = 5
MOST_QUESTIONS_A_MERGE = 2
GRAPH = defs.resolve_asset_graph()


class Counted:
    """What the second round of two reads, writes and asks."""

    def __init__(self):
        self.reads = Counter()  # key of the lake -> times it was read from the store
        self.put = []  # keys of tables, as they were written
        self.outputs = []  # keys of tables, as the IO manager was given them
        self.asked = Counter()  # job -> looks at the back end
        self.parsed = Counter()  # (job, digest and number of an entry) -> times it was parsed
        self.read_by = defaultdict(set)  # step -> tables of the same round that it read by itself
        self.job = ""


def step_now():
    """The step whose body runs just now, if one does."""
    try:
        return dg.AssetExecutionContext.get().op_execution_context.op.name
    except dg.DagsterInvariantViolationError:
        return ""


def watch(patch, counted):
    """Count whatever goes through the seams of the platform."""
    get, put = LocalObjectStore.get, LocalObjectStore.put
    get_once, submissions = ReadOnceStore.get, SimulatedLabeling.collect
    handle = TableIOManager.handle_output
    parsed = ledger._from_entry

    def counted_get(store, key):
        counted.reads[key] += 1
        return get(store, key)

    def counted_put(store, key, data):
        if key.startswith("tables/"):
            counted.put.append(key)
        put(store, key, data)

    def counted_get_once(store, key):
        kind, _, rest = key.partition("/")
        name, _, file = rest.partition("/")
        if kind == "tables" and file == f"{TWO}.parquet" and step_now():
            counted.read_by[step_now()].add(name)
        return get_once(store, key)

    def counted_submissions(labeling, round_id):
        counted.asked[counted.job] += 1
        return submissions(labeling, round_id)

    def counted_handle(manager, context, obj):
        key = f"tables/{context.asset_key.path[-1]}/{context.partition_key}.parquet"
        counted.outputs.append(key)
        handle(manager, context, obj)

    def counted_parse(entry, number):
        counted.parsed[counted.job, entry, number] += 1
        return parsed(entry, number)

    patch.setattr(LocalObjectStore, "get", counted_get)
    patch.setattr(LocalObjectStore, "put", counted_put)
    patch.setattr(ReadOnceStore, "get", counted_get_once)
    patch.setattr(SimulatedLabeling, "collect", counted_submissions)
    patch.setattr(TableIOManager, "handle_output", counted_handle)
    patch.setattr(ledger, "_from_entry", counted_parse)


@pytest.fixture(scope="module")
def counted(tmp_path_factory, store):
    from tests.pipeline.conftest import open_platform

    counted = Counted()
    with open_platform(tmp_path_factory.mktemp("reads") / "home", store=store) as platform:
        platform.land(1)
        platform.start_round(ONE)
        platform.annotate(ONE)
        assert platform.release(ONE, platform.merge(ONE)).success
        assert platform.run("train_model", ONE).success
        # What is counted is not copied.
        platform.recorder = None
        platform.change_policy(review={"gate": "auto"})
        with pytest.MonkeyPatch.context() as patch:
            platform.land(2)
            for job in JOBS:
                if job == "merge_round":
                    platform.annotate(TWO)
                if job == "start_round":
                    from sensors.landing import new_images_sensor

                    platform.tick(new_images_sensor)
                    watch(patch, counted)
                counted.job = job
                assert platform.run(job, TWO).success
    return counted


def test_the_rows_of_images_are_read_at_most_five_times(counted):
    reads = {key: n for key, n in counted.reads.items() if key.startswith("tables/cleaned_images/")}
    assert set(reads) == {f"tables/cleaned_images/{key}.parquet" for key in (ONE, TWO)}
    assert sum(reads.values()) <= MOST_READS_OF_IMAGES


def test_a_merge_asks_the_back_end_at_most_twice(counted):
    assert 1 <= counted.asked["merge_round"] <= MOST_QUESTIONS_A_MERGE


def test_an_entry_of_the_ledger_is_parsed_once_a_run(counted):
    merged = [n for (job, _, _), n in counted.parsed.items() if job == "merge_round"]
    assert merged
    assert max(merged) == 1


def test_one_writer(counted):
    # Whatever a run writes into a table is the output of the one asset of that name.
    assert counted.put
    assert Counter(counted.put) == Counter(counted.outputs)
    assert max(Counter(counted.outputs).values()) == 1
    # Only splits may be left as they are.
    names = {key.split("/")[1] for key in counted.outputs}
    assert {key.path[-1] for key in GRAPH.get_all_asset_keys()} - names <= {"splits"}


def test_what_a_step_reads_of_its_round_it_declares(counted):
    assert counted.read_by
    undeclared = {}
    for step in {GRAPH.get(key).assets_def for key in GRAPH.get_all_asset_keys()}:
        own = {key.path[-1] for key in step.keys}
        declared = {key.path[-1] for key in step.dependency_keys}
        if rest := counted.read_by[step.op.name] - own - declared:
            undeclared[step.op.name] = sorted(rest)
    assert undeclared == {}
