"""Simulated annotators at work: each submits their own assignments, all in parallel."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

import pandas as pd

from annotation_platform.demo.annotators import SimulatedPerson, annotation_rng, simulate_annotation
from annotation_platform.formats.label_studio.control_names import ACCEPT, DECISION_NAME, IMAGE_NAME
from annotation_platform.formats.label_studio.results import write_result
from annotation_platform.labeling.backends.label_studio.codec import NAME as LABEL_STUDIO
from annotation_platform.labeling.backends.label_studio.http import LabelStudioHttp
from annotation_platform.labeling.backends.regions import write_decision, write_regions
from annotation_platform.labeling.backends.registry import decode
from annotation_platform.labeling.backends.simulated import SimulatedLabeling
from annotation_platform.labeling.reviews import review_round
from annotation_platform.schema.annotations import Canvas, Payload
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.shapes import Label

_REVIEW_SECONDS = 20.0


@dataclass(frozen=True)
class AssignedImage:
    """An assignment that waits for its annotator, with the pre-annotations that they see."""

    backend_task: str
    image_id: str
    pre_annotations: Payload


@dataclass(frozen=True)
class SimulatedSubmission:
    """One annotator's labels for an image of ``width`` by ``height`` pixels, and a decision.

    ``decision`` is ``accept`` for a reviewer of disputed labels, and empty otherwise.
    """

    labels: Sequence[Label]
    width: int
    height: int
    decision: Literal["accept", ""] = ""


class AnnotatorSession(Protocol):
    """The labelling back end as one annotator reaches it."""

    def open_assignments(self, round_id: str) -> list[AssignedImage]:
        """Return the open assignments of this annotator in a round."""

    def submit(
        self, assignment: AssignedImage, annotation: SimulatedSubmission, seconds: float
    ) -> None:
        """Submit the one annotation of an assignment."""


class SimulatedSession:
    """The simulated back end as one annotator reaches it."""

    def __init__(self, labeling: SimulatedLabeling, name: str) -> None:
        self._labeling, self._name = labeling, name

    def open_assignments(self, round_id: str) -> list[AssignedImage]:
        """Return the open assignments of this annotator in a round."""
        return [
            AssignedImage(one.backend_task, one.image_id, one.pre_annotations)
            for one in self._labeling.open_assignments(self._name)
            if one.round_id == round_id
        ]

    def submit(
        self, assignment: AssignedImage, annotation: SimulatedSubmission, seconds: float
    ) -> None:
        """Submit the annotation of an assignment."""
        decision = write_decision(annotation.decision) if annotation.decision else []
        content = [*decision, *write_regions(annotation.labels)]
        self._labeling.submit(assignment.backend_task, self._name, content, seconds)


class LabelStudioSession:
    """Label Studio as one annotator reaches it, with a personal token."""

    def __init__(self, url: str, token: str, name: str) -> None:
        self._http, self._name = LabelStudioHttp(url, token), name

    def open_assignments(self, round_id: str) -> list[AssignedImage]:
        """Return the open assignments of this annotator in a round."""
        projects = self._http.pages("/api/projects/", title=round_id, include="id,title")
        project = next(item["id"] for item in projects if item["title"] == round_id)
        page = self._http.get("/api/tasks/", project=project, page=1, page_size=100_000)
        shown = self._http.get("/api/predictions/", project=project)
        predicted = {prediction["task"]: prediction["result"] for prediction in shown}
        return [
            AssignedImage(
                str(task["id"]),
                task["data"]["image_id"],
                Payload(LABEL_STUDIO, predicted.get(task["id"], [])),
            )
            for task in page["tasks"]
            if task["data"]["assignee"] in (self._name, "") and not task["is_labeled"]
        ]

    def submit(
        self, assignment: AssignedImage, annotation: SimulatedSubmission, seconds: float
    ) -> None:
        """Submit the annotation of an assignment."""
        decision = [
            {
                "id": "decision",
                "type": "choices",
                "from_name": DECISION_NAME,
                "to_name": IMAGE_NAME,
                "value": {"choices": [ACCEPT]},
            }
        ]
        drawn = write_result(annotation.labels, annotation.width, annotation.height)
        result = [*decision, *drawn] if annotation.decision else drawn
        content = {"result": result, "lead_time": seconds}
        self._http.post(f"/api/tasks/{assignment.backend_task}/annotations/", content)


def annotate_round(
    round_id: str,
    people: Sequence[SimulatedPerson],
    sessions: Mapping[str, AnnotatorSession],
    truth: Dataset,
    *,
    seed: int,
    progress: Callable[[], None],
) -> int:
    """Submit every open assignment of a round and return the number of annotations.

    Args:
        round_id: the round; its tasks are published in the back end.
        people: the annotators; each works in a thread of their own.
        sessions: each annotator's access to the back end, by name.
        truth: ground truth by image id.
        seed: random seed of the annotators' errors.
        progress: called after every annotation, from any thread.
    """
    boxes = {str(key): rows for key, rows in truth.labels.groupby("image_id")}
    sizes = sizes_of(truth)
    nothing = truth.labels.head(0)

    def work(person: SimulatedPerson) -> int:
        assignments = sessions[person.name].open_assignments(round_id)
        for assignment in assignments:
            width, height = sizes[assignment.image_id]
            true_boxes: pd.DataFrame = boxes.get(assignment.image_id, nothing)
            shown = decode(assignment.pre_annotations, Canvas(width, height, truth.ontology))
            simulated = simulate_annotation(
                person,
                true_boxes,
                width=width,
                height=height,
                ontology=truth.ontology,
                rng=annotation_rng(person, assignment.image_id, seed=seed),
                pre_annotations=shown.labels,
            )
            annotation = SimulatedSubmission(simulated.labels, width, height)
            sessions[person.name].submit(assignment, annotation, simulated.lead_time_seconds)
            progress()
        return len(assignments)

    with ThreadPoolExecutor(len(people)) as pool:
        return sum(pool.map(work, people))


def review(
    round_id: str, session: AnnotatorSession, truth: Dataset, *, progress: Callable[[], None]
) -> int:
    """Decide every review of a round as an expert who knows the ground truth; return their number.

    Args:
        round_id: the round; its annotations are merged.
        session: the expert's access to the back end.
        truth: ground truth by image id.
        progress: called after every decision.
    """
    sizes = sizes_of(truth)
    boxes = {str(key): rows for key, rows in truth.labels.groupby("image_id")}
    assignments = session.open_assignments(review_round(round_id))
    for one in assignments:
        true_boxes = boxes.get(one.image_id, truth.labels.head(0))
        rows = true_boxes[["class_name", *BOX_COLUMNS]].itertuples(index=False)
        drawn = [Label.box(*row) for row in rows]
        decided = SimulatedSubmission(drawn, *sizes[one.image_id], "accept")
        session.submit(one, decided, _REVIEW_SECONDS)
        progress()
    return len(assignments)


def sizes_of(truth: Dataset) -> dict[str, tuple[int, int]]:
    """Return width and height in pixels of every image, by image id."""
    sides = zip(truth.images["width"].tolist(), truth.images["height"].tolist(), strict=True)
    return dict(zip(truth.images["image_id"], sides, strict=True))
