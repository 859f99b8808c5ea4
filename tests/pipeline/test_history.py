"""The commands `history` and `guidelines` on two rounds, with real tables and versions."""

import json
import re
import subprocess
from datetime import UTC, datetime
from functools import partial

import pytest
import yaml
from typer.testing import CliRunner

from annotation_platform.cli import app
from annotation_platform.demo.annotators import EXPERT
from annotation_platform.errors import DataError, PublishError
from annotation_platform.labeling.assignment_plan import AssignmentPlan
from annotation_platform.labeling.backends.regions import write_decision, write_regions
from annotation_platform.labeling.ledger import AnnotationsLedger
from annotation_platform.labeling.rounds import close_round, fetch_annotations
from annotation_platform.schema.shapes import Label
from annotation_platform.schema.tables import LabelTasks
from annotation_platform.settings import settings_environment
from annotation_platform.storage.pseudonyms import pseudonym_of
from tests.pipeline.conftest import open_platform

ONE, TWO = "round-0001", "round-0002"


def change(platform, **sections):
    path = platform.settings.policy_path
    policy = yaml.safe_load(path.read_text())
    for name, values in sections.items():
        policy[name].update(values)
    path.write_text(yaml.safe_dump(policy, sort_keys=False))


def annotate(platform, round_id, regions_of):
    """Let all annotators annotate their open assignments; None gives no annotation."""
    submitted = []
    for name in platform.labeling.annotators():
        for place in platform.labeling.open_assignments(name):
            result = regions_of(place.image_id) if place.round_id == round_id else None
            if result is not None:
                annotation = platform.labeling.submit(place.backend_task, name, result, 5.0)
                submitted.append((place, name, annotation))
    return submitted


def box(name):
    return write_regions([Label.box(name, 40, 20, 100, 80)])


def rejection(comment):
    return write_decision("reject", comment)


def acceptance(place):
    return [*write_decision("accept"), *place.pre_annotations.content]


@pytest.fixture
def json_of(two_rounds, monkeypatch):
    """Run a command in the platform's home and return its JSON."""
    platform = two_rounds[0]
    for name, value in settings_environment(platform.settings).items():
        monkeypatch.setenv(name, value)

    def run(*arguments):
        done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="module")
def two_rounds(tmp_path_factory, store):
    """Two released rounds; in the first, one image was rejected, one left and one edited."""
    with open_platform(tmp_path_factory.mktemp("history") / "home", store=store) as platform:
        yield platform, *go_through(platform)


def go_through(platform):
    platform.land(1)
    change(platform, review={"gate": "manual"}, labeling={"annotations_per_task": 2})
    assert platform.start_round(ONE).success
    images = sorted(platform.lake.tables.read(LabelTasks, ONE)["image_id"].unique())
    rejected, left, edited = images[0], images[1], images[2]
    names = platform.policy.ontology.names
    tied = iter([names[0], names[1]])
    submitted = annotate(
        platform,
        ONE,
        lambda image: None if image == left else box(next(tied) if image == rejected else names[0]),
    )
    place, author, annotation = next(each for each in submitted if each[0].image_id == edited)
    fetch_annotations(ONE, platform.labeling, platform.lake, now=datetime.now(UTC))
    platform.labeling.submit(
        place.backend_task, author, [*box(names[0]), *box(names[0])], 1.0, annotation=annotation
    )
    now = datetime.now(UTC)
    close_round(ONE, "the vendor left", "ada", platform.labeling, platform.lake, now=now)
    late = iter([True, False])
    annotate(platform, ONE, lambda image: box(names[0]) if image == left and next(late) else None)
    assert platform.run("merge_round", ONE).success
    for each in platform.labeling.open_assignments(EXPERT):
        decided = rejection("too dark\nto tell") if each.image_id == rejected else acceptance(each)
        platform.labeling.submit(each.backend_task, EXPERT, decided, 9.0)
        # Decisions of other annotators are not counted.
        annotator = platform.labeling.annotators()[0]
        platform.labeling.submit(each.backend_task, annotator, acceptance(each), 1.0)
    assert platform.run("release_round", ONE).success

    classes = [dict(each) for each in platform.policy.ontology.model_dump(mode="json")["classes"]]
    classes[0] = {**classes[0], "name": "vessel", "was": [names[0]]}
    kite = {"id": 100, "name": "kite"}
    text = "Draw a tight box.\nLeave reflections out."
    change(platform, ontology={"classes": [*classes, kite], "guidelines": text})
    platform.land(2)
    assert platform.start_round(TWO).success
    annotate(platform, TWO, lambda _: box("vessel"))
    merged = platform.run("merge_round", TWO)
    assert merged.success
    for each in platform.labeling.open_assignments(EXPERT):
        platform.labeling.submit(each.backend_task, EXPERT, acceptance(each), 9.0)
    assert platform.release(TWO, merged).success
    return rejected, left, edited


def test_the_history_of_an_image_goes_from_landing_to_every_version(two_rounds, json_of):
    platform, rejected, left, edited = two_rounds
    pseudonym = partial(pseudonym_of, platform.lake.store)

    history = json_of("image", "history", rejected[:16])
    assert history["image_id"] == rejected
    assert [(each["state"], each["round"]) for each in history["events"]] == [
        ("landed", ONE), ("clean", ONE), ("queued", ONE), ("annotated", ONE), ("annotated", ONE),
        ("consensus", ONE), ("in review", ONE), ("reviewed", ONE), ("annotated", ONE),
        ("queued", TWO), ("annotated", TWO), ("annotated", TWO), ("consensus", TWO),
        ("exported", TWO),
    ]  # fmt: skip
    reviewed, exported = history["events"][7], history["events"][-1]
    assert reviewed["detail"] == "Rejected: too dark to tell"
    assert reviewed["by"] == pseudonym(EXPERT)
    assert exported["detail"].startswith("In version 2.0.0, split ")
    times = [each["at"] for each in history["events"] if each["at"]]
    assert len(times) == 10
    assert history["events"][8]["detail"].startswith("A decision that is not counted")
    assert times[:-1] == sorted(times[:-1])

    history = json_of("image", "history", left)
    mine = [each for each in history["events"] if each["round"] == ONE]
    assert [each["state"] for each in mine] == [
        "landed",
        "clean",
        "queued",
        "abandoned",
        "annotated",
    ]
    assert mine[3]["detail"] == (
        "The round was closed with 0 of 2 assignments annotated: the vendor left."
    )
    assert mine[3]["by"] == pseudonym("ada")
    assert "not counted, late: it came after the round was closed" in mine[4]["detail"]
    assert history["events"][-1]["state"] == "exported"

    history = json_of("image", "history", edited)
    annotations = [each["detail"] for each in history["events"] if each["state"] == "annotated"]
    assert sorted(each.partition(": ")[2] for each in annotations) == [
        "1 region; counted.", "1 region; edited later.", "2 regions; counted."
    ]  # fmt: skip
    versions = [each["detail"] for each in history["events"] if each["state"] == "exported"]
    assert [each.partition(",")[0] for each in versions] == [
        "In version 1.0.0", "In version 2.0.0"
    ]  # fmt: skip
    everything = json.dumps(
        [json_of("image", "history", image) for image in (rejected, left, edited)]
    )
    # Whole words: "ada" can also be three digits of a pseudonym.
    names = "|".join((*platform.labeling.annotators(), "ada"))
    assert not re.search(rf"\b({names})\b", everything)


def test_a_change_of_the_guidelines_lists_the_labels_made_under_the_old_ones(two_rounds, json_of):
    platform, rejected, left, edited = two_rounds
    first, second = json_of("policy", "guidelines")["guidelines"]
    names = platform.policy.ontology.classes[0].was
    assert (first["since"], first["rounds"], first["changes"]) == (ONE, [ONE], None)
    # Eight images landed in each round; the second also has the rejected and the left one.
    # Seven images have two annotations each; one of them was rejected and is annotated again.
    assert (first["annotations"], first["images"]) == (14, 6)
    assert (second["since"], second["annotations"], second["images"]) == (TWO, 20, 10)
    assert second["changes"]["added"] == ["kite"]
    assert second["changes"]["renamed"] == [[names[0], "vessel"]]
    assert second["changes"]["retired"] == []
    assert "+Leave reflections out." in second["changes"]["text"]

    old = json_of("policy", "guidelines", first["digest"][:10])
    assert old["digest"] == first["digest"]
    assert edited in old["images"]
    assert not {rejected, left} & {*old["images"], *old["unpublished"]}
    assert {rejected, left} <= set(json_of("policy", "guidelines", second["digest"])["images"])
    between = json_of("policy", "guidelines", "--diff", second["digest"][:10], first["digest"][:10])
    assert between["changes"]["retired"] == ["kite"]


def test_an_unassigned_annotation_is_an_error_of_the_history(two_rounds, json_of):
    platform, _, left, _ = two_rounds
    # It landed in the second round and has assignments only there.
    known = {
        place.image_id for place in AssignmentPlan(platform.lake.store, ONE).read().assignments
    }
    other_image = next(
        place.image_id
        for place in AssignmentPlan(platform.lake.store, TWO).read().assignments
        if place.image_id not in known
    )
    entries = AnnotationsLedger(platform.lake.store).read(TWO)
    (first, *_) = (each.submission for each in entries if each.submission.image_id == left)
    forged = {**vars(first), "image_id": other_image, "task_id": f"{ONE}/labels/{other_image}",
              "annotation": "999"}  # fmt: skip
    AnnotationsLedger(platform.lake.store).append(
        ONE, [type(first)(**forged)], now=datetime.now(UTC)
    )
    with pytest.raises(DataError, match=f"{other_image}: annotated .* in {ONE} .*but it was"):
        json_of("image", "history", other_image)
    with pytest.raises(DataError, match="no landed image has this id"):
        json_of("image", "history", "0123456789")


def test_a_registry_without_the_published_versions_is_an_error(two_rounds, json_of, monkeypatch):
    _, rejected, *_ = two_rounds
    nowhere = two_rounds[0].settings.home_path / "other"
    subprocess.run(["git", "init", "--quiet", str(nowhere)], check=True)
    monkeypatch.setenv("ANNOTATION_REGISTRY", str(nowhere))
    with pytest.raises(PublishError, match=r"lacks training-set@v1\.0\.0.* ANNOTATION_REGISTRY"):
        json_of("image", "history", rejected)
