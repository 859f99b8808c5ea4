"""A further back end is a module and a line in each table of the registry, and runs a round."""

import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import dagster as dg
import pytest

from annotation_platform.ingestion.lake import open_lake
from annotation_platform.labeling.annotation_tables import human_labels
from annotation_platform.labeling.backends import registry
from annotation_platform.labeling.backends.protocol import LabelingBackend
from annotation_platform.labeling.backends.registry import labeling_of
from annotation_platform.labeling.ledger import AnnotationsLedger
from annotation_platform.labeling.rounds import fetch_annotations, ledger_count, round_progress
from annotation_platform.policy import read_policy
from annotation_platform.schema.annotations import Canvas, Payload
from annotation_platform.settings import PROJECT_ROOT, Settings
from resources.deployments import build_resources
from tests.core.labeling.outside import HEIGHT, ONTOLOGY, ROUND, WIDTH, make_copies, tasks_of

PAGE = Path(__file__).resolve().parents[3] / "docs/how-to/add-a-labelling-back-end.md"
MODULE = "annotation_platform.labeling.backends.folder"
BOXES = {"boat": [[4, 5, 60, 70], [80, 90, 120, 130]]}


@pytest.fixture
def registered(monkeypatch):
    """The module of the how-to page, as if it were in the package."""
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    module = ModuleType(MODULE)
    exec(compile(code, MODULE, "exec"), vars(module))
    monkeypatch.setitem(sys.modules, MODULE, module)
    monkeypatch.setitem(registry.BACKENDS, "folder", f"{MODULE}:from_settings")
    monkeypatch.setitem(registry.CODECS, "folder/1", f"{MODULE}:CODEC")


@pytest.fixture
def world(registered, tmp_path):
    settings = Settings(home=str(tmp_path / "home"), labeling="folder")
    lake = open_lake(str(tmp_path / "lake"), tmp_path / "landing")
    policy = read_policy(PROJECT_ROOT / "params.yaml")
    return settings, lake, policy, labeling_of(settings, lake.store, policy)


def annotate(settings, name, author, boxes):
    content = {"began_at": datetime.now(UTC).isoformat(), "boxes": boxes}
    path = settings.home_path / "folder-labeling" / ROUND / f"{name}.{author}"
    path.write_text(json.dumps(content))


def test_it_implements_three_methods_and_a_name(world):
    *_, labeling = world
    assert isinstance(labeling, LabelingBackend)
    assert LabelingBackend.__abstractmethods__ == {"name", "publish", "collect", "delete"}
    own = {name for name in vars(type(labeling)) if not name.startswith("_")}
    assert own == {"name", "publish", "collect", "delete"}


def test_a_round_is_published_collected_counted_and_decoded(world):
    settings, lake, policy, labeling = world
    replicas = make_copies(2, 2)
    ids = labeling.publish(ROUND, ONTOLOGY, replicas)
    assert labeling.publish(ROUND, ONTOLOGY, replicas) == ids
    assert len(set(ids.values())) == 4
    tasks = tasks_of(labeling, replicas)
    assert set(tasks["backend"]) == {"folder"}
    now = datetime.now(UTC)
    tokens = {labeling.change_token(ROUND)}

    open_ = round_progress(ROUND, tasks, labeling, lake, policy, now=now)
    # A back end that cannot tell has lost nothing.
    assert (open_.mergeable, open_.lost) == (False, [])
    for (_, assignment), name in ids.items():
        annotate(settings, name, f"p{assignment}", BOXES)
        tokens.add(labeling.change_token(ROUND))
    assert len(tokens) == 5
    progress = labeling.progress(ROUND)
    assert (progress.tasks, progress.annotations) == (None, 4)
    assert round_progress(ROUND, tasks, labeling, lake, policy, now=now).count.complete

    assert fetch_annotations(ROUND, labeling, lake, now=now) == 4
    assert fetch_annotations(ROUND, labeling, lake, now=now) == 0
    (first, *_) = AnnotationsLedger(lake.store).read(ROUND)
    assert first.submission.payload == Payload("folder/1", BOXES)
    count = ledger_count(ROUND, tasks, lake)
    assert count.complete
    images = tasks[["image_id"]].drop_duplicates().assign(width=WIDTH, height=HEIGHT)
    names = {"p1": "annotator-1", "p2": "annotator-2"}
    labels = human_labels(ROUND, count, tasks, images, ONTOLOGY, names)
    assert len(labels) == 8
    assert set(map(tuple, labels[["x1", "y1", "x2", "y2"]].to_numpy().tolist())) == {
        (4.0, 5.0, 60.0, 70.0),
        (80.0, 90.0, 120.0, 130.0),
    }
    assert labels["changed"].all()


def test_an_edit_is_a_further_revision_and_a_skip_leaves_the_place_open(world):
    settings, lake, policy, labeling = world
    replicas = make_copies(1, 1)
    ((_, name),) = labeling.publish(ROUND, ONTOLOGY, replicas).items()
    tasks, now = tasks_of(labeling, replicas), datetime.now(UTC)
    annotate(settings, name, "p1", None)
    assert not round_progress(ROUND, tasks, labeling, lake, policy, now=now).count.complete
    fetch_annotations(ROUND, labeling, lake, now=now)
    annotate(settings, name, "p1", BOXES)
    fetch_annotations(ROUND, labeling, lake, now=now)
    assert [each.submission.skipped for each in AnnotationsLedger(lake.store).read(ROUND)] == [
        True,
        False,
    ]


def test_what_is_erased_is_deleted_in_every_round(world):
    *_, labeling = world
    replicas = make_copies(2, 2)
    for round_id in (ROUND, "round-0002"):
        labeling.publish(round_id, ONTOLOGY, replicas)
    assert labeling.delete({replicas[0].image_id}) == 4
    assert labeling.delete({replicas[0].image_id}) == 0


def test_dagster_s_resource_and_commands_get_it_from_the_same_registry(world):
    settings, lake, policy, labeling = world
    parts = build_resources(settings)
    named = {"labeling": parts["labeling"], "lake": lake, "policy": policy}
    with dg.build_resources(named) as built:
        assert type(built.labeling) is type(labeling)


def test_a_problem_in_its_payload_is_named_and_refused(world):
    canvas = Canvas(WIDTH, HEIGHT, ONTOLOGY)
    read = registry.decode(
        Payload("folder/1", {"boat": [[4, 5, 4, 9]], "kite": BOXES["boat"]}), canvas
    )
    assert (read.labels, read.refused) == ([], 3)
    assert read.problems[0] == "box 1: too small to have an area"
