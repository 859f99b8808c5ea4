"""Whether a published version still follows from ledger and lake, by the code that it names."""

import json
import re
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from annotation_platform.errors import PublishError
from annotation_platform.provenance.rebuilding.derive import Difference, Progress
from annotation_platform.settings import Settings, settings_environment
from annotation_platform.versioning.git import Registry, as_git
from annotation_platform.versioning.manifest import CodeState, Manifest
from annotation_platform.versioning.registry import read_manifest

_ENTRY_POINTS = (
    "annotation_platform.provenance.rebuilding.child",
    "annotation_platform.rebuilding.child",
)
# The module that rebuilds, newest first: versions of v0.1.0 have the second.
_LOCK = "requirements.lock"
_NEEDED = {"PATH", "HOME", "LANG", "TZ", "TMPDIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE",
           "ANNOTATION_HOME", "ANNOTATION_LAKE", "ANNOTATION_PARAMS"}  # fmt: skip
_MATTER = ("jinja2", "numpy", "opencv-python-headless", "orjson", "pandas", "pillow",
           "pyarrow", "pydantic", "pyyaml", "scipy", "shapely")  # fmt: skip


@dataclass(frozen=True)
class Rebuilt:
    """What became of making a version again.

    ``rounds``, ``answers``, ``labels``, ``images`` and ``files`` are how many were made or read
    again; ``remarks`` say what the proof does not cover.
    """

    version: str
    tag: str
    code_commit: str
    folder_md5: str
    rebuilt_md5: str  # empty: nothing could be rendered
    rounds: int
    annotations: int
    labels: int
    images: int
    files: int
    differences: tuple[Difference, ...]
    remarks: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether everything came out as it was published."""
        return not self.differences and self.rebuilt_md5 == self.folder_md5


def rebuild_version(
    settings: Settings, registry: Registry, tag: str, *, progress: Progress | None = None
) -> Rebuilt:
    """Make a version again, by its own code and without the remote, and return what came out.

    The code runs in a process and a folder of its own; nothing is written into lake or registry.

    Args:
        settings: where the lake is.
        registry: where the version is.
        tag: of the version.
        progress: told the tables and images done, and all of them.

    Raises:
        PublishError: there is no such version, or it cannot be made again at all.
    """
    git = as_git(registry)
    manifest = read_manifest(git, tag)
    params = git.read(tag, "params.yaml")
    if not manifest.inputs or params is None:
        raise PublishError(
            f"{tag}: what it was made of was not kept when it was published, so nobody can make it "
            "again. Publish a version with this code: from then on it is kept."
        )
    request = {
        "tag": tag,
        "inputs": manifest.inputs,
        "dataset": manifest.dataset,
        "folder_md5": manifest.folder_md5,
        "params": params.decode(),
    }
    with tempfile.TemporaryDirectory(prefix="annotation-rebuild-") as place:
        tree, index = Path(place).resolve() / "code", Path(place) / "index"
        tree.mkdir()
        git.run("read-tree", manifest.code.commit, index=index)
        git.run("checkout-index", "--all", index=index, work_tree=tree)
        entry_point = _entry_point(tree)
        if entry_point is None:
            raise PublishError(
                f"{tag}: its code ({manifest.code.commit[:12]}) cannot make versions again."
                f"{_not_committed(manifest.code)} Publish a version with this code, committed."
            )
        result = _run(tree, entry_point, request, settings, progress)
        lock = tree / _LOCK
        locked = lock.read_text() if lock.is_file() else ""
    return _told(tag, manifest, result, _other_packages(locked))


def _entry_point(tree: Path) -> str | None:
    """Return the module that rebuilds a version with the code in ``tree``; None: it has none."""
    files = {name: tree / f"{name.replace('.', '/')}.py" for name in _ENTRY_POINTS}
    return next((name for name, file in files.items() if file.is_file()), None)


def _run(
    tree: Path,
    entry_point: str,
    request: dict[str, str],
    settings: Settings,
    progress: Progress | None,
) -> dict[str, Any]:
    """Return what the code in ``tree`` makes of a request."""
    # Code of another time needs the lake, and no token or password but that of S3.
    environment = {
        key: value
        for key, value in settings_environment(settings).items()
        if key in _NEEDED or key.startswith(("AWS_", "LC_"))
    }
    # Neither is used: what is not there cannot be read.
    environment |= dict.fromkeys(("ANNOTATION_REGISTRY", "ANNOTATION_REMOTE"), str(tree / "none"))
    environment |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            [sys.executable, "-m", entry_point],
            cwd=tree,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        ) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(request))
        child.stdin.close()
        last = _follow(child.stdout, progress)
        code = child.wait()
        said.seek(0)
        words = said.read().decode(errors="replace").strip().splitlines()
    if "error" in last:
        raise PublishError(str(last["error"]))
    if code != 0 or "result" not in last:
        if code < 0:
            raise PublishError(
                f"{request['tag']}: its code was stopped by signal {-code}; 9 is how a machine "
                "without memory ends a program. Free some and run again."
            )
        reason = words[-1] if words else f"it ended with {code}"
        raise PublishError(
            f"{request['tag']}: its own code cannot make it again: {reason}. Install the packages "
            f"of its {_LOCK} and run again."
        )
    result: dict[str, Any] = last["result"]
    return result


def _follow(lines: IO[str], progress: Progress | None) -> dict[str, Any]:
    """Return the last line of JSON that a child prints; what comes before says how far it is."""
    last: dict[str, Any] = {}
    for line in lines:
        with suppress(ValueError):
            # A library may print something of its own.
            said = json.loads(line)
            last = said if isinstance(said, dict) else last
        if progress is not None and "done" in last:
            progress(last["done"], last["total"])
    return last


def _told(tag: str, manifest: Manifest, result: dict[str, Any], packages: list[str]) -> Rebuilt:
    remarks = [_not_committed(manifest.code).strip()]
    if packages:
        remarks.append(f"Other packages than its {_LOCK} names: {', '.join(packages)}.")
    taken = ", ".join(f"{name} ({files})" for name, files in sorted(result["taken"].items()))
    if taken:
        remarks.append(f"Taken as they were kept, and not made again: {taken}.")
    return Rebuilt(
        version=manifest.version,
        tag=tag,
        code_commit=manifest.code.commit,
        folder_md5=manifest.folder_md5,
        rebuilt_md5=result["folder_md5"],
        rounds=result["rounds"],
        # v0.1.0 calls them answers.
        annotations=result["annotations"] if "annotations" in result else result["answers"],
        labels=result["labels"],
        images=result["images"],
        files=result["files"],
        differences=tuple(
            Difference(each["where"], each["what"]) for each in result["differences"]
        ),
        remarks=tuple(filter(None, remarks)),
    )


def _not_committed(code: CodeState) -> str:
    """Return which code made the version and is in no commit; a snapshot holds all of it."""
    # The policy is not code, and a version has its own.
    paths = [path for path in code.dirty_paths if path != "params.yaml"]
    if code.snapshot or not paths:
        return ""
    return f" Its code was not committed: {', '.join(paths)}."


def _other_packages(lock: str) -> list[str]:
    """Return the packages that matter and are installed in another version than locked."""
    locked = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock, re.MULTILINE))
    found = []
    for name in _MATTER:
        wanted = locked.get(name)
        present = _installed(name)
        if wanted is not None and present != wanted:
            found.append(f"{name} {present or 'missing'} instead of {wanted}")
    return found


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
