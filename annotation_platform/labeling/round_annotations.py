"""The annotations of a round, collected once."""

from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from annotation_platform.labeling.backends.protocol import LabelingBackend
from annotation_platform.labeling.counting import Count, Rules, count_annotations
from annotation_platform.labeling.ledger import AnnotationsLedger, Revision, as_revision
from annotation_platform.labeling.round_decisions import RoundRecord
from annotation_platform.labeling.skills import Skills
from annotation_platform.storage.lake import Lake


@dataclass(frozen=True)
class RoundAnnotations:
    """The annotations of a round at one time.

    Attributes:
        live: the annotations in the back end.
        ledger: the annotations in the ledger.
        count: which of them hold the assignments of the round, and why the others do not.
    """

    live: tuple[Revision, ...]
    ledger: tuple[Revision, ...]
    count: Count


def counting_rules(round_id: str, lake: Lake) -> Rules:
    """Return who may fill which assignment of a round, and until which entry of the ledger."""
    last = RoundRecord(lake.store, round_id).last
    entries = last.entries if last is not None and last.action == "closed" else None
    return Rules(qualified=Skills(lake.store).had, entries=entries)


def current_annotations(
    round_id: str, tasks: pd.DataFrame, labeling: LabelingBackend, lake: Lake
) -> RoundAnnotations:
    """Return the annotations of a round now; nothing is written.

    Args:
        round_id: the round.
        tasks: its ``label_tasks``.
        labeling: the back end, read once.
        lake: with the ledger.
    """
    live = tuple(as_revision(each) for each in labeling.collect(round_id))
    ledger = tuple(AnnotationsLedger(lake.store).read(round_id))
    count = count_annotations([*ledger, *live], tasks, counting_rules(round_id, lake))
    return RoundAnnotations(live, ledger, count)


def collect_new(
    round_id: str, tasks: pd.DataFrame, labeling: LabelingBackend, lake: Lake, *, now: datetime
) -> RoundAnnotations:
    """Write the annotations of a round that are new into the ledger, and return all of them.

    Only annotations in the ledger count: those in the back end are written to it first.

    Args:
        round_id: the round.
        tasks: its ``label_tasks``.
        labeling: the back end, read once.
        lake: with the ledger.
        now: the time.
    """
    submissions = labeling.collect(round_id)
    annotations_ledger = AnnotationsLedger(lake.store)
    annotations_ledger.append(round_id, submissions, now=now)
    ledger = tuple(annotations_ledger.read(round_id))
    count = count_annotations(ledger, tasks, counting_rules(round_id, lake))
    return RoundAnnotations(tuple(as_revision(each) for each in submissions), ledger, count)
