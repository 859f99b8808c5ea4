"""The conflicts of a round, with the suspect labels that reviewers had to decide about."""

import pandas as pd

from annotation_platform.curation.label_issues import with_suspects
from annotation_platform.schema.tables import table_named
from annotation_platform.storage.round_tables import RoundTables


def open_conflicts(tables: RoundTables, round_id: str) -> pd.DataFrame:
    """Return the ``conflicts`` of a round; issues of images under review for them are among them.

    Lakes of v0.1.0 hold these issues in the table itself; they are counted once.
    """
    conflicts, issues, consensus, tasks = (
        tables.read_rounds(table_named(name), [round_id])
        for name in ("conflicts", "label_issues", "consensus_labels", "review_tasks")
    )
    under_review = tasks.loc[tasks["kinds"].str.contains("suspected "), "image_id"]
    return with_suspects(conflicts, issues[issues["image_id"].isin(under_review)], consensus)
