"""The images that annotators see: copies with masks where the policy masks classes.

Copies are in ``shown/`` of the lake. The name of a copy contains a digest of its masks, so a copy
never changes, and another model or policy makes another copy.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from annotation_platform.errors import NotReadyError, SettingsError
from annotation_platform.images.accepted import accepted_images
from annotation_platform.images.masking import MaskRegion, MaskStyle, masked_image, masked_regions
from annotation_platform.images.parallel import map_each
from annotation_platform.policy import MaskingPolicy
from annotation_platform.schema.geometry import BOX_COLUMNS, as_boxes
from annotation_platform.schema.keys import image_key, shown_key
from annotation_platform.schema.tables import CleanedImages, ModelPredictions, PredictedImages
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.objects import ObjectStore

ClassesOf = Callable[[str], Collection[str]]
"""Returns the classes that the model with these weights (SHA-256) can predict."""

_METHOD = 1
"""The version of the masking method: a new method gives new names."""


@dataclass(frozen=True)
class _Copy:
    """A shown image: its key in the lake, the key of the original, and the masked regions."""

    key: str
    original: str
    regions: Sequence[MaskRegion]


@dataclass(frozen=True)
class _CreateCopy:
    """Creates a copy if it is missing."""

    store: ObjectStore
    style: MaskStyle

    def __call__(self, copy: _Copy) -> None:
        if self.store.exists(copy.key):
            return
        if copy.regions:
            masked = masked_image(self.store.get(copy.original), copy.regions, style=self.style)
            self.store.create(copy.key, masked)
        else:
            self.store.copy(copy.original, copy.key)


class ShownImages:
    """The images that annotators see, by the policy and each image's latest predictions.

    Without classes to mask they are the cleaned images themselves, and no model is needed.

    Args:
        lake: the store of images, predictions and copies.
        policy: the masked classes, and the method.
        classes_of: the classes that a model can predict; a model without a class masks none of it.
    """

    def __init__(self, lake: Lake, policy: MaskingPolicy, classes_of: ClassesOf) -> None:
        self._lake = lake
        self._policy = policy
        self._classes_of = classes_of

    @property
    def hidden(self) -> frozenset[str]:
        """The masked classes."""
        return frozenset(self._policy.classes)

    def keys(self, image_ids: Iterable[str]) -> dict[str, str]:
        """Return the lake's key of each image as annotators see it; missing copies are created.

        Raises:
            NotReadyError: an image has no predictions.
            SettingsError: the model that predicted does not know a masked class.
        """
        wanted = sorted(set(image_ids))
        if not self.hidden:
            extensions = self._images["extension"]
            return {image: image_key(image, str(extensions[image])) for image in wanted}
        self.check(wanted)
        copies = self._copies(wanted)
        make = _CreateCopy(self._lake.store, self._policy.style)
        for _ in map_each(make, list(copies.values())):
            pass
        return {image: copy.key for image, copy in copies.items()}

    def check(self, image_ids: Iterable[str]) -> None:
        """Raise the errors of ``keys`` without creating copies; called before publishing."""
        wanted = sorted(set(image_ids))
        if not self.hidden:
            return
        names = ", ".join(sorted(self.hidden))
        missing = [image for image in wanted if image not in self._weights]
        if missing:
            raise NotReadyError(
                f"{len(missing)} of {len(wanted)} images cannot be shown: `masking.classes`"
                f" ({names}) must be masked in them, and they have no predictions. Promote a model"
                " that predicts these classes and materialise model_predictions of this round"
                " again; or empty `masking.classes` in params.yaml."
            )
        for weights in sorted({self._weights[image] for image in wanted}):
            able = {name for each in weights.split(",") for name in self._classes_of(each)}
            unknown = sorted(self.hidden - able)
            if unknown:
                raise SettingsError(
                    f"masking.classes: {unknown[0]} is not a class of the model {weights[:12]} that"
                    f" predicted on the images; it has {', '.join(sorted(able))}. Correct the name,"
                    " or materialise model_predictions with a model that has the class."
                )

    def showable(self, image_ids: Iterable[str]) -> set[str]:
        """Return the images that have the predictions that masking needs."""
        wanted = set(image_ids)
        return wanted & set(self._weights) if self.hidden else wanted

    def masked(self, image_ids: Iterable[str]) -> int:
        """Return how many of these images have masked regions."""
        if not self.hidden:
            return 0
        return sum(bool(copy.regions) for copy in self._copies(sorted(set(image_ids))).values())

    def _copies(self, image_ids: Sequence[str]) -> dict[str, _Copy]:
        boxes = {
            image: rows[BOX_COLUMNS]
            for image, rows in self._boxes.groupby(ModelPredictions.image_id)
        }
        copies = {}
        for image, extension, width, height in self._images.loc[list(image_ids)].itertuples():
            regions = masked_regions(
                as_boxes(boxes.get(image, ())),
                width=width,
                height=height,
                margin=self._policy.margin,
            )
            content = json.dumps([_METHOD, self._policy.style, regions])
            digest = hashlib.sha256(content.encode()).hexdigest()[:12]
            original = image_key(image, extension)
            copies[image] = _Copy(shown_key(image, digest, extension), original, regions)
        return copies

    @cached_property
    def _images(self) -> pd.DataFrame:
        """Extension, width and height of every accepted image, by its id."""
        images = accepted_images(self._lake.tables).drop_duplicates(CleanedImages.image_id)
        columns = [CleanedImages.extension, CleanedImages.width, CleanedImages.height]
        return images.set_index(CleanedImages.image_id)[columns]

    @cached_property
    def _latest(self) -> pd.DataFrame:
        """The round and weights of each image's latest predictions."""
        predicted = self._lake.tables.read_all(PredictedImages)
        return predicted.drop_duplicates(PredictedImages.image_id, keep="last")[
            [PredictedImages.round_id, PredictedImages.image_id, PredictedImages.weights]
        ]

    @cached_property
    def _weights(self) -> dict[str, str]:
        return dict(
            zip(
                self._latest[PredictedImages.image_id],
                self._latest[PredictedImages.weights],
                strict=True,
            )
        )

    @cached_property
    def _boxes(self) -> pd.DataFrame:
        """The boxes to mask, from each image's latest predictions."""
        found = self._lake.tables.read_all(ModelPredictions)
        # Not the calibrated score: calibration lowers the score of classes that are not labelled.
        likely = found[ModelPredictions.raw_score] >= self._policy.minimum_score
        hidden = found[found[ModelPredictions.class_name].isin(self.hidden) & likely]
        return hidden.merge(self._latest[[PredictedImages.round_id, PredictedImages.image_id]])
