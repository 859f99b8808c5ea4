"""What people see of an image where policy keeps something from them: a copy with masks.

Copies lie under ``shown/`` in the lake. Their names say what was masked, so a copy never changes,
and another model or policy makes another one.
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
from annotation_platform.schema.tables import ModelPredictions, PredictedImages
from annotation_platform.storage.keys import image_key, shown_key
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.objects import ObjectStore

ClassesOf = Callable[[str], Collection[str]]
"""Returns the classes that the model of these weights (SHA-256) may propose."""

_MADE_BY = 1
"""Counts how masks were ever painted: another way gives another name."""


@dataclass(frozen=True)
class _Copy:
    """An image as people see it: the lake's key, whose copy it is, and what is masked."""

    key: str
    original: str
    regions: Sequence[MaskRegion]


@dataclass(frozen=True)
class _Make:
    """Makes a copy, if it is not there yet."""

    store: ObjectStore
    way: MaskStyle

    def __call__(self, copy: _Copy) -> None:
        if self.store.exists(copy.key):
            return
        if copy.regions:
            masked = masked_image(self.store.get(copy.original), copy.regions, way=self.way)
            self.store.create(copy.key, masked)
        else:
            self.store.copy(copy.original, copy.key)


class ShownImages:
    """The images that people see, by the policy and the latest look of a model at each.

    Without classes to mask they are the cleaned images themselves, and no model is needed.

    Args:
        lake: where everything is kept.
        policy: what is masked, and how.
        classes_of: tells what a model can propose: one that does not know a class masks none.
    """

    def __init__(self, lake: Lake, policy: MaskingPolicy, classes_of: ClassesOf) -> None:
        self._lake = lake
        self._policy = policy
        self._classes_of = classes_of

    @property
    def hidden(self) -> frozenset[str]:
        """The classes that people must not see."""
        return frozenset(self._policy.classes)

    def keys(self, image_ids: Iterable[str]) -> dict[str, str]:
        """Return where in the lake what people see of each image is; it is made if it is not there.

        Raises:
            NotReadyError: no model has looked at one of them.
            SettingsError: the model that did does not know a class to be masked.
        """
        wanted = sorted(set(image_ids))
        if not self.hidden:
            extensions = self._images["extension"]
            return {image: image_key(image, str(extensions[image])) for image in wanted}
        self.check(wanted)
        copies = self._copies(wanted)
        make = _Make(self._lake.store, self._policy.way)
        for _ in map_each(make, list(copies.values())):
            pass
        return {image: copy.key for image, copy in copies.items()}

    def check(self, image_ids: Iterable[str]) -> None:
        """Raise what ``keys`` raises, and make nothing: nobody sees an image before this passes."""
        wanted = sorted(set(image_ids))
        if not self.hidden:
            return
        names = ", ".join(sorted(self.hidden))
        bare = [image for image in wanted if image not in self._looks]
        if bare:
            raise NotReadyError(
                f"{len(bare)} of {len(wanted)} images are not shown to anybody: `masking.classes`"
                f" ({names}) is to be masked in them, and no model has looked at them. Promote a"
                " model that proposes these classes and materialise model_predictions of this"
                " round again; or empty `masking.classes` in params.yaml."
            )
        for weights in sorted({self._looks[image] for image in wanted}):
            able = {name for each in weights.split(",") for name in self._classes_of(each)}
            unknown = sorted(self.hidden - able)
            if unknown:
                raise SettingsError(
                    f"masking.classes: {unknown[0]} is no class of the model {weights[:12]} that"
                    f" looked at the images; it knows {', '.join(sorted(able))}. Correct the"
                    " name, or materialise model_predictions with a model that knows it."
                )

    def showable(self, image_ids: Iterable[str]) -> set[str]:
        """Return those images that ``check`` does not refuse for want of a look."""
        wanted = set(image_ids)
        return wanted & set(self._looks) if self.hidden else wanted

    def masked(self, image_ids: Iterable[str]) -> int:
        """Return in how many of these images something is masked."""
        if not self.hidden:
            return 0
        return sum(bool(copy.regions) for copy in self._copies(sorted(set(image_ids))).values())

    def _copies(self, image_ids: Sequence[str]) -> dict[str, _Copy]:
        boxes = {image: rows[BOX_COLUMNS] for image, rows in self._boxes.groupby("image_id")}
        copies = {}
        for image, extension, width, height in self._images.loc[list(image_ids)].itertuples():
            regions = masked_regions(
                as_boxes(boxes.get(image, ())),
                width=width,
                height=height,
                margin=self._policy.margin,
            )
            said = json.dumps([_MADE_BY, self._policy.way, regions])
            digest = hashlib.sha256(said.encode()).hexdigest()[:12]
            original = image_key(image, extension)
            copies[image] = _Copy(shown_key(image, digest, extension), original, regions)
        return copies

    @cached_property
    def _images(self) -> pd.DataFrame:
        """Extension, width and height of every accepted image, by its id."""
        images = accepted_images(self._lake.tables).drop_duplicates("image_id")
        return images.set_index("image_id")[["extension", "width", "height"]]

    @cached_property
    def _latest(self) -> pd.DataFrame:
        """The last look at each image: its round and weights."""
        looks = self._lake.tables.read_all(PredictedImages)
        return looks.drop_duplicates("image_id", keep="last")[["round_id", "image_id", "weights"]]

    @cached_property
    def _looks(self) -> dict[str, str]:
        return dict(zip(self._latest["image_id"], self._latest["weights"], strict=True))

    @cached_property
    def _boxes(self) -> pd.DataFrame:
        """The boxes to be masked, of the last look at each image."""
        found = self._lake.tables.read_all(ModelPredictions)
        # Not the calibrated score: where nobody labels a class, calibration knows it as wrong.
        likely = found["raw_score"] >= self._policy.minimum_score
        hidden = found[found["class_name"].isin(self.hidden) & likely]
        return hidden.merge(self._latest[["round_id", "image_id"]])
