"""The answers ledger: every state of every answer ever seen. Nothing in it is ever changed.

It lies in the lake as numbered segments, each created once and never written again:
``ledger/answers/<round>/000001.jsonl``. One line is one revision of one annotation, as the back
end gave it. Real names stay in here; what leaves carries a pseudonym.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime

import pandas as pd

from annotation_platform.errors import NotReadyError
from annotation_platform.labeling.client import Submission
from annotation_platform.labeling.results import result_to_boxes
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import make_table
from annotation_platform.storage.objects import ObjectStore

_KEY = "ledger/pseudonym-key"


@dataclass(frozen=True)
class Revision:
    """One state of one annotation; ``digest`` names it."""

    digest: str
    submission: Submission


@dataclass(frozen=True)
class Surplus:
    """An answer that was kept but is not counted, and why: skipped, repeated, late or foreign."""

    revision: Revision
    reason: str


@dataclass(frozen=True)
class Count:
    """Which answers hold a place, by (task_id, place), and which hold none."""

    counted: dict[tuple[str, int], Revision]
    surplus: list[Surplus]
    places: int

    @property
    def complete(self) -> bool:
        """Whether every place of every task holds an answer; a round without tasks is complete."""
        return len(self.counted) == self.places

    @property
    def digest(self) -> str:
        """SHA-256 of the counted answers in their present state: an edit changes it."""
        lines = sorted(revision.digest for revision in self.counted.values())
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class AnswersLedger:
    """Append revisions, read them back. Several processes may append at once."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def append(self, round_id: str, submissions: Iterable[Submission], *, now: datetime) -> int:
        """Write those states that the ledger has not seen yet; return how many there were."""
        known = {revision.digest for revision in self.read(round_id)}
        new = [item for item in map(as_revision, submissions) if item.digest not in known]
        if not new:
            return 0
        lines = [_to_line(revision, seen_at=now) for revision in new]
        data = "".join(lines).encode()
        number = sum(1 for _ in self._store.list(_folder(round_id))) + 1
        # Another process may take the number first. What both saw is then written twice, which
        # reading undoes: a revision is known by its digest.
        while not self._store.create(f"{_folder(round_id)}/{number:06d}.jsonl", data):
            number += 1
        return len(new)

    def read(self, round_id: str) -> list[Revision]:
        """Return every revision of a round, in the order in which they were seen."""
        found: dict[str, Revision] = {}
        for key in self._store.list(_folder(round_id)):
            for line in self._store.get(key).decode().split("\n")[:-1]:
                revision = _from_line(line)
                found.setdefault(revision.digest, revision)
        return list(found.values())

    def pseudonym(self, author: str) -> str:
        """Return the name under which ``author`` appears outside the ledger: stable, keyed."""
        if not self._store.exists(_KEY):
            self._store.create(_KEY, secrets.token_bytes(32), private=True)
        digest = hmac.new(self._store.get(_KEY), author.lower().encode(), hashlib.sha256)
        return f"annotator-{digest.hexdigest()[:10]}"


def as_revision(submission: Submission) -> Revision:
    """Return the submission under the digest of what it says, and when it came to say so.

    Who says it does not count: a back end may forget its people, and the first name stays.
    """
    said = {
        "backend": submission.backend,
        "annotation": submission.annotation,
        "task": submission.task_id,
        "place": submission.place,
        "updated_at": submission.updated_at.isoformat(),
        "skipped": submission.skipped,
        "result": submission.result,
    }
    text = json.dumps(said, sort_keys=True)
    return Revision(hashlib.sha256(text.encode()).hexdigest(), submission)


def count_answers(revisions: Iterable[Revision], tasks: pd.DataFrame) -> Count:
    """Return which answers hold the places of a round.

    Of each annotation the latest state counts, under the name of its first. An answer takes the
    place of its copy if that is free and its author holds no other place of the task; who came
    first, by creation, stays. All else is surplus: ``skipped``, ``repeated`` (same author),
    ``late`` (place taken), ``foreign`` (no such place in this round). The order of ``revisions``
    does not matter.
    """
    places = set(zip(tasks["task_id"], tasks["place"], strict=True))
    latest: dict[tuple[str, str], Revision] = {}
    for revision in sorted(revisions, key=lambda item: (item.submission.updated_at, item.digest)):
        said = revision.submission
        first = latest.get((said.backend, said.annotation), revision).submission
        named = replace(said, author=first.author)
        latest[said.backend, said.annotation] = Revision(revision.digest, named)
    counted: dict[tuple[str, int], Revision] = {}
    holders: set[tuple[str, str]] = set()
    surplus = []
    for revision in sorted(latest.values(), key=_arrival):
        said = revision.submission
        place = (said.task_id, said.place)
        if said.skipped:
            surplus.append(Surplus(revision, "skipped"))
        elif place not in places:
            surplus.append(Surplus(revision, "foreign"))
        elif (said.task_id, said.author) in holders:
            surplus.append(Surplus(revision, "repeated"))
        elif place in counted:
            surplus.append(Surplus(revision, "late"))
        else:
            counted[place] = revision
            holders.add((said.task_id, said.author))
    return Count(counted, surplus, len(places))


def require_complete(round_id: str, count: Count) -> None:
    """Raise a NotReadyError that says what a round waits for, unless every place is filled."""
    if not count.complete:
        raise NotReadyError(
            f"{round_id} waits for people: {len(count.counted)} of {count.places} answers are in. "
            "labeling_complete_sensor merges it when the last one is submitted."
        )


def human_labels(
    round_id: str,
    count: Count,
    images: pd.DataFrame,
    ontology: Ontology,
    pseudonyms: Mapping[str, str],
) -> tuple[pd.DataFrame, list[str]]:
    """Return the ``human_labels`` table of the counted answers, and what was wrong with regions.

    A region that is no usable box (no area, unknown class, far outside, made on a picture of
    another size) is left out of the table, counted there and named in the second value; it stays
    in the ledger.
    An answer without any box keeps one row with ``shape`` = ``none``.

    Args:
        round_id: the round.
        count: from ``count_answers``.
        images: ``cleaned_images`` rows, accepted ones only, with every answered image.
        ontology: the classes that may be chosen.
        pseudonyms: for each author.
    """
    sides = zip(images["width"].tolist(), images["height"].tolist(), strict=True)
    sizes = dict(zip(images["image_id"], sides, strict=True))
    rows: list[dict[str, object]] = []
    problems: list[str] = []
    for (task_id, place), revision in sorted(count.counted.items()):
        said = revision.submission
        width, height = sizes[said.image_id]
        parsed = result_to_boxes(said.result, width=width, height=height, ontology=ontology)
        answer = f"{said.backend}:{said.annotation}"
        problems += [f"{answer}: {problem}" for problem in parsed.problems]
        same = {
            "round_id": round_id,
            "task_id": task_id,
            "image_id": said.image_id,
            "place": place,
            "answer_id": answer,
            "revision": revision.digest,
            "annotator": pseudonyms[said.author],
            "lead_time_seconds": said.lead_time_seconds,
            "submitted_at": said.updated_at,
            "weights_sha256": said.weights_sha256,
            "changed": _values(said.result) != _values(said.proposed),
            "refused_regions": len(said.result) - len(parsed.boxes),
        }
        for number, box in enumerate(parsed.boxes):
            corners = {name: getattr(box, name) for name in ("class_name", *BOX_COLUMNS)}
            label = {"label_id": f"{answer}:{number:04d}", "shape": "box"}
            rows.append({**same, **label, **corners})
        if not parsed.boxes:
            nothing = {"label_id": f"{answer}:none", "shape": "none", "class_name": None}
            rows.append({**same, **nothing, **dict.fromkeys(BOX_COLUMNS)})
    return make_table("human_labels", rows), problems


def _values(result: Sequence[Mapping[str, object]]) -> list[str]:
    """Return what regions say, in an order of its own; ids and origins do not matter."""
    return sorted(json.dumps(region.get("value"), sort_keys=True) for region in result)


def _arrival(revision: Revision) -> tuple[datetime, str, str]:
    said = revision.submission
    return said.created_at, said.backend, said.annotation


def _folder(round_id: str) -> str:
    return f"ledger/answers/{round_id}"


def _to_line(revision: Revision, *, seen_at: datetime) -> str:
    entry = {"digest": revision.digest, "seen_at": seen_at.isoformat()}
    content = asdict(revision.submission)
    for name in ("created_at", "updated_at"):
        content[name] = content[name].isoformat()
    return json.dumps({**entry, "submission": content}) + "\n"


def _from_line(line: str) -> Revision:
    entry = json.loads(line)
    content = entry["submission"]
    for name in ("created_at", "updated_at"):
        content[name] = datetime.fromisoformat(content[name])
    return Revision(entry["digest"], Submission(**content))
