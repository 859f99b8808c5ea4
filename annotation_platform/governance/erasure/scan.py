"""Looking through every store for what was erased: by bytes, by name, and by what is to be seen."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from annotation_platform.errors import AnnotationPlatformError
from annotation_platform.governance.erasure.lake_pass import lake_keys
from annotation_platform.governance.erasure.locations import Places
from annotation_platform.governance.erasure.plan import Plan
from annotation_platform.governance.erasure.similar_images import look_at, which_show
from annotation_platform.schema.tables import CleanedImages
from annotation_platform.storage.files import UNFINISHED
from annotation_platform.storage.s3 import is_s3
from annotation_platform.versioning.registry import list_versions, open_remote
from annotation_platform.versioning.reissue import find_affected_versions
from annotation_platform.versioning.remote import DvcRemote

_PARQUET = b"PAR1"
_LOOKS_LIKE_A_IMAGE = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_ELSEWHERE = {"audit", "dagster", "label-studio", ".git", "tmp"}
"""Folders of a home that are asked by other means, or hold digests for proof."""


@dataclass(frozen=True)
class Scanned:
    """What was looked through, by store how many objects; and what was found, in words."""

    stores: dict[str, int]
    left: tuple[str, ...]


@dataclass(frozen=True)
class _File:
    """Something in a store, and how it is read."""

    name: str
    load: Callable[[], bytes]


def scan(plan: Plan, places: Places, say: Callable[[int, int], None]) -> Scanned:
    """Look through every store for what was erased.

    Bytes are compared by SHA-256, tables and texts are searched for ids and for digests of what
    was replaced, images are compared by what they show. The audit logs are left out: they are
    chained, and name images by digest. What the platform has cleaned is not compared again.
    """
    stores: dict[str, int] = {}
    left: list[str] = []
    cleaned = places.lake.tables.read_all(CleanedImages)
    # They were compared when it was found what goes; the same bytes still show the same.
    seen = {*cleaned["image_id"].dropna(), *cleaned["stored_sha256"].dropna()}
    for store, files in _stores(plan, places):
        there = list(files)
        stores[store] = len(there)
        left += (f"{store}: {each}" for each in _found(there, plan, seen, say))
    images = frozenset(plan.images)
    stores["versions"] = len(list_versions(places.registry))
    changing = find_affected_versions(
        places.registry, images, plan.rewriting.text, remote_url=places.remote_url
    )
    left += (f"versions: {tag}" for tag in changing.held)
    again_of = {
        "labelling": places.labeling.delete(images) if images else 0,
        "pages of the UI": places.events(images) if images else 0,
        "accounts": places.labeling.delete_person(plan.person) if plan.person else 0,
    }
    for store, again in again_of.items():
        stores[store] = 1
        if again:
            left.append(f"{store}: {again} that came meanwhile; they are gone now")
    return Scanned(stores, tuple(left))


def _remotes(plan: Plan, places: Places) -> set[str]:
    """Return every remote that a version with one of the images was in, and today's."""
    urls = {url for url, _ in plan.reissue.objects} if plan.reissue else set[str]()
    if places.remote_url or list_versions(places.registry):
        urls.add(open_remote(places.registry, places.remote_url).url)
    return urls


def _stores(plan: Plan, places: Places) -> Iterator[tuple[str, Iterable[_File]]]:
    store, landing = places.lake.store, places.lake.landing
    yield "lake", (_File(key, partial(store.get, key)) for key in lake_keys(store))
    left = (_File(str(path), path.read_bytes) for path in unfinished(store.url("x")))
    yield "what killed writers left in the lake", left
    objects = landing.list(now=datetime.now(UTC)).objects
    yield (
        "landing zone",
        (_File(each.key, partial(landing.read, each)) for each in objects),
    )
    for url in sorted(_remotes(plan, places)):
        remote = open_remote(places.registry, url)
        names = sorted(remote.all())
        yield f"remote {url}", (_File(name, partial(_read, remote, name)) for name in names)
    cache = places.registry.folder / ".dvc" / "cache"
    yield "DVC's cache of the registry", _files(cache)
    pulled = places.registry.folder / "datasets"
    yield "what was pulled in the registry", _files(pulled)
    yield "home", _files(places.home, leave_out=_known_places(places))


def unfinished(url: str) -> list[Path]:
    """Return the files that killed writers left in a lake, by the address of something in it.

    A lake in a folder does not list them; one in a bucket has none.
    """
    return [] if is_s3(url) else sorted(Path(url).parent.rglob(f"{UNFINISHED}*"))


def _read(remote: DvcRemote, name: str) -> bytes:
    return remote.read(name) or b""


def _known_places(places: Places) -> set[Path]:
    """Return the folders that are stores of their own."""
    urls = [places.lake.store.url("x"), places.lake.landing.address, places.remote_url]
    known = {Path(urls[0]).parent, *map(Path, urls[1:]), places.registry.folder}
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
    files: list[_File], plan: Plan, seen: Collection[str], say: Callable[[int, int], None]
) -> Iterator[str]:
    """Yield what is left in a store: each file once, and why.

    ``seen`` are the SHA-256 of images of which it is known that they do not show it.
    """
    rewriting, image_objects = plan.rewriting, []
    images = set(plan.images)
    for done, each in enumerate(files, start=1):
        say(done, len(files))
        if rewriting.names_one(each.name):
            yield f"{each.name} has its name"
            continue
        try:
            data = each.load()
        except AnnotationPlatformError:
            # What cannot be read where things land cannot be taken in either.
            continue
        except OSError as error:
            yield f"{each.name} cannot be read ({error.strerror})"
            continue
        digest = hashlib.sha256(data).hexdigest()
        if digest in images:
            yield f"{each.name} has its bytes"
        elif data.startswith(_LOOKS_LIKE_A_IMAGE):
            if digest not in seen:
                image_objects.append(each)
        elif data.startswith(_PARQUET):
            if rewriting.table(data) != data:
                yield f"{each.name} has rows of it"
        elif rewriting.concerns(data):
            yield f"{each.name} names it"
    if not len(plan.signatures):
        return
    by_name = {each.name: each for each in image_objects}
    names, signatures = look_at(list(by_name), lambda name: by_name[name].load())
    for row in which_show(signatures, plan.signatures, bits=plan.bits):
        yield f"{names[row]} looks like it"
