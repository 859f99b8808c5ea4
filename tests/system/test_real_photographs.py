"""The job on real photographs, with a real Label Studio: what the platform promises of it."""

import os
from pathlib import Path

import pytest

from annotation_platform.demo.material import real_material
from annotation_platform.demo.narrator import Narrator
from annotation_platform.demo.run import DemoOptions, run_demo
from annotation_platform.images.accepted import accepted_images
from annotation_platform.images.decoding import decode
from annotation_platform.ingestion.lake import open_lake
from annotation_platform.schema.tables import TrainingSet
from annotation_platform.settings import PROJECT_ROOT

DATA = Path(os.environ.get("ANNOTATION_TEST_DATA", PROJECT_ROOT / ".." / "shared" / "data"))
BLOOD_CELLS = DATA / "bccd" / "BCCD"


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not BLOOD_CELLS.is_dir(), reason=f"the BCCD photographs are not in {DATA}")
def test_blood_cells_in_three_rounds(tmp_path):
    material, problems = real_material(
        BLOOD_CELLS / "JPEGImages", BLOOD_CELLS / "Annotations", batches=3, limit=180, seed=0
    )
    assert [problem.split(": ")[-1] for problem in problems[:2]] == [
        "object 13 (RBC) has no area",
        "object 4 (RBC) has no area",
    ]
    with Narrator() as narrator:
        options = DemoOptions(home=tmp_path / "home", training_cpu_seconds=180.0)
        result = run_demo(lambda: material, options, narrator)
    assert min(row["consensus_f1"] for row in result.rounds) >= 0.95
    assert result.rounds[-1]["model_map50"] >= 0.70
    assert result.rounds[-1]["test_images"] >= 20
    lake = open_lake(tmp_path / "home" / "lake", tmp_path / "home" / "landing")
    last = lake.tables.read(TrainingSet, "round-0003").drop_duplicates("image_id")
    accepted = accepted_images(lake.tables)
    assert sorted(last["image_id"]) == sorted(accepted["image_id"])
    names = {name: data for files in material.batches for name, data in files.items()}
    for row in accepted.to_dict("records"):
        landed = names[Path(row["source_key"]).name]
        assert (decode(lake.image(row["image_id"], row["extension"])) == decode(landed)).all()
