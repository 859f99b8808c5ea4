import numpy as np
import pytest

from annotation_platform.models.detection.profiles import ProfiledDetector, profile_name
from annotation_platform.policy import ProfilePolicy
from annotation_platform.schema.geometry import as_boxes

RED, BLUE = (220, 50, 40), (40, 60, 220)
OBJECTS = {"red": [[30, 20, 60, 50], [190, 90, 215, 130]], "blue": [[95, 100, 125, 128]]}


@pytest.fixture
def image():
    pixels = np.full((200, 300, 3), 100, dtype=np.uint8)
    for name, color in (("red", RED), ("blue", BLUE)):
        for x1, y1, x2, y2 in OBJECTS[name]:
            pixels[y1:y2, x1:x2] = color
    return pixels


def detected(members, images, **settings):
    detector = ProfiledDetector(members, name="labelling", policy=ProfilePolicy(**settings))
    return detector.predict(images)


def found(detections):
    return sorted(
        [n, *b] for n, b in zip(detections.class_names, detections.boxes.tolist(), strict=True)
    )


EVERYTHING = sorted([name, *box] for name, boxes in OBJECTS.items() for box in boxes)


@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        pytest.param({}, 1, id="one view"),
        pytest.param({"flips": True}, 2, id="mirrored too"),
        # 300 x 200 in tiles of 100 that share 20: 4 columns, 3 rows, and the whole.
        pytest.param({"tile_side": 100}, 13, id="tiles"),
        pytest.param({"tile_side": 100, "flips": True}, 26, id="tiles, mirrored too"),
        pytest.param({"tile_side": 300, "flips": True}, 2, id="no larger than a tile"),
        pytest.param(
            {"tile_side": 100, "flips": True, "maximum_passes": 9}, 8, id="4 for each view"
        ),
        pytest.param({"tile_side": 100, "flips": True, "maximum_passes": 1}, 1, id="one pass"),
    ],
)
def test_every_profile_finds_each_object_once_at_its_position(
    image, color_detector, settings, passes
):
    member = color_detector()
    fused = detected([member], [image], **settings)[0]
    assert found(fused) == EVERYTHING
    assert fused.scores == pytest.approx(np.ones(3))
    assert fused.passes == passes == len(member.sizes)


def test_images_of_different_sizes_can_be_in_one_call(image, color_detector):
    small = image[:60, :70]
    empty = np.zeros((10, 10, 3), dtype=np.uint8)
    fused = detected([color_detector()], [empty, image, small], tile_side=100, flips=True)
    assert [found(one) for one in fused] == [[], EVERYTHING, [["red", 30, 20, 60, 50]]]
    assert [one.passes for one in fused] == [2, 26, 2]
    assert detected([color_detector()], [], flips=True) == []


def test_different_members_are_averaged_and_the_digest_is_the_newest_ones(image, color_detector):
    new, old = color_detector("1" * 64, score=0.9), color_detector("2" * 64, score=0.5)
    policy = ProfilePolicy(ensemble=2)
    detector = ProfiledDetector([new, old, color_detector()], name="labelling", policy=policy)
    assert detector.predict([image])[0].scores == pytest.approx([0.7] * 3)
    assert (detector.digest, detector.weights) == ("1" * 64, ("1" * 64, "2" * 64))


def test_a_member_without_a_pass_is_not_among_the_weights(image, color_detector):
    members = [color_detector("1" * 64), color_detector("2" * 64)]
    policy = ProfilePolicy(ensemble=2, flips=True, maximum_passes=2)
    detector = ProfiledDetector(members, name="labelling", policy=policy)
    assert detector.predict([image])[0].passes == 2
    assert detector.weights == ("1" * 64,)
    assert [len(one.sizes) for one in members] == [2, 0]


def test_boxes_with_a_low_fused_score_are_left_out(image, color_detector):
    members = [color_detector(score=0.9), color_detector(score=0.1)]
    detector = ProfiledDetector(members, name="l", policy=ProfilePolicy(ensemble=2))
    assert found(detector.predict([image], minimum_score=0.4)[0]) == EVERYTHING
    assert detector.predict([image], minimum_score=0.6)[0].boxes.tolist() == as_boxes([]).tolist()


def test_the_name_of_a_profile_identifies_its_settings():
    serving = profile_name("serving", ProfilePolicy())
    assert serving.startswith("serving@")
    assert serving == profile_name("serving", ProfilePolicy())
    assert serving != profile_name("serving", ProfilePolicy(flips=True))
