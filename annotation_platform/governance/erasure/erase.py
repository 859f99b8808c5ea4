"""Erase images, or the identity of an annotator, everywhere, and prove that no trace is left.

Each step can be repeated, and its input is stored before it begins, so an erasure that is killed
at any moment is finished by the next call.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from annotation_platform.audit_log.recording import record_erasure
from annotation_platform.errors import DataError, PublishError
from annotation_platform.governance.erasure.dry_run import DryRunLake
from annotation_platform.governance.erasure.lake_pass import (
    Progress,
    entries_after,
    rewrite_by_content,
    rewrite_in_place,
)
from annotation_platform.governance.erasure.locations import Locations
from annotation_platform.governance.erasure.person import FoundPerson, anonymous_names, find_person
from annotation_platform.governance.erasure.plan import ErasurePlan, as_arrival, read_plan
from annotation_platform.governance.erasure.rewriting import Rewriting
from annotation_platform.governance.erasure.scan import Scanned, scan
from annotation_platform.governance.erasure.steps import STEPS
from annotation_platform.governance.erasure.subject import Found, Kind, find_images
from annotation_platform.images.signature import signature_rows
from annotation_platform.ingestion.ingest import sidecar_receipt
from annotation_platform.ingestion.receipts import LakeReceipts
from annotation_platform.policy import Policy
from annotation_platform.provenance.state import read_state
from annotation_platform.schema.tables import TrainingSet
from annotation_platform.storage.erasures import PLAN, Erasures
from annotation_platform.versioning.registry import list_versions
from annotation_platform.versioning.reissue import find_affected_versions

_SHOWN = 20

StepProgress = Callable[[str], Progress]
"""Called with the name of a step that begins; returns the callback for its progress."""


@dataclass(frozen=True)
class Erased:
    """The effects of an erasure, or of its dry run.

    Attributes:
        images: ids of the erased images; ``near_duplicates_found`` of them were not named, but are
            duplicates or near-duplicates of named ones.
        stay: images of a source that also landed from another source.
        landed: names of the files to delete from the landing zone; copies with the same bytes are
            deleted, too.
        lake: keys of objects of the lake to rewrite, create or delete; empty once it is done.
        versions: number of erased images by tag; these versions are issued again.
        withdrawn: tags of versions that have no images left.
        models: SHA-256 of weights that were trained on the images, with the version; they stay.
        counts: objects cleared by location.
        scanned: the final search; None for a dry run.
        pseudonym: of an erased person: the new one; in a dry run the present one.
        annotations: states of annotations of that person; they stay.
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


def plan_erasure(
    kind: Kind, name: str, locations: Locations, policy: Policy
) -> tuple[Found, Erased]:
    """Return the images of an erasure and its effects; nothing is changed.

    Raises:
        DataError: no image or source has this name, or several images do.
    """
    found = find_images(
        kind,
        name,
        locations.lake,
        near_duplicates=policy.erasure.near_duplicates,
        bits=policy.cleaning.duplicate_bits,
    )
    versions, changed = _dry_run(found, locations)
    return found, _expected(found, versions, changed, _models(found, versions, locations))


_NOTHING = Found(
    named=frozenset(),
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
        near_duplicates_found=len(found.images - found.named),
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


def _dry_run(
    found: Found, locations: Locations, *, words: Mapping[str, str] | None = None
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return the images that each version would lose, and the keys of the lake that change."""
    dry_run = DryRunLake(locations.lake.store)
    erasures = Erasures(locations.lake.store)
    rewriting = Rewriting(
        found.images,
        frozenset((key, stamp) for key, stamp, _ in found.landed),
        {image: erasures.name(image) for image in found.images},
        dict(words or {}),
    )
    old = rewrite_by_content(dry_run, rewriting, progress=_no_progress)
    changing = find_affected_versions(
        locations.registry, found.images, rewriting.text, remote_url=locations.remote_url
    )
    # The new names are not known yet.
    names = (*changing.commits, *(name.removesuffix(".dir") for name in changing.folders))
    rewriting.tokens |= {name: "0" * len(name) for name in names}
    rewriting.entries = entries_after(dry_run, rewriting)
    for arrival in map(as_arrival, found.landed):
        LakeReceipts(dry_run).remove(arrival)
        LakeReceipts(dry_run).remove(sidecar_receipt(arrival))
    rewrite_in_place(dry_run, rewriting, old=old, sidecars=found.sidecars, progress=_no_progress)
    return changing.held, dry_run.changed


def _no_progress(_done: int, _total: int) -> None:
    """Ignore the progress of a dry run."""


def begin(
    request: str,
    found: Found,
    expected: Erased,
    locations: Locations,
    policy: Policy,
    *,
    reason: str,
    by: str,
) -> None:
    """Store the plan of an erasure; from then on its images are refused.

    Raises:
        DataError: no reason is given, or another erasure is unfinished.
    """
    bits = policy.cleaning.duplicate_bits if policy.erasure.near_duplicates else 0
    plan = _plan(request, found, expected.models, locations, reason=reason, by=by, bits=bits)
    plan.save(locations.lake.store)


def _plan(
    request: str,
    found: Found,
    models: tuple[tuple[str, str], ...],
    locations: Locations,
    *,
    reason: str,
    by: str,
    bits: int,
) -> ErasurePlan:
    store = locations.lake.store
    if not reason.strip():
        raise DataError(f"{request}: an erasure needs a reason: --reason TEXT")
    if found.stay and not found.images:
        raise DataError(
            f"{request}: all of its images also landed from another source. Erase image by image."
        )
    locations.events(frozenset())
    if read_plan(store) is not None:
        raise DataError(
            "Another erasure is unfinished. Run `annotation-platform image erase --finish`."
        )
    erasures = Erasures(store)
    return ErasurePlan(
        request=request,
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
        counts={"named": len(found.named)},
    )


def plan_person_erasure(name: str, locations: Locations) -> tuple[FoundPerson, Erased]:
    """Return the annotator of an erasure and its effects; nothing is changed.

    Raises:
        DataError: no annotator of the lake has this name.
        LabelingError: it is the platform's own account in the labelling back end.
    """
    found = find_person(name, locations.lake)
    locations.labeling.check_person(found.name)
    words = {found.name: "x", found.pseudonym: "annotator-0000000000"}
    versions, changed = _dry_run(_NOTHING, locations, words=words)
    expected = replace(
        _expected(_NOTHING, versions, changed, ()),
        pseudonym=found.pseudonym,
        annotations=found.annotations,
    )
    return found, expected


def begin_person_erasure(found: FoundPerson, locations: Locations, *, reason: str, by: str) -> None:
    """Store the plan to erase the identity of an annotator.

    Raises:
        DataError: no reason is given, or another erasure is unfinished.
    """
    plan = _plan(
        f"annotator {found.pseudonym}", _NOTHING, (), locations, reason=reason, by=by, bits=0
    )
    words = anonymous_names(found, locations.lake)
    counts = {"annotations": found.annotations}
    replace(plan, words=words, person=found.name, counts=counts).save(locations.lake.store)


def finish(locations: Locations, *, progress_of: StepProgress) -> Erased | None:
    """Do the remaining steps of an erasure and return its effects; None without one.

    Raises:
        DataError: the final search found traces. The erasure stays unfinished.
    """
    store = locations.lake.store
    plan = read_plan(store)
    if plan is None:
        return None
    locations.events(frozenset())
    for step, work in STEPS.items():
        if step not in plan.done:
            try:
                plan = work(plan, locations, progress_of(step)).with_done(step)
            except PublishError:
                # A version may have been published meanwhile: all steps cover it, too.
                _restarted(plan).save(store)
                raise
            plan.save(store)
    scanned = scan(plan, locations, progress_of("searching every store"))
    if scanned.left:
        _restarted(plan).save(store)
        shown = "\n".join(f"  {each}" for each in scanned.left[:_SHOWN])
        raise DataError(
            f"{len(scanned.left)} traces are left:\n{shown}\nRemove those in your own folders by "
            "hand; `annotation-platform image erase --finish` repeats all steps."
        )
    assert plan.reissue is not None
    result = Erased(
        images=plan.images,
        near_duplicates_found=len(plan.images) - plan.counts.get("named", 0),
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
    # The new pseudonym of a person identifies the votes, but not the person.
    subject = result.pseudonym or plan.tokens[plan.images[0]]
    record_erasure(subject, locations.lake, reason=plan.reason, facts=facts, now=datetime.now(UTC))
    store.remove(PLAN)
    return result


def _restarted(plan: ErasurePlan) -> ErasurePlan:
    """Return the plan with every step to do; its other contents stay."""
    return replace(plan, done=())


def _models(
    found: Found, versions: Mapping[str, int], locations: Locations
) -> tuple[tuple[str, str], ...]:
    """Return the weights that were trained on the images, each with its version."""
    trained_tags = set()
    for info in list_versions(locations.registry):
        if info.tag not in versions:
            continue
        state = read_state(
            locations.registry, info.tag, remote_url=locations.remote_url, lake=locations.lake
        )
        seen = state.labels_about(found.images, ["image_id", "label_id", "split"])
        if (seen[TrainingSet.split] == "train").any():
            trained_tags.add(info.tag)
    return tuple(
        sorted(
            (sha, card.dataset_tag)
            for sha, card in locations.models.items()
            if card.dataset_tag in trained_tags
        )
    )
