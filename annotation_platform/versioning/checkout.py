"""Check out a version into a folder: git checks out the commit, the data files are synchronized.

The result is an ordinary clone in which ``dvc status`` reports no change. Files of an earlier
checkout that were not modified are recognized by size, inode and time, so only the files that
differ between two versions are fetched. Each fetched file is hashed while it is downloaded.
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
from annotation_platform.registry_address import Address, parse_address
from annotation_platform.storage.files import write_file
from annotation_platform.versioning.git import Git, clean_environment, run_git
from annotation_platform.versioning.registry import remote_of, unknown_version
from annotation_platform.versioning.remote import DvcRemote, Progress
from annotation_platform.versioning.uploading import bare, new_md5

_RECORD = Path(".dvc/tmp/annotation-checkout.json")
_SHOWN = 3
# The user's hooks are meant for the user's own git commands.
_NO_HOOKS = ["-c", "core.hooksPath=/dev/null"]


@dataclass(frozen=True)
class CheckedOut:
    """The result of a checkout. All but ``tag`` and ``folder`` are numbers of files."""

    tag: str
    folder: Path
    files: int
    fetched: int  # downloaded from the remote
    linked: int  # added or replaced, including the fetched ones
    removed: int


_FileState = tuple[int, int, int]
"""Size in bytes, modification time in ns and inode: unchanged for an unmodified file."""


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

    Files are hard links to the clone's DVC cache and read-only, as DVC's are, or copies where
    links are not possible. The next call completes an interrupted checkout.

    Args:
        registry: path or address of the git repository.
        tag: the tag of the version.
        folder: empty or missing, or the folder of an earlier checkout.
        remote_url: the remote with the files; by default the one in the version's configuration.
        force: whether to overwrite modified files and to remove files that are not in the version.
        progress: called with the numbers of objects fetched and to fetch.

    Raises:
        PublishError: the version is unknown, a file of it is missing or damaged in the remote, or
            local changes in the folder would be lost.
        SettingsError: the folder is neither empty nor a checkout of this registry.
    """
    git = open_clone(str(registry), folder)
    if git.resolve(f"refs/tags/{tag}") is None:
        raise unknown_version(git, tag, where=parse_address(registry).shown)
    name, pointer = _pointer(git, tag)
    remote = remote_of(git, tag, remote_url)
    cache = folder / ".dvc" / "cache" / "files" / "md5"
    wanted = _listing(remote, cache, name)
    target = folder / "datasets" / pointer
    present, record = dict(_file_states(target)), _read_record(folder)
    content = {path: md5 for path, (md5, state) in record.items() if present.get(path) == state}
    content |= _hash_files(target, sorted(present.keys() - content.keys()))
    changed = [path for path in sorted(wanted) if content.get(path) != wanted[path]]
    extra = sorted(set(present) - set(wanted))
    if not force:
        overwritten = {*changed, *extra} & set(present)
        # Content in the cache is not lost: an interrupted checkout linked it into the folder.
        lost = (
            path
            for path in overwritten
            if content[path] != record.get(path, ("",))[0]
            and not (content[path] and (cache / content[path][:2] / content[path][2:]).exists())
        )
        _refuse_losses(target, sorted(lost))
    _git(folder, "checkout", "--quiet", "--detach", *(["--force"] if force else []), tag)
    fetched = _fetch(remote, cache, {wanted[path] for path in changed}, progress)
    for path in extra:
        (target / path).unlink(missing_ok=True)
    _link(target, cache, {path: wanted[path] for path in changed})
    _remove_empty_folders(target, extra)
    present |= {path: _file_state((target / path).stat()) for path in changed}
    _write_record(folder, wanted, present)
    return CheckedOut(tag, folder, len(wanted), fetched, len(changed), len(extra))


def open_clone(registry: str, folder: Path) -> Git:
    """Return a clone of a registry, created or fetched, without checking out a version.

    A secret in the registry's address is used for this call and not stored in the clone.

    Raises:
        PublishError: the registry cannot be reached or read.
        SettingsError: the folder is neither empty nor a clone of this registry.
    """
    address = parse_address(registry)
    if (folder / ".git").exists():
        origin = run_git(["-C", str(folder), "config", "remote.origin.url"]).stdout.decode().strip()
        if origin != address.url:
            raise SettingsError(
                f"{folder}: is not a checkout of this registry. Name another folder; if the"
                f" registry has moved, run `git -C {folder} remote set-url origin NEW` first."
            )
        _call_remote(address, folder, "fetch", "--quiet", "--force", "--tags", "origin")
        return Git(folder)
    if folder.exists() and any(folder.iterdir()):
        raise SettingsError(
            f"{folder}: is neither empty nor an earlier checkout. Name an empty or a new folder."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    _call_remote(address, folder.parent, "clone", "--quiet", "--no-checkout", "--", address.url,
                 str(folder.absolute()))  # fmt: skip
    return Git(folder)


def _call_remote(address: Address, folder: Path, *arguments: str) -> None:
    environment = {**clean_environment(), **address.credentials()}
    done = run_git([*_NO_HOOKS, "-C", str(folder), *arguments], environment=environment)
    if done.returncode != 0:
        raise address.failed(arguments[0], done.stderr)


def _git(folder: Path, *arguments: str) -> None:
    done = run_git([*_NO_HOOKS, "-C", str(folder), *arguments], environment=clean_environment())
    if done.returncode != 0:
        reason = " ".join(done.stderr.decode(errors="replace").split())[-300:]
        raise PublishError(
            f"{folder}: git {arguments[0]} failed: {reason or 'git gave no reason.'} Repair the "
            "folder, or check out into a new one."
        )


def _pointer(git: Git, tag: str) -> tuple[str, str]:
    """Return the name of the folder object of a version, and the name of its folder."""
    name = tag.partition("@")[0]
    text = git.read(tag, f"datasets/{name}.dvc")
    if text is None:
        raise PublishError(
            f"{tag}: has no datasets/{name}.dvc, so it is not a dataset version. "
            "Name the tag of a version."
        )
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
    """Return path to MD5 of every file in a folder object, which is fetched into the cache."""
    _fetch(remote, cache, {name})
    entries = json.loads((cache / name[:2] / name[2:]).read_bytes())
    listed = {str(entry["relpath"]): str(entry["md5"]) for entry in entries}
    for path, md5 in listed.items():
        # An absolute path has an empty first part.
        if {"", ".", ".."} & set(path.split("/")) or not re.fullmatch(r"[0-9a-f]{32}", md5):
            raise PublishError(
                f"{remote.url}: the folder object {name} contains {path!r}, which is no path inside"
                " a version. Do not use it."
            )
    return listed


def _file_states(target: Path) -> Iterator[tuple[str, _FileState]]:
    """Yield the relative path and state of every file below a folder, in no order."""
    stack = [("", str(target))]
    while stack:
        prefix, folder = stack.pop()
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    stack.append((f"{prefix}{entry.name}/", entry.path))
                    continue
                yield prefix + entry.name, _file_state(entry.stat(follow_symlinks=False))


def _file_state(status: os.stat_result) -> _FileState:
    return status.st_size, status.st_mtime_ns, status.st_ino


def _hash_files(target: Path, paths: list[str]) -> dict[str, str]:
    with ThreadPoolExecutor() as pool:
        digests = pool.map(lambda path: _content_md5(target / path), paths)
        return dict(zip(paths, digests, strict=True))


def _refuse_losses(target: Path, lost: list[str]) -> None:
    if lost:
        raise PublishError(
            f"{target}: {len(lost)} files were added or changed there and would be lost"
            f" ({', '.join(lost[:_SHOWN])}). Copy those that you need and use --force."
        )


def _fetch(
    remote: DvcRemote, cache: Path, names: set[str], progress: Progress | None = None
) -> int:
    """Fetch objects into the cache and hash each; return how many the cache lacked.

    Cached objects are hashed too: a file that is a hard link to one may have been modified.
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
    path = cache / name[:2] / name[2:]
    if path.exists() and _md5(path) == bare(name):
        return False
    digest = new_md5()
    with _atomic_draft(path) as draft:
        with draft.open("wb") as file:

            def take(piece: bytes) -> None:
                digest.update(piece)
                file.write(piece)

            found = remote.download(name, take)
        if not found or digest.hexdigest() != bare(name):
            raise remote.object_error(f"object {name}", found=found)
    return True


@contextmanager
def _atomic_draft(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` if the block succeeds."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield draft
        # DVC treats a read-only object as one that was hashed.
        draft.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _link(target: Path, cache: Path, files: Mapping[str, str]) -> None:
    for folder in sorted({(target / path).parent for path in files}):
        folder.mkdir(parents=True, exist_ok=True)
    """Put cached objects at paths below ``target``, as hard links or, failing that, copies."""
    for path, name in files.items():
        linked, stored = target / path, cache / name[:2] / name[2:]
        draft = linked.with_name(f".{linked.name}.{os.getpid()}.tmp")
        try:
            os.link(stored, draft)
        except OSError:
            shutil.copyfile(stored, draft)
        if linked.is_dir() and not linked.is_symlink():
            # The extra files in this folder were removed before.
            shutil.rmtree(linked)
        draft.replace(linked)
        # If both are links to the same file, rename does nothing and leaves the draft.
        draft.unlink(missing_ok=True)


def _remove_empty_folders(target: Path, removed: list[str]) -> None:
    folders = {parent for path in removed for parent in Path(path).parents}
    for folder in sorted(folders - {Path()}, key=lambda each: -len(each.parts)):
        # A folder that is not empty stays.
        with suppress(OSError):
            (target / folder).rmdir()


def _read_record(folder: Path) -> dict[str, tuple[str, _FileState]]:
    """Return path to MD5 and state of the files of the last checkout; empty without a record."""
    try:
        paths, *columns = json.loads((folder / _RECORD).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    digests, *states = columns
    return dict(zip(paths, zip(digests, zip(*states, strict=True), strict=True), strict=True))


def _write_record(
    folder: Path, wanted: Mapping[str, str], present: Mapping[str, _FileState]
) -> None:
    states = zip(*(present[path] for path in wanted), strict=True) if wanted else ((), (), ())
    columns = [list(wanted), list(wanted.values()), *map(list, states)]
    (folder / _RECORD).parent.mkdir(parents=True, exist_ok=True)
    write_file(folder / _RECORD, json.dumps(columns).encode())


def _content_md5(path: Path) -> str:
    # A symbolic link that is dangling or leads to a folder is a local change: "" equals no MD5.
    return _md5(path) if path.is_file() else ""


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, new_md5).hexdigest()
