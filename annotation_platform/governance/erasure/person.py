"""Who somebody was, so that it can be forgotten while what they said stays, as anybody's."""

import secrets
from collections import Counter
from dataclasses import dataclass

from annotation_platform.errors import DataError
from annotation_platform.labeling.assignment_plan import AssignmentPlan
from annotation_platform.labeling.ledger import AnnotationsLedger
from annotation_platform.labeling.reviews import review_round
from annotation_platform.labeling.skills import Skills
from annotation_platform.schema.tables import LabelTasks
from annotation_platform.storage.lake import Lake

_SHOWN = 8


@dataclass(frozen=True)
class FoundPerson:
    """Somebody, as the lake knows them.

    Attributes:
        name: their identity where people label, an e-mail address as a rule.
        pseudonym: what stands for it outside the ledger.
        answers: how many states of answers of theirs the ledger has.
    """

    name: str
    pseudonym: str
    annotations: int


def find_person(name: str, lake: Lake) -> FoundPerson:
    """Return who is meant by an address or a pseudonym.

    Raises:
        DataError: the lake knows nobody of that name.
    """
    known = Counter[str]()
    for round_id in lake.tables.rounds(LabelTasks):
        for each in (round_id, review_round(round_id)):
            said = AnnotationsLedger(lake.store).read(each)
            known.update(revision.submission.author.lower() for revision in said)
            asked = AssignmentPlan(lake.store, each).read().assignments
            known.update({place.assignee.lower(): 0 for place in asked if place.assignee})
    known.update(dict.fromkeys(Skills(lake.store).everybody, 0))
    pseudonyms = {AnnotationsLedger(lake.store).pseudonym(each): each for each in known}
    found = pseudonyms.get(name, name.lower())
    if found not in known:
        shown = ", ".join(sorted(pseudonyms)[:_SHOWN]) or "nobody"
        raise DataError(
            f"annotator {name!r}: the lake knows nobody of that name. It knows {shown}."
        )
    return FoundPerson(found, AnnotationsLedger(lake.store).pseudonym(found), known[found])


def nobody(person: FoundPerson, lake: Lake) -> dict[str, str]:
    """Return what stands for somebody from now on, by what stood for them until now.

    It is drawn, so nothing leads from it to who they were; and it is one name, so votes of one
    person stay those of one.
    """
    name = f"nobody-{secrets.token_hex(8)}"
    return {person.name: name, person.pseudonym: AnnotationsLedger(lake.store).pseudonym(name)}
