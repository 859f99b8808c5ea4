"""Check that a published version follows from the ledger and the lake, by its own code."""

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
"""The module that rebuilds, the newest name first; versions of v0.1.0 have the second."""
_LOCK = "requirements.lock"
_NEEDED = {"PATH", "HOME", "LANG", "TZ", "TMPDIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE",
           "ANNOTATION_HOME", "ANNOTATION_LAKE", "ANNOTATION_PARAMS"}  # fmt: skip
_RELEVANT = ("jinja2", "numpy", "opencv-python-headless", "orjson", "pandas", "pillow",
           "pyarrow", "pydantic", "pyyaml", "scipy", "shapely")  # fmt: skip


@dataclass(frozen=True)
class Rebuilt:
    """The result of a rebuild.

    ``rounds``, ``annotations``, ``labels``, ``images`` and ``files`` are the numbers of items that
    were derived or read again; ``remarks`` are sentences on the limits of the proof.
    """

    version: str
    tag: str
    code_commit: str
    folder_md5: str
    rebuilt_md5: str  # empty: the folder could not be rendered
    rounds: int
    annotations: int
    labels: int
    images: int
    files: int
    differences: tuple[Difference, ...]
    remarks: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether the rebuilt version is the published one."""
        return not self.differences and self.rebuilt_md5 == self.folder_md5


def rebuild_version(
    settings: Settings, registry: Registry, tag: str, *, progress: Progress | None = None
) -> Rebuilt:
    """Rebuild a version by its own code, without the remote, and return the result.

    The code runs in its own process and folder; nothing is written to the lake or the registry.

    Args:
        settings: the deployment, with the location of the lake.
        registry: the registry with the version.
        tag: tag of the version.
        progress: called with the tables and images done and their total.

    Raises:
        PublishError: there is no such version, or it cannot be rebuilt.
    """
    git = as_git(registry)
    manifest = read_manifest(git, tag)
    params = git.read(tag, "params.yaml")
    if not manifest.inputs or params is None:
        raise PublishError(
            f"{tag}: its inputs were not stored when it was published, so it cannot be rebuilt. "
            "Versions published by this release can."
        )
    request = {
        "tag": tag,
        "inputs": manifest.inputs,
        "dataset": manifest.dataset,
        "folder_md5": manifest.folder_md5,
        "params": params.decode(),
    }
    with tempfile.TemporaryDirectory(prefix="annotation-rebuild-") as temporary:
        tree, index = Path(temporary).resolve() / "code", Path(temporary) / "index"
        tree.mkdir()
        git.run("read-tree", manifest.code.commit, index=index)
        git.run("checkout-index", "--all", index=index, work_tree=tree)
        entry_point = _entry_point(tree)
        if entry_point is None:
            raise PublishError(
                f"{tag}: its code ({manifest.code.commit[:12]}) cannot rebuild versions."
                f"{_not_committed(manifest.code)} Publish a version with this code, committed."
            )
        result = _run(tree, entry_point, request, settings, progress)
        lock = tree / _LOCK
        locked = lock.read_text() if lock.is_file() else ""
    return _result(tag, manifest, result, _other_packages(locked))


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
    """Return the result of a request to the code in ``tree``."""
    # Code of another release needs the lake, and no secrets except those of S3.
    environment = {
        key: value
        for key, value in settings_environment(settings).items()
        if key in _NEEDED or key.startswith(("AWS_", "LC_"))
    }
    # Neither is used: missing folders cannot be read by mistake.
    environment |= dict.fromkeys(("ANNOTATION_REGISTRY", "ANNOTATION_REMOTE"), str(tree / "none"))
    environment |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [sys.executable, "-m", entry_point],
            cwd=tree,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(request))
        child.stdin.close()
        last = _follow(child.stdout, progress)
        code = child.wait()
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines()
    if "error" in last:
        raise PublishError(str(last["error"]))
    if code != 0 or "result" not in last:
        if code < 0:
            raise PublishError(
                f"{request['tag']}: its code was stopped by signal {-code}; 9 can mean that the "
                "machine is out of memory. Free memory and run again."
            )
        reason = lines[-1] if lines else f"it ended with {code}"
        raise PublishError(
            f"{request['tag']}: its own code cannot rebuild it: {reason}. Install the packages of "
            f"its {_LOCK} and run again."
        )
    result: dict[str, Any] = last["result"]
    return result


def _follow(lines: IO[str], progress: Progress | None) -> dict[str, Any]:
    """Return the last line of JSON that a child prints; earlier lines report progress."""
    last: dict[str, Any] = {}
    for line in lines:
        with suppress(ValueError):
            # A library may print other lines.
            content = json.loads(line)
            last = content if isinstance(content, dict) else last
        if progress is not None and "done" in last:
            progress(last["done"], last["total"])
    return last


def _result(tag: str, manifest: Manifest, result: dict[str, Any], packages: list[str]) -> Rebuilt:
    remarks = [_not_committed(manifest.code).strip()]
    if packages:
        remarks.append(f"Packages that differ from its {_LOCK}: {', '.join(packages)}.")
    taken = ", ".join(f"{name} ({files})" for name, files in sorted(result["taken"].items()))
    if taken:
        remarks.append(f"Taken from storage, not derived again: {taken}.")
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
    """Return a sentence on uncommitted code of the version; a snapshot holds all code."""
    # The policy is not code, and a version stores its own.
    paths = [path for path in code.dirty_paths if path != "params.yaml"]
    if code.snapshot or not paths:
        return ""
    return f" Its code was not committed: {', '.join(paths)}."


def _other_packages(lock: str) -> list[str]:
    """Return the relevant packages that are installed in another version than locked."""
    locked = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock, re.MULTILINE))
    found = []
    for name in _RELEVANT:
        expected = locked.get(name)
        present = _installed(name)
        if expected is not None and present != expected:
            found.append(f"{name} {present or 'missing'} instead of {expected}")
    return found


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
