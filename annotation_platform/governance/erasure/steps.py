"""The steps of an erasure, in order; each can be repeated.

Replacements are written before the originals are removed, so readers see either the old or the new
state.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from annotation_platform.governance.erasure.lake_pass import (
    Progress,
    entries_after,
    rewrite_by_content,
    rewrite_in_place,
)
from annotation_platform.governance.erasure.locations import Locations
from annotation_platform.governance.erasure.plan import ErasurePlan, as_arrival
from annotation_platform.governance.erasure.scan import unfinished_files
from annotation_platform.ingestion.ingest import sidecar_receipt
from annotation_platform.labeling.reviews import review_round
from annotation_platform.labeling.rounds import fetch_annotations
from annotation_platform.schema.tables import LabelTasks, TrainingSet
from annotation_platform.storage.erasures import Erasures
from annotation_platform.storage.table_files import read_table, table_bytes
from annotation_platform.versioning.collect import unneeded_objects
from annotation_platform.versioning.registry import open_remote
from annotation_platform.versioning.reissue import (
    ErasedContent,
    Reissue,
    move_references,
    write_versions,
)
from annotation_platform.versioning.remote import registry_lock
from annotation_platform.versioning.store import image_source


def _refuse(plan: ErasurePlan, locations: Locations, _progress: Progress) -> ErasurePlan:
    Erasures(locations.lake.store).add(plan.images, reason=plan.reason, by=plan.by, now=plan.at)
    return plan


def _write_tables(plan: ErasurePlan, locations: Locations, progress: Progress) -> ErasurePlan:
    rewriting = plan.rewriting
    old = rewrite_by_content(locations.lake.store, rewriting, progress=progress)
    return replace(plan, tokens=rewriting.tokens, old=(*(plan.old or ()), *old))


def _write_versions(plan: ErasurePlan, locations: Locations, progress: Progress) -> ErasurePlan:
    rewriting = plan.rewriting
    leaving = ErasedContent(
        images=rewriting.images,
        labels=lambda frame: read_table(
            TrainingSet, rewriting.table(table_bytes(TrainingSet, frame))
        ),
        text=rewriting.text,
        reason=plan.reason,
        at=plan.at,
    )
    reissue = write_versions(
        locations.registry,
        leaving,
        image_source(locations.lake),
        remote_url=locations.remote_url,
        progress=progress,
    )
    tokens = plan.tokens | reissue.commits | _folders(reissue.folders)
    return replace(plan, reissue=_joined(plan.reissue, reissue), tokens=tokens)


def _joined(before: Reissue | None, now: Reissue) -> Reissue:
    """Return the remaining work on versions, including that of an earlier attempt."""
    if before is None:
        return now
    return replace(
        now,
        versions=before.versions | now.versions,
        withdrawn=tuple(dict.fromkeys((*before.withdrawn, *now.withdrawn))),
        objects=tuple(sorted({*before.objects, *now.objects})),
    )


def _folders(folders: Mapping[str, str]) -> dict[str, str]:
    """Return the new digest of each folder by the old one, as they appear in texts."""
    return {old.removesuffix(".dir"): new.removesuffix(".dir") for old, new in folders.items()}


def _move_references(plan: ErasurePlan, locations: Locations, _progress: Progress) -> ErasurePlan:
    assert plan.reissue is not None
    move_references(locations.registry, plan.reissue, remote_url=locations.remote_url)
    return plan


def _clear_remote(plan: ErasurePlan, locations: Locations, progress: Progress) -> ErasurePlan:
    assert plan.reissue is not None
    git, removed = locations.registry, 0
    with registry_lock(git.folder):
        for url in sorted({url for url, _ in plan.reissue.objects}):
            remote = open_remote(git, url)
            names = [name for each, name in plan.reissue.objects if each == url]
            doomed = sorted(unneeded_objects(git, remote, names, reach=locations.reach))
            for done, name in enumerate(doomed, start=1):
                remote.erase([name])
                # A version that was pulled here is in DVC's cache, too.
                cached = git.folder / ".dvc/cache/files/md5" / name[:2] / name[2:]
                cached.unlink(missing_ok=True)
                progress(done, len(doomed))
            removed += len(doomed)
    return replace(plan, counts=plan.counts | {"remote": removed})


def _clear_labeling(plan: ErasurePlan, locations: Locations, _progress: Progress) -> ErasurePlan:
    tasks = locations.labeling.delete(frozenset(plan.images)) if plan.images else 0
    if plan.person:
        # Without the account, later annotations could not be attributed.
        _fetch_all(locations)
        tasks += locations.labeling.delete_person(plan.person)
    return replace(plan, counts=plan.counts | {"tasks": tasks})


def _fetch_all(locations: Locations) -> None:
    """Store every annotation that the back ends hold in the ledger."""
    lake = locations.lake
    for round_id in lake.tables.rounds(LabelTasks):
        for each in (round_id, review_round(round_id)):
            fetch_annotations(each, locations.labeling, lake, now=datetime.now(UTC))


def _clear_landing(plan: ErasurePlan, locations: Locations, _progress: Progress) -> ErasurePlan:
    digests, sizes = {*plan.images, *plan.sidecars}, set(plan.sizes)
    removed = locations.lake.landing.remove_content(
        lambda name, size: size in sizes or name.endswith(".json"),
        lambda data: hashlib.sha256(data).hexdigest() in digests,
    )
    return replace(plan, counts=plan.counts | {"landed": removed})


def _clear_lake(plan: ErasurePlan, locations: Locations, progress: Progress) -> ErasurePlan:
    store, rewriting = locations.lake.store, plan.rewriting
    rewriting.entries = entries_after(store, rewriting)
    for path in unfinished_files(store.url("x")):
        # No other process writes now, and unfinished files are never read.
        path.unlink(missing_ok=True)
    for arrival in map(as_arrival, plan.landed):
        locations.lake.receipts.remove(arrival)
        locations.lake.receipts.remove(sidecar_receipt(arrival))
    changed = rewrite_in_place(
        store, rewriting, old=plan.old or (), sidecars=plan.sidecars, progress=progress
    )
    return replace(plan, counts=plan.counts | {"lake": changed})


def _clear_events(plan: ErasurePlan, locations: Locations, _progress: Progress) -> ErasurePlan:
    cleared = locations.events(frozenset(plan.images)) if plan.images else 0
    return replace(plan, counts=plan.counts | {"events": cleared})


STEPS: dict[str, Callable[[ErasurePlan, Locations, Progress], ErasurePlan]] = {
    "refusing it from now on": _refuse,
    "writing tables without it": _write_tables,
    "writing versions without it": _write_versions,
    "moving tags": _move_references,
    "clearing the remote": _clear_remote,
    "clearing the labelling back ends": _clear_labeling,
    "clearing the landing zone": _clear_landing,
    "clearing the lake": _clear_lake,
    "clearing the pages of the UI": _clear_events,
}
"""The steps by their name for people, in order.

An interrupted erasure stores the names of the steps that are done.
"""
