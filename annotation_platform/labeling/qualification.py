"""Who may do live work: people who were right often enough where the answer is known."""

from collections.abc import Iterable
from datetime import datetime

import pandas as pd

from annotation_platform.governance.audit_log.recording import record_skill
from annotation_platform.labeling.ledger import AnnotationsLedger
from annotation_platform.labeling.skills import QUALIFIED, Skills
from annotation_platform.policy import LabelingPolicy
from annotation_platform.storage.lake import Lake


def qualify(
    quality: pd.DataFrame,
    people: Iterable[str],
    lake: Lake,
    policy: LabelingPolicy,
    *,
    now: datetime,
) -> list[str]:
    """Grant the skill ``qualified`` to whoever has earned it, and return their pseudonyms.

    Somebody has earned it who answered at least ``policy.qualify_answers`` gold tasks and was
    right in at least ``policy.qualify_share`` of what there was to decide on them, over all
    rounds. To whom it was granted or refused by hand before, nothing happens: a manager's word
    stands. With ``qualify_annotations`` at 0 nobody needs the skill, and nobody gets it.

    Args:
        quality: ``annotator_quality`` rows of all rounds.
        people: addresses of those who could be meant.
        lake: where skills are kept.
        policy: what is asked of them.
        now: from when on their answers count.
    """
    if not policy.qualify_annotations:
        return []
    judged = quality[quality["gold_annotations"] > 0]
    right = judged["gold_quality"] * judged["gold_annotations"]
    of_person = judged.assign(right=right).groupby("annotator")[["gold_annotations", "right"]].sum()
    enough = of_person["gold_annotations"] >= policy.qualify_annotations
    good = of_person["right"] >= policy.qualify_share * of_person["gold_annotations"]
    earned = set(of_person.index[enough & good])
    skills = Skills(lake.store)
    granted = []
    for person in sorted(people):
        pseudonym = AnnotationsLedger(lake.store).pseudonym(person)
        if pseudonym in earned and not skills.decided(person, QUALIFIED):
            skills.set(person, QUALIFIED, granted=True, now=now)
            record_skill(person, QUALIFIED, lake, granted=True, now=now)
            granted.append(pseudonym)
    return granted
