"""A round in one row: what came in, what people said, what came out."""

import pandas as pd

from annotation_platform.consensus.agreement import pairwise_agreement
from annotation_platform.errors import NotReadyError
from annotation_platform.schema.tables import make_table
from annotation_platform.storage.round_tables import RoundTables


def report_round(tables: RoundTables, round_id: str) -> pd.DataFrame:
    """Return the ``round_report`` of a round; NotReadyError while an earlier stage is missing.

    The model's figures are missing where the round's version trained none.
    """
    cleaned = tables.read("cleaned_images", round_id)
    tasks = tables.read("label_tasks", round_id)
    said = tables.read("human_labels", round_id)
    consensus = tables.read("consensus_labels", round_id)
    version = tables.read("dataset_version", round_id).iloc[0]
    try:
        model = tables.read("model_evaluation", round_id).iloc[0]
        map50, test_images = float(model["map50"]), int(model["test_images"])
    except NotReadyError:
        map50, test_images = float("nan"), int(version["test_images"])
    outcomes = cleaned["outcome"].value_counts()
    row: dict[str, object] = {
        "round_id": round_id,
        "landed": len(cleaned),
        "accepted": int(outcomes.get("accepted", 0)),
        "quarantined": int(outcomes.get("quarantined", 0)),
        "duplicates": int(outcomes.get("duplicate", 0)),
        "tasks": tasks["task_id"].nunique(),
        "answers": said["answer_id"].nunique(),
        "agreement": pairwise_agreement(said),
        "disputed": int(consensus["disputed"].sum()),
        "model_map50": map50,
        "test_images": test_images,
        "version": version["version"],
    }
    return make_table("round_report", [row])
