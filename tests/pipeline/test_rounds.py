import json

import dagster as dg
import numpy as np
import pytest
import yaml

from annotation_platform.images.accepted import accepted_images
from annotation_platform.schema.tables import (
    AnnotatorQuality,
    ConsensusLabels,
    DatasetVersions,
    HumanLabels,
    ModelEvaluations,
    ModelPredictions,
    ReviewTasks,
    RoundReports,
    Splits,
    TrainingSet,
    table_named,
)
from annotation_platform.versioning.registry import list_versions, read_manifest


def start(platform, batch, round_id):
    platform.land(batch)
    return platform.start_round(round_id)


def metadata(result, asset):
    event = result.asset_materializations_for_node(asset)[-1]
    return {name: value.value for name, value in event.metadata.items()}


def test_two_rounds_from_landing_to_a_model_that_proposes(platform):
    for batch, round_id in enumerate(["round-0001", "round-0002"], start=1):
        start(platform, batch, round_id)
        assert platform.annotate(round_id) == 24
        assert platform.release(round_id, platform.merge(round_id)).success
        assert platform.run("train_model", round_id).success
    tables = platform.lake.tables
    report = tables.read_all(RoundReports)
    assert report["accepted"].tolist() == [8, 8]
    assert (report["landed"] == report[["accepted", "quarantined", "duplicates"]].sum(axis=1)).all()
    assert report["annotations"].tolist() == [24, 24]
    assert report["version"].tolist() == ["1.0.0", "1.1.0"]

    weights = tables.read(ModelEvaluations, "round-0001")["weights_sha256"].iloc[0]
    predictions = tables.read(ModelPredictions, "round-0002")
    assert set(predictions["weights_sha256"]) <= {weights}

    registry = platform.settings.registry_path
    assert [v.version for v in list_versions(registry)] == ["1.0.0", "1.1.0"]
    manifest = read_manifest(registry, "training-set@v1.1.0")
    assert set(manifest.rounds) == {"round-0001", "round-0002"}

    training_set = tables.read(TrainingSet, "round-0002")
    accepted = accepted_images(platform.lake.tables)
    assert set(training_set["image_id"]) == set(accepted["image_id"])
    first = tables.read(TrainingSet, "round-0001")
    tested = set(first.loc[first["split"] == "test", "image_id"])
    assert tested <= set(training_set.loc[training_set["split"] == "test", "image_id"])


def test_running_a_job_again_changes_nothing(platform):
    start(platform, 1, "round-0001")
    platform.annotate("round-0001")
    jobs = ["start_round", "merge_round", "release_round"]
    names = ["cleaned_images", "label_tasks", "human_labels", "consensus_labels", "training_set"]
    digests = []
    for _ in range(2):
        for job in jobs:
            platform.run(job, "round-0001")
            platform.decide("round-0001")
        digests.append(
            [platform.lake.tables.digest(table_named(name), "round-0001") for name in names]
        )
    assert digests[0] == digests[1]
    assert len(platform.labeling.collect("round-0001")) == 24
    assert len(list_versions(platform.settings.registry_path)) == 1
    again = platform.lake.tables.read(DatasetVersions, "round-0001").iloc[0]
    assert not again["new_version"]
    check_consensus_follows_its_inputs(platform)


def check_consensus_follows_its_inputs(platform):
    """The policy's overlap and what is known of each annotator change the consensus of a round."""
    tables = platform.lake.tables
    quality = tables.read(AnnotatorQuality, "round-0001").sort_values("annotator")

    def resolve(**inputs):
        for name, table in inputs.items():
            tables.write(table_named(name), "round-0001", table)
        assert platform.run("merge_round", "round-0001", only=["consensus_labels"]).success
        return tables.read(ConsensusLabels, "round-0001")

    loose = resolve()
    platform.change_policy(consensus={"iou_threshold": 1.0})
    # Hardly any two people draw the very same box: what was one object falls apart.
    assert resolve()["mean_iou"].min() > loose["mean_iou"].min()
    platform.change_policy(consensus={"iou_threshold": 0.5})
    # Of two people, where one saw an object and the other did not, the better one is right.
    labels = tables.read(HumanLabels, "round-0001")
    two = labels.groupby("image_id")["annotator"].transform(
        lambda each: each.isin(sorted(set(each))[:2])
    )
    shares = np.linspace(0.1, 0.99, len(quality))
    known = quality.assign(gold_annotations=50)
    first = resolve(human_labels=labels[two], annotator_quality=known.assign(gold_quality=shares))
    last = resolve(annotator_quality=known.assign(gold_quality=shares[::-1]))
    assert len(first) > 0
    assert not first.equals(last)


def test_asked_too_early_an_asset_says_what_it_waits_for(platform):
    start(platform, 1, "round-0001")
    early = platform.run("merge_round", "round-0001", raise_on_error=False)
    assert not early.success
    failure = early.failure_data_for_node("human_labels").error
    assert "round-0001 waits for annotators: 0 of 24 assignments are annotated." in str(failure)


def test_a_broken_gate_stops_the_release_and_publishes_nothing(platform):
    start(platform, 1, "round-0001")
    platform.annotate("round-0001")
    platform.release("round-0001", platform.merge("round-0001"))
    # The splits are tampered with: a test image would become a training image.
    splits = platform.lake.tables.read(Splits, "round-0001")
    tested = splits["split"] == "test"
    platform.lake.tables.write(
        Splits,
        "round-0001",
        splits.assign(split=splits["split"].mask(tested, "train")),
    )
    start(platform, 2, "round-0002")
    platform.annotate("round-0002")
    released = platform.run("merge_round", "round-0002", raise_on_error=False)
    assert not released.success
    checks = {event.check_name: event.passed for event in released.get_asset_check_evaluations()}
    assert checks["no_test_image_in_train"] is False
    assert [v.version for v in list_versions(platform.settings.registry_path)] == ["1.0.0"]


def test_every_page_shows_a_count_and_something_to_look_at(platform):
    results = [start(platform, 1, "round-0001")]
    platform.annotate("round-0001")
    results += [platform.merge("round-0001"), platform.run("release_round", "round-0001")]
    for result in results:
        for event in result.get_asset_materialization_events():
            shown = event.materialization.metadata
            sizes = {name: len(json.dumps(str(value.value))) for name, value in shown.items()}
            assert sum(sizes.values()) < 100_000, (event.asset_key, sizes)
            assert any(isinstance(value, dg.IntMetadataValue) for value in shown.values())
            assert any(isinstance(value, dg.MarkdownMetadataValue) for value in shown.values())
    thumbnails = metadata(results[1], "consensus_labels")["most_disputed"]
    assert thumbnails.startswith("![images with their boxes: ")


def test_classes_renamed_while_people_work_stop_the_merge_and_say_so(platform):
    start(platform, 1, "round-0001")
    platform.annotate("round-0001")
    policy = platform.settings.policy_path
    before = policy.read_text()
    policy.write_text(before.replace("name: boat", "name: ship"))
    merged = platform.run("merge_round", "round-0001", raise_on_error=False)
    assert not merged.success
    checks = {event.check_name: event.passed for event in merged.get_asset_check_evaluations()}
    assert checks["labels_in_ontology"] is False
    assert not platform.lake.tables.exists(ReviewTasks, "round-0001")
    # With a word on what became of the class, the round goes on.
    mapped = yaml.safe_load(before)
    for each in mapped["ontology"]["classes"]:
        if each["name"] == "boat":
            each |= {"name": "ship", "was": ["boat"]}
    policy.write_text(yaml.safe_dump(mapped))
    assert platform.release("round-0001", platform.merge("round-0001")).success
    names = platform.lake.tables.read(TrainingSet, "round-0001")["class_name"]
    assert "ship" in set(names)
    assert "boat" not in set(names)


@pytest.mark.parametrize("job", ["merge_round", "release_round", "train_model"])
def test_a_stage_without_its_predecessor_names_it(platform, job):
    platform.instance.add_dynamic_partitions("rounds", ["round-0001"])
    result = platform.run(job, "round-0001", raise_on_error=False)
    failures = [e.event_specific_data.error for e in result.all_events if e.is_step_failure]
    assert failures
    assert "does not exist yet" in str(failures[0])
