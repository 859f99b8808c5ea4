"""Git's plumbing: blobs, trees, commits and references, without touching anybody's working tree.

Hooks never run. Variables that point git at another repository are taken out of the environment,
so that a publisher called from a git hook writes where it was told to.
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

_ELSEWHERE = re.compile(
    r"GIT_(DIR|WORK_TREE|INDEX_FILE|INDEX_VERSION|OBJECT_DIRECTORY|ALTERNATE_OBJECT_DIRECTORIES|"
    r"COMMON_DIR|NAMESPACE|PREFIX|GRAFT_FILE|SHALLOW_FILE|REPLACE_REF_BASE|NO_REPLACE_OBJECTS|"
    r"CEILING_DIRECTORIES|QUARANTINE_PATH|CONFIG|CONFIG_PARAMETERS|CONFIG_COUNT|INTERNAL_\w+)"
)
# What was committed survives a power cut; no hook and no signing key is asked.
_OPTIONS = ["-c", "core.hooksPath=/dev/null", "-c", "core.fsync=all", "-c", "gc.auto=0",
            "-c", "core.filesRefLockTimeout=3000"]  # fmt: skip
DEAD_LOCK_SECONDS = 60
"""A lock of git's this old belongs to a process that was killed."""

_WHO = ["-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT"]


class Git:
    """One git repository, bare or not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git_dir = _git_dir(folder)

    @property
    def where(self) -> str:
        """What messages call the repository."""
        return str(self.folder)

    def refresh(self) -> None:
        """Bring what is here up to date, where it is a copy; see ``Mirror``."""

    def run(
        self,
        *arguments: str,
        stdin: bytes = b"",
        index: Path | None = None,
        work_tree: Path | None = None,
        at: datetime | None = None,
    ) -> bytes:
        """Return what ``git arguments`` prints; a failure is a PublishError with git's own words.

        Args:
            arguments: the subcommand and its options.
            stdin: what git reads.
            index: used instead of the repository's index.
            work_tree: used instead of the repository's working tree.
            at: used instead of the clock for authors and committers.
        """
        result = self._start(arguments, stdin=stdin, index=index, work_tree=work_tree, at=at)
        if b"No space left on device" in result.stderr:
            raise disk_full(self.where)
        if result.returncode != 0:
            raise PublishError(
                f"{self.where}: git {arguments[0]} failed: {_last_line(result.stderr)}. "
                "See to it (`git fsck` looks for damage) and run again."
            )
        return result.stdout

    def text(self, *arguments: str) -> str:
        """Return the trimmed output of ``git arguments``."""
        return self.run(*arguments).decode(errors="replace").strip()

    def resolve(self, revision: str) -> str | None:
        """Return the commit that ``revision`` names, or None if there is none."""
        wanted = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        result = self._start(wanted)
        return result.stdout.decode().strip() if result.returncode == 0 else None

    def tree_of(self, revision: str) -> str:
        """Return the id of the tree of a commit."""
        return self.text("rev-parse", "--verify", f"{revision}^{{tree}}")

    def read(self, revision: str, path: str) -> bytes | None:
        """Return the file ``path`` as of ``revision``, or None if it is not there."""
        result = self._start(("cat-file", "blob", f"{revision}:{path}"))
        return result.stdout if result.returncode == 0 else None

    def tags(self, pattern: str) -> dict[str, str]:
        """Return the commit of every tag that matches the glob ``pattern``, by name."""
        layout = "--format=%(refname:strip=2)%00%(objectname)%00%(*objectname)"
        lines = self.text("for-each-ref", layout, f"refs/tags/{pattern}").splitlines()
        found = (line.split("\0") for line in lines)
        return {name: peeled or direct for name, direct, peeled in found}

    def publishes(self, commit: str) -> bool:
        """Return whether a branch or tag of the repository leads to a commit."""
        # A commit that nothing leads to may be left over from what was taken back.
        found = self._start(("for-each-ref", "--count=1", "--contains", commit))
        return found.returncode == 0 and bool(found.stdout)

    def hash_object(self, data: bytes) -> str:
        """Store ``data`` as a blob and return its id."""
        return self.run("hash-object", "-w", "--stdin", stdin=data).decode().strip()

    def write_tree(self, base: str | None, files: Mapping[str, bytes]) -> str:
        """Return the id of the tree ``base`` (None: empty) with ``files`` put into it."""
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
        """Return the id of a tree of these files of the folder ``source``, modes and links kept."""
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

    def files_of(self, source: Path, *, leave_out: Iterable[str]) -> list[str]:
        """Return the files of a folder that is no repository, without those it ignores."""
        with tempfile.TemporaryDirectory(prefix="annotation-index-") as folder:
            index = Path(folder) / "index"
            self.run("read-tree", "--empty", index=index)
            listed = self.run(
                "ls-files", "-z", "--others", "--exclude-standard",
                *(f"--exclude={pattern}" for pattern in leave_out),
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
            False if somebody else moved it first; nothing has changed then.
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
        raise PublishError(f"{self.where}: {name} cannot be moved: {reason}")

    def value(self, name: str) -> str:
        """Return what a reference points at, a tag's own object for a tag; empty: there is none."""
        return self.text("for-each-ref", "--format=%(objectname)", name)

    def _remove_dead_lock(self, name: str) -> bool:
        # Git holds a reference's lock for the time of one rename: one this old belongs to a
        # process that was killed, and would stop every later publisher.
        path = self.folder / self.text("rev-parse", "--git-path", f"{name}.lock")
        try:
            if time.time() - path.stat().st_mtime < DEAD_LOCK_SECONDS:
                return False
            path.unlink()
        except FileNotFoundError:
            return False
        return True

    def create_tag(self, name: str, commit: str, message: str, at: datetime) -> None:
        """Create the annotated tag ``name`` on ``commit``; if it is there already, nothing."""
        if not self.add_tag(name, commit, message, at):
            self.refuse_other_tag(name, commit)

    def add_tag(self, name: str, commit: str, message: str, at: datetime) -> bool:
        """Create the annotated tag ``name``; False if there is one of that name."""
        tag = self.make_tag(name, commit, message, at)
        return self.update_ref(f"refs/tags/{name}", tag, None)

    def add_version(
        self, commit: str, expected_old: str | None, tag: str, message: str, at: datetime
    ) -> bool:
        """Move the line of versions on to a commit, then give that its annotated tag.

        Returns:
            False if somebody else moved the line first; nothing has changed then.
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
        """Store an annotated tag as it is, but on another commit, and return its id."""
        body = self.run("cat-file", "tag", tag)
        return self.run("mktag", stdin=re.sub(rb"\Aobject [0-9a-f]+", f"object {commit}".encode(),
                                              body)).decode().strip()  # fmt: skip

    def delete_ref(self, name: str, expected_old: str) -> bool:
        """Take a reference away; False if it pointed elsewhere, and then it stays."""
        self._start(("update-ref", "-d", name, expected_old))
        return not self.value(name)

    def refuse_other_tag(self, tag: str, commit: str) -> None:
        """Raise a PublishError if a tag is not on a commit."""
        present = self.resolve(f"refs/tags/{tag}")
        if present != commit:
            raise PublishError(
                f"{self.where}: tag {tag} names {present}, not {commit}. "
                "Move or delete the tag that does not belong there."
            )

    def identity(self) -> str:
        """Return who commits, as git writes it; a SettingsError if git was never told."""
        result = self._start(_WHO)
        if result.returncode != 0:
            raise SettingsError(
                f"{self.folder}: git does not know who publishes. Set `git config --global "
                "user.email you@example.org` and `git config --global user.name You`."
            )
        return result.stdout.decode().strip()

    def has_identity(self) -> bool:
        """Return whether git was told who commits."""
        return self._start(_WHO).returncode == 0

    def dirty_paths(self) -> list[str]:
        """Return the paths that differ from HEAD, untracked ones included, sorted."""
        listed = self.run("--no-optional-locks", "status", "--porcelain", "-z", "--no-renames")
        return sorted(os.fsdecode(entry[3:]) for entry in listed.split(b"\0") if entry)

    def tracked_and_new_files(self) -> list[str]:
        """Return the files of the working tree, those that git ignores left out."""
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
        place = ["-C", str(self.folder)]
        if work_tree is not None:
            options = ["--git-dir", str(self.git_dir), "--work-tree", str(work_tree)]
            place = ["-C", str(work_tree), *options]
        return run_git([*place, *_OPTIONS, *arguments], stdin=stdin, environment=environment)

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
    """Return the ended ``git arguments``, whatever its exit status; no git is a SettingsError."""
    try:
        return subprocess.run(
            ["git", *arguments],
            input=stdin,
            capture_output=True,
            env=clean_environment() if environment is None else environment,
            check=False,
            # Ctrl-C and a kill of the process group spare git: a reference half moved stays locked.
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise SettingsError(
            "git: not found on PATH, and versions are git commits. Install git and run again."
        ) from error


def clean_environment() -> dict[str, str]:
    """Return this process's environment without what points git at another repository."""
    kept = {key: value for key, value in os.environ.items() if not _ELSEWHERE.fullmatch(key)}
    return {**kept, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}


def is_checkout(folder: Path) -> bool:
    """Return whether ``folder`` is itself the top of a git checkout, not just inside one."""
    result = run_git(["-C", str(folder), "rev-parse", "--show-toplevel"])
    top = os.fsdecode(result.stdout.rstrip(b"\n"))
    return result.returncode == 0 and Path(top).resolve() == folder.resolve()


def existing_files(folder: Path, listed: bytes) -> list[str]:
    """Return the NUL-separated paths of ``listed`` that are files or links, sorted, each once."""
    names = sorted({os.fsdecode(name) for name in listed.split(b"\0") if name})
    return [name for name in names if (folder / name).is_file() or (folder / name).is_symlink()]


def _git_dir(folder: Path) -> Path:
    result = run_git(["-C", str(folder), "rev-parse", "--absolute-git-dir"])
    if result.returncode == 0:
        git_dir = Path(os.fsdecode(result.stdout.rstrip(b"\n")))
        # A folder inside somebody's repository is not that repository: publishing there by
        # mistake would put a branch and tags into it.
        if git_dir.resolve() == folder.resolve() or is_checkout(folder):
            return git_dir
    reason = _last_line(result.stderr) if b"dubious" in result.stderr else "not a git repository"
    raise SettingsError(
        f"{folder}: {reason}. Run `git init {folder}`, or set ANNOTATION_REGISTRY to a repository."
    )


def _last_line(stderr: bytes) -> str:
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no reason given"
