"""The impact of a subject against planted inputs, and its removal against the real one."""

import itertools
import json
from datetime import UTC, datetime

import pandas as pd
import pytest

from annotation_platform.errors import DataError
from annotation_platform.labeling.ledger import AnnotationsLedger
from annotation_platform.labeling.round_decisions import RoundRecord
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.pipeline.selectable import selectable_images
from annotation_platform.provenance.changes import find_changes
from annotation_platform.provenance.diff import diff_versions
from annotation_platform.provenance.impact import Subject, find_impact, find_subject
from annotation_platform.schema.tables import Annotations, DatasetVersions, RoundTasks
from annotation_platform.settings import settings_environment
from annotation_platform.storage.pseudonyms import pseudonym_of
from annotation_platform.versioning.registry import list_versions
from tests.commands import run_command
from tests.pipeline.conftest import open_platform

ONE, TWO, THREE = "round-0001", "round-0002", "round-0003"


class Story:
    """Two rounds: all annotators annotate the first, and one annotates each image of the other."""

    def __init__(self, platform):
        self.platform, self.lake = platform, platform.lake

    def play(self, round_id, batch):
        self.platform.land(batch)
        self.platform.start_round(round_id)
        self.platform.annotate(round_id)
        self.platform.change_policy(release={"gate": "manual"}, review={"gate": "auto"})
        assert self.platform.run("merge_round", round_id).success
        return self.release(round_id)

    def merge_again(self, *rounds):
        for round_id in rounds:
            assert self.platform.run("merge_round", round_id).success
            assert self.platform.run("release_round", round_id, only=["reviewed_labels"]).success

    def release(self, round_id):
        assert self.platform.run("release_round", round_id).success
        return str(self.lake.tables.read(DatasetVersions, round_id).iloc[0]["tag"])

    @property
    def models(self):
        return ModelRegistry(self.platform.settings.models_path).cards()

    def states(self):
        versions = list_versions(self.platform.settings.registry_path)
        return [self.platform.state(info.tag) for info in versions]

    def impact(self, kind, name, **how):
        return find_impact(Subject(kind, name), self.states(), self.models, **how)

    def annotations(self):
        annotations = self.lake.tables.read_all(Annotations)
        return annotations[annotations["state"] == "counted"]


@pytest.fixture
def story(tmp_path, store):
    with open_platform(tmp_path / "home", store=store) as platform:
        yield Story(platform)


@pytest.fixture
def played(story):
    story.tags = [story.play(ONE, 1)]
    story.platform.change_policy(labeling={"annotations_per_task": 1})
    story.tags.append(story.play(TWO, 2))
    return story


def same(expected, done):
    """Whether two tables of changes are equal, apart from their causes."""
    pd.testing.assert_frame_equal(expected, done[expected.columns])
    return True


def done(story, before, after):
    return find_changes(story.platform.state(before).labels, story.platform.state(after).labels)


def test_the_impact_of_an_annotator_is_what_disregarding_them_changes(played):
    annotations = played.annotations()
    # By name, because pseudonyms are drawn at random.
    annotator = pseudonym_of(played.lake.store, played.platform.people[1].name)
    planted = annotations[annotations["annotator"] == annotator]
    found = played.impact("annotator", annotator)
    assert [each.tag for each in found.versions] == played.tags
    for each, rounds in zip(found.versions, ([ONE], [ONE, TWO]), strict=True):
        labels = played.platform.state(each.tag).labels
        wanted = planted.loc[planted["round_id"].isin(rounds), "image_id"]
        rows = labels[labels["image_id"].isin(wanted)]
        assert each.dependents["label_id"].tolist() == rows["label_id"].tolist()
        assert set(each.dependents["how"]) == {"annotated"}
    alone = set(planted.loc[planted["round_id"] == TWO, "image_id"])
    last = found.versions[-1].without
    removed = last.changes[last.changes["kind"] == "image_removed"]
    assert alone <= set(removed["image_id"])
    # In the first round two others annotated each image: labels change there.
    assert set(last.changes["round_id_before"].dropna()) == {ONE, TWO}

    played.platform.change_policy(consensus={"disregarded": [annotator]})
    played.merge_again(ONE, TWO)
    tag = played.release(TWO)
    assert same(last.changes, done(played, played.tags[-1], tag))
    difference = diff_versions(*(played.platform.state(each) for each in (played.tags[-1], tag)))
    assert set(difference.changes["cause"]) == {"policy"}
    tasks = played.lake.tables.read(RoundTasks, TWO).set_index("image_id")["state"]
    assert set(tasks.index[tasks == "abandoned"]) == alone
    # Nothing is lost: it is asked again, and the answers are there if they are trusted after all.
    asked = selectable_images(THREE, played.lake, played.platform.policy.ontology)
    assert set(asked["image_id"]) == alone
    assert len(played.annotations()) == len(annotations)
    # The others are enough for images of the first round.
    kept = set(played.platform.state(tag).labels["image_id"])
    assert kept & set(planted["image_id"])
    assert [each.tag for each in played.impact("annotator", annotator).versions] == played.tags
    played.platform.change_policy(consensus={"disregarded": []})
    played.merge_again(ONE, TWO)
    again = played.release(TWO)
    assert done(played, played.tags[-1], again).empty


@pytest.mark.long
def test_the_impact_of_a_round_a_source_and_a_guideline_includes_models(played):
    assert played.platform.run("train_model", TWO).success
    first, second = (played.platform.state(tag) for tag in played.tags)
    in_two = second.labels[second.labels["round_id"] == TWO]
    (guideline,) = set(second.table("human_labels", ONE)["guideline"])
    impacts = {}
    for kind, name in (("round", TWO), ("source", "batch-2")):
        found = played.impact(kind, name)
        assert [each.tag for each in found.versions] == [second.tag]
        impacts[kind] = found.versions[0]
        assert impacts[kind].dependents["label_id"].tolist() == in_two["label_id"].tolist()
        learned = in_two[in_two["split"] == "train"]
        assert [(each.dataset_tag, each.labels, each.images) for each in found.models] == [
            (second.tag, len(learned), learned["image_id"].nunique())
        ]
        assert {each.weights_sha256 for each in found.models} == set(played.models)
    found = played.impact("guideline", guideline, without=False)
    assert [len(each.dependents) for each in found.versions] == [
        len(first.labels),
        len(second.labels),
    ]
    assert found.versions[0].without is None

    RoundRecord(played.lake.store, TWO).write(
        "cancelled", reason="a bad camera", by="me", now=datetime.now(UTC),
        entries=AnnotationsLedger(played.lake.store).entries(TWO),
    )  # fmt: skip
    played.merge_again(TWO)
    tag = played.release(TWO)
    wanted = done(played, second.tag, tag)
    assert set(wanted["image_id"]) == set(in_two["image_id"])
    for each in impacts.values():
        assert same(each.without.changes, wanted)
        assert each.without.to_review == ()


def test_the_command_prints_text_and_json_and_lists_known_subjects(played):
    def run(*arguments, status=0):
        environment = settings_environment(played.platform.settings)
        ended = run_command("version", "impact", *arguments, environment=environment)
        assert ended.returncode == status, ended.stderr
        return ended

    annotator = played.annotations()["annotator"].iloc[0]
    facts = json.loads(run("--annotator", annotator, "--json").stdout)
    assert facts["of"] == {"annotator": annotator}
    assert [each["version"] for each in facts["versions"]] == played.tags
    found = played.impact("annotator", annotator)
    for facts_of, each in itertools.zip_longest(facts["versions"], found.versions):
        assert len(facts_of["rows"]) == len(each.dependents)
        assert sum(facts_of["without"]["by_kind"].values()) == len(each.without.changes)
    shown = run("--round", TWO).stdout
    assert played.tags[-1] in shown
    assert "labels removed" in shown
    assert "to review" not in run("--round", TWO, "--no-without").stdout

    assert f"Known: {ONE}, {TWO}." in run("--round", "round-9", status=2).stderr
    assert "there is none. Known: batch-1, batch-2." in run("--source", "nowhere", status=2).stderr
    assert "Give exactly one of --annotator" in run(status=2).stderr
    assert "Give exactly one" in run("--round", ONE, "--source", "batch-1", status=2).stderr
    by_name = find_subject("annotator", played.platform.people[0].name, played.lake, {})
    assert by_name.name.startswith("annotator-")
    with pytest.raises(DataError, match="have this prefix"):
        find_subject("annotator", "annotator-", played.lake, {})
