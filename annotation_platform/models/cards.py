"""Model cards: the facts stored with a file of weights."""

import hashlib
import json

from pydantic import BaseModel, ConfigDict, ValidationError

from annotation_platform.errors import ModelError
from annotation_platform.policy import TrainingPolicy

SMALL_FCOS = "small-fcos"
RESNET50_FCOS = "fcos-resnet50"
ARCHITECTURES = (SMALL_FCOS, RESNET50_FCOS)
SMALL_RESNET = "small-resnet"
RESNET18 = "resnet18"
CLASSIFIERS = (SMALL_RESNET, RESNET18)


class ModelCard(BaseModel):
    """Origin and classes of weights; ``started_from`` is a SHA-256, a name or empty."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str
    class_names: tuple[str, ...]
    image_width: int
    dataset_tag: str
    started_from: str
    train_images: int
    cpu_seconds: float
    seed: int
    policy_digest: str
    # Number of batches, and the limit of the policy that ended the training. 0 and empty: weights
    # of version 0.1.0, which did not record them.
    steps: int = 0
    ended_by: str = ""
    # By profile, the digest of the calibration that was fitted when the model was trained.
    calibrations: dict[str, str] = {}
    # Augmentation of the training images; test images are never augmented.
    augmentation: dict[str, float | tuple[float, float]] = {}

    def to_json(self) -> str:
        """Return the card as indented JSON."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str) -> "ModelCard":
        """Return the card in ``text``; a damaged one is a ModelError naming ``where``."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ModelError(
                f"{where}: not a model card: {error.errors()[0]['msg']}. Train the model again."
            ) from error


def policy_digest(policy: TrainingPolicy) -> str:
    """Return the SHA-256 of the training policy's content."""
    text = json.dumps(policy.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
