"""Who knows what: granted and taken away by hand, never forgotten."""

import json
from dataclasses import dataclass
from datetime import datetime

from annotation_platform.errors import LabelingError
from annotation_platform.storage.journal import Journal
from annotation_platform.storage.objects import ObjectStore

REVIEWER = "reviewer"
"""The skill of those whom review tasks are assigned to."""

QUALIFIED = "qualified"
"""The skill that live work takes where policy asks for a qualification."""


@dataclass(frozen=True)
class _Grant:
    person: str
    skill: str
    granted: bool
    at: datetime


class Skills:
    """The skills of people, by e-mail address, and since when."""

    def __init__(self, store: ObjectStore) -> None:
        # Addresses stand in it.
        self._journal = Journal(store, "people/skills", private=True)
        self._grants = [_grant(entry) for entry in self._journal.read()]

    def of(self, person: str) -> list[str]:
        """Return what somebody knows now, sorted."""
        known = {grant.skill: grant.granted for grant in self._by(person)}
        return sorted(skill for skill, granted in known.items() if granted)

    def people(self, skill: str) -> list[str]:
        """Return those who have a skill now, sorted."""
        everybody = {grant.person for grant in self._grants}
        return sorted(person for person in everybody if skill in self.of(person))

    @property
    def everybody(self) -> set[str]:
        """Everybody who was ever said to have a skill or not, in small letters."""
        return {grant.person.lower() for grant in self._grants}

    def had(self, person: str, skill: str, at: datetime) -> bool:
        """Return whether somebody had a skill at a moment; everybody has the empty skill."""
        held = [each.granted for each in self._by(person) if each.skill == skill and each.at <= at]
        return not skill or (bool(held) and held[-1])

    def decided(self, person: str, skill: str) -> bool:
        """Return whether it was ever said that somebody has a skill, or has it no more."""
        return any(grant.skill == skill for grant in self._by(person))

    def set(self, person: str, skill: str, *, granted: bool, now: datetime) -> None:
        """Grant a skill, or take it away from now on; answers given before still count.

        Raises:
            LabelingError: the skill is no short word, or is so already.
        """
        if not skill.strip() or len(skill) > 100 or not skill.isprintable():
            raise LabelingError(f"{skill!r} is no skill. Give a short word such as agronomy.")
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
