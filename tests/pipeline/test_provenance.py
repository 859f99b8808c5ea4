"""Changes between versions and their causes: one change is planted for every cause."""

import itertools
import json
import subprocess
import sys
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from annotation_platform.consensus.common import Common
from annotation_platform.consensus.resolve import resolve_task
from annotation_platform.demo.annotators import EXPERT
from annotation_platform.demo.material import drawn_material
from annotation_platform.errors import DataError
from annotation_platform.labeling.backends.regions import write_decision, write_regions
from annotation_platform.labeling.guidelines import read_guideline
from annotation_platform.labeling.reviews import review_round
from annotation_platform.provenance.diff import diff_versions
from annotation_platform.provenance.explain import ImageProvenance, explain_image
from annotation_platform.provenance.patch import Patch, apply_patch, make_patch, write_folder
from annotation_platform.provenance.state import VersionState
from annotation_platform.schema.shapes import Label
from annotation_platform.schema.tables import DatasetVersions, Splits, TrainingSet
from annotation_platform.selection.overrides import SelectionOverrides
from annotation_platform.settings import settings_environment
from annotation_platform.versioning.folder import build_folder
from annotation_platform.versioning.git import as_git
from annotation_platform.versioning.manifest import MANIFEST_PATH
from annotation_platform.versioning.objects import name_objects
from annotation_platform.versioning.registry import checkout_on_new_machine, remote_of
from tests.commands import run_command
from tests.pipeline.conftest import Platform, open_platform

PROJECT = Path(__file__).resolve().parents[2]
EDGES = ["x1", "y1", "x2", "y2"]
ONE, TWO, THREE = "round-0001", "round-0002", "round-0003"


def one_box(name, x):
    return write_regions([Label.box(name, x, 20, x + 60, 80)])


def rejection():
    return write_decision("reject", "not this one")


@dataclass
class Story:
    platform: Platform
    images: dict[str, str] = field(default_factory=dict)
    renamed: str = ""

    @property
    def lake(self):
        return self.platform.lake

    def release(self, round_id):
        """Publish a round's training set and return the tag of its version."""
        assert self.platform.run("release_round", round_id).success
        return self.tag(round_id)

    def merge(self, round_id):
        """Merge a round, publish its training set and return the tag of its version."""
        assert self.platform.release(round_id, self.platform.merge(round_id)).success
        return self.tag(round_id)

    def tag(self, round_id):
        return str(self.lake.tables.read(DatasetVersions, round_id).iloc[0]["tag"])

    def state(self, tag):
        return self.platform.state(tag)

    def diff(self, before, now):
        return diff_versions(self.state(before), self.state(now))

    def play(self, round_id, batch):
        self.platform.land(batch)
        self.platform.start_round(round_id)
        self.platform.annotate(round_id)
        return self.merge(round_id)


@pytest.fixture(scope="module")
def story(tmp_path_factory, store):
    home = tmp_path_factory.mktemp("story") / "home"
    with open_platform(home, store=store) as platform:
        yield Story(platform)


@pytest.fixture(scope="module")
def tags(story):
    """Every version in order, by the action before it."""
    platform, lake = story.platform, story.lake
    platform.land(1)
    platform.start_round(ONE)
    platform.annotate(ONE)
    platform.change_policy(review={"sample_share": 0.3})
    done = {"first": story.merge(ONE), "round": story.play(TWO, 2)}

    labeling, names = platform.labeling, platform.policy.ontology.names
    collected = labeling.collect(ONE)
    decided = labeling.collect(review_round(ONE))[0]
    edited = min(each.image_id for each in collected if each.image_id != decided.image_id)
    for each in collected:
        if each.image_id == edited:
            labeling.submit(
                each.backend_task, each.author, one_box(names[0], 40), 1.0,
                annotation=each.annotation,
            )  # fmt: skip
    labeling.submit(decided.backend_task, EXPERT, rejection(), 1.0, annotation=decided.annotation)
    done["minds"] = story.merge(ONE)
    story.images |= {"edited": edited, "rejected": decided.image_id}

    platform.change_policy(consensus={"iou_threshold": 0.9})
    platform.run("merge_round", TWO, only=["consensus_labels"])
    platform.run("merge_round", TWO, only=["reviewed_labels"])
    done["policy"] = story.release(TWO)

    classes = [one.model_dump(mode="json") for one in platform.policy.ontology.classes]
    story.renamed = classes[0]["name"]
    classes[0] |= {"name": "other name", "was": [classes[0]["name"]]}
    platform.change_policy(ontology={"classes": classes})
    done["ontology"] = story.release(TWO)

    platform.change_policy(ontology={"guidelines": "Draw boxes otherwise."})
    pinned = lake.tables.read(TrainingSet, TWO)["image_id"].iloc[-1]
    SelectionOverrides(lake.store).set(
        pinned, wanted=True, reason="look again", by="me", now=datetime.now(UTC)
    )
    story.images["pinned"] = pinned
    done["guideline"] = story.play(THREE, 3)

    # An image is moved to another split by hand.
    tables = lake.tables
    alone = tables.read(TrainingSet, THREE).drop_duplicates("image_id")
    alone = alone[~alone["group_id"].duplicated(keep=False) & (alone["split"] == "train")]
    story.images["moved"] = alone["image_id"].iloc[0]
    for key in tables.rounds(Splits):
        drawn = tables.read(Splits, key)
        own = drawn["key"].isin(alone[["image_id", "group_id"]].iloc[0])
        tables.write(Splits, key, drawn.assign(split=drawn["split"].mask(own, "val")))
    done["split"] = story.release(THREE)

    # Other code gives another result from the same inputs.
    labels = tables.read(TrainingSet, THREE)
    inputs = tables.lineage.read("training_set", THREE, tables.digest(TrainingSet, THREE))
    story.images["code"] = labels.loc[labels["shape"] == "box", "image_id"].iloc[0]
    labels["x1"] = labels["x1"].mask(labels["image_id"] == story.images["code"], labels["x1"] + 0.5)
    digest = tables.write(TrainingSet, THREE, labels)
    tables.lineage.write("training_set", THREE, digest, inputs)
    assert platform.run("release_round", THREE, only=["dataset_version"]).success
    done["code"] = str(tables.read(DatasetVersions, THREE).iloc[0]["tag"])
    return done


def causes(found, kinds=None):
    """The images of each cause."""
    rows = found.changes if kinds is None else found.changes[found.changes["kind"].isin(kinds)]
    return {cause: set(images) for cause, images in rows.groupby("cause")["image_id"]}


def images_of(state, round_id):
    return set(state.labels.loc[state.labels["round_id"] == round_id, "image_id"])


def test_every_change_has_the_cause_that_was_planted(story, tags):
    def between(one, two):
        found = story.diff(tags[one], tags[two])
        counts = found.counts()
        assert sum(sum(each.values()) for each in counts.values()) == len(found.changes) > 0
        return found

    second = story.state(tags["round"])
    assert causes(between("first", "round")) == {"new round": images_of(second, TWO)}

    minds = between("round", "minds")
    by_cause = causes(minds)
    assert by_cause["review decision"] == {story.images["rejected"]}
    assert by_cause["new or edited annotation"] == {story.images["edited"]}
    # These two images change the weights of annotators on the other images.
    assert set(by_cause) == {"review decision", "new or edited annotation", "re-weighted annotator"}
    others = images_of(second, ONE) - {story.images["rejected"], story.images["edited"]}
    assert by_cause["re-weighted annotator"] <= others
    removed = minds.changes[minds.changes["kind"] == "image_removed"]
    assert removed["image_id"].tolist() == [story.images["rejected"]]

    policy = between("minds", "policy")
    assert set(causes(policy)) == {"policy"}
    assert causes(policy)["policy"] <= images_of(second, TWO)
    assert policy.policy == {"consensus.iou_threshold": (0.5, 0.9)}
    assert policy.changes["detail"].unique().tolist() == [
        "consensus.iou_threshold is 0.9 instead of 0.5."
    ]

    ontology = between("policy", "ontology")
    assert ontology.counts() == {"ontology": {"label_changed": len(ontology.changes)}}
    assert set(ontology.changes["class_name_before"]) == {story.renamed}
    assert set(ontology.changes["class_name_now"]) == {"other name"}
    assert ontology.ontology == (f"{story.renamed}: name is 'other name', was '{story.renamed}'",)

    guideline = between("ontology", "guideline")
    last = story.state(tags["guideline"])
    again = story.images["pinned"]
    assert causes(guideline) == {
        "guideline": {again},
        "new round": images_of(last, THREE) - {again},
    }
    moved = between("guideline", "split")
    assert causes(moved) == {"split rule": {story.images["moved"]}}
    assert moved.changes["kind"].tolist() == ["image_moved"]
    assert causes(between("split", "code")) == {"code": {story.images["code"]}}
    # Only erased images have this cause, and no other one.
    sides = [story.state(tags[each]) for each in ("round", "minds")]
    erased = diff_versions(*sides, erased={story.images["rejected"]: "Asked for by its owner."})
    assert causes(erased)["erasure"] == {story.images["rejected"]}
    assert "review decision" not in causes(erased)
    # The rejected image was annotated again.
    assert story.images["rejected"] in causes(guideline, ["image_added"])["new round"]


def test_without_the_lake_changes_are_the_same_and_causes_unknown(story, tags):
    sides = [story.platform.state(tags[one], lake=False) for one in ("round", "minds")]
    found, known = diff_versions(*sides), story.diff(tags["round"], tags["minds"])
    columns = ["kind", "what", "image_id", "label_id_before", "label_id_now"]
    assert found.changes[columns].equals(known.changes[columns])
    assert set(found.changes["cause"]) == {"unknown"}


def test_a_patch_gives_the_newer_version_to_the_byte(story, tags, tmp_path):
    for one, two in itertools.pairwise(tags.values()):
        before, now = story.state(one), story.state(two)
        patch = make_patch(before, now)
        data = patch.to_bytes()
        again = Patch.from_bytes(data, where="memory")
        assert again.to_bytes() == data
        made = apply_patch(before, again)
        assert made.md5 == now.manifest.folder_md5
    out = tmp_path / "out"
    write_folder(made, remote_of(now.registry, now.tag, now.remote_url), out)
    clone = checkout_on_new_machine(
        story.platform.settings.registry_path, now.tag, tmp_path / "clone"
    )
    folder = clone / "datasets" / "training-set"
    content = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.*")}
    assert content == {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")
    }
    with pytest.raises(DataError, match="Apply it to training-set@"):
        apply_patch(now, again)
    hostile = replace(again, rows=again.rows.assign(extension="x/../../../../../elsewhere/file"))
    strange = name_objects(
        build_folder(hostile.rows, hostile.ontology, name=hostile.dataset), lambda *_: tmp_path
    )
    with pytest.raises(DataError, match="would be outside of"):
        write_folder(strange, remote_of(now.registry, now.tag, now.remote_url), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(DataError, match="is not a patch"):
        Patch.from_bytes(b"something", where="file")
    with pytest.raises(DataError, match="exists already"):
        write_folder(made, remote_of(now.registry, now.tag, now.remote_url), out)


@dataclass
class Trial:
    """One image of a version, resolved again without some of its annotations."""

    state: VersionState
    explained: ImageProvenance

    def __post_init__(self):
        round_id, image = self.explained.round_id, self.explained.image_id
        inputs = self.state.inputs_of("consensus_labels", round_id)
        self.threshold = inputs.settings["iou_threshold"]
        self.common = Common.from_dict(inputs.settings["common"])
        self.annotations = self.state.rows("human_labels", round_id, image)
        self.images = self.state.rows("cleaned_images", round_id, image)
        self.ontology = read_guideline(self.state.lake.store, self.explained.guideline)
        self.ids = sorted(self.annotations["annotation_id"].unique())

    def holds(self, label, left_out):
        """Whether a label of this class remains at this location, computed independently."""
        remaining = self.annotations[~self.annotations["annotation_id"].isin(left_out)]
        if remaining.empty:
            return False
        _, resolved = resolve_task(
            remaining, self.common, iou_threshold=self.threshold, ontology=self.ontology,
            images=self.images,
        )  # fmt: skip
        labels = [each.label for each in resolved if each.label is not None]
        same = [each for each in labels if each.class_name == label["class_name"]]
        rows = self.state.labels_of(self.explained.image_id)
        others = rows[rows["class_name"] == label["class_name"]].to_dict("records")
        # Labels are paired with those of the version so that the total overlap is largest.
        shared = np.array([[overlap(one, vars(each)) for each in same] for one in others])
        shared = np.where(shared.reshape(len(others), -1) >= self.threshold, shared, 0.0)
        pairs = zip(*linear_sum_assignment(shared, maximize=True), strict=True)
        stay = [overlap(others[row], label) for row, column in pairs if shared[row, column]]
        return max(stay, default=0.0) == 1.0


def overlap(a, b):
    a, b = ([each[edge] for edge in EDGES] for each in (a, b))
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(wide, 0) * max(high, 0)
    areas = [(side[2] - side[0]) * (side[3] - side[1]) for side in (a, b)]
    return shared / (sum(areas) - shared)


def check_labels(state, image):
    """Check the explanations of all labels of an image; return the number of checked flip sets."""
    explained = explain_image(state, image)
    rows = state.labels_of(image)
    shown = rows[rows["shape"] != "none"]
    assert [each.label_id for each in explained.labels] == shown["label_id"].tolist()
    assert explained.landed[0]["source_key"].startswith("batch-")
    assert explained.cleaned["outcome"] == "accepted"
    trial, counted = Trial(state, explained), 0
    for each in explained.labels:
        if each.rests_on == ["review"]:
            assert each.decision in {"accepted", "fixed"}
            continue
        counted += 1
        assert {vote.annotation_id for vote in each.votes} == set(trial.ids)
        assert sum(bool(vote.says) for vote in each.votes) == each.label["support"]
        assert trial.holds(each.label, [])
        assert not trial.holds(each.label, each.rests_on)
        for fewer in itertools.combinations(trial.ids, len(each.rests_on) - 1):
            assert trial.holds(each.label, fewer)
    return counted


def test_every_label_is_explained_by_a_minimal_flip_set(story, tags):
    state = story.state(tags["minds"])
    counted = sum(check_labels(state, image) for image in state.labels["image_id"].unique())
    assert counted > 50


@pytest.mark.long
def test_the_flip_sets_of_five_hundred_labels_are_minimal(tmp_path):
    with open_platform(tmp_path / "home", drawn_material(1, 72, seed=1)) as platform:
        platform.change_policy(review={"gate": "auto"}, labeling={"annotations_per_task": 4})
        state = platform.state(Story(platform).play(ONE, 1))
        images = state.labels["image_id"].drop_duplicates().sample(frac=1, random_state=0)
        counted = 0
        for image in images:
            counted += check_labels(state, str(image))
            if counted >= 500:
                break
    assert counted >= 500


def test_the_commands_print_text_and_json(story, tags, tmp_path):
    def run(*arguments, status=0):
        done = run_command(*arguments, environment=settings_environment(story.platform.settings))
        assert done.returncode == status, done.stderr
        return done

    one, two = (tags[each].removeprefix("training-set@v") for each in ("round", "minds"))
    page, patch = tmp_path / "page.html", tmp_path / "one.patch"
    facts = json.loads(
        run(
            "version", "diff", one, two, "--html", str(page), "--patch", str(patch), "--json"
        ).stdout
    )
    assert (
        facts["changes"]
        == len(facts["rows"])
        == len(story.diff(tags["round"], tags["minds"]).changes)
    )
    text = page.read_text()
    assert "default-src 'none'" in text
    assert "http" not in text.replace("http-equiv", "")
    assert text.count("data:image/jpeg;base64,") > 4
    shown = run("version", "diff", one, two).stdout
    assert "review decision" in shown
    assert run("version", "diff", one, one).stdout.strip().endswith("hold the same.")
    out = tmp_path / "out"
    run("version", "apply", one, str(patch), "--out", str(out))
    assert (out / "data.yaml").exists()

    image = story.images["edited"]
    explained = json.loads(
        run("image", "explain", image[:10], "--version", two, "--label", "0", "--json").stdout
    )
    assert len(explained["labels"]) == 1
    assert explained["labels"][0]["rests_on"]
    assert (
        "minimal flip set: without the annotations of"
        in run("image", "explain", image, "--version", two).stdout
    )

    proof = tmp_path / "proof.json"
    run("image", "explain", image, "--version", two, "--label", "0", "--proof", str(proof))
    git = as_git(story.platform.settings.registry_path)
    (tmp_path / "manifest.json").write_bytes(git.read(tags["minds"], MANIFEST_PATH))
    # The program in the documentation.
    text = (PROJECT / "docs" / "reading-versions.md").read_text()
    program = text.partition("## Proof of one label")[2].split("```")[1].removeprefix("python\n")

    def verified():
        done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True,
                              text=True, check=True)  # fmt: skip
        return done.stdout.split()

    assert verified()[-1] == "True"
    content = json.loads(proof.read_text())
    proof.write_text(json.dumps({**content, "text": content["text"].replace("box", "bow")}))
    assert verified()[-1] == "False"

    assert (
        "no version 'training-set@v9.9.9'" in run("version", "diff", one, "9.9.9", status=2).stderr
    )
    gone = run("image", "explain", story.images["rejected"], "--version", two, status=2).stderr
    assert f"is not in {tags['minds']}" in gone
    none = run("image", "explain", image, "--version", two, "--label", "99", status=2).stderr
    assert "no number 99" in none
