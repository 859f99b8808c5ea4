"""Where every round is, and what it waits for."""

from annotation_platform.curation.training_set import usable_imports
from annotation_platform.labeling.ledger import count_answers
from annotation_platform.lake import Lake

_STAGES = [
    ("cleaned_images", "cleaning"),
    ("label_tasks", "questions to be asked"),
    ("consensus_labels", "people"),
    ("dataset_version", "the release"),
    ("round_report", "training"),
]


def round_states(lake: Lake) -> list[dict[str, object]]:
    """Return one row a round: what landed, what people answered so far, what it waits for.

    ``imported`` counts the images whose own labels are used; ``answers`` are those in the ledger,
    which is written when a round is merged.
    """
    return [_state(lake, round_id) for round_id in lake.manifests.rounds()]


def _state(lake: Lake, round_id: str) -> dict[str, object]:
    tables = lake.tables
    waits_for = next((what for table, what in _STAGES if not tables.exists(table, round_id)), "–")
    brought = usable_imports(tables, [round_id])["image_id"].nunique()
    if tables.exists("label_tasks", round_id) and tables.read("label_tasks", round_id).empty:
        if not brought:
            waits_for = "– (nothing new to label)"
        elif not tables.exists("consensus_labels", round_id):
            waits_for = "merging (all images landed with labels)"
    row: dict[str, object] = {
        "round": round_id,
        "landed": len(lake.manifests.read(round_id)),
        "accepted": 0,
        "imported": brought,
        "tasks": 0,
        "places": 0,
        "answers": 0,
        "version": "",
        "waits_for": waits_for,
    }
    if tables.exists("cleaned_images", round_id):
        cleaned = tables.read("cleaned_images", round_id)
        row["accepted"] = int((cleaned["outcome"] == "accepted").sum())
    if tables.exists("label_tasks", round_id):
        tasks = tables.read("label_tasks", round_id)
        row["tasks"], row["places"] = tasks["task_id"].nunique(), len(tasks)
        row["answers"] = len(count_answers(lake.ledger.read(round_id), tasks).counted)
    if tables.exists("dataset_version", round_id):
        row["version"] = str(tables.read("dataset_version", round_id)["version"].iloc[0])
    return row
