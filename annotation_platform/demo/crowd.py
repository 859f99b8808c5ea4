"""Simulated people at work: each takes their own places and answers them, all at the same time."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

import pandas as pd

from annotation_platform.demo.annotators import SimulatedPerson, annotation_rng, simulate_annotation
from annotation_platform.labeling.annotations import Canvas, Payload
from annotation_platform.labeling.backends.label_studio.codec import NAME as LABEL_STUDIO
from annotation_platform.labeling.backends.label_studio.http import LabelStudioHttp
from annotation_platform.labeling.backends.label_studio.interface import (
    ACCEPT,
    DECISION_NAME,
    IMAGE_NAME,
)
from annotation_platform.labeling.backends.label_studio.results import write_result
from annotation_platform.labeling.backends.regions import write_decision, write_regions
from annotation_platform.labeling.backends.registry import decode
from annotation_platform.labeling.backends.simulated import SimulatedLabeling
from annotation_platform.labeling.reviews import review_round
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.shapes import Label


@dataclass(frozen=True)
class Desk:
    """A place in front of one person: what they see before they answer."""

    backend_task: str
    image_id: str
    proposed: Payload


@dataclass(frozen=True)
class LabelledObjects:
    """One person's annotation of an image of ``width`` by ``height`` pixels, and their decision.

    ``decision`` is ``accept`` for a reviewer, who is shown labels in dispute, and empty otherwise.
    """

    labels: Sequence[Label]
    width: int
    height: int
    decision: Literal["accept", ""] = ""


class Seat(Protocol):
    """One person's own way into the labelling back end."""

    def open_places(self, round_id: str) -> list[Desk]:
        """Return the places of a round that are this person's to answer."""

    def submit(self, place: Desk, said: LabelledObjects, seconds: float) -> None:
        """Answer a place, once."""


class SimulatedSeat:
    """A person in front of the simulated back end."""

    def __init__(self, labeling: SimulatedLabeling, name: str) -> None:
        self._labeling, self._name = labeling, name

    def open_places(self, round_id: str) -> list[Desk]:
        """Return the places of a round that are this person's to answer."""
        places = self._labeling.open_places(self._name)
        return [
            Desk(place.backend_task, place.image_id, place.pre_annotations)
            for place in places
            if place.round_id == round_id
        ]

    def submit(self, place: Desk, said: LabelledObjects, seconds: float) -> None:
        """Answer a place."""
        decided = write_decision(said.decision) if said.decision else []
        content = [*decided, *write_regions(said.labels)]
        self._labeling.submit(place.backend_task, self._name, content, seconds)


class LabelStudioSeat:
    """A person logged in to Label Studio with a token of their own."""

    def __init__(self, url: str, token: str, name: str) -> None:
        self._http, self._name = LabelStudioHttp(url, token), name

    def open_places(self, round_id: str) -> list[Desk]:
        """Return the places of a round that are this person's to answer."""
        projects = self._http.pages("/api/projects/", title=round_id, include="id,title")
        project = next(item["id"] for item in projects if item["title"] == round_id)
        page = self._http.get("/api/tasks/", project=project, page=1, page_size=100_000)
        shown = self._http.get("/api/predictions/", project=project)
        proposed = {prediction["task"]: prediction["result"] for prediction in shown}
        return [
            Desk(
                str(task["id"]),
                task["data"]["image_id"],
                Payload(LABEL_STUDIO, proposed.get(task["id"], [])),
            )
            for task in page["tasks"]
            if task["data"]["assignee"] in (self._name, "") and not task["is_labeled"]
        ]

    def submit(self, place: Desk, said: LabelledObjects, seconds: float) -> None:
        """Answer a place."""
        decided = [
            {
                "id": "decision",
                "type": "choices",
                "from_name": DECISION_NAME,
                "to_name": IMAGE_NAME,
                "value": {"choices": [ACCEPT]},
            }
        ]
        drawn = write_result(said.labels, said.width, said.height)
        result = [*decided, *drawn] if said.decision else drawn
        content = {"result": result, "lead_time": seconds}
        self._http.post(f"/api/tasks/{place.backend_task}/annotations/", content)


def annotation_round(
    round_id: str,
    people: Sequence[SimulatedPerson],
    seats: Mapping[str, Seat],
    truth: Dataset,
    *,
    seed: int,
    progress: Callable[[], None],
) -> int:
    """Let everybody answer their places of a round and return the number of answers.

    Args:
        round_id: the round, already before people.
        people: who answers; each in a thread of their own.
        seats: each person's way into the back end, by name.
        truth: what is really in the images, by image id.
        seed: of their mistakes.
        progress: called after every answer, from any thread.
    """
    boxes = {str(key): rows for key, rows in truth.labels.groupby("image_id")}
    sizes = sizes_of(truth)
    nothing = truth.labels.head(0)

    def work(person: SimulatedPerson) -> int:
        places = seats[person.name].open_places(round_id)
        for place in places:
            width, height = sizes[place.image_id]
            seen: pd.DataFrame = boxes.get(place.image_id, nothing)
            shown = decode(place.proposed, Canvas(width, height, truth.ontology))
            said = simulate_annotation(
                person,
                seen,
                width=width,
                height=height,
                ontology=truth.ontology,
                rng=annotation_rng(person, place.image_id, seed=seed),
                proposals=shown.labels,
            )
            annotation = LabelledObjects(said.labels, width, height)
            seats[person.name].submit(place, annotation, said.lead_time_seconds)
            progress()
        return len(places)

    with ThreadPoolExecutor(len(people)) as pool:
        return sum(pool.map(work, people))


def review(round_id: str, seat: Seat, truth: Dataset, *, progress: Callable[[], None]) -> int:
    """Let an expert, who sees what is really there, decide a round's reviews; return how many.

    Args:
        round_id: the round, merged.
        seat: the expert's way into the back end.
        truth: what is really in the images, by image id.
        progress: called after every decision.
    """
    sizes = sizes_of(truth)
    boxes = {str(key): rows for key, rows in truth.labels.groupby("image_id")}
    places = seat.open_places(review_round(round_id))
    for place in places:
        seen = boxes.get(place.image_id, truth.labels.head(0))
        rows = seen[["class_name", *BOX_COLUMNS]].itertuples(index=False)
        drawn = [Label.box(*row) for row in rows]
        seat.submit(place, LabelledObjects(drawn, *sizes[place.image_id], "accept"), 20.0)
        progress()
    return len(places)


def sizes_of(truth: Dataset) -> dict[str, tuple[int, int]]:
    """Return width and height of every image by image id, pixels."""
    sides = zip(truth.images["width"].tolist(), truth.images["height"].tolist(), strict=True)
    return dict(zip(truth.images["image_id"], sides, strict=True))
