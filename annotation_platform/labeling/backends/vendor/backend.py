"""Outside vendors as a place where people label: packages go out, answers come back in files.

Everything lies in the lake, append-only: ``handoff/<round>/copies`` (what is asked),
``handoff/<round>/ontology`` (under which classes), ``handoff/<round>/packages`` (each package as it
was exported) and ``handoff/<round>/answers`` (what came back; names of people stay in there).
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from annotation_platform.errors import DataError, LabelingError, NotReadyError, SettingsError
from annotation_platform.labeling.annotations import FIRST_CODEC, Payload
from annotation_platform.labeling.backends.protocol import (
    LabelingBackend,
    Place,
    Progress,
    Submission,
    TaskCopy,
)
from annotation_platform.labeling.backends.regions import shown_regions
from annotation_platform.labeling.backends.vendor.annotations import GivenAnnotation
from annotation_platform.labeling.backends.vendor.first_codec import in_first_codec
from annotation_platform.labeling.backends.vendor.package import (
    HandoffCopy,
    Manifest,
    build_manifest,
    round_of_package,
)
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.rounds import round_number
from annotation_platform.storage.journal import ERASED, Journal
from annotation_platform.storage.objects import ObjectStore

if TYPE_CHECKING:
    from annotation_platform.settings import Settings

NAME = "handoff"
"""The back end's name, as tables record it."""

_MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True)
class _State:
    """One state of one answer; ``digest`` names what was given."""

    digest: str
    annotation: str
    task_id: str
    place: int
    author: str
    created_at: datetime
    updated_at: datetime
    lead_time_seconds: float
    skipped: bool
    payload: Payload


class HandoffLabeling(LabelingBackend):
    """The places that outside vendors answer, and what they answered.

    Nobody's name is known before they answer, so places are assigned to nobody.

    Args:
        store: the lake's objects.
    """

    takes_reviews = False

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @property
    def name(self) -> str:
        """The back end's name, as tables record it."""
        return NAME

    def publish(
        self,
        round_id: str,
        ontology: Ontology,
        copies: Sequence[TaskCopy],
        *,
        closed: Collection[Place] = (),
    ) -> Mapping[Place, str]:
        """Note what is asked and return a name for each place by (task_id, place).

        Doing it again adds what is missing, but for ``closed`` places; what is there stays as it
        was first noted, but for its image: what was masked meanwhile is in no further package.
        Packages exported from now on have these classes.

        Raises:
            LabelingError: these are reviews, which nobody outside decides.
        """
        if any(copy.purpose == "review" for copy in copies):
            raise LabelingError(
                f"{round_id}: reviews are not handed off. Let another back end have them, or set "
                "`review.gate: auto` in params.yaml."
            )
        wanted = {(copy.task_id, copy.place): copy for copy in copies}
        if len(wanted) < len(copies):
            raise ValueError(f"{round_id}: two copies are the same place of the same task")
        classes = ontology.model_dump(mode="json")
        journal = self._journal(round_id, "ontology")
        if _entries(journal)[-1:] != [classes]:
            journal.append(_lines([classes]))
        noted = {place: wanted[place].image_key for place in closed if place in wanted}
        noted |= {(copy.task_id, copy.place): copy.image_key for copy in self.copies(round_id)}
        asked = wanted.items()
        new = [_kept_copy(copy) for place, copy in asked if noted.get(place) != copy.image_key]
        if new:
            self._journal(round_id, "copies").append(_lines(asdict(copy) for copy in new))
        return {place: _backend_task(*place) for place in wanted}

    def held_places(self, round_id: str) -> set[Place]:
        """Return the places that were ever noted: none is lost."""
        return {(copy.task_id, copy.place) for copy in self.copies(round_id)}

    def collect(self, round_id: str) -> list[Submission]:
        """Return the present state of every answer that came back, skips included."""
        copies = {(copy.task_id, copy.place): copy for copy in self.copies(round_id)}
        states = self._states(round_id)
        return [
            _submission(copies[latest.task_id, latest.place], history[0], latest)
            for history in states.values()
            for latest in history[-1:]
        ]

    def progress(self, round_id: str) -> Progress:
        """Return how many places were noted, and how many states of answers came back."""
        entries = self._journal(round_id, "answers").read()
        return Progress(len(self.copies(round_id)), sum(entry.count(b"\n") for entry in entries))

    def change_token(self, round_id: str) -> str:
        """Return a text that changes when an answer comes or is corrected; one listing."""
        return f"{len(self._journal(round_id, 'answers'))} imports"

    def delete(self, images: Collection[str]) -> int:  # noqa: ARG002 - the protocol's argument
        """Do nothing: what is handed off is noted in the lake, and goes with the rest of it.

        Packages that went out are with vendors, whom somebody has to tell.
        """
        return 0

    def copies(self, round_id: str) -> list[HandoffCopy]:
        """Return what vendors are asked in a round, each place once; empty if nothing."""
        known = {each.name for each in fields(HandoffCopy)}
        found: dict[tuple[str, int], HandoffCopy] = {}
        for said in _entries(self._journal(round_id, "copies")):
            copy = HandoffCopy(**{name: said[name] for name in known & said.keys()})
            # Two publishers at once may both note a place: the first one stands, with the image
            # of the last.
            first = found.get((copy.task_id, copy.place), copy)
            found[copy.task_id, copy.place] = replace(first, image_key=copy.image_key)
        return list(found.values())

    def make_package(self, round_id: str, *, vendor: str, only_open: bool = False) -> Manifest:
        """Return what a package of a round asks, and remember it for the answers.

        Args:
            round_id: the round.
            vendor: whose people answer; an answer's author is this and the vendor's own id.
            only_open: leave out the places that hold an answer.

        Raises:
            NotReadyError: nothing of this round is to be handed off, or nothing is left.
            SettingsError: the vendor's name is none, or the round's.
        """
        try:
            round_number(round_id)
        except ValueError as error:
            raise SettingsError(f"{error}.") from error
        copies = self.copies(round_id)
        if not copies:
            raise NotReadyError(
                f"{round_id} has nothing to hand off. Let `handoff` be a back end of its labelling "
                "and materialise label_tasks first."
            )
        if only_open:
            held = {(said.task_id, said.place) for said in self.collect(round_id)
                    if not said.skipped}  # fmt: skip
            copies = [copy for copy in copies if (copy.task_id, copy.place) not in held]
            if not copies:
                raise NotReadyError(f"{round_id}: every place that was handed off is answered.")
        ontology = Ontology.model_validate(_entries(self._journal(round_id, "ontology"))[-1])
        manifest = build_manifest(round_id, copies, ontology, vendor=vendor, store=self._store)
        self._store.create(_package_key(manifest.package), manifest.to_json(), private=True)
        return manifest

    def package(self, package: str) -> Manifest:
        """Return a package as it was exported; one that never was is a DataError."""
        key = _package_key(package)
        if not self._store.exists(key):
            raise DataError(
                f"package {package} was never exported from this lake. Is it another lake's?"
            )
        return Manifest.from_json(self._store.get(key))

    def take(self, round_id: str, annotations: Iterable[GivenAnnotation], *, now: datetime) -> int:
        """Store answers, as ``check_annotations`` gives them, and return how many were new.

        An answer of the same person to the same place is the same answer: where it says something
        new it is a correction, and the earlier state stays beside it. What was ever said stays
        said, so an old file imported again takes no correction back. Answers that may take several
        places get one that nobody holds, in the order in which they were finished.
        """
        histories = self._states(round_id)
        seats = _Seats(histories)
        new = []
        for given in sorted(annotations, key=lambda item: item.finished_at or now):
            annotation = _annotation(given)
            history = histories.setdefault(annotation, [])
            digest = _digest(given, given.payload)
            if any(state.digest in (digest, _first_digest(given)) for state in history):
                continue
            state = _state(annotation, digest, given, seats.seat(given, history), history, now)
            history.append(state)
            seats.note(state)
            new.append(state)
        if new:
            lines = _lines(_to_line(state, now) for state in new)
            self._journal(round_id, "answers").append(lines)
        return len(new)

    def _states(self, round_id: str) -> dict[str, list[_State]]:
        """Return the states of each answer, oldest first, by annotation."""
        found: dict[str, list[_State]] = {}
        seen = set()
        for line in _entries(self._journal(round_id, "answers")):
            state = _from_line(line)
            # Two imports at once may both store a state: it counts once.
            if (state.annotation, state.digest) not in seen:
                seen.add((state.annotation, state.digest))
                found.setdefault(state.annotation, []).append(state)
        return {
            annotation: sorted(history, key=lambda state: (state.updated_at, state.digest))
            for annotation, history in found.items()
        }

    def _journal(self, round_id: str, what: str) -> Journal:
        return Journal(self._store, f"handoff/{round_id}/{what}", private=True)


def from_settings(settings: "Settings", store: ObjectStore) -> HandoffLabeling:  # noqa: ARG001
    """Return the places that vendors answer; what they answered is in the lake."""
    return HandoffLabeling(store)


class _Seats:
    """Which places are held, and by whom, while answers are stored."""

    def __init__(self, histories: Mapping[str, Sequence[_State]]) -> None:
        self._held: dict[tuple[str, int], str] = {}
        self._place_of: dict[tuple[str, str], int] = {}
        for history in histories.values():
            self.note(history[-1])

    def note(self, state: _State) -> None:
        """Remember who holds a place; a skip holds none."""
        if not state.skipped:
            self._held.setdefault((state.task_id, state.place), state.annotation)
            self._place_of.setdefault((state.task_id, state.author), state.place)

    def seat(self, given: GivenAnnotation, history: Sequence[_State]) -> int:
        """Return the place of an answer: its former one, its only one, or the first free one.

        Further answers of one person share a place, and where all are held the last one is
        shared: such answers are surplus, and whoever counts says why.
        """
        if history and not history[-1].skipped:
            return history[-1].place
        mine = self._place_of.get((given.task_id, given.annotator))
        if mine is not None and mine in given.places:
            return mine
        free = (place for place in given.places if (given.task_id, place) not in self._held)
        return next(free, given.places[-1])


def _state(
    annotation: str,
    digest: str,
    given: GivenAnnotation,
    place: int,
    history: Sequence[_State],
    now: datetime,
) -> _State:
    finished = given.finished_at or now
    # A correction is later than what it corrects, whatever its file says.
    updated = max(finished, history[-1].updated_at + _MOMENT) if history else finished
    return _State(
        digest=digest,
        annotation=annotation,
        task_id=given.task_id,
        place=place,
        author=given.annotator,
        created_at=history[0].created_at if history else finished,
        updated_at=updated,
        lead_time_seconds=given.lead_time_seconds,
        skipped=given.skipped,
        payload=given.payload,
    )


def _annotation(given: GivenAnnotation) -> str:
    """Return the id of an answer: the same for every state of it."""
    identity = json.dumps([given.task_id, given.annotator, given.key])
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _digest(given: GivenAnnotation, payload: Payload) -> str:
    finished = given.finished_at.isoformat() if given.finished_at else None
    said = [finished, given.lead_time_seconds, given.skipped, payload.content]
    if payload.codec != FIRST_CODEC:
        said.append(payload.codec)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _first_digest(given: GivenAnnotation) -> str:
    """Return the digest that release 0.1.0 gave the same answer."""
    content = in_first_codec(given.payload, given.width, given.height)
    return _digest(given, Payload(FIRST_CODEC, content))


def _submission(copy: HandoffCopy, first: _State, latest: _State) -> Submission:
    return Submission(
        backend=NAME,
        backend_task=_backend_task(copy.task_id, copy.place),
        annotation=latest.annotation,
        task_id=copy.task_id,
        image_id=copy.image_id,
        place=copy.place,
        author=latest.author,
        created_at=first.created_at,
        updated_at=latest.updated_at,
        lead_time_seconds=latest.lead_time_seconds,
        skipped=latest.skipped,
        payload=latest.payload,
        weights_sha256=copy.weights_sha256,
        proposed=Payload(copy.codec, copy.proposed),
    )


def _kept_copy(copy: TaskCopy) -> HandoffCopy:
    """Return what vendors may know of a copy: neither whom it is meant for nor its purpose."""
    shown = shown_regions(copy.proposals)
    return HandoffCopy(
        task_id=copy.task_id,
        image_id=copy.image_id,
        place=copy.place,
        image_key=copy.image_key,
        width=copy.width,
        height=copy.height,
        weights_sha256=copy.weights_sha256,
        expertise=copy.expertise,
        proposed=shown.content,
        codec=shown.codec,
    )


def _backend_task(task_id: str, place: int) -> str:
    return f"{task_id}/{place}"


def _package_key(package: str) -> str:
    return f"handoff/{round_of_package(package)}/packages/{package}.json"


def _entries(journal: Journal) -> list[Any]:
    said = [json.loads(line) for entry in journal.read() for line in entry.splitlines()]
    return [each for each in said if ERASED not in each]


def _lines(entries: Iterable[Any]) -> bytes:
    return "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in entries).encode()


def _to_line(state: _State, now: datetime) -> dict[str, Any]:
    content = asdict(state)
    for name in ("created_at", "updated_at"):
        content[name] = content[name].isoformat()
    return {**content, "imported_at": now.isoformat()}


def _from_line(line: dict[str, Any]) -> _State:
    # Lines of release 0.1.0 hold Label Studio's regions as ``result``.
    payload = line.get("payload") or {"codec": FIRST_CODEC, "content": line["result"]}
    names = (each.name for each in fields(_State) if each.name != "payload")
    content = {**{name: line[name] for name in names}, "payload": Payload(**payload)}
    for name in ("created_at", "updated_at"):
        content[name] = datetime.fromisoformat(content[name])
    return _State(**content)
