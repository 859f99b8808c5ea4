import subprocess
import sys

import dagster as dg
import pytest

from annotation_platform.definitions import defs
from annotation_platform.schema.tables import TABLES

GRAPH = defs.resolve_asset_graph()
NAMES = {key.path[-1] for key in GRAPH.get_all_asset_keys()}


def test_the_assets_carry_the_names_that_users_know():
    assert {
        "raw_images",
        "cleaned_images",
        "model_predictions",
        "human_labels",
        "training_set",
        "dataset_version",
    } <= NAMES


@pytest.mark.parametrize("key", sorted(GRAPH.get_all_asset_keys(), key=str), ids=str)
def test_every_asset_is_described_grouped_and_partitioned_by_round(key):
    node = GRAPH.get(key)
    assert node.description
    assert node.description.endswith(".")
    assert node.group_name != "default"
    assert node.partitions_def.name == "rounds"


def test_a_version_descends_from_the_landed_files_through_every_stage():
    ancestors = GRAPH.get_ancestor_asset_keys(dg.AssetKey("round_report"))
    leads = {step_of(key) for key in GRAPH.get_all_asset_keys()}
    assert {step_of(key) for key in ancestors} | {"round_report"} == leads


def step_of(key):
    """The step that makes an asset; it is named as the first of its tables."""
    return GRAPH.get(key).assets_def.op.name


def test_every_table_is_an_asset_that_one_step_writes():
    assert set(TABLES) == NAMES
    steps = [each for each in defs.assets if isinstance(each, dg.AssetsDefinition)]
    made = [key.path[-1] for each in steps for key in each.keys]
    assert sorted(made) == sorted(NAMES)


def test_every_asset_is_made_by_one_job_and_those_of_a_release_also_by_the_merge_before():
    made = {
        job: {key.path[-1] for key in defs.resolve_job_def(job).asset_layer.executable_asset_keys}
        for job in ("start_round", "merge_round", "release_round", "train_model")
    }
    assert made["release_round"] < made["merge_round"]
    made["merge_round"] -= made["release_round"]
    assert sorted(name for names in made.values() for name in names) == sorted(NAMES)


def test_loading_the_definitions_imports_neither_torch_nor_dvc():
    heavy = ("torch", "torchvision", "dvc", "label_studio_sdk")
    script = (
        "import sys, annotation_platform.definitions;"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
