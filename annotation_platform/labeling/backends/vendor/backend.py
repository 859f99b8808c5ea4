"""The back end of outside vendors: packages go out, and annotations come back in files.

All data is in the lake, append-only: ``handoff/<round>/copies`` (the replicas),
``handoff/<round>/ontology`` (the classes), ``handoff/<round>/packages`` (each package as it was
exported) and ``handoff/<round>/answers`` (the returned annotations; real names stay in there).
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
    AssignmentKey,
    LabelingBackend,
    Progress,
    Replica,
    Submission,
)
from annotation_platform.labeling.backends.regions import shown_regions
from annotation_platform.labeling.backends.vendor.annotations import ReturnedAnnotation
from annotation_platform.labeling.backends.vendor.first_codec import in_first_codec
from annotation_platform.labeling.backends.vendor.package import (
    Manifest,
    VendorReplica,
    build_manifest,
    round_of_package,
)
from annotation_platform.labeling.stored_names import from_stored, to_stored
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
    """One state of one annotation; ``digest`` identifies its content."""

    digest: str
    annotation: str
    task_id: str
    assignment: int
    author: str
    created_at: datetime
    updated_at: datetime
    lead_time_seconds: float
    skipped: bool
    payload: Payload


class VendorLabeling(LabelingBackend):
    """The assignments of outside vendors, and their annotations.

    Annotators are not known beforehand, so assignments have no assignee.

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
        replicas: Sequence[Replica],
        *,
        closed: Collection[AssignmentKey] = (),
    ) -> Mapping[AssignmentKey, str]:
        """Record the replicas and return a name for each assignment.

        Publishing again adds what is missing, except ``closed`` assignments. Recorded replicas keep
        all but their image, so later packages show no image that was masked meanwhile.
        Packages exported from now on have these classes.

        Raises:
            LabelingError: the tasks are reviews, which vendors do not decide.
        """
        if any(replica.purpose == "review" for replica in replicas):
            raise LabelingError(
                f"{round_id}: vendors do not review. Add another back end, or set "
                "`review.gate: auto` in params.yaml."
            )
        wanted = {replica.key: replica for replica in replicas}
        if len(wanted) < len(replicas):
            raise ValueError(f"{round_id}: two replicas have the same assignment")
        classes = ontology.model_dump(mode="json")
        journal = self._journal(round_id, "ontology")
        if _entries(journal)[-1:] != [classes]:
            journal.append(_lines([classes]))
        image_keys = {
            assignment: wanted[assignment].image_key
            for assignment in closed
            if assignment in wanted
        }
        image_keys |= {replica.key: replica.image_key for replica in self.replicas(round_id)}
        new = [
            _vendor_replica(replica)
            for assignment, replica in wanted.items()
            if image_keys.get(assignment) != replica.image_key
        ]
        if new:
            self._journal(round_id, "copies").append(
                _lines(to_stored(asdict(replica)) for replica in new)
            )
        return {assignment: _backend_task(*assignment) for assignment in wanted}

    def held_assignments(self, round_id: str) -> set[AssignmentKey]:
        """Return the assignments that were ever recorded: none is lost."""
        return {replica.key for replica in self.replicas(round_id)}

    def collect(self, round_id: str) -> list[Submission]:
        """Return the current state of every returned annotation, skips included."""
        replicas = {
            (replica.task_id, replica.assignment): replica for replica in self.replicas(round_id)
        }
        states = self._states(round_id)
        return [
            _submission(replicas[latest.task_id, latest.assignment], history[0], latest)
            for history in states.values()
            for latest in history[-1:]
        ]

    def progress(self, round_id: str) -> Progress:
        """Return how many assignments were recorded, and how many states were returned."""
        entries = self._journal(round_id, "answers").read()
        return Progress(len(self.replicas(round_id)), sum(entry.count(b"\n") for entry in entries))

    def change_token(self, round_id: str) -> str:
        """Return a text that changes with every import of annotations; one listing."""
        return f"{len(self._journal(round_id, 'answers'))} imports"

    def delete(self, images: Collection[str]) -> int:  # noqa: ARG002 - the protocol's argument
        """Do nothing: the erasure itself deletes vendor data with the rest of the lake.

        Vendors must be asked to delete the packages that they received.
        """
        return 0

    def replicas(self, round_id: str) -> list[VendorReplica]:
        """Return the replicas of a round, one for each assignment; empty if there are none."""
        known = {each.name for each in fields(VendorReplica)}
        found: dict[AssignmentKey, VendorReplica] = {}
        for stored in _entries(self._journal(round_id, "copies")):
            content = from_stored(stored)
            replica = VendorReplica(**{name: content[name] for name in known & content.keys()})
            # Concurrent publishers may both record an assignment: the first is kept, with the image
            # of the last.
            first = found.get(replica.key, replica)
            found[replica.key] = replace(first, image_key=replica.image_key)
        return list(found.values())

    def make_package(self, round_id: str, *, vendor: str, only_open: bool = False) -> Manifest:
        """Return the manifest of a package of a round, and store it for the import.

        Args:
            round_id: the round.
            vendor: the vendor's name; authors are this and the vendor's own id of the person.
            only_open: leave out the annotated assignments.

        Raises:
            NotReadyError: the round has no assignments for vendors, or none is left.
            SettingsError: the vendor's name or the round's is not valid.
        """
        try:
            round_number(round_id)
        except ValueError as error:
            raise SettingsError(f"{error}.") from error
        replicas = self.replicas(round_id)
        if not replicas:
            raise NotReadyError(
                f"{round_id} has no assignments for vendors. Add `handoff` to `labeling.backends` "
                "in params.yaml and materialise label_tasks first."
            )
        if only_open:
            held = {each.key for each in self.collect(round_id) if not each.skipped}
            replicas = [replica for replica in replicas if replica.key not in held]
            if not replicas:
                raise NotReadyError(f"{round_id}: every vendor assignment is annotated.")
        ontology = Ontology.model_validate(_entries(self._journal(round_id, "ontology"))[-1])
        manifest = build_manifest(round_id, replicas, ontology, vendor=vendor, store=self._store)
        self._store.create(_package_key(manifest.package), manifest.to_json(), private=True)
        return manifest

    def package(self, package: str) -> Manifest:
        """Return a package as it was exported; a DataError if it was not."""
        key = _package_key(package)
        if not self._store.exists(key):
            raise DataError(
                f"package {package} was not exported from this lake. Use the lake that exported it."
            )
        return Manifest.from_json(self._store.get(key))

    def store_annotations(
        self, round_id: str, annotations: Iterable[ReturnedAnnotation], *, now: datetime
    ) -> int:
        """Store annotations from ``check_annotations`` and return how many states were new.

        An annotation by the same person in the same assignment is the same annotation: with new
        content it is a correction, and the earlier state is kept. Importing an old file again does
        not undo a correction. Annotations that fit several assignments fill free ones in the order
        in which they were finished.
        """
        histories = self._states(round_id)
        slots = _Assignments(histories)
        new = []
        for given in sorted(annotations, key=lambda item: item.finished_at or now):
            annotation = _annotation(given)
            history = histories.setdefault(annotation, [])
            digest = _digest(given, given.payload)
            if any(state.digest in (digest, _first_digest(given)) for state in history):
                continue
            state = _state(annotation, digest, given, slots.fill(given, history), history, now)
            history.append(state)
            slots.add(state)
            new.append(state)
        if new:
            lines = _lines(_to_line(state, now) for state in new)
            self._journal(round_id, "answers").append(lines)
        return len(new)

    def _states(self, round_id: str) -> dict[str, list[_State]]:
        """Return the states of each annotation, oldest first, by annotation id."""
        found: dict[str, list[_State]] = {}
        seen = set()
        for line in _entries(self._journal(round_id, "answers")):
            state = _from_line(line)
            # Concurrent imports may both store a state: it counts once.
            if (state.annotation, state.digest) not in seen:
                seen.add((state.annotation, state.digest))
                found.setdefault(state.annotation, []).append(state)
        return {
            annotation: sorted(history, key=lambda state: (state.updated_at, state.digest))
            for annotation, history in found.items()
        }

    def _journal(self, round_id: str, name: str) -> Journal:
        return Journal(self._store, f"handoff/{round_id}/{name}", private=True)


def from_settings(settings: "Settings", store: ObjectStore) -> VendorLabeling:  # noqa: ARG001
    """Return the back end of outside vendors; its data is in the lake."""
    return VendorLabeling(store)


class _Assignments:
    """The assignments that are filled, and by which annotations, during an import."""

    def __init__(self, histories: Mapping[str, Sequence[_State]]) -> None:
        self._held: dict[tuple[str, int], str] = {}
        self._source_of: dict[tuple[str, str], int] = {}
        for history in histories.values():
            self.add(history[-1])

    def add(self, state: _State) -> None:
        """Record the annotation of an assignment; a skip fills none."""
        if not state.skipped:
            self._held.setdefault((state.task_id, state.assignment), state.annotation)
            self._source_of.setdefault((state.task_id, state.author), state.assignment)

    def fill(self, given: ReturnedAnnotation, history: Sequence[_State]) -> int:
        """Return the assignment of an annotation: its former, its only, or the first free one.

        Further annotations of one person share an assignment, and if all are filled the last one is
        shared: such annotations are not counted, and the count gives the reason.
        """
        if history and not history[-1].skipped:
            return history[-1].assignment
        own = self._source_of.get((given.task_id, given.annotator))
        if own is not None and own in given.assignments:
            return own
        free = (
            assignment
            for assignment in given.assignments
            if (given.task_id, assignment) not in self._held
        )
        return next(free, given.assignments[-1])


def _state(
    annotation: str,
    digest: str,
    given: ReturnedAnnotation,
    assignment: int,
    history: Sequence[_State],
    now: datetime,
) -> _State:
    finished = given.finished_at or now
    # A correction is later than the corrected state, whatever its file says.
    updated = max(finished, history[-1].updated_at + _MOMENT) if history else finished
    return _State(
        digest=digest,
        annotation=annotation,
        task_id=given.task_id,
        assignment=assignment,
        author=given.annotator,
        created_at=history[0].created_at if history else finished,
        updated_at=updated,
        lead_time_seconds=given.lead_time_seconds,
        skipped=given.skipped,
        payload=given.payload,
    )


def _annotation(given: ReturnedAnnotation) -> str:
    """Return the id of an annotation: the same for every state of it."""
    identity = json.dumps([given.task_id, given.annotator, given.key])
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _digest(given: ReturnedAnnotation, payload: Payload) -> str:
    finished = given.finished_at.isoformat() if given.finished_at else None
    content = [finished, given.lead_time_seconds, given.skipped, payload.content]
    if payload.codec != FIRST_CODEC:
        content.append(payload.codec)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _first_digest(given: ReturnedAnnotation) -> str:
    """Return the digest that release 0.1.0 gave the same annotation."""
    content = in_first_codec(given.payload, given.width, given.height)
    return _digest(given, Payload(FIRST_CODEC, content))


def _submission(replica: VendorReplica, first: _State, latest: _State) -> Submission:
    return Submission(
        backend=NAME,
        backend_task=_backend_task(replica.task_id, replica.assignment),
        annotation=latest.annotation,
        task_id=replica.task_id,
        image_id=replica.image_id,
        assignment=replica.assignment,
        author=latest.author,
        created_at=first.created_at,
        updated_at=latest.updated_at,
        lead_time_seconds=latest.lead_time_seconds,
        skipped=latest.skipped,
        payload=latest.payload,
        weights_sha256=replica.weights_sha256,
        pre_annotations=Payload(replica.codec, replica.pre_annotations),
    )


def _vendor_replica(replica: Replica) -> VendorReplica:
    """Return a replica without its assignee and purpose, which vendors must not know."""
    shown = shown_regions(replica.pre_annotations)
    return VendorReplica(
        task_id=replica.task_id,
        image_id=replica.image_id,
        assignment=replica.assignment,
        image_key=replica.image_key,
        width=replica.width,
        height=replica.height,
        weights_sha256=replica.weights_sha256,
        expertise=replica.expertise,
        pre_annotations=shown.content,
        codec=shown.codec,
    )


def _backend_task(task_id: str, assignment: int) -> str:
    return f"{task_id}/{assignment}"


def _package_key(package: str) -> str:
    return f"handoff/{round_of_package(package)}/packages/{package}.json"


def _entries(journal: Journal) -> list[Any]:
    lines = [json.loads(line) for entry in journal.read() for line in entry.splitlines()]
    return [each for each in lines if ERASED not in each]


def _lines(entries: Iterable[Any]) -> bytes:
    return "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in entries).encode()


def _to_line(state: _State, now: datetime) -> dict[str, Any]:
    content = to_stored(asdict(state))
    for name in ("created_at", "updated_at"):
        content[name] = content[name].isoformat()
    return {**content, "imported_at": now.isoformat()}


def _from_line(line: dict[str, Any]) -> _State:
    # Lines of release 0.1.0 hold Label Studio's regions as ``result``.
    payload = line.get("payload") or {"codec": FIRST_CODEC, "content": line["result"]}
    named = from_stored(line)
    names = (each.name for each in fields(_State) if each.name != "payload")
    content = {**{name: named[name] for name in names}, "payload": Payload(**payload)}
    for name in ("created_at", "updated_at"):
        content[name] = datetime.fromisoformat(content[name])
    return _State(**content)
