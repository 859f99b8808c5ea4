"""Rewrite the objects of the lake for an erasure: content-addressed ones first, then the others."""

import hashlib
import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from threading import Lock
from typing import Any

import numpy as np

from annotation_platform.curation.training_set import digest_of_round
from annotation_platform.governance.erasure.rewriting import Rewriting
from annotation_platform.schema.keys import SHOWN, sidecar_key
from annotation_platform.storage.erasures import PLAN
from annotation_platform.storage.journal import ERASED, entry_key
from annotation_platform.storage.lineage import entries_of
from annotation_platform.storage.objects import ObjectStore
from annotation_platform.storage.table_files import content_digest

_AUDIT = "audit"
"""The folder that is not rewritten: it is chained, and holds no images and no annotations."""

_BULK = ("raw", "images", SHOWN, "landed", "sidecars")
"""Folders whose objects are identified by their keys alone."""

_BY_CONTENT = re.compile(r"(inputs|features/[^/]+)/(?P<digest>[0-9a-f]{64})\.\w+")
_LINEAGE = re.compile(r"lineage/(?P<table>\w+)/(?P<round>[^/]+)/(?P<digest>[0-9a-f]{64})\.json")
_TABLE = re.compile(r"tables/(?P<table>\w+)/(?P<round>[^/]+)\.parquet")
_SIGNATURES = ("signatures/", "likenesses/")
"""Folders of signatures; the last is that of v0.1.0."""
_REWRITTEN = {".parquet", ".jsonl", ".json"}
_THREADS = 8


Progress = Callable[[int, int], None]


def lake_keys(store: ObjectStore) -> list[str]:
    """Return the keys of all objects of the lake that an erasure covers, sorted."""
    keys = {*store.list(""), *store.list(SHOWN)}
    return sorted(key for key in keys - {PLAN} if not key.startswith(f"{_AUDIT}/"))


def rewrite_by_content(
    store: ObjectStore, rewriting: Rewriting, *, progress: Progress
) -> tuple[str, ...]:
    """Write the rewritten content-addressed objects and return the keys that they replace.

    ``rewriting`` gets the replacement of each digest: of tables, input lists of versions, manifests
    and labels of rounds. Existing objects do not change.
    """
    keys = [key for key in lake_keys(store) if not _is_bulk(key)]
    tables = [key for key in keys if key.endswith(".parquet")]
    manifests = [key for key in keys if key.startswith("manifests/")]
    lineage = [key for key in keys if _LINEAGE.fullmatch(key)]
    lists = [key for key in keys if _BY_CONTENT.fullmatch(key) and key.endswith(".json")]
    rewritten = _by_kind(rewriting)
    states = [_states_now(store, tables), *_states_of_versions(store, lists)]
    # Some tables hold digests of others: repeat until no new replacement is found.
    while True:
        learned = {
            hashlib.sha256(data).hexdigest(): hashlib.sha256(new).hexdigest()
            for _, data, new in _rewritten(store, [*tables, *manifests], rewritten, progress)
            if new != data
        }
        if learned.items() <= rewriting.tokens.items():
            break
        rewriting.tokens |= learned
    _replace_round_digests(states, rewriting)
    rewriting.entries = entries_after(store, rewriting)
    # Each group is named by the later ones; input lists repeat the lineage records.
    return tuple(
        key
        for group in (tables, lineage, lists)
        for key in _put_renamed(store, group, rewritten, rewriting, progress)
    )


def _put_renamed(
    store: ObjectStore,
    keys: Sequence[str],
    rewritten: Callable[[str, bytes], bytes],
    rewriting: Rewriting,
    progress: Progress,
) -> Iterator[str]:
    """Write content-addressed objects under their new keys; yield the old keys."""
    for key, data, new in _rewritten(store, keys, rewritten, progress):
        if _BY_CONTENT.fullmatch(key) and new != data:
            digest = hashlib.sha256(data).hexdigest()
            rewriting.tokens[digest] = hashlib.sha256(new).hexdigest()
        target = _target(key, rewriting)
        if target != key:
            store.create(target, new)
            yield key


def rewrite_in_place(
    store: ObjectStore,
    rewriting: Rewriting,
    *,
    old: Collection[str],
    sidecars: Iterable[str],
    progress: Progress,
) -> int:
    """Rewrite all other objects, delete the replaced ones, and return the number of changes.

    Args:
        store: the lake.
        rewriting: as changed by ``rewrite_by_content``.
        old: the keys that ``rewrite_by_content`` returned.
        sidecars: SHA-256 of the sidecars that describe no other image.
        progress: called with the objects done and their total.
    """
    keys = lake_keys(store)
    doomed = {*old, *map(sidecar_key, sidecars), *_receipts(store, keys, rewriting, sidecars)}
    doomed |= {key for key in keys if rewriting.names_one(key)}
    signatures = (key for key in keys if key.startswith(_SIGNATURES))
    doomed |= {key for key in signatures if _may_hold(store.get(key), rewriting.images)}
    remaining = [key for key in keys if not (_is_bulk(key) or key in doomed)]
    changing = [
        key
        for key in remaining
        if PurePosixPath(key).suffix in _REWRITTEN and not _BY_CONTENT.fullmatch(key)
    ]
    # Lineage records hold digests of journals, so they follow them.
    changing.sort(key=lambda key: _LINEAGE.fullmatch(key) is not None)
    total, changed = len(changing) + len(doomed), 0
    for done, (key, data, new) in enumerate(
        _rewritten(store, changing, _by_kind(rewriting)), start=1
    ):
        if new != data:
            store.put(key, new)
            changed += 1
        # Earlier states of the object may hold erased content.
        store.purge(key)
        progress(done, total)
    for done, key in enumerate(sorted(doomed), start=total - len(doomed) + 1):
        store.remove(key)
        progress(done, total)
    return changed + len(doomed)


def _receipts(
    store: ObjectStore, keys: Iterable[str], rewriting: Rewriting, sidecars: Iterable[str]
) -> set[str]:
    """Return the keys of the receipts of erased images, including those that no round holds."""
    digests = {*rewriting.images, *sidecars}
    if not digests:
        return set()
    receipts = [key for key in keys if key.startswith("landed/")]
    contents = _rewritten(store, receipts, lambda _key, data: data)
    return {key for key, data, _ in contents if data.decode(errors="replace") in digests}


def _is_bulk(key: str) -> bool:
    return key.partition("/")[0] in _BULK


def _may_hold(signatures: bytes, images: Collection[str]) -> bool:
    """Return whether a file of signatures may hold one of the images.

    Deleted files are computed again.
    """
    try:
        rows = np.load(io.BytesIO(signatures), allow_pickle=False)
        return not set(rows["image_id"].astype(str).tolist()).isdisjoint(images)
    except (ValueError, IndexError):
        return True


def _target(key: str, rewriting: Rewriting) -> str:
    """Return the key of the replacement of a content-addressed object."""
    match = _BY_CONTENT.fullmatch(key) or _LINEAGE.fullmatch(key)
    if match is None:
        return key
    digest = match["digest"]
    return key.replace(digest, rewriting.tokens.get(digest, digest))


def _lineage(rewriting: Rewriting) -> Callable[[bytes], bytes]:
    """Return a function that rewrites a lineage record, or the input list of a version.

    Weights that were estimated from erased annotations cannot be estimated again, so the record of
    a consensus is marked as one with erased inputs.
    """

    def rewritten(data: bytes) -> bytes:
        new = rewriting.document(data)
        if new == data or not rewriting.images:
            return new
        old, content = json.loads(data), json.loads(new)
        for before, after in zip(_records(old), _records(content), strict=True):
            if before != after and "iou_threshold" in after["settings"]:
                after["settings"][ERASED] = True
        text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
        return text.encode() + b"\n"

    return rewritten


def _records(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every lineage record in a document."""
    if "settings" in content:
        return [content]
    made = content.get("made")
    several = made.values() if isinstance(made, dict) else ()
    return [each["made_of"] for each in several if each["made_of"]]


def _rewritten(
    store: ObjectStore,
    keys: Sequence[str],
    rewritten: Callable[[str, bytes], bytes],
    progress: Progress = lambda _done, _total: None,
) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield the key, present bytes and new bytes of each object, in order, a few at a time."""

    def work(key: str) -> tuple[str, bytes, bytes]:
        data = store.get(key)
        return key, data, rewritten(key, data)

    with ThreadPoolExecutor(_THREADS) as pool:
        for done, each in enumerate(pool.map(work, keys), start=1):
            progress(done, len(keys))
            yield each


def _by_kind(rewriting: Rewriting) -> Callable[[str, bytes], bytes]:
    """Return a function that rewrites an object according to the kind of its key."""
    lineage = _lineage(rewriting)

    def rewritten(key: str, data: bytes) -> bytes:
        match PurePosixPath(key).suffix:
            case ".parquet":
                return rewriting.table(data)
            case ".jsonl":
                return rewriting.entry(data)
            case _:
                has_records = _LINEAGE.fullmatch(key) or _BY_CONTENT.fullmatch(key)
                return lineage(data) if has_records else rewriting.document(data)

    return rewritten


def entries_after(
    store: ObjectStore, rewriting: Rewriting
) -> Callable[[str, int], Mapping[str, Any]]:
    """Return a function for the record of the first entries of a rewritten journal."""
    journals: dict[str, list[bytes]] = {}
    # Called by several threads, which share the entries read.
    reading = Lock()

    def record(folder: str, count: int) -> Mapping[str, Any]:
        with reading:
            known = journals.setdefault(folder, [])
            known += [
                rewriting.entry(store.get(entry_key(folder, number)))
                for number in range(len(known) + 1, count + 1)
            ]
            found = entries_of(known[:count])
        return {"count": found.count, "sha256": found.sha256}

    return record


_State = Mapping[str, Mapping[str, str]]
"""Digests of tables, by round and table name."""


def _states_now(store: ObjectStore, keys: Iterable[str]) -> _State:
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for key in keys:
        if match := _TABLE.fullmatch(key):
            digest = content_digest(store.get(key))
            found[match["round"]][match["table"]] = digest
    return found


def _states_of_versions(store: ObjectStore, lists: Iterable[str]) -> Iterator[_State]:
    """Yield the input tables of each version."""
    for key in lists:
        made = json.loads(store.get(key)).get("made")
        if not isinstance(made, dict):
            # Policies are stored in this folder, too.
            continue
        found: dict[str, dict[str, str]] = defaultdict(dict)
        for name, each in made.items():
            depends_on = (each["made_of"] or {"tables": {}})["tables"]
            for other, digest in {name: each["sha256"], **depends_on}.items():
                table, _, round_id = other.partition("/")
                found[round_id][table] = digest
        yield found


def _replace_round_digests(states: Iterable[_State], rewriting: Rewriting) -> None:
    """Add the new digest of each round's labels, computed from the rewritten tables."""
    for state in states:
        for tables in state.values():
            after = {name: rewriting.tokens.get(digest, digest) for name, digest in tables.items()}
            old, new = digest_of_round(tables), digest_of_round(after)
            if old != new:
                rewriting.tokens[old] = new
