"""Qualification of annotators: the skill earned by good work on gold tasks."""

from collections.abc import Iterable
from datetime import datetime

from annotation_platform.audit_log.recording import record_skill
from annotation_platform.labeling.skills import QUALIFIED, Skills
from annotation_platform.policy import LabelingPolicy
from annotation_platform.schema.tables import AnnotatorQuality, Frame
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.pseudonyms import pseudonym_of


def qualify(
    quality: Frame[AnnotatorQuality],
    people: Iterable[str],
    lake: Lake,
    policy: LabelingPolicy,
    *,
    now: datetime,
) -> list[str]:
    """Grant the skill ``qualified`` to the people who have earned it; return their pseudonyms.

    A person earns it with at least ``policy.qualify_annotations`` annotated gold tasks and a share
    of correct decisions on them of at least ``policy.qualify_share``, over all rounds. People to
    whom it was granted or refused by hand keep that decision. With ``qualify_annotations`` at 0 the
    skill is neither needed nor granted.

    Args:
        quality: ``annotator_quality`` rows of all rounds.
        people: addresses of the candidates.
        lake: the store of skills.
        policy: the thresholds.
        now: the time from which annotations count.
    """
    if not policy.qualify_annotations:
        return []
    judged = quality[quality[AnnotatorQuality.gold_annotations] > 0]
    right = judged[AnnotatorQuality.gold_quality] * judged[AnnotatorQuality.gold_annotations]
    of_person = (
        judged.assign(right=right)
        .groupby(AnnotatorQuality.annotator)[[AnnotatorQuality.gold_annotations, "right"]]
        .sum()
    )
    enough = of_person[AnnotatorQuality.gold_annotations] >= policy.qualify_annotations
    good = of_person["right"] >= policy.qualify_share * of_person[AnnotatorQuality.gold_annotations]
    earned = set(of_person.index[enough & good])
    skills = Skills(lake.store)
    granted = []
    for person in sorted(people):
        pseudonym = pseudonym_of(lake.store, person)
        if pseudonym in earned and not skills.decided(person, QUALIFIED):
            skills.set(person, QUALIFIED, granted=True, now=now)
            record_skill(person, QUALIFIED, lake, granted=True, now=now)
            granted.append(pseudonym)
    return granted
