"""The sections of the policy, with their defaults and limits."""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class PolicySection(BaseModel):
    """A section of the policy; files of earlier releases may use other names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    earlier_keys: ClassVar[Mapping[str, str]] = {}
    """Keys of earlier releases, each with its key of today."""

    earlier_values: ClassVar[Mapping[tuple[str, str], str]] = {}
    """Values of earlier releases by key (of today) and value, each with its value of today."""

    @model_validator(mode="before")
    @classmethod
    def _read_earlier_names(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        read: dict[Any, Any] = {}
        for given, value in data.items():
            key = cls.earlier_keys.get(given, given)
            if key in read:
                raise ValueError(f"{key} is given twice, also under its earlier name")
            is_text = isinstance(value, str)
            read[key] = cls.earlier_values.get((key, value), value) if is_text else value
        return read


MetadataField = Literal["source", "captured_at", "geo", "device", "licence", "consent"]
"""Metadata fields of a sidecar that ``cleaning.mandatory_metadata`` can require."""


class RoundPolicy(PolicySection):
    """When arrivals become a round.

    With ``gate: manual`` a sensor creates the round and a person starts it in the Dagster UI.
    """

    gate: Literal["auto", "manual"] = "auto"
    minimum_images: int = Field(default=20, ge=1)
    maximum_images: int = Field(default=1000, ge=1)
    maximum_wait_seconds: float = Field(default=300.0, ge=0)
    settle_seconds: float = Field(default=3.0, ge=0)
    listing_seconds: float = Field(default=300.0, ge=0)


class CleaningPolicy(PolicySection):
    """Which images are good enough to be annotated."""

    minimum_side: int = Field(default=32, ge=1)
    maximum_pixels: int = Field(default=80_000_000, ge=1)
    maximum_frames: int = Field(default=1000, ge=1)
    maximum_bytes: int = Field(default=200_000_000, ge=1)
    minimum_sharpness: float = Field(default=1.0, ge=0)
    minimum_brightness: float = Field(default=4.0, ge=0, le=255)
    maximum_brightness: float = Field(default=251.0, ge=0, le=255)
    duplicate_bits: int = Field(default=6, ge=0, le=64)
    maximum_quarantined_share: float = Field(default=1.0, ge=0, le=1)
    mandatory_metadata: tuple[MetadataField, ...] = ()


class SelectionPolicy(PolicySection):
    """Which images are annotated: how many, by which rules, and how many at random.

    ``budget`` 0 selects every image. ``combined`` gives ``rare_share`` of the budget to classes
    that are rare among the labels so far, ``diverse_share`` to images unlike all others, and the
    remaining budget to images that the model is unsure of by ``measure``; without predictions it
    selects for diversity only. ``calibration_share`` is a random sample of the whole pool, drawn
    first. ``embedder`` names the vectors that similarity is measured by: the layout and colours of
    the image, or the features of the promoted model.
    """

    budget: int = Field(default=0, ge=0)
    strategy: Literal["combined", "uncertainty", "entropy", "diversity", "balance", "random"] = (
        "combined"
    )
    measure: Literal[
        "expected_errors",
        "mean_entropy",
        "max_entropy",
        "sum_entropy",
        "least_confidence",
        "ambiguous_boxes",
    ] = "expected_errors"
    rare_share: float = Field(default=0.4, ge=0, le=1)
    diverse_share: float = Field(default=0.2, ge=0, le=1)
    calibration_share: float = Field(default=0.1, ge=0, le=1)
    outliers: Literal["keep", "drop", "mine"] = "keep"
    embedder: Literal["image", "model"] = "image"
    earlier_keys = {"audit_share": "calibration_share"}
    earlier_values = {("embedder", "picture"): "image"}

    @model_validator(mode="after")
    def _shares_fit(self) -> "SelectionPolicy":
        if self.rare_share + self.diverse_share > 1:
            raise ValueError("rare_share and diverse_share add up to more than 1")
        return self


class LabelingPolicy(PolicySection):
    """How many annotations a task gets, from whom, and with which pre-annotations.

    ``annotations_by_class`` requests more annotations for images on which a class is predicted.
    With ``vote_margin`` above 0 a task gets that many annotations, and then further ones, up to
    ``maximum_annotations``, until the first class leads by that many votes. With
    ``qualify_annotations`` above 0 an annotator gets gold tasks only, until that many are annotated
    and ``qualify_share`` of the decisions in them are right. With ``republish_deleted`` a task that
    was deleted in the back end is published again unless it was annotated. ``backends`` shares new
    tasks between ``label-studio`` and ``handoff``, packages for a vendor.
    """

    earlier_keys = {
        "answers_per_task": "annotations_per_task",
        "answers_by_class": "annotations_by_class",
        "stop_at_lead": "vote_margin",
        "most_answers": "maximum_annotations",
        "most_annotations": "maximum_annotations",
        "qualify_answers": "qualify_annotations",
        "blind_share": "without_predictions_share",
        "resend_lost": "republish_deleted",
        "ask_about_imported": "annotate_imported",
    }

    annotations_per_task: int = Field(default=1, ge=1, le=25)
    annotations_by_class: dict[str, int] = Field(default={})
    vote_margin: int = Field(default=0, ge=0, le=10)
    maximum_annotations: int = Field(default=7, ge=1, le=25)
    expertise: str = ""
    expertise_by_class: dict[str, str] = Field(default={})
    qualify_annotations: int = Field(default=0, ge=0)
    qualify_share: float = Field(default=0.8, ge=0, le=1)
    preannotate: bool = True
    minimum_score: float = Field(default=0.5, ge=0, le=1)
    without_predictions_share: float = Field(default=0.0, ge=0, le=1)
    gold_share: float = Field(default=0.0, ge=0, le=1)
    gold_origins: tuple[str, ...] = ()
    deadline_hours: float = Field(default=0.0, ge=0)
    minimum_share: float = Field(default=0.0, ge=0, le=1)
    republish_deleted: bool = False
    backends: dict[str, float] = Field(default={})
    annotate_imported: bool = False

    @model_validator(mode="after")
    def _numbers_fit(self) -> "LabelingPolicy":
        for name, annotations in self.annotations_by_class.items():
            if not 1 <= annotations <= 25:
                raise ValueError(f"annotations_by_class: {name}: {annotations} is not 1 to 25")
        if self.vote_margin > self.maximum_annotations:
            raise ValueError("vote_margin is above maximum_annotations")
        if any(share < 0 for share in self.backends.values()) or (
            self.backends and not sum(self.backends.values())
        ):
            raise ValueError("backends: shares are not negative, and one of them is above 0")
        return self

    def first_annotations(self, predicted: Collection[str]) -> int:
        """Return the first number of annotations of an image on which these classes are
        predicted."""
        by_class = [self.annotations_by_class.get(name, 0) for name in predicted]
        return self.vote_margin or max([self.annotations_per_task, *by_class])


class MaskingPolicy(PolicySection):
    """What annotators must not see: every object that a model predicts as one of ``classes``.

    The classes are named as the model names them and need not be in the ontology. A box counts
    from the model's own ``minimum_score`` on, grows by ``margin`` of its sides at each side, and is
    made unreadable: ``blur`` keeps 16 colours of it, ``grey`` none.
    """

    earlier_keys = {"way": "style"}

    classes: tuple[str, ...] = ()
    minimum_score: float = Field(default=0.2, ge=0, le=1)
    margin: float = Field(default=0.15, ge=0, le=1)
    style: Literal["blur", "grey"] = "blur"


class ReviewPolicy(PolicySection):
    """Who decides where annotators disagree, and what happens to an image until then.

    With ``gate: manual`` images with a conflict that no rule settles become review tasks, and so
    does a random share of the other images. ``undecided`` says whether the release waits for them
    or holds out and lists those images. With ``gate: auto`` there is no review, and they are held
    out.
    """

    gate: Literal["auto", "manual"] = "auto"
    undecided: Literal["wait", "hold_out"] = "wait"
    sample_share: float = Field(default=0.0, ge=0, le=1)


class DriftPolicy(PolicySection):
    """When a round counts as drifted, and whether it is annotated then.

    A feature has drifted if it differs by at least ``minimum_effect`` and chance alone causes that
    in less than ``level`` of all rounds. With ``gate: hold`` a drifted round is not annotated until
    a person has examined it; with ``warn`` an asset check warns.
    """

    earlier_keys = {"least_effect": "minimum_effect"}

    gate: Literal["warn", "hold"] = "warn"
    level: float = Field(default=0.01, gt=0, lt=1)
    minimum_effect: float = Field(default=0.25, ge=0, le=1)


Pseudonym = Annotated[str, Field(pattern="^annotator-[0-9a-f]{10}$")]


class ConsensusPolicy(PolicySection):
    """How several annotations become one set of labels.

    The annotations and reviews of the ``disregarded`` annotators, named by pseudonym, no longer
    count in rounds that are merged from now on. They stay in the ledger, and images without any
    other annotation are annotated again.
    """

    iou_threshold: float = Field(default=0.5, gt=0, le=1)
    disregarded: tuple[Pseudonym, ...] = ()


class ErasurePolicy(PolicySection):
    """What is erased together with an image.

    Its duplicates always are. With ``near_duplicates`` so is its whole group: crops, stamped or
    mirrored copies, and the images before and after it that resemble it.
    """

    near_duplicates: bool = True


class AutoAcceptPolicy(PolicySection):
    """Which predictions may become labels without a person.

    At most ``alpha`` of the accepted labels is wrong or missed, and at most ``class_alpha`` of each
    class (0: no bound per class), except with probability ``delta``. A batch that differs from the
    calibration sample at ``drift_level`` is refused. ``recheck_share`` of the accepted images is
    annotated nevertheless, without predictions.
    """

    earlier_keys = {"reaudit_share": "recheck_share"}

    enabled: bool = False
    alpha: float = Field(default=0.05, gt=0, lt=1)
    class_alpha: float = Field(default=0.15, ge=0, lt=1)
    delta: float = Field(default=0.1, gt=0, lt=1)
    minimum_probability: float = Field(default=0.5, gt=0, le=1)
    drift_level: float = Field(default=0.01, gt=0, lt=1)
    recheck_share: float = Field(default=0.05, ge=0, le=1)
    use_in_training: bool = True


class LabelIssuePolicy(PolicySection):
    """Which labels are suspected to be wrong.

    ``error_rate`` is the assumed share of wrong labels; a label is suspected if it is wrong with at
    least ``minimum_probability``.
    """

    error_rate: float = Field(default=0.05, gt=0, lt=1)
    minimum_probability: float = Field(default=0.3, gt=0, le=1)


class ReleasePolicy(PolicySection):
    """When a version may be published.

    With ``gate: manual`` a person launches the release of a round in the Dagster UI; with ``auto``
    a
    sensor does once its labels are final. With ``maximum_label_error`` above 0 a review sample must
    show, for every origin, that at most this share of the labels is wrong: the upper end of the
    confidence interval counts.
    """

    gate: Literal["auto", "manual"] = "auto"
    maximum_label_error: float = Field(default=0.0, ge=0, le=1)


class SplitPolicy(PolicySection):
    """Shares of the three splits, and which images are never divided between splits.

    Near-duplicates never are. ``keep_together`` names metadata, such as ``source`` or a field of
    the sidecar: images with equal values go into one split. With one source for all images nothing
    is left to test on.
    """

    train: float = Field(default=0.7, ge=0, le=1)
    val: float = Field(default=0.1, ge=0, le=1)
    test: float = Field(default=0.2, ge=0, le=1)
    keep_together: tuple[str, ...] = ("video",)

    @model_validator(mode="after")
    def _adds_up(self) -> "SplitPolicy":
        total = self.train + self.val + self.test
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"train, val and test add up to {total:g}, not to 1")
        return self


class TrainingPolicy(PolicySection):
    """How the detector is trained, and the classifier where there are classifications.

    Training takes ``cpu_seconds`` of processor time, or, with ``steps`` above 0, that number of
    batches; then the same seed gives the same weights. On a busy machine it ends after
    ``limit_minutes`` of wall time, whatever is left of these; a model's card records its steps and
    what ended them. Images larger than ``tile_side`` are used
    whole and in tiles of that side, as in the profile of ``prediction``; 0: whole only.
    ``tensorboard`` and ``dvclive`` write the training log for these tools.

    With ``gate: manual`` a person launches training in the Dagster UI, otherwise a sensor does for
    the newest version.

    Where there are both boxes and classifications to train on, the classifier gets
    ``classification_share`` of the seconds or steps. It starts from ``classifier_weights``, a file
    of this platform or of torchvision's ResNet-18, or ``DEFAULT`` for torchvision's download;
    otherwise from the promoted classifier or from scratch.
    """

    earlier_keys = {"choice_share": "classification_share"}

    gate: Literal["auto", "manual"] = "auto"
    cpu_seconds: float = Field(default=120.0, gt=0)
    steps: int = Field(default=0, ge=0)
    limit_minutes: float = Field(default=60.0, gt=0)
    threads: int = Field(default=1, ge=1)
    image_width: int = Field(default=320, ge=64)
    batch_size: int = Field(default=4, ge=1)
    learning_rate: float = Field(default=4e-3, gt=0)
    tile_side: int = Field(default=0, ge=0)
    weights: str = Field(
        default="", description="file of pretrained weights; empty: the promoted model, or scratch"
    )
    weights_sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    classification_share: float = Field(default=0.25, gt=0, lt=1)
    classifier_weights: str = ""
    classifier_weights_sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    tensorboard: bool = False
    dvclive: bool = False


class ProfilePolicy(PolicySection):
    """How thoroughly a model predicts an image.

    Images larger than ``tile_side`` pixels are predicted whole and in tiles of that side, which
    overlap by ``tile_overlap`` of it; 0: whole only. ``flips`` adds a pass mirrored left to right.
    ``ensemble`` is the number of last promoted models that predict together. ``maximum_passes``
    limits the passes for one image; 0: no limit.
    """

    earlier_keys = {"most_passes": "maximum_passes"}

    tile_side: int = Field(default=0, ge=0)
    tile_overlap: float = Field(default=0.2, ge=0, le=0.9)
    maximum_passes: int = Field(default=0, ge=0)
    flips: bool = False
    ensemble: int = Field(default=1, ge=1)


class PredictionPolicy(PolicySection):
    """Which model predicts, and how thoroughly.

    ``profile`` is the profile of pre-annotations. ``weights`` names a custom detector that replaces
    the promoted model and must have the SHA-256 ``weights_sha256``. ``architecture`` is
    torchvision's
    name of a published detector: ``weights`` is then its file, or empty for torchvision's download.
    ``class_names`` are the classes of its outputs, in order, where the file does not name them;
    ``classes`` maps them to classes of the ontology where the names differ; unmapped classes are
    left out. ``image_side`` is the side that images are resized to for a file that takes any size.
    """

    profile: Literal["labelling", "serving"] = "labelling"
    labelling: ProfilePolicy = ProfilePolicy(tile_side=1024, flips=True)
    serving: ProfilePolicy = ProfilePolicy()
    weights: str = ""
    weights_sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    architecture: str = ""
    class_names: tuple[str, ...] = ()
    classes: dict[str, str] = Field(default={})
    image_side: int = Field(default=640, ge=32)

    @property
    def chosen(self) -> ProfilePolicy:
        """The settings of the profile of pre-annotations."""
        return self.labelling if self.profile == "labelling" else self.serving
