"""The code that produced a version, as a commit of the registry, and its DVC configuration."""

import configparser
import io
from datetime import datetime
from pathlib import Path

from annotation_platform.errors import SettingsError
from annotation_platform.versioning.git import Git, is_checkout
from annotation_platform.versioning.manifest import CodeState

# Excluded from a snapshot of a source tree that is not a git checkout, as is all in .gitignore.
_EXCLUDED = [".venv/", "venv/", "__pycache__/", "*.egg-info/", ".*_cache/", ".hypothesis/",
             "node_modules/", ".annotation/", ".demo/", "*.pyc"]  # fmt: skip
_REMOTE = "storage"
_REMOTE_SECTION = f"'remote \"{_REMOTE}\"'"
_DVC_IGNORED = b"/config.local\n/tmp\n/cache\n"


def find_code(
    registry: Git, source_root: Path, params_text: str, remote_url: str, *, now: datetime
) -> CodeState:
    """Return the code commit of ``source_root`` in ``registry``, importing a snapshot if necessary.

    The commit is the HEAD of ``source_root`` if the registry holds it; else any commit of the
    registry with the same tree; else a new commit without parents and without a reference.
    """
    source = Git(source_root) if is_checkout(source_root) else None
    head = source.resolve("HEAD") if source else None
    changed = source.dirty_paths() if source and head else []
    if source and head and registry.resolve(head) == head:
        if source.read("HEAD", "params.yaml") != params_text.encode():
            changed = sorted({*changed, "params.yaml"})
        return CodeState(head, head, False, bool(changed), tuple(changed))
    tree = snapshot_tree(registry, source_root, params_text, remote_url)
    commit = _commit_with_tree(registry, tree) or registry.commit_tree(
        tree, [], "Snapshot of the source tree\n", now
    )
    return CodeState(commit, head or "", True, bool(changed), tuple(changed))


def snapshot_tree(registry: Git, source_root: Path, params_text: str, remote_url: str) -> str:
    """Return the id of a tree with the files of ``source_root``, this policy and this remote."""
    if is_checkout(source_root):
        files = Git(source_root).tracked_and_new_files()
    else:
        files = registry.files_of(source_root, exclude=_EXCLUDED)
    tree = registry.import_files(source_root, files)
    dvc_files, _ = version_config(registry, tree, remote_url)
    return registry.write_tree(tree, {**dvc_files, "params.yaml": params_text.encode()})


def version_config(
    registry: Git, code: str, remote_url: str
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the DVC files of a version's tree, and the options of its remote.

    ``code`` is the commit or tree that the version builds on. The settings of its ``.dvc/config``
    are preserved, including options of the same remote such as the endpoint. The default remote
    becomes ``remote_url``, with verification of every pulled object.

    Raises:
        SettingsError: the existing ``.dvc/config`` cannot be parsed.
    """
    config = _dvc_config(registry, code)
    options: dict[str, str] = {}
    for section in [name for name in config.sections() if name.startswith("'remote ")]:
        if config[section].get("url") == remote_url:
            options = {key: value for key, value in config[section].items() if key != "url"}
    config[_REMOTE_SECTION] = {"url": remote_url, **options, "verify": "true"}
    if not config.has_section("core"):
        config.add_section("core")
    config["core"]["remote"] = _REMOTE
    text = io.StringIO()
    config.write(text)
    files = {".dvc/config": text.getvalue().strip().encode() + b"\n"}
    if registry.read(code, ".dvc/.gitignore") is None:
        files[".dvc/.gitignore"] = _DVC_IGNORED
    options.pop("verify", None)
    return files, options


def default_remote(registry: Git, code: str) -> str:
    """Return the address of the default remote in the DVC configuration of a commit.

    Raises:
        SettingsError: the configuration names no default remote.
    """
    config = _dvc_config(registry, code)
    name = config.get("core", "remote", fallback="")
    url = config.get(f"'remote \"{name}\"'", "url", fallback="")
    if not url:
        raise SettingsError(
            f".dvc/config of {code}: it names no remote, so the location of the files is unknown. "
            "Set ANNOTATION_REMOTE."
        )
    return url


def _dvc_config(registry: Git, code: str) -> configparser.ConfigParser:
    config = configparser.ConfigParser(interpolation=None)
    present = registry.read(code, ".dvc/config") or b""
    try:
        config.read_string(present.decode())
    except configparser.Error as error:
        raise SettingsError(
            f".dvc/config of {code[:12]}: {' '.join(str(error).split())}. Correct the file."
        ) from error
    return config


def _commit_with_tree(registry: Git, tree: str) -> str | None:
    for line in registry.text("log", "--all", "--format=%H %T").splitlines():
        commit, _, its_tree = line.partition(" ")
        if its_tree == tree:
            return commit
    return None
