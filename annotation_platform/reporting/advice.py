"""What the figures of a round advise to do before the next one, each with its reason."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from annotation_platform.pages import percent
from annotation_platform.pages.text import shown
from annotation_platform.reporting.round_facts import RoundFacts

_KEPT_OUT = 0.1
"""Share of what landed that may be kept out before somebody should look at the source."""
_AGREED = 0.85
"""Mean share of people who choose a class, below which its guideline is unclear."""
_SEVERAL = 5
_WIDE = 0.1


@dataclass(frozen=True)
class Advice:
    """What to do, and the figure that says so."""

    what: str
    why: str


def advise(facts: RoundFacts) -> list[Advice]:
    """Return what to do before the next round, what stops a version first; often nothing."""
    return [*_about_labels(facts), *_about_people(facts), *_about_images(facts),
            *_about_model(facts)]  # fmt: skip


def _about_labels(facts: RoundFacts) -> Iterator[Advice]:
    if facts.undecided:
        yield Advice(
            "Let a reviewer decide what no rule could settle.",
            f"{facts.undecided} images are left out until then; with review.gate: manual in "
            "params.yaml they are put before one.",
        )
    unclear = {
        name: (labels, share)
        for name, (labels, share) in facts.agreement_by_class.items()
        if labels >= _SEVERAL and share < _AGREED
    }
    for name, (labels, share) in sorted(unclear.items(), key=lambda each: each[1][1])[:2]:
        yield Advice(
            f"Say in the guideline what tells {shown(name, 40)} from the others.",
            f"Of those who saw one, {percent(share, 1)} called it so, over {labels} labels.",
        )
    if facts.issues:
        yield Advice(
            "Look at the suspected labels, the likeliest first.",
            f"{facts.issues} are probably wrong or missing; they are in label_issues.",
        )
    rate, low, high = facts.label_error
    if facts.labels and not facts.audited:
        yield Advice(
            "Have some undisputed images reviewed.",
            "Nobody has looked at any, so nothing is known of how many labels are wrong; "
            "review.sample_share in params.yaml sets how many are.",
        )
    elif facts.labels and high - low > _WIDE:
        yield Advice(
            "Have more undisputed images reviewed.",
            f"{facts.audited} labels were looked at: {percent(rate, 1)} wrong, but anything from "
            f"{percent(low, 1)} to {percent(high, 1)} is possible.",
        )


def _about_people(facts: RoundFacts) -> Iterator[Advice]:
    for row in facts.people:
        if row["flags"]:
            yield Advice(
                f"Talk to {row['annotator']}.",
                f"Flagged: {row['flags']}; {_known(row['quality'])} of their decisions are "
                f"confirmed by the others, over {row['answers']} answers.",
            )


def _about_images(facts: RoundFacts) -> Iterator[Advice]:
    landed, out = sum(facts.outcomes.values()), facts.outcomes.get("quarantined", 0)
    if landed and out / landed > _KEPT_OUT and facts.reasons:
        why = ", ".join(f"{shown(name, 40)} {count}" for name, count in facts.reasons.items())
        yield Advice(
            "Look at what sends these images.",
            f"{out} of {landed} were kept out, {percent(out / landed, 1)} ({why}).",
        )
    if facts.drifted:
        yield Advice(
            "See whether these images are of the kind you want.",
            f"They differ from all before: {'; '.join(facts.drifted)}.",
        )


def _about_model(facts: RoundFacts) -> Iterator[Advice]:
    for row in [each for each in facts.slices if each["weak"]][:2]:
        kind = shown("{kind} {name}".format(**row), 60)
        yield Advice(
            f"Collect more images of this kind: {kind}.",
            f"The model is worse there beyond chance: mAP {_figure(row['map'])}, elsewhere "
            f"{_figure(row['others_map'])}, over {row['images']} test images.",
        )
    if facts.model and not facts.model["promoted"]:
        yield Advice("Proposals still come from the earlier model.", str(facts.model["reason"]))


def _known(value: object) -> str:
    return "–" if not isinstance(value, float) or math.isnan(value) else percent(value, 1)


def _figure(value: object) -> str:
    return "–" if not isinstance(value, float) or math.isnan(value) else f"{value:.3f}"
