"""The back end of outside vendors: packages go out, and annotations come back in files.

All data is in the lake, append-only: ``handoff/<round>/copies`` (the replicas),
``handoff/<round>/ontology`` (the classes), ``handoff/<round>/packages`` (each package as it was
exported) and ``handoff/<round>/answers`` (the returned annotations; real names stay in there).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import datetime
from typing import TYPE_CHECKING

from annotation_platform.errors import DataError, LabelingError, NotReadyError, SettingsError
from annotation_platform.labeling.backends.protocol import (
    AssignmentKey,
    LabelingBackend,
    Progress,
    Replica,
    Submission,
)
from annotation_platform.labeling.backends.regions import shown_regions
from annotation_platform.labeling.backends.vendor.annotations import ReturnedAnnotation
from annotation_platform.labeling.backends.vendor.package import (
    PackageManifest,
    VendorReplica,
    build_manifest,
    round_of_package,
)
from annotation_platform.labeling.backends.vendor.states import (
    AnnotationVersion,
    FilledAssignments,
    annotation_id,
    content_digest,
    first_digest,
    from_line,
    next_version,
    read_lines,
    to_line,
    write_lines,
)
from annotation_platform.labeling.stored_names import from_stored, to_stored
from annotation_platform.schema.annotations import Payload
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.rounds import round_number
from annotation_platform.storage.journal import Journal
from annotation_platform.storage.objects import ObjectStore

if TYPE_CHECKING:
    from annotation_platform.settings import Settings

NAME = "handoff"
"""The back end's name, as tables record it."""


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
        if read_lines(journal)[-1:] != [classes]:
            journal.append(write_lines([classes]))
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
                write_lines(to_stored(asdict(replica)) for replica in new)
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
        for stored in read_lines(self._journal(round_id, "copies")):
            content = from_stored(stored)
            replica = VendorReplica(**{name: content[name] for name in known & content.keys()})
            # Concurrent publishers may both record an assignment: the first is kept, with the image
            # of the last.
            first = found.get(replica.key, replica)
            found[replica.key] = replace(first, image_key=replica.image_key)
        return list(found.values())

    def make_package(
        self, round_id: str, *, vendor: str, only_open: bool = False
    ) -> PackageManifest:
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
        ontology = Ontology.model_validate(read_lines(self._journal(round_id, "ontology"))[-1])
        manifest = build_manifest(round_id, replicas, ontology, vendor=vendor, store=self._store)
        self._store.create(_package_key(manifest.package), manifest.to_json(), private=True)
        return manifest

    def package(self, package: str) -> PackageManifest:
        """Return a package as it was exported; a DataError if it was not."""
        key = _package_key(package)
        if not self._store.exists(key):
            raise DataError(
                f"package {package} was not exported from this lake. Use the lake that exported it."
            )
        return PackageManifest.from_json(self._store.get(key))

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
        slots = FilledAssignments(histories)
        new = []
        for given in sorted(annotations, key=lambda item: item.finished_at or now):
            annotation = annotation_id(given)
            history = histories.setdefault(annotation, [])
            digest = content_digest(given, given.payload)
            if any(state.digest in (digest, first_digest(given)) for state in history):
                continue
            state = next_version(
                annotation, digest, given, slots.fill(given, history), history, now
            )
            history.append(state)
            slots.add(state)
            new.append(state)
        if new:
            lines = write_lines(to_line(state, now) for state in new)
            self._journal(round_id, "answers").append(lines)
        return len(new)

    def _states(self, round_id: str) -> dict[str, list[AnnotationVersion]]:
        """Return the states of each annotation, oldest first, by annotation id."""
        found: dict[str, list[AnnotationVersion]] = {}
        seen = set()
        for line in read_lines(self._journal(round_id, "answers")):
            state = from_line(line)
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


def _submission(
    replica: VendorReplica, first: AnnotationVersion, latest: AnnotationVersion
) -> Submission:
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
