"""A lake with merged rounds whose tables are written by hand."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from annotation_platform.consensus.resolve import resolve_consensus
from annotation_platform.ingestion.lake import open_lake
from annotation_platform.labeling.guidelines import record_guideline
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import NOTHING, Label
from annotation_platform.schema.tables import (
    CleanedImages,
    HumanLabels,
    ImportedLabels,
    ReviewedLabels,
    ReviewTasks,
    table_named,
)
from annotation_platform.storage.lake import Lake

ONE, TWO = "round-0001", "round-0002"
ONTOLOGY = Ontology.from_names(["cat", "dog"])
CAT, DOG = Label.box("cat", 10, 10, 50, 50), Label.box("dog", 10, 10, 50, 50)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def image_of(name):
    return hashlib.sha256(name.encode()).hexdigest()


def task_of(round_id, name):
    return f"{round_id}/boxes/{image_of(name)}"


def human_labels(round_id, annotations, *, purpose="label", guideline="0" * 64, seconds=10.0):
    """Return the table of annotations ``{image: {annotator: [labels]}}``."""
    rows = [
        {
            "round_id": round_id,
            "task_id": task_of(round_id, name),
            "image_id": image_of(name),
            "assignment": place,
            "annotation_id": f"{name}/{person}",
            "revision": "0" * 64,
            "annotator": person,
            "label_id": f"{round_id}/{name}/{person}:{number}",
            **vars(label),
            "lead_time_seconds": seconds,
            "submitted_at": NOW,
            "weights_sha256": "",
            "changed": False,
            "purpose": purpose,
            "without_predictions": False,
            "guideline": guideline,
            "refused_regions": 0,
            "problems": "",
        }
        for name, by_person in annotations.items()
        for place, (person, labels) in enumerate(by_person.items(), start=1)
        for number, label in enumerate(labels or [NOTHING])
    ]
    return HumanLabels.from_rows(rows)


@dataclass
class Past:
    """A lake, and the hands that write its rounds."""

    lake: Lake
    guideline: str

    def merge(self, round_id, annotations, gold=None, *, seconds=10.0):
        """Write the annotations of a round, of own images and of ``gold``, and merge them."""
        parts = [
            human_labels(round_id, each, purpose=purpose, guideline=self.guideline, seconds=seconds)
            for purpose, each in (("label", annotations), ("gold", gold or {}))
        ]
        labels = pd.concat([part for part in parts if len(part)], ignore_index=True)
        merged = resolve_consensus(labels[labels["purpose"] == "label"], ontology=ONTOLOGY)
        self._write(round_id, "human_labels", labels)
        self._write(round_id, "consensus_labels", merged.labels)
        self._write(round_id, "conflicts", merged.conflicts)
        self._write(round_id, "cleaned_images", _images(round_id, [*annotations, *(gold or {})]))
        return merged

    def land_known(self, round_id, truth, *, origin="expert"):
        """Write labels that images landed with: ``{image: [labels]}``."""
        rows = [
            {"origin": origin, "problem": "", **_label(round_id, name, number, label)}
            for name, labels in truth.items()
            for number, label in enumerate(labels or [NOTHING])
        ]
        self._write(round_id, "imported_labels", ImportedLabels.from_rows(rows))

    def review(self, round_id, decided, *, sampled=()):
        """Write what was decided: ``{image: (decision, [labels])}``; some were drawn by lot."""
        rows = [
            {
                "task_id": task_of(round_id, name),
                "support": 1,
                "annotations": 1,
                "decision": decision,
                "decided_by": "",
                "comment": "",
                **_label(round_id, name, number, label),
            }
            for name, (decision, labels) in decided.items()
            for number, label in enumerate(labels or [NOTHING])
        ]
        self._write(round_id, "reviewed_labels", ReviewedLabels.from_rows(rows))
        tasks = [
            {
                "round_id": round_id,
                "review_id": f"{round_id}/review/{image_of(name)}",
                "task_id": task_of(round_id, name),
                "image_id": image_of(name),
                "kinds": "sample" if name in sampled else "tied",
                **dict.fromkeys(["reasons", "reviewer", "backend", "backend_task"], ""),
            }
            for name, (decision, _) in decided.items()
            if decision != "undisputed"
        ]
        table = ReviewTasks.from_rows(tasks) if tasks else ReviewTasks.empty()
        self._write(round_id, "review_tasks", table)

    def _write(self, round_id, name, table):
        self.lake.tables.write(table_named(name), round_id, table)


def begin(folder: Path) -> Past:
    """Return a past in which nothing has happened."""
    lake = open_lake(folder / "lake", folder / "landing")
    return Past(lake, record_guideline(lake.store, ONTOLOGY))


def _label(round_id, name, number, label):
    image = image_of(name)
    return {
        "round_id": round_id,
        "image_id": image,
        "label_id": f"{image}:{number:04d}",
        **vars(label),
    }


def _images(round_id, names):
    texts = ["reason", "joins", "flags"]
    rows = [
        {
            "round_id": round_id,
            "source_key": name,
            "arrival_version": "1",
            "image_id": image_of(name),
            "outcome": "accepted",
            **dict.fromkeys(texts, ""),
            "width": 320,
            "height": 240,
            "extension": "png",
            "stored_bytes": 1,
        }
        for name in names
    ]
    return CleanedImages.from_rows(rows)
