"""Rounds in which something is kept from people: by real tables, runs and a trained model."""

import pytest
import yaml

from annotation_platform.errors import NotReadyError, SettingsError
from annotation_platform.labeling.reviews import review_round
from annotation_platform.schema.keys import is_shown
from annotation_platform.schema.tables import ModelPredictions

ONE, TWO = "round-0001", "round-0002"


def change(platform, section, **values):
    path = platform.settings.policy_path
    policy = yaml.safe_load(path.read_text())
    policy.setdefault(section, {}).update(values)
    path.write_text(yaml.safe_dump(policy, sort_keys=False))


def metadata(result, asset):
    event = result.asset_materializations_for_node(asset)[-1]
    return {name: value.value for name, value in event.metadata.items()}


def asked(platform):
    everybody = platform.labeling.annotators()
    return [place for name in everybody for place in platform.labeling.open_assignments(name)]


def check_masked(platform, places, hidden):
    """Every place shows a copy, which differs from the image exactly where something is hidden."""
    assert places
    for place in places:
        assert is_shown(place.image_key)
        shown = platform.lake.store.get(place.image_key)
        extension = place.image_key.rpartition(".")[2]
        original = platform.lake.image(place.image_id, extension)
        assert (shown != original) == (place.image_id in hidden)


def test_before_a_model_has_looked_nobody_is_asked_and_the_way_on_is_said(platform):
    change(platform, "masking", classes=["person"])
    platform.land(1)
    with pytest.raises(NotReadyError, match=r"8 of 8 images cannot be shown.*model_predictions"):
        platform.start_round(ONE)
    assert asked(platform) == []
    assert not list(platform.lake.store.list("shown"))
    # Nothing is fixed by then: without masks the same round starts.
    change(platform, "masking", classes=[])
    assert platform.run("start_round", ONE).success
    assert not any(is_shown(place.image_key) for place in asked(platform))


def test_a_round_with_masks_shows_copies_and_proposes_nothing_that_is_masked(platform):
    platform.land(1)
    platform.start_round(ONE)
    platform.annotate(ONE)
    assert platform.release(ONE, platform.merge(ONE)).success
    assert platform.run("train_model", ONE).success
    name = platform.policy.ontology.names[0]
    # What little was learned is sure of nothing.
    change(platform, "labeling", minimum_score=0.0)
    change(platform, "masking", classes=[name, "face"], minimum_score=0.0)
    platform.land(2)
    with pytest.raises(SettingsError, match=f"face is not a class of the model .*{name}"):
        platform.start_round(TWO)
    assert asked(platform) == []
    change(platform, "masking", classes=[name])
    result = platform.run("start_round", TWO)
    found = platform.lake.tables.read(ModelPredictions, TWO)
    hidden = set(found.loc[found["class_name"] == name, "image_id"])
    assert metadata(result, "label_tasks")["masked_images"] == len(hidden) > 0
    places = asked(platform)
    check_masked(platform, places, hidden)
    for place in places:
        classes = {region["label"]["class_name"] for region in place.pre_annotations.content}
        assert name not in classes
    assert any(place.pre_annotations.content for place in places)
    platform.annotate(TWO)
    # A reviewer is shown the same copies: here every image of the round is reviewed.
    change(platform, "review", gate="manual", sample_share=1.0)
    assert platform.run("merge_round", TWO).success
    reviewed = [place for place in asked(platform) if place.round_id == review_round(TWO)]
    assert {place.image_id for place in reviewed} == {place.image_id for place in places}
    check_masked(platform, reviewed, hidden)
    platform.decide(TWO)
    assert platform.run("release_round", TWO).success
