import numpy as np
import pytest
import torch
from PIL import Image

from annotation_platform.errors import DataError, ModelError
from annotation_platform.models.detection.detector import (
    IMAGE_COLUMNS,
    NetworkDetector,
    detect_files,
)
from annotation_platform.models.protocols import Detections


class Tight(torch.nn.Module):
    """Finds one box in each image; accepts a limited number of images at once, or no device."""

    def __init__(self, room, *, only_on=None):
        super().__init__()
        self.room, self.only_on = room, only_on
        self.batches = []

    def forward(self, images):
        device = images[0].device.type
        self.batches.append((device, len(images)))
        if len(images) > self.room or self.only_on not in {None, device}:
            raise torch.OutOfMemoryError("out of memory")
        # The box is as wide as the image is bright, so that images cannot be mixed up.
        return [
            {
                "boxes": torch.tensor([[0.0, 0.0, 100.0 * float(one.mean()) + 1, 5.0]]),
                "scores": torch.tensor([0.9]),
                "labels": torch.tensor([0]),
            }
            for one in images
        ]


def detector(network, device="cpu"):
    return NetworkDetector(
        network, architecture="tight", class_names=["red"], image_width=128, device=device
    )


@pytest.fixture
def shades():
    return [np.full((64, 128, 3), 25 * n, dtype=np.uint8) for n in range(6)]


def widths(found):
    return [float(one.boxes[0, 2]) for one in found]


def test_batches_are_halved_if_memory_is_too_small_and_the_order_stays(shades):
    network = Tight(2)
    found = detector(network).predict(shades)
    assert widths(found) == pytest.approx([100 * 25 * n / 255 + 1 for n in range(6)], abs=1e-3)
    assert [size for _, size in network.batches] == [6, 3, 2, 2, 2]


def test_the_processor_is_used_once_a_single_image_exceeds_the_device(shades):
    # torch's "meta" device represents an accelerator: it takes tensors, but has no memory for any.
    network = Tight(4, only_on="cpu")
    busy = detector(network, device="meta")
    assert len(busy.predict(shades[:2])) == 2
    assert network.batches == [("meta", 2), ("meta", 1), ("cpu", 1), ("cpu", 1)]
    assert busy.device == "cpu"


def test_too_little_memory_of_the_processor_is_an_error(shades):
    with pytest.raises(ModelError, match=r"too small for an image \(out of memory\)\. Use smaller"):
        detector(Tight(0)).predict(shades[:1])


def test_every_image_has_a_row_and_time_is_divided_by_passes(tmp_path, color_detector):
    paths = {}
    for number in range(20):
        pixels = np.full((40, 60, 3), 100, dtype=np.uint8)
        if number % 2:
            pixels[5:20, 10:30] = (220, 50, 40)
        paths[f"image-{number:02d}"] = tmp_path / f"{number}.png"
        Image.fromarray(pixels).save(paths[f"image-{number:02d}"])
    shares = []
    detected = detect_files(color_detector(), paths, progress=shares.append)
    assert list(detected.images.columns) == IMAGE_COLUMNS
    assert detected.images["image_id"].tolist() == list(paths)
    assert detected.images["predictions"].tolist() == [0, 1] * 10
    assert detected.boxes["image_id"].tolist() == list(paths)[1::2]
    assert (detected.images["seconds"] > 0).all()
    assert shares == [0.8, 1.0]


def test_the_error_names_a_damaged_image_that_is_read_ahead(tmp_path, color_detector):
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bad\.png"):
        detect_files(color_detector(), {"a": tmp_path / "bad.png"})


def test_values_that_are_not_finite_are_left_out_and_counted(shades):
    class Broken(Tight):
        def forward(self, images):
            found = super().forward(images)
            found[0]["scores"] = torch.tensor([float("nan")])
            found[1]["boxes"] = torch.tensor([[0.0, 0.0, float("inf"), 5.0]])
            return found

    found = detector(Broken(8)).predict(shades[:3])
    assert [(len(one.boxes), one.dropped) for one in found] == [(0, 1), (0, 1), (1, 0)]


def test_a_selection_of_detections_keeps_its_cost():
    found = Detections(np.arange(8.0).reshape(2, 4), np.array([0.9, 0.5]), ["a", "b"], 3, 2)
    chosen = found.of([1])
    assert (chosen.boxes.tolist(), chosen.class_names) == ([[4, 5, 6, 7]], ["b"])
    assert (chosen.dropped, chosen.passes) == (3, 2)
    assert Detections.nothing(passes=1).boxes.shape == (0, 4)
