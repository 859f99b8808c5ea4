"""Policies of earlier releases keep their meaning."""

import pytest
import yaml

from annotation_platform.errors import SettingsError
from annotation_platform.policy import parse_policy

CLASSES = {"classes": [{"id": 0, "name": "cat"}]}

OF_V0_1_0 = {
    "selection": {"audit_share": 0.3, "embedder": "picture"},
    "labeling": {
        "answers_per_task": 2,
        "answers_by_class": {"cat": 4},
        "stop_at_lead": 3,
        "most_answers": 5,
        "qualify_answers": 6,
        "blind_share": 0.25,
        "resend_lost": True,
        "ask_about_imported": True,
    },
    "masking": {"way": "grey"},
    "drift": {"least_effect": 0.125},
    "auto_accept": {"reaudit_share": 0.75},
    "training": {"choice_share": 0.4},
    "prediction": {"labelling": {"most_passes": 7}, "serving": {"most_passes": 8}},
}

TODAY = {
    "selection": {"calibration_share": 0.3, "embedder": "image"},
    "labeling": {
        "annotations_per_task": 2,
        "annotations_by_class": {"cat": 4},
        "vote_margin": 3,
        "maximum_annotations": 5,
        "qualify_annotations": 6,
        "without_predictions_share": 0.25,
        "republish_deleted": True,
        "annotate_imported": True,
    },
    "masking": {"style": "grey"},
    "drift": {"minimum_effect": 0.125},
    "auto_accept": {"recheck_share": 0.75},
    "training": {"classification_share": 0.4},
    "prediction": {"labelling": {"maximum_passes": 7}, "serving": {"maximum_passes": 8}},
}


def read(sections):
    return parse_policy(yaml.safe_dump({"ontology": CLASSES, **sections}), where="params.yaml")


def test_keys_of_earlier_releases_keep_their_meaning():
    assert read(OF_V0_1_0) == read(TODAY)
    assert read(OF_V0_1_0).digest == read(TODAY).digest
    assert read({}) != read(TODAY)


def test_a_key_and_its_earlier_name_together_are_refused():
    with pytest.raises(SettingsError, match=r"labeling: .*vote_margin is given twice"):
        read({"labeling": {"vote_margin": 1, "stop_at_lead": 2}})
