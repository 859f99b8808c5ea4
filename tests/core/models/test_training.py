import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models.detection.fcos import FCOS

from annotation_platform.errors import DataError, ModelError, NotReadyError
from annotation_platform.images.decoding import decode
from annotation_platform.models.detection.detector import (
    PREDICTION_COLUMNS,
    NetworkDetector,
    predict_files,
)
from annotation_platform.models.detection.training import _order, train_detector
from annotation_platform.models.evaluation.evaluation import evaluate
from annotation_platform.models.fitting import TrainingOptions
from annotation_platform.models.memory import MemoryLimit
from annotation_platform.models.network_inputs import (
    Augmentation,
    Sample,
    SampleCache,
    TrainingExample,
    augment,
    resize,
    tile_examples,
)
from annotation_platform.policy import TrainingPolicy
from annotation_platform.schema.geometry import iou_matrix

CLASSES = ["blue", "red"]
SHORT = TrainingPolicy(cpu_seconds=1, image_width=96, batch_size=4)


def steps(number):
    return SHORT.model_copy(update={"steps": number})


@pytest.fixture(scope="module")
def detector(trained):
    return NetworkDetector.from_bytes(trained.state, where="trained", device="cpu")


def test_a_detector_learns_its_training_images(detector, drawn, trained):
    found = predict_files(detector, {one.image_id: one.path for one in drawn.examples})
    # Twelve memorised images: near one. Chance is near zero.
    assert evaluate(drawn.dataset, found).map50 > 0.6
    assert list(found.columns) == PREDICTION_COLUMNS
    assert trained.setup.images == 12
    assert trained.epochs > 5
    assert trained.steps == 300
    assert trained.cpu_seconds > 0
    assert 0 < trained.final_loss < 2


def test_boxes_are_in_pixels_of_the_given_image(detector, drawn):
    example = drawn.examples[0]
    pixels = decode(example.path.read_bytes())
    tall = np.asarray(Image.fromarray(pixels).resize((360, 240)))
    for image, factor in ((pixels, 1), (tall, 3)):
        found = detector.predict([image], minimum_score=0.2)[0]
        overlap = iou_matrix(example.boxes * factor, found.boxes)
        best = overlap.argmax(axis=1)
        assert overlap.max(axis=1) == pytest.approx(1.0, abs=0.4)
        assert [found.class_names[index] for index in best] == list(example.class_names)
        height, width = image.shape[:2]
        assert (found.boxes >= 0).all()
        assert (found.boxes <= [width, height, width, height]).all()
        assert (np.diff(found.scores) <= 0).all()


def test_images_of_any_size_are_predicted_in_order(detector):
    sizes = [(80, 120), (300, 40), (1, 1), (33, 200), (1, 500)]
    found = detector.predict([np.zeros((*size, 3), dtype=np.uint8) for size in sizes])
    assert [len(one.class_names) for one in found] == [len(one.boxes) for one in found]
    assert all(one.dropped == 0 for one in found)
    assert detector.predict([]) == []


def test_nothing_found_is_a_result(detector, drawn):
    paths = {one.image_id: one.path for one in drawn.examples[:2]}
    found = predict_files(detector, paths, minimum_score=1.0)
    assert found.empty
    assert list(found.columns) == PREDICTION_COLUMNS


class Tight:
    """Limits the number of images of a training FCOS at a time, from a step on."""

    def __init__(self, room, *, after=0):
        self.room, self.after = room, after
        self.sizes = []

    def __enter__(self):
        self._hook = torch.nn.modules.module.register_module_forward_pre_hook(self._check)
        return self

    def __exit__(self, *_):
        self._hook.remove()

    def _check(self, module, given):
        if isinstance(module, FCOS):
            self.sizes.append(len(given[0]))
            if len(self.sizes) > self.after and self.sizes[-1] > self.room:
                raise RuntimeError(
                    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: "
                    "can't allocate memory: you tried to allocate 9 bytes."
                )


def test_training_continues_with_halved_batches_if_memory_is_too_small(drawn):
    def learn():
        return train_detector(drawn.examples, class_names=CLASSES, policy=steps(3), seed=1)

    whole = learn()
    with Tight(2, after=1) as tight:
        halved = learn()
    assert tight.sizes == [4, 4, 2, 2, 2, 2]
    assert (whole.images_at_a_time, halved.images_at_a_time) == (4, 2)
    assert (halved.steps, halved.epochs, halved.device) == (whole.steps, whole.epochs, "cpu")
    # The same steps: only the norms' statistics are of halves.
    assert halved.final_loss == pytest.approx(whole.final_loss, rel=0.2)
    with Tight(0), pytest.raises(ModelError, match=r"too small for training .*DefaultCPUAlloc"):
        learn()


def test_the_processor_is_used_if_a_single_image_exceeds_the_memory():
    memory, tried = MemoryLimit("cuda", 4), []

    def attempt(size, device):
        tried.append((size, device))
        if device != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")
        return size

    assert memory.run(3, attempt) == 1
    assert tried == [(3, "cuda"), (2, "cuda"), (1, "cuda"), (1, "cpu")]
    assert (memory.device, memory.images) == ("cpu", 1)


def test_the_same_seed_and_steps_give_the_same_weights(drawn):
    def learn(seed):
        torch.rand(3)  # what others draw must not matter
        return train_detector(drawn.examples, class_names=CLASSES, policy=steps(3), seed=seed).state

    first = learn(1)
    assert learn(1) == first
    assert learn(2) != first


def test_the_policy_can_ask_for_steps_instead_of_time(drawn):
    policy = SHORT.model_copy(update={"steps": 3})

    def learn():
        return train_detector(drawn.examples, class_names=CLASSES, policy=policy, seed=1)

    first, again = learn(), learn()
    assert (first.steps, again.state) == (3, first.state)
    assert again.final_loss == first.final_loss


def test_images_are_used_in_proportion_to_their_weights(drawn):
    heavy, never = drawn.examples[0].image_id, drawn.examples[1].image_id
    order = _order(drawn.examples, {heavy: 6.5, never: 0.0}, np.random.default_rng(0))
    passes = [order() for _ in range(200)]
    counts = np.bincount(np.concatenate(passes), minlength=12) / 200
    # Weights add up to 6.5 + 0 + 10: twelve images a pass are 12 / 16.5 for each 1 of weight.
    assert counts[1] == 0
    assert counts[0] == pytest.approx(6.5 * 12 / 16.5, abs=0.1)
    assert counts[2:] == pytest.approx(np.full(10, 12 / 16.5), abs=0.12)
    assert {len(one) for one in passes} == {12}
    with pytest.raises(DataError, match="numbers of at least 0"):
        train_detector(
            drawn.examples, class_names=CLASSES, policy=SHORT, seed=0, weights={heavy: -1.0}
        )


def test_weights_of_one_for_all_change_nothing(drawn):
    def learn(weights):
        return train_detector(
            drawn.examples,
            class_names=CLASSES,
            policy=steps(2),
            seed=1,
            weights=weights,
        ).state

    assert learn({one.image_id: 1.0 for one in drawn.examples}) == learn(None)


def test_boxes_of_training_tiles_are_at_the_objects_of_the_image(tmp_path):
    pixels = np.zeros((100, 260, 3), dtype=np.uint8)
    boxes = np.array([[20.0, 30, 50, 60], [90, 10, 120, 40], [245, 90, 260, 100]])
    for x1, y1, x2, y2 in boxes.astype(int):
        pixels[y1:y2, x1:x2] = 255
    Image.fromarray(pixels).save(tmp_path / "large.png")
    whole = TrainingExample("large", tmp_path / "large.png", boxes, ["red", "blue", "red"])
    tiles = tile_examples(whole, width=260, height=100, side=100)
    # Three columns, at 0, 80 and 160; the second object is cut to a third by the first of them.
    assert [one.window for one in tiles] == [(x, 0, x + 100, 100) for x in (0, 80, 160)]
    assert [list(one.class_names) for one in tiles] == [["red", "blue"], ["blue"], ["red"]]
    assert {one.image_id for one in tiles} == {"large"}
    for tile in tiles:
        sample = SampleCache([tile], CLASSES, 100)[0]
        drawn = np.zeros((100, 100), dtype=bool)
        for x1, y1, x2, y2 in sample.boxes.astype(int):
            drawn[y1:y2, x1:x2] = True
        assert (drawn == (sample.pixels[..., 0] > 0)).all()
    assert tile_examples(whole, width=260, height=100, side=260) == []


def test_training_continues_from_a_model(drawn, trained, tmp_path):
    path = tmp_path / "before.pt"
    path.write_bytes(trained.state)
    policy = SHORT.model_copy(update={"image_width": 128})
    shares = []
    further = train_detector(
        drawn.examples,
        class_names=CLASSES,
        policy=policy,
        seed=5,
        options=TrainingOptions(path, shares.append),
    )
    assert further.final_loss < 1.5
    assert len(further.started_from) == 64
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    wrong = policy.model_copy(update={"weights": str(path), "weights_sha256": "0" * 64})
    with pytest.raises(ModelError, match=r"before\.pt: refused: its SHA-256 is"):
        train_detector(drawn.examples, class_names=CLASSES, policy=wrong, seed=0)
    with pytest.raises(ModelError, match="the weights cannot be read"):
        train_detector(
            drawn.examples,
            class_names=CLASSES,
            policy=SHORT,
            seed=0,
            options=TrainingOptions(tmp_path / "no"),
        )


def test_images_without_boxes_and_boxes_without_area_do_no_harm(drawn):
    image = drawn.examples[0]
    nothing = TrainingExample("empty", image.path, np.zeros((0, 4)), [])
    flat = TrainingExample("flat", image.path, np.array([[5.0, 5, 5, 20]]), ["red"])
    result = train_detector([image, nothing, flat], class_names=CLASSES, policy=steps(2), seed=0)
    assert (result.setup.images, result.skipped_steps) == (3, 0)
    with pytest.raises(NotReadyError, match="none of the 2 images has a box"):
        train_detector([nothing, flat], class_names=CLASSES, policy=SHORT, seed=0)
    with pytest.raises(NotReadyError, match="no image to train on"):
        train_detector([], class_names=CLASSES, policy=SHORT, seed=0)


def test_errors_name_wrong_examples(drawn, tmp_path):
    def learn(path, boxes, names):
        example = TrainingExample("the-image", path, np.array(boxes, dtype=float), names)
        return train_detector([example], class_names=CLASSES, policy=SHORT, seed=0)

    path = drawn.examples[0].path
    with pytest.raises(DataError, match="the-image: class 'green' is not in the ontology"):
        learn(path, [[0, 0, 9, 9]], ["green"])
    with pytest.raises(DataError, match="the-image: 1 boxes, 0 classes"):
        learn(path, [[0, 0, 9, 9]], [])
    with pytest.raises(DataError, match="the-image: 1 boxes, 1 classes; every box needs four num"):
        learn(path, [[0, 0, float("nan"), 9]], ["red"])
    with pytest.raises(DataError, match=r"gone\.png: the image cannot be read"):
        learn(tmp_path / "gone.png", [[0, 0, 9, 9]], ["red"])
    (tmp_path / "half.png").write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"half\.png: damaged image"):
        learn(tmp_path / "half.png", [[0, 0, 9, 9]], ["red"])


def test_resizing_keeps_the_proportions():
    pixels, scale = resize(np.zeros((100, 400, 3), dtype=np.uint8), side=320)
    assert pixels.shape == (80, 320, 3)
    assert scale == pytest.approx([0.8, 0.8, 0.8, 0.8])
    assert resize(np.zeros((1000, 1, 3), dtype=np.uint8), side=320)[0].shape == (320, 1, 3)


def test_boxes_follow_the_pixels_through_every_augmentation():
    pixels = np.zeros((80, 120, 3), dtype=np.uint8)
    pixels[20:50, 30:90] = 255
    sample = Sample(pixels, np.array([[30.0, 20, 90, 50]]), np.array([1]))
    rng = np.random.default_rng(0)
    variation = Augmentation(brightness=0.0, contrast=0.0, upside_down_rate=0.5)
    for _ in range(40):
        varied = augment(sample, variation, rng)
        rows, columns = np.nonzero(varied.pixels[..., 1] > 200)
        bright = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert varied.boxes[0] == pytest.approx(bright, abs=1.5)
