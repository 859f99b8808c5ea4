"""Real servers for the system tests, each booted once per module from a prepared database."""

import copy
import importlib.metadata
import importlib.util
import shutil
from dataclasses import replace

import pytest
from filelock import FileLock

from tests.system.prepared_label_studio import PreparedLabelStudio, make_template


@pytest.fixture(scope="session")
def label_studio_template(request):
    """A migrated Label Studio database, made once per machine and version of Label Studio."""
    if importlib.util.find_spec("label_studio") is None:
        pytest.skip("Label Studio is not installed: pip install label-studio==1.23.2")
    version = importlib.metadata.version("label-studio")
    cache = request.config.cache.mkdir(f"label-studio-{version}")
    # pytest-xdist runs one process per core, and all of them come here at the same moment.
    with FileLock(cache / "template.lock"):
        return make_template(cache / "template")


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """Return a function that gives each test of a module the same world as it was when made.

    Commits name the folder of their remote, so a world cannot be moved: what a test left of it is
    removed, and a copy is put back in its place.
    """
    place = tmp_path_factory.mktemp("once")
    rows = []

    def world(make):
        root, kept = place / "world", place / "kept"
        if not kept.exists():
            made = make(root)
            rows.append((made, copy.deepcopy(made.rows)))
            shutil.copytree(root, kept, symlinks=True)
        else:
            shutil.rmtree(root)
            shutil.copytree(kept, root, symlinks=True)
        made, published = rows[0]
        return replace(made, rows=copy.deepcopy(published))

    return world


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """The folder whose ``images`` the module's Label Studio serves."""
    folder = tmp_path_factory.mktemp("lake")
    (folder / "images").mkdir()
    return folder


@pytest.fixture(scope="module")
def label_studio(label_studio_template, lake, tmp_path_factory):
    """A running Label Studio of the module's own; it is stopped when the module is done."""
    place = tmp_path_factory.mktemp("label-studio")
    with PreparedLabelStudio(
        place / "data",
        document_root=lake,
        secrets_path=place / "secrets.json",
        database=label_studio_template,
    ) as server:
        yield server
