"""Git's plumbing: blobs, trees, commits and references, without changing any working tree.

Hooks never run. Variables that point git at another repository are removed from the environment, so
that a publisher called from a git hook writes to the repository it was given.
"""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from annotation_platform.errors import PublishError, SettingsError
from annotation_platform.storage.files import disk_full
from annotation_platform.versioning.manifest import BRANCH

_REPOSITORY_VARIABLES = re.compile(
    r"GIT_(DIR|WORK_TREE|INDEX_FILE|INDEX_VERSION|OBJECT_DIRECTORY|ALTERNATE_OBJECT_DIRECTORIES|"
    r"COMMON_DIR|NAMESPACE|PREFIX|GRAFT_FILE|SHALLOW_FILE|REPLACE_REF_BASE|NO_REPLACE_OBJECTS|"
    r"CEILING_DIRECTORIES|QUARANTINE_PATH|CONFIG|CONFIG_PARAMETERS|CONFIG_COUNT|INTERNAL_\w+)"
)
# Commits survive a power cut, and neither hooks nor signing keys are used.
_OPTIONS = ["-c", "core.hooksPath=/dev/null", "-c", "core.fsync=all", "-c", "gc.auto=0",
            "-c", "core.filesRefLockTimeout=3000"]  # fmt: skip
DEAD_LOCK_SECONDS = 60
"""A lock file of git that is older belongs to a process that was killed."""

_IDENTITY = ["-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT"]


class Git:
    """One git repository, bare or not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git_dir = _git_dir(folder)

    @property
    def where(self) -> str:
        """The name of the repository in messages."""
        return str(self.folder)

    def refresh(self) -> None:
        """Update a local copy of a registry; without effect here, see ``Mirror``."""

    def run(
        self,
        *arguments: str,
        stdin: bytes = b"",
        index: Path | None = None,
        work_tree: Path | None = None,
        at: datetime | None = None,
    ) -> bytes:
        """Return the output of ``git arguments``.

        Args:
            arguments: the subcommand and its options.
            stdin: git's standard input.
            index: used instead of the repository's index.
            work_tree: used instead of the repository's working tree.
            at: used instead of the clock for authors and committers.

        Raises:
            PublishError: git failed; the message has git's last line.
        """
        result = self._start(arguments, stdin=stdin, index=index, work_tree=work_tree, at=at)
        if b"No space left on device" in result.stderr:
            raise disk_full(self.where)
        if result.returncode != 0:
            raise PublishError(
                f"{self.where}: git {arguments[0]} failed: {_last_line(result.stderr)}. "
                "Correct the cause (`git fsck` finds damage) and run again."
            )
        return result.stdout

    def text(self, *arguments: str) -> str:
        """Return the trimmed output of ``git arguments``."""
        return self.run(*arguments).decode(errors="replace").strip()

    def resolve(self, revision: str) -> str | None:
        """Return the commit that ``revision`` names, or None if there is none."""
        command = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        result = self._start(command)
        return result.stdout.decode().strip() if result.returncode == 0 else None

    def tree_of(self, revision: str) -> str:
        """Return the id of the tree of a commit."""
        return self.text("rev-parse", "--verify", f"{revision}^{{tree}}")

    def read(self, revision: str, path: str) -> bytes | None:
        """Return the content of ``path`` at ``revision``, or None if there is no such file."""
        result = self._start(("cat-file", "blob", f"{revision}:{path}"))
        return result.stdout if result.returncode == 0 else None

    def tags(self, pattern: str) -> dict[str, str]:
        """Return the commit of every tag that matches the glob ``pattern``, by name."""
        layout = "--format=%(refname:strip=2)%00%(objectname)%00%(*objectname)"
        lines = self.text("for-each-ref", layout, f"refs/tags/{pattern}").splitlines()
        fields = (line.split("\0") for line in lines)
        return {name: peeled or direct for name, direct, peeled in fields}

    def publishes(self, commit: str) -> bool:
        """Return whether a commit is reachable from a branch or tag of the repository."""
        # An unreachable commit may remain from a publication that was undone.
        found = self._start(("for-each-ref", "--count=1", "--contains", commit))
        return found.returncode == 0 and bool(found.stdout)

    def hash_object(self, data: bytes) -> str:
        """Store ``data`` as a blob and return its id."""
        return self.run("hash-object", "-w", "--stdin", stdin=data).decode().strip()

    def write_tree(self, base: str | None, files: Mapping[str, bytes]) -> str:
        """Return the id of the tree ``base`` (None: empty) with ``files`` added or replaced."""
        with tempfile.TemporaryDirectory(prefix="annotation-index-") as folder:
            index = Path(folder) / "index"
            self.run("read-tree", base or "--empty", index=index)
            entries = b"".join(
                f"100644 {self.hash_object(data)}\t{path}\0".encode()
                for path, data in sorted(files.items())
            )
            self.run("update-index", "-z", "--index-info", stdin=entries, index=index)
            return self.run("write-tree", index=index).decode().strip()

    def import_files(self, source: Path, paths: Iterable[str]) -> str:
        """Return the id of a tree of files of ``source``, with their modes and symbolic links."""
        listed = b"".join(os.fsencode(path) + b"\0" for path in paths)
        with tempfile.TemporaryDirectory(prefix="annotation-index-") as folder:
            index = Path(folder) / "index"
            self.run("read-tree", "--empty", index=index)
            self.run(
                "--literal-pathspecs", "add", "--force",
                "--pathspec-from-file=-", "--pathspec-file-nul",
                stdin=listed, index=index, work_tree=source,
            )  # fmt: skip
            return self.run("write-tree", index=index).decode().strip()

    def files_of(self, source: Path, *, exclude: Iterable[str]) -> list[str]:
        """Return the files of a folder that is not a repository, except the ignored ones."""
        with tempfile.TemporaryDirectory(prefix="annotation-index-") as folder:
            index = Path(folder) / "index"
            self.run("read-tree", "--empty", index=index)
            listed = self.run(
                "ls-files", "-z", "--others", "--exclude-standard",
                *(f"--exclude={pattern}" for pattern in exclude),
                index=index, work_tree=source,
            )  # fmt: skip
        return existing_files(source, listed)

    def commit_tree(self, tree: str, parents: Iterable[str], message: str, at: datetime) -> str:
        """Store a commit and return its id; no reference moves."""
        options = [option for parent in parents for option in ("-p", parent)]
        return (
            self.run("commit-tree", tree, *options, stdin=message.encode(), at=at).decode().strip()
        )

    def update_ref(self, name: str, new: str, expected_old: str | None) -> bool:
        """Move a reference from ``expected_old`` (None: it must not exist) to ``new``.

        Returns:
            False if the reference was moved concurrently; nothing has changed then.

        Raises:
            PublishError: git cannot move it for another reason.
        """
        arguments = ("update-ref", name, new, expected_old or "")
        result = self._start(arguments)
        if result.returncode != 0 and self._remove_dead_lock(name):
            result = self._start(arguments)
        if result.returncode == 0:
            return True
        if self.value(name) != (expected_old or ""):
            return False
        reason = " ".join(result.stderr.decode(errors="replace").split())
        raise PublishError(
            f"{self.where}: {name} cannot be moved: {reason}. Correct the cause and run again."
        )

    def value(self, name: str) -> str:
        """Return the id that a reference points at, the tag object's for a tag; else empty."""
        return self.text("for-each-ref", "--format=%(objectname)", name)

    def _remove_dead_lock(self, name: str) -> bool:
        # Git holds the lock of a reference for the time of one rename. An old lock belongs to a
        # process that was killed and would block every later publisher.
        path = self.folder / self.text("rev-parse", "--git-path", f"{name}.lock")
        try:
            if time.time() - path.stat().st_mtime < DEAD_LOCK_SECONDS:
                return False
            path.unlink()
        except FileNotFoundError:
            return False
        return True

    def create_tag(self, name: str, commit: str, message: str, at: datetime) -> None:
        """Create the annotated tag ``name`` on ``commit`` unless it exists there already.

        Raises:
            PublishError: the tag exists on another commit.
        """
        if not self.add_tag(name, commit, message, at):
            self.refuse_other_tag(name, commit)

    def add_tag(self, name: str, commit: str, message: str, at: datetime) -> bool:
        """Create the annotated tag ``name``; False if a tag of that name exists."""
        tag = self.make_tag(name, commit, message, at)
        return self.update_ref(f"refs/tags/{name}", tag, None)

    def add_version(
        self, commit: str, expected_old: str | None, tag: str, message: str, at: datetime
    ) -> bool:
        """Move the branch of versions to a commit, then create the annotated tag on it.

        Returns:
            False if the branch was moved concurrently; nothing has changed then.
        """
        if not self.update_ref(BRANCH, commit, expected_old):
            return False
        self.create_tag(tag, commit, message, at)
        return True

    def make_tag(self, name: str, commit: str, message: str, at: datetime) -> str:
        """Store an annotated tag and return its id; no reference moves."""
        seconds = int(at.timestamp())
        identity = self.identity().rsplit(" ", 2)[0]
        body = (
            f"object {commit}\ntype commit\ntag {name}\n"
            f"tagger {identity} {seconds} +0000\n\n{message}\n"
        )
        return self.run("mktag", stdin=body.encode()).decode().strip()

    def retag(self, tag: str, commit: str) -> str:
        """Store a copy of an annotated tag that points at another commit, and return its id."""
        body = self.run("cat-file", "tag", tag)
        return self.run("mktag", stdin=re.sub(rb"\Aobject [0-9a-f]+", f"object {commit}".encode(),
                                              body)).decode().strip()  # fmt: skip

    def delete_ref(self, name: str, expected_old: str) -> bool:
        """Delete a reference; False if it did not have the value ``expected_old`` and stays."""
        self._start(("update-ref", "-d", name, expected_old))
        return not self.value(name)

    def refuse_other_tag(self, tag: str, commit: str) -> None:
        """Raise a PublishError if a tag does not point at ``commit``."""
        present = self.resolve(f"refs/tags/{tag}")
        if present != commit:
            raise PublishError(
                f"{self.where}: tag {tag} names {present}, not {commit}. "
                "Move or delete the tag that does not belong there."
            )

    def identity(self) -> str:
        """Return git's committer identity; a SettingsError if none is configured."""
        result = self._start(_IDENTITY)
        if result.returncode != 0:
            raise SettingsError(
                f"{self.folder}: git has no committer identity. Set `git config --global "
                "user.email you@example.org` and `git config --global user.name You`."
            )
        return result.stdout.decode().strip()

    def has_identity(self) -> bool:
        """Return whether git has a committer identity."""
        return self._start(_IDENTITY).returncode == 0

    def dirty_paths(self) -> list[str]:
        """Return the paths that differ from HEAD, untracked ones included, sorted."""
        listed = self.run("--no-optional-locks", "status", "--porcelain", "-z", "--no-renames")
        return sorted(os.fsdecode(entry[3:]) for entry in listed.split(b"\0") if entry)

    def tracked_and_new_files(self) -> list[str]:
        """Return the files of the working tree, except the ignored ones."""
        listed = self.run("ls-files", "-z", "--cached", "--others", "--exclude-standard")
        return existing_files(self.folder, listed)

    def _start(
        self,
        arguments: Iterable[str],
        *,
        stdin: bytes = b"",
        index: Path | None = None,
        work_tree: Path | None = None,
        at: datetime | None = None,
    ) -> "subprocess.CompletedProcess[bytes]":
        environment = self._environment()
        if index is not None:
            environment["GIT_INDEX_FILE"] = str(index)
        if at is not None:
            date = f"{int(at.timestamp())} +0000"
            environment |= {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        location = ["-C", str(self.folder)]
        if work_tree is not None:
            options = ["--git-dir", str(self.git_dir), "--work-tree", str(work_tree)]
            location = ["-C", str(work_tree), *options]
        return run_git([*location, *_OPTIONS, *arguments], stdin=stdin, environment=environment)

    def _environment(self) -> dict[str, str]:
        return clean_environment()


Registry = Path | Git
"""A repository of versions: its folder, or the repository itself."""


def as_git(registry: Registry) -> Git:
    """Return the repository of a registry."""
    return registry if isinstance(registry, Git) else Git(registry)


def run_git(
    arguments: list[str], *, stdin: bytes = b"", environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Return the completed ``git arguments``, whatever its exit status.

    Raises:
        SettingsError: git is not installed.
    """
    try:
        return subprocess.run(
            ["git", *arguments],
            input=stdin,
            capture_output=True,
            env=clean_environment() if environment is None else environment,
            check=False,
            # Ctrl-C and a kill of the process group must not reach git: interrupted while it
            # moves a reference, it would leave the lock.
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise SettingsError(
            "git: not found on PATH, but versions are git commits. Install git and run again."
        ) from error


def clean_environment() -> dict[str, str]:
    """Return this process's environment without variables that point git at a repository."""
    cleaned = {
        key: value for key, value in os.environ.items() if not _REPOSITORY_VARIABLES.fullmatch(key)
    }
    return {**cleaned, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}


def is_checkout(folder: Path) -> bool:
    """Return whether ``folder`` is the top folder of a git checkout, not just inside one."""
    result = run_git(["-C", str(folder), "rev-parse", "--show-toplevel"])
    top = os.fsdecode(result.stdout.rstrip(b"\n"))
    return result.returncode == 0 and Path(top).resolve() == folder.resolve()


def existing_files(folder: Path, listed: bytes) -> list[str]:
    """Return the distinct paths of NUL-separated ``listed`` that are files or links, sorted."""
    names = sorted({os.fsdecode(name) for name in listed.split(b"\0") if name})
    return [name for name in names if (folder / name).is_file() or (folder / name).is_symlink()]


def _git_dir(folder: Path) -> Path:
    result = run_git(["-C", str(folder), "rev-parse", "--absolute-git-dir"])
    if result.returncode == 0:
        git_dir = Path(os.fsdecode(result.stdout.rstrip(b"\n")))
        # A folder inside a repository is not accepted as that repository: publishing there by
        # mistake would add a branch and tags to it.
        if git_dir.resolve() == folder.resolve() or is_checkout(folder):
            return git_dir
    reason = _last_line(result.stderr) if b"dubious" in result.stderr else "not a git repository"
    raise SettingsError(
        f"{folder}: {reason}. Run `git init {folder}`, or set ANNOTATION_REGISTRY to a repository."
    )


def _last_line(stderr: bytes) -> str:
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no reason given"
