"""A version in a notebook: the table is what was published, and a torchvision detector trains."""

import io
import random
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import annotation_platform
from annotation_platform.errors import DataError, PublishError
from annotation_platform.policy import Policy
from annotation_platform.schema.ontology import LabelClass, Ontology
from annotation_platform.schema.shapes import Label
from annotation_platform.versioning.registry import list_versions
from tests.system.worlds import PROJECT, World

ONTOLOGY = Ontology(
    classes=(LabelClass(id=7, name="ball"), LabelClass(id=3, name="field", shape="polygon"))
)


def ten_images(root):
    """Ten images of 64 × 48 pixels: a box in most, a triangle in some, nothing in two."""
    made = World(root, ontology=ONTOLOGY, params=Policy(ontology=ONTOLOGY).to_yaml())
    for number in range(10):
        pixels = np.full((48, 64, 3), number * 20, np.uint8)
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "PNG")
        boxes = [Label.box("ball", 4, 5, 24, 30)] if number % 5 else []
        fields = [Label.polygon("field", [[30, 10, 60, 10, 30, 40]])] if number % 3 == 1 else []
        made.add_image(data.getvalue(), "png", 64, 48, [*boxes, *fields])
    made.publish()
    return made


@pytest.fixture
def world(tmp_path, monkeypatch, once):
    (tmp_path / "gitconfig").write_text("[user]\n\tname = Test\n\temail = test@example.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("ANNOTATION_HOME", str(tmp_path / "home"))
    return once(ten_images)


@pytest.fixture
def tag(world):
    return list_versions(world.registry)[0].tag


def test_three_lines_give_the_labels_that_were_published(world, tag):
    version = annotation_platform.load(tag, registry=world.registry)
    published = world.table.sort_values(["image_id", "label_id"], ignore_index=True)
    ours = version.labels.sort_values(["image_id", "label_id"], ignore_index=True)
    pd.testing.assert_frame_equal(ours, published, check_dtype=False)
    assert version.images["labels"].sum() == (published["shape"] != "none").sum()
    assert len(version.images) == 10
    assert version.manifest.version == "1.0.0"
    # No image was fetched for that.
    assert not list(version.clone.rglob("*.png"))


def test_samples_are_the_images_with_their_areas_in_pixels(world, tag):
    version = annotation_platform.load(tag, registry=world.registry)
    samples = version.torch("train", masks=True)
    assert samples.classes == ["background", "field", "ball"]
    assert len(samples) == (version.images["split"] == "train").sum()
    for number, image_id in enumerate(samples.image_ids):
        image, target = samples[number]
        rows = version.labels[(version.labels["image_id"] == image_id)]
        areas = rows[rows["shape"].isin(["box", "polygon"])]
        assert image.shape == (3, 48, 64)
        assert 0 <= image.min() <= image.max() <= 1
        assert target["boxes"].shape == (len(areas), 4)
        assert target["masks"].shape == (len(areas), 48, 64)
        for box, mask, area in zip(target["boxes"], target["masks"], areas.itertuples(),
                                   strict=True):  # fmt: skip
            assert box.tolist() == [area.x1, area.y1, area.x2, area.y2]
            expected = 500 if area.shape == "box" else 450
            assert abs(int(mask.sum()) - expected) <= 0.04 * expected


def test_samples_can_be_drawn_by_shares_of_classes(world, tag):
    version = annotation_platform.load(tag, registry=world.registry)
    drawn = version.balanced({"field": 0.5, "ball": 0.5}, size=12)
    samples = version.torch("train", image_ids=drawn.image_ids)
    numbers = [number for _, target in samples for number in target["labels"].tolist()]
    ball = samples.classes.index("ball")
    assert len(samples) == 12
    assert numbers.count(ball) / len(numbers) == pytest.approx(drawn.shares["ball"])
    held_out = version.images.loc[version.images["split"] != "train", "image_id"].iloc[0]
    with pytest.raises(DataError, match=f"{held_out} is not in the train split"):
        version.torch("train", image_ids=[held_out])


def test_a_torchvision_detector_trains_on_it(world, tag):
    import torch
    from torch.utils.data import DataLoader
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    from annotation_platform.models.samples import collate

    torch.manual_seed(0)
    samples = annotation_platform.load(tag, registry=world.registry).torch("train")
    network = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=len(samples.classes)
    )
    steps = torch.optim.SGD(network.parameters(), lr=0.01)
    network.train()
    images, targets = next(iter(DataLoader(samples, batch_size=2, collate_fn=collate)))
    total = sum(network(list(images), list(targets)).values())
    assert torch.isfinite(total)
    total.backward()
    steps.step()
    network.eval()
    image, _ = samples[0]
    assert set(network([image])[0]) == {"boxes", "labels", "scores"}


def test_the_readers_in_the_documentation_read_what_was_published(world, tag, monkeypatch):
    text = (PROJECT / "docs" / "reading-versions.md").read_text()
    package, arrays, *_ = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.setenv("ANNOTATION_REGISTRY", str(world.registry))
    found: dict[str, object] = {}
    exec(package, found)
    assert len(found["rare"]) == len(found["train"]) == 6
    monkeypatch.chdir(found["version"].clone)
    exec(arrays, found)
    boxes = world.table[(world.table["split"] == "train") & (world.table["shape"] == "box")]
    assert sum(map(len, found["boxes"].values())) == len(boxes)
    assert {each.shape for each in found["pixels"].values()} == {(48, 64, 3)}


def test_what_is_no_version_and_what_is_damaged_is_said(world, tag):
    with pytest.raises(PublishError, match=r"Name one like training-set@v1.2.0"):
        annotation_platform.load("latest", registry=world.registry)
    with pytest.raises(PublishError, match=r"no version 'training-set@v3.0.0'. Published: "):
        annotation_platform.load("training-set@v3.0.0", registry=world.registry)
    objects = (world.root / "remote" / "files" / "md5").glob("*/*")
    shards = [path for path in objects if path.read_bytes()[:4] == b"PAR1"]
    spoilt = random.Random(0).choice(sorted(shards))
    spoilt.chmod(0o644)
    spoilt.write_bytes(spoilt.read_bytes()[:-9])
    with pytest.raises(PublishError, match=r"annotations/.*is damaged"):
        annotation_platform.load(tag, registry=world.registry)
