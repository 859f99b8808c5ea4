"""Search every store for traces of an erasure: by bytes, by name and by image content."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from annotation_platform.errors import AnnotationPlatformError
from annotation_platform.governance.erasure.lake_pass import Progress, lake_keys
from annotation_platform.governance.erasure.locations import Locations
from annotation_platform.governance.erasure.plan import ErasurePlan
from annotation_platform.governance.erasure.similar_images import image_signatures, matching_rows
from annotation_platform.schema.tables import CleanedImages
from annotation_platform.storage.files import UNFINISHED
from annotation_platform.storage.s3 import is_s3
from annotation_platform.versioning.registry import list_versions, open_remote
from annotation_platform.versioning.reissue import find_affected_versions
from annotation_platform.versioning.remote import DvcRemote

_PARQUET = b"PAR1"
_IMAGE_HEADERS = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_ELSEWHERE = {"audit", "dagster", "label-studio", ".git", "tmp"}
"""Folders of a home that are searched by other means, or that hold digests as proof."""


@dataclass(frozen=True)
class Scanned:
    """The number of objects searched by store, and a sentence for each trace found."""

    stores: dict[str, int]
    left: tuple[str, ...]


@dataclass(frozen=True)
class _File:
    """An object of a store, and how to read it."""

    name: str
    load: Callable[[], bytes]


def scan(plan: ErasurePlan, locations: Locations, progress: Progress) -> Scanned:
    """Search every store for traces of an erasure.

    Bytes are compared by SHA-256, tables and texts are searched for ids and for digests that were
    replaced, and images are compared by their content. The audit logs are left out: they are
    chained, and name images by digest. Images that the platform has cleaned are not compared again.
    """
    stores: dict[str, int] = {}
    left: list[str] = []
    cleaned = locations.lake.tables.read_all(CleanedImages)
    # These were compared when the images of the erasure were found.
    compared = {
        *cleaned[CleanedImages.image_id].dropna(),
        *cleaned[CleanedImages.stored_sha256].dropna(),
    }
    for store, files in _stores(plan, locations):
        there = list(files)
        stores[store] = len(there)
        left += (f"{store}: {each}" for each in _found(there, plan, compared, progress))
    images = frozenset(plan.images)
    stores["versions"] = len(list_versions(locations.registry))
    changing = find_affected_versions(
        locations.registry, images, plan.rewriting.text, remote_url=locations.remote_url
    )
    left += (f"versions: {tag}" for tag in changing.held)
    late = {
        "labelling": locations.labeling.delete(images) if images else 0,
        "pages of the UI": locations.events(images) if images else 0,
        "accounts": locations.labeling.delete_person(plan.person) if plan.person else 0,
    }
    for store, deleted in late.items():
        stores[store] = 1
        if deleted:
            left.append(f"{store}: {deleted} arrived during the erasure and were deleted")
    return Scanned(stores, tuple(left))


def _remotes(plan: ErasurePlan, locations: Locations) -> set[str]:
    """Return every remote with a version of one of the images, and the present one."""
    urls = {url for url, _ in plan.reissue.objects} if plan.reissue else set[str]()
    if locations.remote_url or list_versions(locations.registry):
        urls.add(open_remote(locations.registry, locations.remote_url).url)
    return urls


def _stores(plan: ErasurePlan, locations: Locations) -> Iterator[tuple[str, Iterable[_File]]]:
    store, landing = locations.lake.store, locations.lake.landing
    yield "lake", (_File(key, partial(store.get, key)) for key in lake_keys(store))
    left = (_File(str(path), path.read_bytes) for path in unfinished_files(store.url("x")))
    yield "unfinished files of the lake", left
    objects = landing.list(now=datetime.now(UTC)).objects
    yield (
        "landing zone",
        (_File(each.key, partial(landing.read, each)) for each in objects),
    )
    for url in sorted(_remotes(plan, locations)):
        remote = open_remote(locations.registry, url)
        names = sorted(remote.all())
        yield f"remote {url}", (_File(name, partial(_read, remote, name)) for name in names)
    cache = locations.registry.folder / ".dvc" / "cache"
    yield "DVC's cache of the registry", _files(cache)
    pulled = locations.registry.folder / "datasets"
    yield "checkout of the registry", _files(pulled)
    yield "home", _files(locations.home, leave_out=_known_folders(locations))


def unfinished_files(url: str) -> list[Path]:
    """Return the files that killed writers left in a lake, by the address of an object in it.

    A folder store does not list them; a bucket has none.
    """
    return [] if is_s3(url) else sorted(Path(url).parent.rglob(f"{UNFINISHED}*"))


def _read(remote: DvcRemote, name: str) -> bytes:
    return remote.read(name) or b""


def _known_folders(locations: Locations) -> set[Path]:
    """Return the folders that are searched as stores of their own."""
    urls = [locations.lake.store.url("x"), locations.lake.landing.address, locations.remote_url]
    known = {Path(urls[0]).parent, *map(Path, urls[1:]), locations.registry.folder}
    return {each.absolute() for each in known}


def _files(folder: Path, *, leave_out: Iterable[Path] = ()) -> Iterator[_File]:
    known = set(leave_out)
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or path.absolute() in known or path.name in _ELSEWHERE:
            continue
        if path.is_dir():
            yield from _files(path, leave_out=known)
        elif path.is_file():
            yield _File(str(path), path.read_bytes)


def _found(
    files: list[_File], plan: ErasurePlan, compared: Collection[str], progress: Progress
) -> Iterator[str]:
    """Yield a sentence for each file of a store with a trace.

    ``compared`` has the SHA-256 of images that are known to differ from the erased ones.
    """
    rewriting, image_objects = plan.rewriting, []
    images = set(plan.images)
    for done, each in enumerate(files, start=1):
        progress(done, len(files))
        if rewriting.names_one(each.name):
            yield f"{each.name} has its name"
            continue
        try:
            data = each.load()
        except AnnotationPlatformError:
            # An unreadable file of the landing zone cannot be ingested either.
            continue
        except OSError as error:
            yield f"{each.name} cannot be read ({error.strerror})"
            continue
        digest = hashlib.sha256(data).hexdigest()
        if digest in images:
            yield f"{each.name} has its bytes"
        elif data.startswith(_IMAGE_HEADERS):
            if digest not in compared:
                image_objects.append(each)
        elif data.startswith(_PARQUET):
            if rewriting.table(data) != data:
                yield f"{each.name} has rows of it"
        elif rewriting.concerns(data):
            yield f"{each.name} names it"
    if not len(plan.signatures):
        return
    by_name = {each.name: each for each in image_objects}
    names, signatures = image_signatures(list(by_name), lambda name: by_name[name].load())
    for row in matching_rows(signatures, plan.signatures, bits=plan.bits):
        yield f"{names[row]} looks like it"
