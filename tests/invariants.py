"""What must hold after every fault: one checker that any test can call.

Of the invariants in the fault list: I1 (every landed object and every answer ends in exactly one
way), I3 (what people said is never changed), I4 (the same step again changes nothing), I5 (errors
that say what, where and what to do), I6 (no secret anywhere), I7 (the same input gives the same
bytes).
"""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from annotation_platform.images.cleaning import clean_round
from annotation_platform.labeling.counting import count_annotations
from annotation_platform.labeling.ledger import AnnotationsLedger
from annotation_platform.pipeline.earlier import earlier_rounds
from annotation_platform.schema.tables import CleanedImages, RawImages
from annotation_platform.schema.tables.shared import AnnotationState
from annotation_platform.storage.table_files import table_bytes
from tests.reconciliation import damaged_images, reconcile_arrivals


def check_account(lake):
    """I1: nothing is lost or counted twice, and every accepted image is what it was."""
    account = reconcile_arrivals(lake, lake.landed(now=datetime.now(UTC) + timedelta(seconds=1)))
    assert account.problems == []
    ended = account.accepted + account.duplicates + account.quarantined + account.pending
    assert ended == account.landed
    assert damaged_images(lake) == []
    return account


def check_annotations(lake, round_id, tasks, *, rules=None, before=None):
    """I1 and I3: every answer ever seen counts or is surplus with a reason; no entry is changed.

    ``tasks`` is the round's ``label_tasks``, ``before`` what an earlier call returned: the entries
    of the ledger as they were then. Nobody counts twice on a task, and whoever counted then and
    did not skip since still does.
    """
    entries = contents(lake.store, f"ledger/answers/{round_id}")
    assert [key for key, data in (before or {}).items() if entries.get(key) != data] == []
    revisions = AnnotationsLedger(lake.store).read(round_id)
    count = count_annotations(revisions, tasks, rules)
    ended = [_annotation(annotation.revision) for annotation in count.annotations]
    assert sorted(ended) == sorted({_annotation(revision) for revision in revisions})
    assert {annotation.state for annotation in count.annotations} <= set(AnnotationState)
    assert all(annotation.detail for annotation in count.not_counted)
    held = {place: _annotation(revision) for place, revision in count.counted.items()}
    assert sorted(held.values()) == sorted(
        _annotation(annotation.revision)
        for annotation in count.annotations
        if annotation.state == "counted"
    )
    assert set(held) <= set(zip(tasks["task_id"], tasks["assignment"], strict=True))
    authors = [(task, said.submission.author.lower()) for (task, _), said in count.counted.items()]
    assert len(set(authors)) == len(authors)
    known = [revision for revision in revisions if revision.entry <= len(before or {})]
    skipped = {_annotation(revision) for revision in revisions if revision.submission.skipped}
    for place, revision in count_annotations(known, tasks, rules).counted.items():
        assert held.get(place) == _annotation(revision) or _annotation(revision) in skipped
    return entries


def check_idempotent(lake, policy):
    """I4: ingesting and cleaning every round again gives the same tables and writes nothing."""
    before = contents(lake.store)
    for round_id in lake.tables.rounds(CleanedImages):
        raw = lake.ingest(round_id, maximum_bytes=policy.maximum_bytes)
        assert table_bytes(RawImages, raw) == lake.store.get(
            f"tables/raw_images/{round_id}.parquet"
        )
        earlier = earlier_rounds(CleanedImages, round_id, lake)
        cleaned = clean_round(raw, earlier, lake.store, policy)
        assert table_bytes(CleanedImages, cleaned) == lake.store.get(
            f"tables/cleaned_images/{round_id}.parquet"
        )
    assert contents(lake.store) == before


def check_error(error):
    """I5: the message names something, says what is wrong, and what to do about it."""
    text = str(error)
    sentences = [part for part in re.split(r"[.;:?] ", text) if part]
    assert len(sentences) >= 2, text
    assert "Traceback" not in text
    assert "\n" not in text.strip(), text


def check_no_secret(secrets, *, folders=(), texts=(), lake=None):
    """I6: none of the secrets is in a file below the folders, in a text, or in the lake."""
    data = [path.read_bytes() for place in folders for path in Path(place).rglob("*")
            if path.is_file()]  # fmt: skip
    data += [str(text).encode() for text in texts]
    data += list(contents(lake.store).values()) if lake is not None else []
    found = [secret for secret in secrets if any(secret.encode() in each for each in data)]
    assert not found


def check_same(one, other, *prefixes):
    """I7: two lakes hold the same keys and bytes under these prefixes; there is something."""
    first, second = contents(one.store, *prefixes), contents(other.store, *prefixes)
    assert first.keys() == second.keys()
    assert [key for key, data in first.items() if second[key] != data] == []
    assert first


def _annotation(revision):
    return revision.submission.backend, revision.submission.annotation


def contents(store, *prefixes):
    """Return what a lake holds, by key."""
    return {key: store.get(key) for prefix in prefixes or ("",) for key in store.list(prefix)}
