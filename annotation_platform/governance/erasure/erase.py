"""Erase images from every place that they reached, and show afterwards that nothing is left.

Each step may be done twice, and what it needs is written down before it begins; so a process that
is killed at any moment leaves an erasure that the next call finishes. What is to take the place of
something is written before that is taken away: readers see the old state or the new one.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from annotation_platform.errors import DataError, PublishError
from annotation_platform.governance.audit_log.recording import record_erasure
from annotation_platform.governance.erasure.dry_run import DryRunLake
from annotation_platform.governance.erasure.lake_pass import (
    entries_after,
    rewrite_by_content,
    rewrite_in_place,
)
from annotation_platform.governance.erasure.locations import Places
from annotation_platform.governance.erasure.person import FoundPerson, find_person, nobody
from annotation_platform.governance.erasure.plan import Plan, read_plan
from annotation_platform.governance.erasure.record import PLAN, Erasures
from annotation_platform.governance.erasure.rewriting import Rewriting
from annotation_platform.governance.erasure.scan import Scanned, scan, unfinished
from annotation_platform.governance.erasure.subject import Found, Kind, find_images
from annotation_platform.images.signature import signature_rows
from annotation_platform.ingestion.ingest import sidecar_receipt
from annotation_platform.ingestion.receipts import LakeReceipts
from annotation_platform.labeling.reviews import review_round
from annotation_platform.labeling.rounds import fetch_annotations
from annotation_platform.policy import Policy
from annotation_platform.provenance.state import read_state
from annotation_platform.schema.rounds import Arrival
from annotation_platform.schema.tables import LabelTasks, TrainingSet
from annotation_platform.storage.table_files import read_table, table_bytes
from annotation_platform.versioning.collect import unneeded_objects
from annotation_platform.versioning.registry import list_versions, open_remote
from annotation_platform.versioning.reissue import (
    ErasedContent,
    Reissue,
    find_affected_versions,
    move_references,
    write_versions,
)
from annotation_platform.versioning.remote import registry_lock
from annotation_platform.versioning.store import image_source

_SHOWN = 20

Say = Callable[[str], Callable[[int, int], None]]
"""Told which step begins; returns what is told how far it is."""


@dataclass(frozen=True)
class Erased:
    """What was erased, or would be.

    Attributes:
        pseudonym: of a person whose name was erased, what stands for it from now on; of a dry run,
            what did until now.
        answers: how many states of answers of theirs stay.
        images: their ids, of which ``near_duplicates_found`` were not asked for but go with the
        others.
        stay: images of a source that landed from elsewhere as well.
        landed: what would go from the landing zone; files with the same bytes do, too.
        lake: keys of what would be another thing in the lake, new, or gone; empty once it is done.
        versions: by tag how many of them it held; it is issued again.
        withdrawn: versions of which nothing is left.
        models: weights that learned from them, and the version; they stay.
        counts: what went from where.
        scanned: what was looked through at the end; None for a dry run.
    """

    images: tuple[str, ...]
    near_duplicates_found: int
    stay: tuple[str, ...]
    landed: tuple[str, ...]
    lake: tuple[str, ...]
    versions: dict[str, int]
    withdrawn: tuple[str, ...]
    models: tuple[tuple[str, str], ...]
    counts: dict[str, int]
    scanned: Scanned | None
    pseudonym: str = ""
    annotations: int = 0


def plan_erasure(kind: Kind, name: str, places: Places, policy: Policy) -> tuple[Found, Erased]:
    """Return what an erasure would be about and come to; nothing is changed.

    Raises:
        DataError: nothing is called that, or several images are.
    """
    found = find_images(
        kind,
        name,
        places.lake,
        near_duplicates=policy.erasure.near_duplicates,
        bits=policy.cleaning.duplicate_bits,
    )
    versions, changed = _rehearse(found, places)
    return found, _expected(found, versions, changed, _models(found, versions, places))


_NOTHING = Found(
    asked=frozenset(),
    images=frozenset(),
    stay=frozenset(),
    landed=(),
    sidecars=frozenset(),
    sizes=(),
    signatures=signature_rows(0),
)


def _expected(
    found: Found,
    versions: dict[str, int],
    changed: tuple[str, ...],
    models: tuple[tuple[str, str], ...],
) -> Erased:
    return Erased(
        images=tuple(sorted(found.images)),
        near_duplicates_found=len(found.images - found.asked),
        stay=tuple(sorted(found.stay)),
        landed=tuple(
            sorted({name for key, _, *more in found.landed for name in (key, *more) if name})
        ),
        lake=changed,
        versions=versions,
        withdrawn=(),
        models=models,
        counts={},
        scanned=None,
    )


def _rehearse(
    found: Found, places: Places, *, words: Mapping[str, str] | None = None
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return what each version would lose, and what would change in the lake."""
    dry_run = DryRunLake(places.lake.store)
    erasures = Erasures(places.lake.store)
    rewriting = Rewriting(
        found.images,
        frozenset((key, stamp) for key, stamp, _ in found.landed),
        {image: erasures.name(image) for image in found.images},
        dict(words or {}),
    )
    old = rewrite_by_content(dry_run, rewriting, progress=_nobody)
    changing = find_affected_versions(
        places.registry, found.images, rewriting.text, remote_url=places.remote_url
    )
    # What they will be called is not known yet.
    names = (*changing.commits, *(name.removesuffix(".dir") for name in changing.folders))
    rewriting.tokens |= {name: "0" * len(name) for name in names}
    rewriting.entries = entries_after(dry_run, rewriting)
    for landed in map(_as_landed, found.landed):
        LakeReceipts(dry_run).remove(landed)
        LakeReceipts(dry_run).remove(sidecar_receipt(landed))
    rewrite_in_place(dry_run, rewriting, old=old, sidecars=found.sidecars, progress=_nobody)
    return changing.held, dry_run.changed


def _nobody(_done: int, _total: int) -> None:
    """Tell nobody how far it is."""


def _as_landed(said: tuple[str, str, str]) -> Arrival:
    key, stamp, sidecar = said
    return Arrival(key, stamp, 0, sidecar)


def begin(
    asked: str,
    found: Found,
    expected: Erased,
    places: Places,
    policy: Policy,
    *,
    reason: str,
    by: str,
) -> None:
    """Write down what is to be erased; from then on its images are refused.

    Raises:
        DataError: no reason is given, or another erasure is not finished.
    """
    bits = policy.cleaning.duplicate_bits if policy.erasure.near_duplicates else 0
    plan = _plan(asked, found, expected.models, places, reason=reason, by=by, bits=bits)
    plan.save(places.lake.store)


def _plan(
    asked: str,
    found: Found,
    models: tuple[tuple[str, str], ...],
    places: Places,
    *,
    reason: str,
    by: str,
    bits: int,
) -> Plan:
    store = places.lake.store
    if not reason.strip():
        raise DataError(f"{asked}: say why it is erased: --reason TEXT")
    if found.stay and not found.images:
        raise DataError(f"{asked}: all of it landed from elsewhere as well. Erase image by image.")
    places.events(frozenset())
    if read_plan(store) is not None:
        raise DataError(
            "Another erasure is not finished. Run `annotation-platform image erase --finish`."
        )
    erasures = Erasures(store)
    return Plan(
        asked=asked,
        reason=reason.strip(),
        by=by,
        at=datetime.now(UTC),
        images=tuple(sorted(found.images)),
        landed=found.landed,
        sidecars=tuple(sorted(found.sidecars)),
        sizes=found.sizes,
        models=models,
        bits=bits,
        signatures=found.signatures,
        tokens={image: erasures.name(image) for image in sorted(found.images)},
        counts={"asked": len(found.asked)},
    )


def plan_person_erasure(name: str, places: Places) -> tuple[FoundPerson, Erased]:
    """Return whose name would be erased, and what that would come to.

    Nothing is changed.

    Raises:
        DataError: the lake knows nobody of that name.
        LabelingError: they are who the platform itself is where people label.
    """
    found = find_person(name, places.lake)
    places.labeling.check_person(found.name)
    words = {found.name: "x", found.pseudonym: "annotator-0000000000"}
    versions, changed = _rehearse(_NOTHING, places, words=words)
    expected = replace(
        _expected(_NOTHING, versions, changed, ()),
        pseudonym=found.pseudonym,
        annotations=found.annotations,
    )
    return found, expected


def begin_person_erasure(found: FoundPerson, places: Places, *, reason: str, by: str) -> None:
    """Write down whose name is to be erased.

    Raises:
        DataError: no reason is given, or another erasure is not finished.
    """
    plan = _plan(f"annotator {found.pseudonym}", _NOTHING, (), places, reason=reason, by=by, bits=0)
    words = nobody(found, places.lake)
    counts = {"annotations": found.annotations}
    replace(plan, words=words, person=found.name, counts=counts).save(places.lake.store)


def finish(places: Places, *, say: Say) -> Erased | None:
    """Do what is left of an erasure, and return what it came to; None if there is none.

    Raises:
        DataError: something of it is still there at the end. The erasure stays unfinished.
    """
    store = places.lake.store
    plan = read_plan(store)
    if plan is None:
        return None
    places.events(frozenset())
    for step, work in _STEPS.items():
        if step not in plan.done:
            try:
                plan = work(plan, places, say(step)).with_done(step)
            except PublishError:
                # Somebody may have published meanwhile: that is looked at as well.
                _again(plan).save(store)
                raise
            plan.save(store)
    scanned = scan(plan, places, say("looking through every store"))
    if scanned.left:
        _again(plan).save(store)
        shown = "\n".join(f"  {each}" for each in scanned.left[:_SHOWN])
        raise DataError(
            f"{len(scanned.left)} things are left:\n{shown}\nWhat lies in a folder of your own "
            "you remove by hand; `annotation-platform image erase --finish` does all steps again."
        )
    assert plan.reissue is not None
    result = Erased(
        images=plan.images,
        near_duplicates_found=len(plan.images) - plan.counts.get("asked", 0),
        stay=(),
        landed=(),
        lake=(),
        versions=plan.reissue.versions,
        withdrawn=plan.reissue.withdrawn,
        models=plan.models,
        counts=plan.counts,
        scanned=scanned,
        pseudonym=next((new for new in plan.words.values() if new.startswith("annotator-")), ""),
        annotations=plan.counts.get("annotations", 0),
    )
    facts = {"images": len(result.images), "versions": sorted(result.versions)}
    # Of a person what stands for them now: it says who votes, and not who that was.
    subject = result.pseudonym or plan.tokens[plan.images[0]]
    record_erasure(subject, places.lake, reason=plan.reason, facts=facts, now=datetime.now(UTC))
    store.remove(PLAN)
    return result


def _fetch_all(places: Places) -> None:
    """Have all that people said until now in the ledger."""
    lake = places.lake
    for round_id in lake.tables.rounds(LabelTasks):
        for each in (round_id, review_round(round_id)):
            fetch_annotations(each, places.labeling, lake, now=datetime.now(UTC))


def _again(plan: Plan) -> Plan:
    """Return the plan with every step still to do; what was noted of them stays."""
    return replace(plan, done=())


def _refuse(plan: Plan, places: Places, _say: Callable[[int, int], None]) -> Plan:
    Erasures(places.lake.store).add(plan.images, reason=plan.reason, by=plan.by, now=plan.at)
    return plan


def _write_tables(plan: Plan, places: Places, say: Callable[[int, int], None]) -> Plan:
    rewriting = plan.rewriting
    old = rewrite_by_content(places.lake.store, rewriting, progress=say)
    return replace(plan, tokens=rewriting.tokens, old=(*(plan.old or ()), *old))


def _write_versions(plan: Plan, places: Places, say: Callable[[int, int], None]) -> Plan:
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
        places.registry,
        leaving,
        image_source(places.lake),
        remote_url=places.remote_url,
        progress=say,
    )
    tokens = plan.tokens | reissue.commits | _folders(reissue.folders)
    return replace(plan, reissue=_joined(plan.reissue, reissue), tokens=tokens)


def _joined(before: Reissue | None, now: Reissue) -> Reissue:
    """Return what is to be done about versions if they were written once already."""
    if before is None:
        return now
    return replace(
        now,
        versions=before.versions | now.versions,
        withdrawn=tuple(dict.fromkeys((*before.withdrawn, *now.withdrawn))),
        objects=tuple(sorted({*before.objects, *now.objects})),
    )


def _folders(folders: Mapping[str, str]) -> dict[str, str]:
    """Return which digest of a folder takes the place of which, as it stands in texts."""
    return {old.removesuffix(".dir"): new.removesuffix(".dir") for old, new in folders.items()}


def _move_references(plan: Plan, places: Places, _say: Callable[[int, int], None]) -> Plan:
    assert plan.reissue is not None
    move_references(places.registry, plan.reissue, remote_url=places.remote_url)
    return plan


def _clear_remote(plan: Plan, places: Places, say: Callable[[int, int], None]) -> Plan:
    assert plan.reissue is not None
    git, removed = places.registry, 0
    with registry_lock(git.folder):
        for url in sorted({url for url, _ in plan.reissue.objects}):
            remote = open_remote(git, url)
            names = [name for each, name in plan.reissue.objects if each == url]
            doomed = sorted(unneeded_objects(git, remote, names, reach=places.reach))
            for done, name in enumerate(doomed, start=1):
                remote.erase([name])
                # Whoever pulled a version here has it in DVC's cache.
                cached = git.folder / ".dvc/cache/files/md5" / name[:2] / name[2:]
                cached.unlink(missing_ok=True)
                say(done, len(doomed))
            removed += len(doomed)
    return replace(plan, counts=plan.counts | {"remote": removed})


def _clear_labeling(plan: Plan, places: Places, _say: Callable[[int, int], None]) -> Plan:
    tasks = places.labeling.delete(frozenset(plan.images)) if plan.images else 0
    if plan.person:
        # Once the account is gone nobody knows any more whose it was.
        _fetch_all(places)
        tasks += places.labeling.delete_person(plan.person)
    return replace(plan, counts=plan.counts | {"tasks": tasks})


def _clear_landing(plan: Plan, places: Places, _say: Callable[[int, int], None]) -> Plan:
    digests, sizes = {*plan.images, *plan.sidecars}, set(plan.sizes)
    removed = places.lake.landing.remove_content(
        lambda name, size: size in sizes or name.endswith(".json"),
        lambda data: hashlib.sha256(data).hexdigest() in digests,
    )
    return replace(plan, counts=plan.counts | {"landed": removed})


def _clear_lake(plan: Plan, places: Places, say: Callable[[int, int], None]) -> Plan:
    store, rewriting = places.lake.store, plan.rewriting
    rewriting.entries = entries_after(store, rewriting)
    for path in unfinished(store.url("x")):
        # Nobody else writes now, and what nobody finished nobody reads.
        path.unlink(missing_ok=True)
    for landed in map(_as_landed, plan.landed):
        places.lake.receipts.remove(landed)
        places.lake.receipts.remove(sidecar_receipt(landed))
    changed = rewrite_in_place(
        store, rewriting, old=plan.old or (), sidecars=plan.sidecars, progress=say
    )
    return replace(plan, counts=plan.counts | {"lake": changed})


def _clear_events(plan: Plan, places: Places, _say: Callable[[int, int], None]) -> Plan:
    cleared = places.events(frozenset(plan.images)) if plan.images else 0
    return replace(plan, counts=plan.counts | {"events": cleared})


_STEPS: dict[str, Callable[[Plan, Places, Callable[[int, int], None]], Plan]] = {
    "refusing it from now on": _refuse,
    "writing tables without it": _write_tables,
    "writing versions without it": _write_versions,
    "moving tags": _move_references,
    "clearing the remote": _clear_remote,
    "clearing where people label": _clear_labeling,
    "clearing the landing zone": _clear_landing,
    "clearing the lake": _clear_lake,
    "clearing the pages of the UI": _clear_events,
}


def _models(
    found: Found, versions: Mapping[str, int], places: Places
) -> tuple[tuple[str, str], ...]:
    """Return the weights that learned from the images, each with the version."""
    taught = set()
    for info in list_versions(places.registry):
        if info.tag not in versions:
            continue
        state = read_state(
            places.registry, info.tag, remote_url=places.remote_url, lake=places.lake
        )
        seen = state.labels_about(found.images, ["image_id", "label_id", "split"])
        if (seen["split"] == "train").any():
            taught.add(info.tag)
    return tuple(
        sorted(
            (sha, card.dataset_tag)
            for sha, card in places.models.items()
            if card.dataset_tag in taught
        )
    )
