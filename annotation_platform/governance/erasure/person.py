"""Find an annotator, and draw the names that anonymize their annotations."""

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
from annotation_platform.storage.pseudonyms import pseudonym_of

_SHOWN = 8


@dataclass(frozen=True)
class FoundPerson:
    """An annotator of the lake.

    Attributes:
        name: account name in the labelling back end, usually an e-mail address.
        pseudonym: name outside the ledger.
        annotations: states of annotations of theirs in the ledger.
    """

    name: str
    pseudonym: str
    annotations: int


def find_person(name: str, lake: Lake) -> FoundPerson:
    """Return the annotator with an address or a pseudonym.

    Raises:
        DataError: no annotator of the lake has this name.
    """
    known = Counter[str]()
    for round_id in lake.tables.rounds(LabelTasks):
        for each in (round_id, review_round(round_id)):
            revisions = AnnotationsLedger(lake.store).read(each)
            known.update(revision.submission.author.lower() for revision in revisions)
            assignments = AssignmentPlan(lake.store, each).read().assignments
            known.update({one.assignee.lower(): 0 for one in assignments if one.assignee})
    known.update(dict.fromkeys(Skills(lake.store).everybody, 0))
    pseudonyms = {pseudonym_of(lake.store, each): each for each in known}
    found = pseudonyms.get(name, name.lower())
    if found not in known:
        shown = ", ".join(sorted(pseudonyms)[:_SHOWN]) or "none"
        raise DataError(
            f"annotator {name!r}: the lake has no annotator of this name. It has: {shown}."
        )
    return FoundPerson(found, pseudonym_of(lake.store, found), known[found])


def anonymous_names(person: FoundPerson, lake: Lake) -> dict[str, str]:
    """Return the new name for each present name of a person.

    The new name is drawn at random, so it does not lead to the person; it is one name, so the votes
    of one person stay votes of one person.
    """
    name = f"anonymous-{secrets.token_hex(8)}"
    return {person.name: name, person.pseudonym: pseudonym_of(lake.store, name)}
