"""A version in a folder: git's part by git, the files by what differs from what is there.

The result is an ordinary clone in which ``dvc status`` has nothing to say. What makes it quick:
files that a checkout put there and nobody touched since are known by size, inode and time, so only
those that differ between two versions are fetched. Each new file is hashed on its way.
"""

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from annotation_platform.errors import PublishError, SettingsError
from annotation_platform.storage.files import write_file
from annotation_platform.versioning.address import Address, parse_address
from annotation_platform.versioning.git import Git, clean_environment, run_git
from annotation_platform.versioning.registry import remote_of, unknown_version
from annotation_platform.versioning.remote import DvcRemote, Progress
from annotation_platform.versioning.uploading import bare, new_md5

_RECORD = Path(".dvc/tmp/annotation-checkout.json")
_SHOWN = 3
# The user's hooks are for the user's own work.
_NO_HOOKS = ["-c", "core.hooksPath=/dev/null"]


@dataclass(frozen=True)
class CheckedOut:
    """What a checkout did."""

    tag: str
    folder: Path
    files: int
    fetched: int  # files that came from the remote
    linked: int  # files that were put or replaced, the fetched ones among them
    removed: int


_Stamp = tuple[int, int, int]
"""By what a file that nobody touched is known: size, time in ns, inode."""


def checkout_version(
    registry: str | Path,
    tag: str,
    folder: Path,
    *,
    remote_url: str = "",
    force: bool = False,
    progress: Progress | None = None,
) -> CheckedOut:
    """Make ``folder`` a clone of the registry at ``tag``, with the version's files in it.

    Files are hard links to the clone's DVC cache, and read-only as DVC's are; where links cannot
    be made, copies. What is interrupted is completed by the next call.

    Args:
        registry: path or address of the git repository.
        tag: the version's.
        folder: empty or missing, or the folder of an earlier checkout.
        remote_url: where the files are; by default what the version says.
        force: whether to overwrite files that were changed there, and to remove others.
        progress: told the files put there and those to put.

    Raises:
        PublishError: the version is not known, its files are not whole in the remote, or
            somebody's changes in the folder would be lost.
        SettingsError: the folder is not what it must be.
    """
    git = open_clone(str(registry), folder)
    if git.resolve(f"refs/tags/{tag}") is None:
        raise unknown_version(git, tag, where=parse_address(registry).shown)
    name, pointer = _pointer(git, tag)
    remote = remote_of(git, tag, remote_url)
    cache = folder / ".dvc" / "cache" / "files" / "md5"
    wanted = _listing(remote, cache, name)
    target = folder / "datasets" / pointer
    there, record = dict(_stamps(target)), _read_record(folder)
    content = {path: md5 for path, (md5, stamp) in record.items() if there.get(path) == stamp}
    content |= _hashed(target, sorted(there.keys() - content.keys()))
    put = [path for path in sorted(wanted) if content.get(path) != wanted[path]]
    surplus = sorted(set(there) - set(wanted))
    if not force:
        going = {*put, *surplus} & set(there)
        # What the cache holds is not lost: an interrupted checkout put it there.
        left = (
            path
            for path in going
            if content[path] != record.get(path, ("",))[0]
            and not (content[path] and (cache / content[path][:2] / content[path][2:]).exists())
        )
        _refuse_losses(target, sorted(left))
    _git(folder, "checkout", "--quiet", "--detach", *(["--force"] if force else []), tag)
    fetched = _fetch(remote, cache, {wanted[path] for path in put}, progress)
    for path in surplus:
        (target / path).unlink(missing_ok=True)
    _link(target, cache, {path: wanted[path] for path in put})
    _remove_empty_folders(target, surplus)
    there |= {path: _stamp((target / path).stat()) for path in put}
    _write_record(folder, wanted, there)
    return CheckedOut(tag, folder, len(wanted), fetched, len(put), len(surplus))


def open_clone(registry: str, folder: Path) -> Git:
    """Return a clone of a registry, made or brought up to date; nothing is checked out of it.

    A secret in the registry's address is used now, and not written into the clone.
    """
    address = parse_address(registry)
    if (folder / ".git").exists():
        origin = run_git(["-C", str(folder), "config", "remote.origin.url"]).stdout.decode().strip()
        if origin != address.url:
            raise SettingsError(
                f"{folder}: is no checkout of this registry. Name another folder; if the registry"
                f" has moved, run `git -C {folder} remote set-url origin NEW` first."
            )
        _asked(address, folder, "fetch", "--quiet", "--force", "--tags", "origin")
        return Git(folder)
    if folder.exists() and any(folder.iterdir()):
        raise SettingsError(
            f"{folder}: is not empty, and no earlier checkout. Name an empty or a new folder."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    _asked(address, folder.parent, "clone", "--quiet", "--no-checkout", "--", address.url,
           str(folder.absolute()))  # fmt: skip
    return Git(folder)


def _asked(address: Address, place: Path, *arguments: str) -> None:
    environment = address.environment()
    done = run_git([*_NO_HOOKS, "-C", str(place), *arguments], environment=environment)
    if done.returncode != 0:
        raise address.failed(arguments[0], done.stderr)


def _git(place: Path, *arguments: str) -> None:
    done = run_git([*_NO_HOOKS, "-C", str(place), *arguments], environment=clean_environment())
    if done.returncode != 0:
        said = " ".join(done.stderr.decode(errors="replace").split())[-300:]
        raise PublishError(
            f"{place}: git {arguments[0]} failed: {said or 'it gave no reason.'} Mend the folder, "
            "or check out into a new one."
        )


def _pointer(git: Git, tag: str) -> tuple[str, str]:
    """Return the name of the list of the version's files, and the folder that they make."""
    name = tag.partition("@")[0]
    text = git.read(tag, f"datasets/{name}.dvc")
    if text is None:
        raise PublishError(f"{tag}: it has no datasets/{name}.dvc, so it is no dataset version.")
    (out,) = yaml.safe_load(text)["outs"]
    tracked = git.text("ls-tree", "-r", tag, "--", "datasets", ".dvc").splitlines()
    if (
        out["path"] != name
        or not re.fullmatch(r"[0-9a-f]{32}\.dir", str(out["md5"]))
        or any(line.startswith("120000") for line in tracked)
    ):
        raise PublishError(f"{tag}: its files would land outside datasets/{name}. Do not use it.")
    return str(out["md5"]), name


def _listing(remote: DvcRemote, cache: Path, name: str) -> dict[str, str]:
    _fetch(remote, cache, {name})
    entries = json.loads((cache / name[:2] / name[2:]).read_bytes())
    listed = {str(entry["relpath"]): str(entry["md5"]) for entry in entries}
    for path, md5 in listed.items():
        # An absolute path has an empty first part.
        if {"", ".", ".."} & set(path.split("/")) or not re.fullmatch(r"[0-9a-f]{32}", md5):
            raise PublishError(
                f"{remote.url}: the list of files {name} names {path!r}, which is no path inside"
                " a version. Do not use it."
            )
    return listed


def _stamps(target: Path) -> Iterator[tuple[str, _Stamp]]:
    """Yield every file below a folder by its relative path, in no order."""
    stack = [("", str(target))]
    while stack:
        prefix, place = stack.pop()
        with suppress(FileNotFoundError), os.scandir(place) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    stack.append((f"{prefix}{entry.name}/", entry.path))
                    continue
                yield prefix + entry.name, _stamp(entry.stat(follow_symlinks=False))


def _stamp(found: os.stat_result) -> _Stamp:
    return found.st_size, found.st_mtime_ns, found.st_ino


def _hashed(target: Path, paths: list[str]) -> dict[str, str]:
    with ThreadPoolExecutor() as pool:
        return dict(zip(paths, pool.map(lambda path: _content(target / path), paths), strict=True))


def _refuse_losses(target: Path, lost: list[str]) -> None:
    if lost:
        raise PublishError(
            f"{target}: {len(lost)} files were added or changed there and would be lost"
            f" ({', '.join(lost[:_SHOWN])}). Keep what you need and use --force."
        )


def _fetch(
    remote: DvcRemote, cache: Path, names: set[str], progress: Progress | None = None
) -> int:
    """Bring objects into the cache, each hashed on its way; return how many were not there.

    One that is there is hashed too: somebody may have changed a file that is linked to it.
    """
    for folder in {cache / name[:2] for name in names}:
        folder.mkdir(parents=True, exist_ok=True)
    fetched = 0
    with ThreadPoolExecutor(max_workers=16) as pool:
        done = pool.map(lambda name: _fetch_one(remote, cache, name), sorted(names))
        for number, was_missing in enumerate(done, start=1):
            fetched += was_missing
            if progress is not None and (number % 256 == 0 or number == len(names)):
                progress(number, len(names))
    return fetched


def _fetch_one(remote: DvcRemote, cache: Path, name: str) -> bool:
    place = cache / name[:2] / name[2:]
    if place.exists() and _md5(place) == bare(name):
        return False
    digest = new_md5()
    with _whole_or_not_at_all(place) as draft:
        with draft.open("wb") as file:

            def take(piece: bytes) -> None:
                digest.update(piece)
                file.write(piece)

            found = remote.download(name, take)
        if not found or digest.hexdigest() != bare(name):
            raise remote.not_whole(f"object {name}", found=found)
    return True


@contextmanager
def _whole_or_not_at_all(place: Path) -> Iterator[Path]:
    draft = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        yield draft
        # Read-only is DVC's mark of an object that was hashed.
        draft.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
        draft.replace(place)
    finally:
        draft.unlink(missing_ok=True)


def _link(target: Path, cache: Path, files: Mapping[str, str]) -> None:
    for folder in sorted({(target / path).parent for path in files}):
        folder.mkdir(parents=True, exist_ok=True)
    for path, name in files.items():
        place, stored = target / path, cache / name[:2] / name[2:]
        draft = place.with_name(f".{place.name}.{os.getpid()}.tmp")
        try:
            os.link(stored, draft)
        except OSError:
            shutil.copyfile(stored, draft)
        if place.is_dir() and not place.is_symlink():
            # Its files are gone by now: it was refused, or they are of no version.
            shutil.rmtree(place)
        draft.replace(place)
        # Where both are the same file already, nothing was moved.
        draft.unlink(missing_ok=True)


def _remove_empty_folders(target: Path, removed: list[str]) -> None:
    folders = {parent for path in removed for parent in Path(path).parents}
    for folder in sorted(folders - {Path()}, key=lambda each: -len(each.parts)):
        # Others still hold something.
        with suppress(OSError):
            (target / folder).rmdir()


def _read_record(folder: Path) -> dict[str, tuple[str, _Stamp]]:
    try:
        paths, *columns = json.loads((folder / _RECORD).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    digests, *stamps = columns
    return dict(zip(paths, zip(digests, zip(*stamps, strict=True), strict=True), strict=True))


def _write_record(folder: Path, wanted: Mapping[str, str], there: Mapping[str, _Stamp]) -> None:
    stamps = zip(*(there[path] for path in wanted), strict=True) if wanted else ((), (), ())
    columns = [list(wanted), list(wanted.values()), *map(list, stamps)]
    (folder / _RECORD).parent.mkdir(parents=True, exist_ok=True)
    write_file(folder / _RECORD, json.dumps(columns).encode())


def _content(path: Path) -> str:
    # A link to nothing or to a folder is somebody's change, and no file of a version.
    return _md5(path) if path.is_file() else ""


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, new_md5).hexdigest()
