"""Skills of people: granted and revoked by hand, with their history."""

import json
from dataclasses import dataclass
from datetime import datetime

from annotation_platform.errors import LabelingError
from annotation_platform.storage.journal import Journal
from annotation_platform.storage.objects import ObjectStore

REVIEWER = "reviewer"
"""The skill of people who review."""

QUALIFIED = "qualified"
"""The skill needed to annotate where the policy requires a qualification."""


@dataclass(frozen=True)
class _Grant:
    person: str
    skill: str
    granted: bool
    at: datetime


class Skills:
    """The skills of people, by e-mail address, and their times."""

    def __init__(self, store: ObjectStore) -> None:
        self._journal = Journal(store, "people/skills", private=True)
        self._grants = [_grant(entry) for entry in self._journal.read()]

    def of(self, person: str) -> list[str]:
        """Return the current skills of a person, sorted."""
        known = {grant.skill: grant.granted for grant in self._by(person)}
        return sorted(skill for skill, granted in known.items() if granted)

    def people(self, skill: str) -> list[str]:
        """Return the people who have a skill now, sorted."""
        known = {grant.person for grant in self._grants}
        return sorted(person for person in known if skill in self.of(person))

    @property
    def everybody(self) -> set[str]:
        """Every person with a decision about a skill, in lower case."""
        return {grant.person.lower() for grant in self._grants}

    def had(self, person: str, skill: str, at: datetime) -> bool:
        """Return whether a person had a skill at a time; every person has the empty skill."""
        held = [each.granted for each in self._by(person) if each.skill == skill and each.at <= at]
        return not skill or (bool(held) and held[-1])

    def decided(self, person: str, skill: str) -> bool:
        """Return whether a skill was ever granted to a person or revoked."""
        return any(grant.skill == skill for grant in self._by(person))

    def set(self, person: str, skill: str, *, granted: bool, now: datetime) -> None:
        """Grant a skill, or revoke it from now on; earlier annotations still count.

        Raises:
            LabelingError: the skill is not a short word, or the person has it, or lacks it,
                already.
        """
        if not skill.strip() or len(skill) > 100 or not skill.isprintable():
            raise LabelingError(f"{skill!r} is not a skill. Use a short word such as agronomy.")
        if (skill in self.of(person)) == granted:
            has = "has" if granted else "does not have"
            raise LabelingError(f"{person} {has} the skill {skill} already.")
        entry = {
            "person": person.lower(), "skill": skill, "granted": granted, "at": now.isoformat()
        }  # fmt: skip
        data = json.dumps(entry).encode()
        self._journal.append(data)
        self._grants.append(_grant(data))

    def _by(self, person: str) -> list[_Grant]:
        return [grant for grant in self._grants if grant.person == person.lower()]


def _grant(entry: bytes) -> _Grant:
    content = json.loads(entry)
    return _Grant(**{**content, "at": datetime.fromisoformat(content["at"])})
