"""The count of the annotations of a round."""

from collections.abc import Iterable

import pandas as pd

from annotation_platform.labeling.counting import Count, Rules, count_annotations
from annotation_platform.labeling.ledger import AnnotationsLedger, Revision
from annotation_platform.labeling.round_decisions import RoundRecord
from annotation_platform.labeling.skills import Skills
from annotation_platform.storage.lake import Lake


def counting_rules(round_id: str, lake: Lake) -> Rules:
    """Return who may fill which assignment of a round, and until which entry of the ledger."""
    last = RoundRecord(lake.store, round_id).last
    entries = last.entries if last is not None and last.action == "closed" else None
    return Rules(qualified=Skills(lake.store).had, entries=entries)


def ledger_count(
    round_id: str, tasks: pd.DataFrame, lake: Lake, *, also: Iterable[Revision] = ()
) -> Count:
    """Return the count of the annotations of a round in the ledger, and of these ``also``."""
    ledger = AnnotationsLedger(lake.store).read(round_id)
    return count_annotations([*ledger, *also], tasks, counting_rules(round_id, lake))
