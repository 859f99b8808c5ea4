"""A further strategy is a module, a line in the registry and a name in the policy."""

import io
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from annotation_platform.ingestion.lake import open_lake
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.pipeline.clean import clean
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.ingest import ingest
from annotation_platform.pipeline.select import select
from annotation_platform.policy import SelectionPolicy, read_policy
from annotation_platform.schema.tables import CleanedImages, ModelPredictions, RawImages
from annotation_platform.selection.rules import Pick, SelectionState
from annotation_platform.selection.strategies import STRATEGIES
from annotation_platform.settings import PROJECT_ROOT
from tests.core.ingestion.conftest import form_round

PAGE = PROJECT_ROOT / "docs/how-to/add-a-selection-strategy.md"
IMAGES, BUDGET = 6, 2


@pytest.fixture
def crowded(monkeypatch):
    """The strategy of the how-to page, registered."""
    (code,) = re.findall(r"^   ```python\n(.*?)^   ```", PAGE.read_text(), re.M | re.S)
    names = {
        "SelectionState": SelectionState,
        "Pick": Pick,
        "SelectionPolicy": SelectionPolicy,
        "np": np,
    }
    exec(compile(re.sub(r"^   ", "", code, flags=re.M), PAGE.name, "exec"), names)
    monkeypatch.setitem(STRATEGIES, "crowded", names["crowded"])


@pytest.fixture
def round_of(tmp_path):
    """A cleaned round of images of noise; the n-th by name has n predicted boxes."""
    lake = open_lake(tmp_path / "lake", tmp_path / "landing")
    for number in range(IMAGES):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG")
        lake.landing.put(f"{number}.png", png.getvalue())
    policy = read_policy(PROJECT_ROOT / "params.yaml")
    context = RoundContext(form_round(lake), lake, policy, datetime.now(UTC))
    raw = ingest(context).raw_images
    lake.tables.write(RawImages, context.round_id, raw)
    cleaned = clean(context, raw).cleaned_images
    lake.tables.write(CleanedImages, context.round_id, cleaned)
    assert set(cleaned["outcome"]) == {"accepted"}
    names = dict(zip(raw["source_key"], raw["image_id"], strict=True))
    return context, names, ModelRegistry(Path(tmp_path / "models"))


def predictions_of(round_id, names):
    rows = [
        {
            "round_id": round_id,
            "prediction_id": f"{image_id}:{box}",
            "image_id": image_id,
            "shape": "box",
            "class_name": "boat",
            **dict.fromkeys(["x1", "y1"], float(box)),
            **dict.fromkeys(["x2", "y2"], float(box + 9)),
            "score": 0.9,
            "raw_score": 0.9,
            "weights_sha256": "0" * 64,
            **dict.fromkeys(["profile", "calibration"], ""),
        }
        for name, image_id in names.items()
        for box in range(int(name.removesuffix(".png")))
    ]
    return ModelPredictions.from_rows(rows)


def chosen(round_of, strategy):
    context, names, models = round_of
    section = context.policy.selection.model_copy(
        update={"strategy": strategy, "budget": BUDGET, "calibration_share": 0.0}
    )
    policy = context.policy.model_copy(update={"selection": section})
    context = RoundContext(context.round_id, context.lake, policy, context.now)
    table = select(context, predictions_of(context.round_id, names), models).selected_images
    name_of = {image_id: name for name, image_id in names.items()}
    return [name_of[image] for image in table["image_id"]], table


def test_a_new_strategy_chooses_the_images_of_a_round(crowded, round_of):
    names, table = chosen(round_of, "crowded")
    assert names == ["5.png", "4.png"]
    assert table["reason"].tolist() == [
        "about 4.5 objects are expected",
        "about 3.6 objects are expected",
    ]


def test_what_a_strategy_leaves_is_chosen_for_diversity(monkeypatch, round_of):
    monkeypatch.setitem(STRATEGIES, "none", lambda *_: 0)
    _, table = chosen(round_of, "none")
    assert table["rule"].tolist() == ["diverse"] * BUDGET


def test_the_policy_accepts_exactly_the_registered_strategies():
    assert set(get_args(SelectionPolicy.model_fields["strategy"].annotation)) == set(STRATEGIES)
