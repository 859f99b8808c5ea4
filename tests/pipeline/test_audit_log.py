"""The audit log after real runs and commands: each event once, with its author and reason."""

import json

import pytest

from annotation_platform.actor import system_user
from annotation_platform.demo.annotators import EXPERT
from annotation_platform.labeling.backends.regions import write_decision
from annotation_platform.labeling.reviews import review_round
from annotation_platform.schema.tables import DatasetVersions, ReviewedLabels
from annotation_platform.storage.pseudonyms import pseudonym_of
from tests.commands import run_command
from tests.pipeline.conftest import open_platform

ONE, TWO = "round-0001", "round-0002"
ADA = {"user": "ada", "annotation/reason": "the first release"}
SENSOR = {"dagster/sensor_name": "review_complete_sensor"}


def command(platform, *arguments):
    environment = {
        "ANNOTATION_HOME": str(platform.settings.home_path),
        "ANNOTATION_LABELING": "simulated",
        "ANNOTATION_REGISTRY": str(platform.settings.registry_path),
    }
    return run_command(*arguments, environment=environment)


def json_of(platform, *arguments):
    """Return the JSON that a command prints."""
    done = command(platform, *arguments, "--json")
    assert done.returncode in {0, 1}, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Two rounds: landed, annotated, reviewed, released; the second is closed early."""
    home = tmp_path_factory.mktemp("audit") / "home"
    with open_platform(home) as platform:
        platform.change_policy(review={"gate": "manual", "sample_share": 0.5})
        platform.land(1)
        platform.start_round(ONE)
        platform.annotate(ONE)
        assert platform.run("merge_round", ONE).success
        open_task = platform.labeling.open_assignments(EXPERT)[0]
        rejected = write_decision("reject", "a box of nothing")
        platform.labeling.submit(open_task.backend_task, EXPERT, rejected, 9.0)
        assert platform.decide(ONE)
        assert platform.run("release_round", ONE, tags=ADA).success
        # A repetition adds no event.
        assert platform.run("merge_round", ONE).success
        assert platform.run("release_round", ONE, tags=SENSOR).success

        platform.change_policy(review={"sample_share": 0.25})
        platform.land(2)
        platform.start_round(TWO)
        closed = command(platform, "round", "close", TWO, "--reason", "the vendor left")
        assert closed.returncode == 0, closed.stderr
        assert platform.run("merge_round", TWO).success
        again = command(platform, "round", "reopen", TWO, "--reason", "they came back")
        assert again.returncode == 0, again.stderr
        staged = command(
            platform, "version", "stage", "1.0.0", "production", "--reason", "best so far"
        )
        assert staged.returncode == 0, staged.stderr
        yield platform


def events(platform, *arguments):
    return json_of(platform, "audit", "show", *arguments)["events"]


def test_every_event_is_there_once_with_its_author_and_reason(played):
    everything = events(played)
    assert [line["action"] for line in everything if line["action"] != "review"] == [
        "policy", "release", "policy", "round", "round", "stage"
    ]  # fmt: skip
    (release,) = (line for line in everything if line["action"] == "release")
    row = played.lake.tables.read(DatasetVersions, ONE).iloc[0]
    assert (release["author"], release["reason"]) == ("ada", "the first release")
    assert release["subject"] == row["tag"]
    facts = release["facts"]
    assert [facts[name] for name in ("commit", "folder_md5", "images", "round", "asset")] == [
        row["commit"], row["folder_md5"], row["images"], ONE, "dataset_version"
    ]  # fmt: skip
    first, second = (line for line in everything if line["action"] == "policy")
    assert first["facts"]["settings"] is None
    assert second["facts"]["settings"] == {"review.sample_share": [0.5, 0.25]}
    assert (second["author"], second["reason"]) == ("dagster", f"used for label_tasks of {TWO}")
    assert [
        (line["subject"], line["facts"]["decision"], line["author"], line["reason"])
        for line in everything
        if line["action"] == "round"
    ] == [
        (TWO, "closed", system_user(), "the vendor left"),
        (TWO, "reopened", system_user(), "they came back"),
    ]
    closed = next(line for line in everything if line["action"] == "round")
    assert closed["facts"]["command"] == "annotation-platform round close"
    stage = everything[-1]
    assert (stage["subject"], stage["facts"]["stage"], stage["reason"]) == (
        row["tag"], "production", "best so far"
    )  # fmt: skip


def test_every_reviewer_s_decision_is_there_once_under_a_pseudonym(played):
    reviews = events(played, "--action", "review")
    labels = played.lake.tables.read(ReviewedLabels, ONE).drop_duplicates("image_id")
    reviewed = labels[labels["decided_by"] != ""]
    assert len(reviewed) > 1
    assert sorted(
        (line["author"], line["subject"], line["facts"]["decision"], line["reason"])
        for line in reviews
    ) == sorted(reviewed[["decided_by", "image_id", "decision", "comment"]].itertuples(index=False))
    assert [line["reason"] for line in reviews if line["reason"]] == ["a box of nothing"]
    assert {line["author"] for line in reviews} == {pseudonym_of(played.lake.store, EXPERT)}
    logs = [played.lake.store.get(key) for key in list(played.lake.store.list("audit"))]
    logs += [path.read_bytes() for path in played.settings.audit_path.glob("*.jsonl")]
    assert not [data for data in logs if EXPERT.encode() in data]


def test_reads_of_annotations_have_author_run_asset_and_reason(played):
    reads = json_of(played, "audit", "show", "--reads")["reads"]
    by = {(line["key"].split("/")[0], line.get("asset"), line["author"]) for line in reads}
    assert ("ledger", "human_labels", "dagster") in by
    assert ("ledger", "reviewed_labels", "ada") in by
    assert ("ledger", "reviewed_labels", "sensor review_complete_sensor") in by
    assert {line["key"].split("/")[1] for line in reads} >= {"answers", "human_labels"}
    ada = json_of(played, "audit", "show", "--reads", "--author", "ada")["reads"]
    assert {line["reason"] for line in ada} == {"the first release"}
    assert any(review_round(ONE) in line["key"] for line in ada)
    asked = command(played, "round", "annotations", ONE)
    assert asked.returncode == 0, asked.stderr
    last = json_of(played, "audit", "show", "--reads")["reads"][-1]
    assert (last["author"], last["command"]) == (
        system_user(),
        "annotation-platform round annotations",
    )


def test_verify_names_the_line_that_was_changed(played):
    found = json_of(played, "audit", "verify")
    assert (found["whole"], found["problems"]) == (True, [])
    assert found["events"] == len(events(played))
    # Reading the logs is not recorded as an access to the lake.
    assert json_of(played, "audit", "verify")["uses"] == found["uses"]
    done = command(played, "audit", "verify")
    assert (done.returncode, done.stdout.strip().endswith(": whole.")) == (0, True)

    path = played.settings.lake_path / "audit" / "000002.jsonl"
    before = path.read_bytes()
    path.write_bytes(before.replace(b"a box of nothing", b"a box of something"))
    done = command(played, "audit", "verify")
    assert done.returncode == 1
    assert "audit/000002.jsonl:" in done.stdout
    assert done.stdout.strip().endswith(": not whole.")
    found = json_of(played, "audit", "verify")
    assert [each["file"] for each in found["problems"]] == ["audit/000002.jsonl"]
    path.write_bytes(before)
    assert command(played, "audit", "verify").returncode == 0


def test_the_table_for_people_has_the_newest_last(played):
    done = command(played, "audit", "show")
    lines = [line for line in done.stdout.splitlines() if "│" in line]
    assert done.returncode == 0
    assert "best so far" in lines[-1]
    assert "review.sample_share is 0.25, was 0.5" in done.stdout
    assert "No matching entries." in command(played, "audit", "show", "--action", "erasure").stdout
    assert command(played, "audit", "show", "--reads").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--action", "relase"], "policy, round, review, release", id="action"),
        pytest.param(["--reads", "--action", "release"], "get, query", id="action of reads"),
        pytest.param(["--author", "eve"], "Authors: ada, ", id="author"),
        pytest.param(["--since", "yesterday"], "Give 2026-05-01", id="time"),
    ],
)
def test_an_unknown_filter_is_an_error_of_one_line(played, arguments, message):
    done = command(played, "audit", "show", *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
