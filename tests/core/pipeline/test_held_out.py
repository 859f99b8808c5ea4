import hashlib
from datetime import UTC, datetime

import pandas as pd
import pytest

from annotation_platform.ingestion.lake import open_lake
from annotation_platform.pipeline.held_out import reference_images
from annotation_platform.schema.tables import SelectedImages, TrainingSet

IDS = sorted(hashlib.sha256(str(number).encode()).hexdigest() for number in range(100))
MD5 = "0" * 32


def label(image_id, split):
    return {
        "round_id": "round-0001",
        "image_id": image_id,
        "split": split,
        "group_id": image_id,
        **dict.fromkeys(["width", "height", "stored_bytes"], 10),
        "extension": "png",
        "stored_md5": MD5,
        "label_id": image_id,
        "shape": "none",
        **dict.fromkeys(["geometry", "other_metadata"], ""),
        "origin": "people",
        "support": 1,
        "annotations": 1,
        "captured_at": datetime.now(UTC),
    }


def selected(image_id, rank, *, audit):
    rule = "calibration" if audit else "uncertain"
    row = {"round_id": "round-0001", "image_id": image_id, "rank": rank, "rule": rule}
    return row | {"reason": "", "calibration_sample": audit}


@pytest.mark.parametrize(
    ("audited", "expected"),
    [
        pytest.param(29, IDS[40:], id="too few were drawn by lot"),
        pytest.param(30, IDS[40:70], id="enough were"),
    ],
)
def test_a_round_is_compared_with_what_was_drawn_by_lot_if_that_is_enough(
    tmp_path, audited, expected
):
    lake = open_lake(tmp_path / "lake", tmp_path / "landing")
    splits = ["train"] * 40 + ["val"] * 20 + ["test"] * 40
    rows = [label(*each) for each in zip(IDS, splits, strict=True)]
    lake.tables.write(TrainingSet, "round-0001", TrainingSet.from_rows(rows))
    # Half of the train split, which is no reference, was drawn, too.
    drawn = {*IDS[:20], *IDS[40 : 40 + audited]}
    chosen = [selected(one, rank, audit=one in drawn) for rank, one in enumerate(IDS)]
    lake.tables.write(SelectedImages, "round-0001", SelectedImages.from_rows(chosen))
    images = pd.DataFrame({"image_id": IDS[::-1]})
    found = reference_images("round-0002", images, lake)
    assert list(found["image_id"]) == expected
    # What is chosen in the round itself or later is not known yet.
    assert reference_images("round-0001", images, lake).empty
