import numpy as np
import pytest
import torch
from PIL import Image

from annotation_platform.errors import DataError, ModelError, NotReadyError
from annotation_platform.images.decoding import decode
from annotation_platform.models.detector import PREDICTION_COLUMNS, Detector, predict_files
from annotation_platform.models.evaluation import evaluate
from annotation_platform.models.pictures import Augmentation, Example, Sample, augment, fit
from annotation_platform.models.training import train_detector
from annotation_platform.params import TrainingPolicy
from annotation_platform.schema.geometry import iou_matrix

CLASSES = ["blue", "red"]
SHORT = TrainingPolicy(cpu_seconds=1, image_width=96, batch_size=4)


@pytest.fixture(scope="module")
def detector(trained):
    return Detector.from_bytes(trained.state, where="trained", device="cpu")


def test_it_learns_what_it_is_shown(detector, drawn, trained):
    found = predict_files(detector, {one.image_id: one.path for one in drawn.examples})
    # Twelve pictures by heart: near one. Chance is near zero.
    assert evaluate(drawn.dataset, found).map50 > 0.6
    assert list(found.columns) == PREDICTION_COLUMNS
    assert trained.images == 12
    assert trained.epochs > 5
    assert 10 <= trained.cpu_seconds < 14
    assert 0 < trained.final_loss < 2


def test_boxes_are_in_pixels_of_the_picture_that_was_given(detector, drawn):
    example = drawn.examples[0]
    pixels = decode(example.path.read_bytes())
    tall = np.asarray(Image.fromarray(pixels).resize((360, 240)))
    for picture, factor in ((pixels, 1), (tall, 3)):
        found = detector.predict([picture], minimum_score=0.2)[0]
        overlap = iou_matrix(example.boxes * factor, found.boxes)
        best = overlap.argmax(axis=1)
        assert overlap.max(axis=1) == pytest.approx(1.0, abs=0.4)
        assert [found.class_names[index] for index in best] == list(example.class_names)
        height, width = picture.shape[:2]
        assert (found.boxes >= 0).all()
        assert (found.boxes <= [width, height, width, height]).all()
        assert (np.diff(found.scores) <= 0).all()


def test_pictures_of_any_size_are_looked_at_in_order(detector):
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


def test_the_same_seed_and_steps_give_the_same_weights(drawn):
    def learn(seed):
        torch.rand(3)  # what others draw must not matter
        return train_detector(
            drawn.examples, class_names=CLASSES, policy=SHORT, seed=seed, maximum_steps=3
        ).state

    first = learn(1)
    assert learn(1) == first
    assert learn(2) != first


def test_training_goes_on_from_a_model(drawn, trained, tmp_path):
    path = tmp_path / "before.pt"
    path.write_bytes(trained.state)
    policy = SHORT.model_copy(update={"image_width": 128})
    shares = []
    further = train_detector(
        drawn.examples,
        class_names=CLASSES,
        policy=policy,
        seed=5,
        start_from=path,
        progress=shares.append,
    )
    assert further.final_loss < 1.5
    assert len(further.started_from) == 64
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    with pytest.raises(ModelError, match="the weights cannot be read"):
        train_detector(
            drawn.examples, class_names=CLASSES, policy=SHORT, seed=0, start_from=tmp_path / "no"
        )


def test_pictures_without_boxes_and_boxes_without_area_do_no_harm(drawn):
    picture = drawn.examples[0]
    nothing = Example("empty", picture.path, np.zeros((0, 4)), [])
    flat = Example("flat", picture.path, np.array([[5.0, 5, 5, 20]]), ["red"])
    result = train_detector(
        [picture, nothing, flat], class_names=CLASSES, policy=SHORT, seed=0, maximum_steps=2
    )
    assert (result.images, result.skipped_steps) == (3, 0)
    with pytest.raises(NotReadyError, match="none of the 2 pictures has a box"):
        train_detector([nothing, flat], class_names=CLASSES, policy=SHORT, seed=0)
    with pytest.raises(NotReadyError, match="no picture to learn from"):
        train_detector([], class_names=CLASSES, policy=SHORT, seed=0)


def test_wrong_examples_are_named(drawn, tmp_path):
    def learn(path, boxes, names):
        example = Example("the-image", path, np.array(boxes, dtype=float), names)
        return train_detector([example], class_names=CLASSES, policy=SHORT, seed=0)

    path = drawn.examples[0].path
    with pytest.raises(DataError, match="the-image: class 'green' is not in the ontology"):
        learn(path, [[0, 0, 9, 9]], ["green"])
    with pytest.raises(DataError, match="the-image: 1 boxes, 0 classes"):
        learn(path, [[0, 0, 9, 9]], [])
    with pytest.raises(DataError, match="the-image: 1 boxes, 1 classes; every box needs four num"):
        learn(path, [[0, 0, float("nan"), 9]], ["red"])
    with pytest.raises(DataError, match=r"gone\.png: the picture cannot be read"):
        learn(tmp_path / "gone.png", [[0, 0, 9, 9]], ["red"])
    (tmp_path / "half.png").write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"half\.png: damaged image"):
        learn(tmp_path / "half.png", [[0, 0, 9, 9]], ["red"])


def test_fitting_keeps_the_proportions():
    pixels, scale = fit(np.zeros((100, 400, 3), dtype=np.uint8), side=320)
    assert pixels.shape == (80, 320, 3)
    assert scale == pytest.approx([0.8, 0.8, 0.8, 0.8])
    assert fit(np.zeros((1000, 1, 3), dtype=np.uint8), side=320)[0].shape == (320, 1, 3)


def test_boxes_follow_the_pixels_through_every_variation():
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
