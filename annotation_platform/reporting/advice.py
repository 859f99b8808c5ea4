"""Advice for the next round, derived from the figures of a round, each with its reason."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from annotation_platform.pages import percent
from annotation_platform.pages.text import shown
from annotation_platform.reporting.round_facts import RoundFacts
from annotation_platform.schema.tables import AnnotatorQuality, ModelEvaluations, ModelSlices
from annotation_platform.schema.tables.shared import Outcome

_QUARANTINED_SHARE = 0.1
"""Share of arrivals in quarantine above which the source should be checked."""
_CLASS_AGREEMENT = 0.85
"""Mean share of annotators who choose a class, below which its guideline is unclear."""
_LABELS_PER_CLASS = 5
"""Smallest number of labels from which the agreement on a class is judged."""
_INTERVAL_WIDTH = 0.1
"""Width of the interval of the label error above which a larger sample is advised."""


@dataclass(frozen=True)
class Advice:
    """What to do, and the figure that is the reason."""

    action: str
    reason: str


def advise(facts: RoundFacts) -> list[Advice]:
    """Return the advice for the next round, obstacles to a version first; often none."""
    return [*_about_labels(facts), *_about_people(facts), *_about_images(facts),
            *_about_model(facts)]  # fmt: skip


def _about_labels(facts: RoundFacts) -> Iterator[Advice]:
    if facts.undecided:
        yield Advice(
            "Have a reviewer decide the unsettled conflicts.",
            f"{facts.undecided} images are left out until then; with review.gate: manual in "
            "params.yaml they are sent to review.",
        )
    unclear = {
        name: (labels, share)
        for name, (labels, share) in facts.agreement_by_class.items()
        if labels >= _LABELS_PER_CLASS and share < _CLASS_AGREEMENT
    }
    for name, (labels, share) in sorted(unclear.items(), key=lambda each: each[1][1])[:2]:
        yield Advice(
            f"Describe in the guideline how {shown(name, 40)} differs from the other classes.",
            f"{percent(share, 1)} of the annotators of such an object chose the class, over "
            f"{labels} labels.",
        )
    if facts.issues:
        yield Advice(
            "Check the label issues, the most probable first.",
            f"{facts.issues} labels are probably wrong or missing; see label_issues.",
        )
    rate, low, high = facts.label_error
    if facts.labels and not facts.sampled_labels:
        yield Advice(
            "Review a sample of the undisputed images.",
            "No undisputed image was reviewed, so the label error is unknown; "
            "review.sample_share in params.yaml sets the size of the sample.",
        )
    elif facts.labels and high - low > _INTERVAL_WIDTH:
        yield Advice(
            "Review a larger sample of the undisputed images.",
            f"{facts.sampled_labels} labels were reviewed: {percent(rate, 1)} are wrong, with an "
            f"interval from {percent(low, 1)} to {percent(high, 1)}.",
        )


def _about_people(facts: RoundFacts) -> Iterator[Advice]:
    for row in facts.people:
        if row[AnnotatorQuality.flags]:
            yield Advice(
                f"Talk to {row[AnnotatorQuality.annotator]}.",
                f"Flags: {row[AnnotatorQuality.flags]}. The others confirm "
                f"{_share(row[AnnotatorQuality.quality])} of the decisions, over "
                f"{row[AnnotatorQuality.annotations]} annotations.",
            )


def _about_images(facts: RoundFacts) -> Iterator[Advice]:
    landed, out = sum(facts.outcomes.values()), facts.outcomes.get(Outcome.QUARANTINED, 0)
    if landed and out / landed > _QUARANTINED_SHARE and facts.reasons:
        reasons = ", ".join(f"{shown(name, 40)} {count}" for name, count in facts.reasons.items())
        yield Advice(
            "Check the source of these images.",
            f"{out} of {landed} were quarantined, {percent(out / landed, 1)} ({reasons}).",
        )
    if facts.drifted:
        yield Advice(
            "Check whether these images are of the intended kind.",
            f"They differ from those of earlier rounds: {'; '.join(facts.drifted)}.",
        )


def _about_model(facts: RoundFacts) -> Iterator[Advice]:
    for row in [each for each in facts.slices if each[ModelSlices.weak]][:2]:
        kind = shown("{kind} {name}".format(**row), 60)
        yield Advice(
            f"Collect more images of this kind: {kind}.",
            f"The model is significantly worse on them: mAP {_figure(row[ModelSlices.map])}, on "
            f"others {_figure(row[ModelSlices.others_map])}, over {row[ModelSlices.images]} test "
            "images.",
        )
    if facts.model and not facts.model[ModelEvaluations.promoted]:
        reason = str(facts.model[ModelEvaluations.reason])
        yield Advice("Predictions still come from the earlier model.", reason)


def _share(value: object) -> str:
    return "–" if not isinstance(value, float) or math.isnan(value) else percent(value, 1)


def _figure(value: object) -> str:
    return "–" if not isinstance(value, float) or math.isnan(value) else f"{value:.3f}"
