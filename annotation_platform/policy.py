"""The policy: what ``params.yaml`` says, checked. It is versioned with the data.

Places and secrets are not here but in ``settings.py``.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from annotation_platform.errors import SettingsError
from annotation_platform.schema.ontology import Ontology


class _Policy(BaseModel):
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
"""What a sidecar can say of an image, and ``cleaning.mandatory_metadata`` can ask for."""


class RoundPolicy(_Policy):
    """When what has landed becomes a round.

    With ``gate: manual`` a round is formed, and somebody starts it in the Dagster UI.
    """

    gate: Literal["auto", "manual"] = "auto"
    minimum_images: int = Field(default=20, ge=1)
    maximum_images: int = Field(default=1000, ge=1)
    maximum_wait_seconds: float = Field(default=300.0, ge=0)
    settle_seconds: float = Field(default=3.0, ge=0)
    listing_seconds: float = Field(default=300.0, ge=0)


class CleaningPolicy(_Policy):
    """What is good enough to label."""

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


class SelectionPolicy(_Policy):
    """Which images people are asked about: how many, by what, and what is left to chance.

    ``budget`` 0 is all of them. ``combined`` gives ``rare_share`` of the budget to classes that
    are rare in the labels so far, ``diverse_share`` to images unlike all others, and the rest to
    those of which the model is unsure by ``measure``; without proposals all are unlike ones.
    ``audit_share`` is drawn by lot from the whole pool before anything else. ``embedder`` says by
    which vectors images are alike: the image's own layout and colours, or what the promoted
    model sees.
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
    audit_share: float = Field(default=0.1, ge=0, le=1)
    outliers: Literal["keep", "drop", "mine"] = "keep"
    embedder: Literal["image", "model"] = "image"
    earlier_values = {("embedder", "picture"): "image"}

    @model_validator(mode="after")
    def _shares_fit(self) -> "SelectionPolicy":
        if self.rare_share + self.diverse_share > 1:
            raise ValueError("rare_share and diverse_share add up to more than 1")
        return self


class LabelingPolicy(_Policy):
    """Who is asked, how often, and with what help.

    ``annotations_by_class`` asks more of images on which such a class is proposed. With
    ``stop_at_lead`` above 0 a task gets that many answers, and further ones, up to
    ``most_annotations``, until the answers lead by so many votes. With ``qualify_annotations``
    above 0
    people get gold tasks alone until they answered so many of them and were right in
    ``qualify_share`` of what there was to decide. With ``resend_lost`` a task that
    somebody deleted where people label is made again, unless it was answered. ``backends`` shares
    new tasks out between ``label-studio`` and ``handoff``, packages for a vendor.
    """

    earlier_keys = {
        "answers_per_task": "annotations_per_task",
        "answers_by_class": "annotations_by_class",
        "most_answers": "most_annotations",
        "qualify_answers": "qualify_annotations",
    }

    annotations_per_task: int = Field(default=1, ge=1, le=25)
    annotations_by_class: dict[str, int] = Field(default={})
    stop_at_lead: int = Field(default=0, ge=0, le=10)
    most_annotations: int = Field(default=7, ge=1, le=25)
    expertise: str = ""
    expertise_by_class: dict[str, str] = Field(default={})
    qualify_annotations: int = Field(default=0, ge=0)
    qualify_share: float = Field(default=0.8, ge=0, le=1)
    preannotate: bool = True
    minimum_score: float = Field(default=0.5, ge=0, le=1)
    blind_share: float = Field(default=0.0, ge=0, le=1)
    gold_share: float = Field(default=0.0, ge=0, le=1)
    gold_origins: tuple[str, ...] = ()
    deadline_hours: float = Field(default=0.0, ge=0)
    minimum_share: float = Field(default=0.0, ge=0, le=1)
    resend_lost: bool = False
    backends: dict[str, float] = Field(default={})
    ask_about_imported: bool = False

    @model_validator(mode="after")
    def _numbers_fit(self) -> "LabelingPolicy":
        for name, annotations in self.annotations_by_class.items():
            if not 1 <= annotations <= 25:
                raise ValueError(
                    f"annotations_by_class: {name}: {annotations} is not 1 to 25 answers"
                )
        if self.stop_at_lead > self.most_annotations:
            raise ValueError("stop_at_lead is above most_annotations")
        if any(share < 0 for share in self.backends.values()) or (
            self.backends and not sum(self.backends.values())
        ):
            raise ValueError("backends: shares are not negative, and one of them is above 0")
        return self

    def first_annotations(self, proposed: Collection[str]) -> int:
        """Return how many people are asked first about an image on which these are proposed."""
        by_class = [self.annotations_by_class.get(name, 0) for name in proposed]
        return self.stop_at_lead or max([self.annotations_per_task, *by_class])


class MaskingPolicy(_Policy):
    """What people who label must not see: whatever a model takes for one of ``classes``.

    They are names as the model proposes them, and need not be in the ontology. A box counts from
    the model's own ``minimum_score`` on, grows by ``margin`` of its sides at each of them, and is
    made unreadable: ``blur`` leaves 16 colours of it, ``grey`` none.
    """

    classes: tuple[str, ...] = ()
    minimum_score: float = Field(default=0.2, ge=0, le=1)
    margin: float = Field(default=0.15, ge=0, le=1)
    way: Literal["blur", "grey"] = "blur"


class ReviewPolicy(_Policy):
    """Who decides where people disagree, and what becomes of an image until then.

    With ``gate: manual`` images with a conflict that no rule settles become review tasks, and so
    does a random share of the others. ``undecided`` says whether the release waits for them or
    leaves those images out and lists them. With ``gate: auto`` nobody is asked, and they are left
    out.
    """

    gate: Literal["auto", "manual"] = "auto"
    undecided: Literal["wait", "hold_out"] = "wait"
    sample_share: float = Field(default=0.0, ge=0, le=1)


class DriftPolicy(_Policy):
    """What counts as a round unlike all that is known, and whether people are asked about it.

    A feature has drifted if it differs by at least ``least_effect`` and chance makes that in less
    than ``level`` of all rounds. With ``gate: hold`` nobody is asked about such a round until
    somebody has looked at it; with ``warn`` a check says so.
    """

    gate: Literal["warn", "hold"] = "warn"
    level: float = Field(default=0.01, gt=0, lt=1)
    least_effect: float = Field(default=0.25, ge=0, le=1)


Pseudonym = Annotated[str, Field(pattern="^annotator-[0-9a-f]{10}$")]


class ConsensusPolicy(_Policy):
    """How several answers become one.

    What the ``disregarded`` said, who are named by pseudonym, counts no more in rounds that are
    merged from now on, their decisions as reviewers included. It stays in the ledger, and images
    about which nobody else said anything are asked about again.
    """

    iou_threshold: float = Field(default=0.5, gt=0, le=1)
    disregarded: tuple[Pseudonym, ...] = ()


class ErasurePolicy(_Policy):
    """What is erased with an image.

    What repeats it always is. With ``near_duplicates`` so is its whole group: crops of it, stamped
    or mirrored copies, and the images before and after it that look like it.
    """

    near_duplicates: bool = True


class AutoAcceptPolicy(_Policy):
    """Which proposals may become labels without a person.

    Of what is accepted at most ``alpha`` is wrong or missed, and of each class at most
    ``class_alpha`` (0: classes are not looked at one by one), but with a chance of ``delta``. A
    batch that differs from the audit at ``drift_level`` is refused. ``reaudit_share`` of the
    accepted images goes to people all the same, blind.
    """

    enabled: bool = False
    alpha: float = Field(default=0.05, gt=0, lt=1)
    class_alpha: float = Field(default=0.15, ge=0, lt=1)
    delta: float = Field(default=0.1, gt=0, lt=1)
    minimum_probability: float = Field(default=0.5, gt=0, le=1)
    drift_level: float = Field(default=0.01, gt=0, lt=1)
    reaudit_share: float = Field(default=0.05, ge=0, le=1)
    use_in_training: bool = True


class LabelIssuePolicy(_Policy):
    """Which labels are suspected.

    ``error_rate`` is the share of labels taken to be wrong before anybody looks; a label is
    suspected if it is wrong with ``minimum_probability``.
    """

    error_rate: float = Field(default=0.05, gt=0, lt=1)
    minimum_probability: float = Field(default=0.3, gt=0, le=1)


class ReleasePolicy(_Policy):
    """When a version may be published.

    With ``gate: manual`` somebody launches the release of a round in the Dagster UI; with ``auto``
    a sensor does once its labels stand. With ``maximum_label_error`` above 0 only if an audit shows
    that at most this share of its labels is wrong, of every origin: the upper end of the interval
    counts.
    """

    gate: Literal["auto", "manual"] = "auto"
    maximum_label_error: float = Field(default=0.0, ge=0, le=1)


class SplitPolicy(_Policy):
    """Shares of the three splits, and what images share that are never parted.

    Look-alikes never are. ``keep_together`` names metadata, such as ``source`` or a field of the
    sidecar's own: images of equal values go into one split. So one source for everything leaves
    nothing to test on.
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


class TrainingPolicy(_Policy):
    """How the detector learns, and the classifier where there are choices.

    It learns for ``cpu_seconds`` of processor time, or, with ``steps`` above 0, so many batches:
    then the same seed gives the same weights again. From images larger than ``tile_side`` it
    learns whole and in tiles of that side, as the profile of ``prediction`` looks at them; 0: whole
    only. ``tensorboard`` and ``dvclive`` write what it learned, step by step, for these tools.

    With ``gate: manual`` somebody launches it in the Dagster UI, else a sensor does for the newest
    version.

    Where there are choices to learn from as well as boxes, the classifier has ``choice_share`` of
    seconds or steps. It starts from ``classifier_weights``, a file of ours or of torchvision's
    ResNet-18, or ``DEFAULT`` for torchvision's download; else from the promoted one or scratch.
    """

    gate: Literal["auto", "manual"] = "auto"
    cpu_seconds: float = Field(default=120.0, gt=0)
    steps: int = Field(default=0, ge=0)
    threads: int = Field(default=1, ge=1)
    image_width: int = Field(default=320, ge=64)
    batch_size: int = Field(default=4, ge=1)
    learning_rate: float = Field(default=4e-3, gt=0)
    tile_side: int = Field(default=0, ge=0)
    weights: str = Field(
        default="", description="file of pretrained weights; empty: the promoted model, or scratch"
    )
    weights_sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    choice_share: float = Field(default=0.25, gt=0, lt=1)
    classifier_weights: str = ""
    classifier_weights_sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    tensorboard: bool = False
    dvclive: bool = False


class ProfilePolicy(_Policy):
    """How thoroughly images are looked at.

    Images larger than ``tile_side`` pixels are looked at whole and in tiles of that side, which
    share ``tile_overlap`` of it; 0: whole only. ``flips``: mirrored left to right, too.
    ``ensemble``: so many of the models promoted last look together. ``most_passes`` limits what a
    image may cost; 0: as many passes as that takes.
    """

    tile_side: int = Field(default=0, ge=0)
    tile_overlap: float = Field(default=0.2, ge=0, le=0.9)
    most_passes: int = Field(default=0, ge=0)
    flips: bool = False
    ensemble: int = Field(default=1, ge=1)


class PredictionPolicy(_Policy):
    """What proposes labels, and how thoroughly.

    ``profile`` is the one that proposals are made with. ``weights`` names a detector of the user's
    own instead of the promoted model, which must have the SHA-256 ``weights_sha256``.
    ``architecture`` is torchvision's name of a published detector: ``weights`` is then its file,
    or empty for torchvision's download. ``class_names`` are the classes of its outputs, in order,
    where the file is not ours, ``classes`` says which class of the ontology one of them is where
    the names differ; what has none is left out. ``image_side``: to what images are brought for a
    file that takes any size.
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
        """The settings of the profile that proposals are made with."""
        return self.labelling if self.profile == "labelling" else self.serving


class Policy(_Policy):
    """The whole policy."""

    ontology: Ontology
    seed: int = 0
    rounds: RoundPolicy = RoundPolicy()
    cleaning: CleaningPolicy = CleaningPolicy()
    selection: SelectionPolicy = SelectionPolicy()
    labeling: LabelingPolicy = LabelingPolicy()
    masking: MaskingPolicy = MaskingPolicy()
    review: ReviewPolicy = ReviewPolicy()
    drift: DriftPolicy = DriftPolicy()
    consensus: ConsensusPolicy = ConsensusPolicy()
    auto_accept: AutoAcceptPolicy = AutoAcceptPolicy()
    label_issues: LabelIssuePolicy = LabelIssuePolicy()
    release: ReleasePolicy = ReleasePolicy()
    splits: SplitPolicy = SplitPolicy()
    training: TrainingPolicy = TrainingPolicy()
    prediction: PredictionPolicy = PredictionPolicy()
    erasure: ErasurePolicy = ErasurePolicy()

    @model_validator(mode="after")
    def _classes_are_known(self) -> "Policy":
        known = set(self.ontology.names)
        for field in ("annotations_by_class", "expertise_by_class"):
            unknown = sorted(set(getattr(self.labeling, field)) - known)
            if unknown:
                raise ValueError(f"labeling.{field}: {unknown[0]} is no class of the ontology")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the policy's content; comments and the order of keys do not matter."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_yaml(self) -> str:
        """Return the policy as the text of a ``params.yaml`` that reads back equal."""
        data = self.model_dump(mode="json")
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def read_policy(path: Path) -> Policy:
    """Return the policy in ``path``; a missing or wrong one is a SettingsError naming the field."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"{path}: the policy cannot be read ({error.strerror}). "
            "Set ANNOTATION_PARAMS to a params.yaml."
        ) from error
    return parse_policy(text, where=str(path))


# Every run and every look of a sensor reads the policy anew; it seldom changed.
@lru_cache(maxsize=32)
def parse_policy(text: str, *, where: str) -> Policy:
    """Return the policy written in ``text``; ``where`` names its source in errors."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{where}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise SettingsError(f"{where}: a policy is a mapping with at least `ontology:`.")
    try:
        return Policy.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "policy"
        remedy = "Correct it and try again."
        if first["type"] == "extra_forbidden":
            remedy = f"There are: {_known_keys(first['loc'])}."
        raise SettingsError(f"{where}: {field}: {first['msg']}. {remedy}") from error


def _known_keys(place: Sequence[int | str]) -> str:
    """Return the keys that there are beside one that there is not."""
    model: Any = Policy
    for part in place[:-1]:
        model = model.model_fields[part].annotation if isinstance(part, str) else get_args(model)[0]
    return ", ".join(model.model_fields)
