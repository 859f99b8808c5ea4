"""Simulated models of known skill: their detections in drawn images, without training."""

import numpy as np

from annotation_platform.models.evaluation.coco_metrics import CocoFigures
from annotation_platform.models.evaluation.evaluation import Evaluation
from annotation_platform.models.evaluation.matches import Matches, drawn_figures, mean_over_classes

_SHARES = np.array([2.4, 1.2, 0.4])  # objects of each class in an image


class SimulatedImages:
    """Images with objects of three classes, whose difficulty is the same for every model."""

    def __init__(self, rng: np.random.Generator, images: int) -> None:
        self.rng = rng
        self.images = images
        self.truth = rng.poisson(_SHARES, (images, 3))
        image, cls = np.nonzero(self.truth)
        times = self.truth[image, cls]
        self.image, self.cls = np.repeat(image, times), np.repeat(cls, times)
        hard = rng.normal(0, 0.8, images)
        self.ease = 1 - hard[self.image] - rng.normal(0, 0.8, len(self.image))
        self.junk_image = np.repeat(np.arange(images), rng.poisson(2, images))
        self.junk_class = rng.integers(3, size=len(self.junk_image))
        self.junk_score = rng.beta(2, 4, len(self.junk_image))

    def matches(self, skill: float) -> Matches:
        """Return the detections of a model of this skill; 0.2 more is about 0.045 more mAP."""
        noise = self.rng.normal(size=(3, len(self.image)))
        sure = 1 / (1 + np.exp(-(skill + self.ease + 0.6 * noise[0])))
        iou = 0.35 + 0.65 * np.clip(sure + 0.12 * noise[1], 0, 1)
        right = iou >= np.arange(0.5, 1, 0.05)[:, None]
        nothing = np.zeros((10, len(self.junk_image)), dtype=bool)
        right = np.concatenate([right, nothing], axis=1)
        scores = np.clip(0.15 + 0.7 * sure + 0.15 * noise[2], 0, 1)
        return Matches(
            scores=np.concatenate([scores, self.junk_score]),
            images=np.concatenate([self.image, self.junk_image]),
            classes=np.concatenate([self.cls, self.junk_class]),
            right=right,
            wrong=~right,
            truth=self.truth,
            image_ids=list(range(self.images)),
            class_ids=[1, 2, 3],
        )

    def evaluation(self, skill: float) -> Evaluation:
        """Return the evaluation of a model of this skill."""
        matches = self.matches(skill)
        drawn = drawn_figures(matches, np.ones((1, self.images), dtype=np.int64))
        ap, ap50 = (float(mean_over_classes(each)[0]) for each in (drawn.ap, drawn.ap50))
        figures = CocoFigures({"ap": ap, "ap50": ap50}, {}, lambda _size: matches)
        return Evaluation(map50=ap50, map=ap, per_class={}, images=self.images, coco=figures)


def true_map(skill: float) -> float:
    """Return the mAP of a model of this skill on enough images to make chance negligible."""
    return SimulatedImages(np.random.default_rng(99), 20_000).evaluation(skill).map
