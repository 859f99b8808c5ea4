"""The reference is what the code says."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def pages():
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


def test_the_reference_is_as_generated(pages):
    stale = [
        name
        for name, text in pages.items()
        if not (DOCS / "reference" / name).is_file()
        or (DOCS / "reference" / name).read_text() != text
    ]
    assert not stale, "run `make reference`"
    assert {path.name for path in (DOCS / "reference").iterdir()} == set(pages)


def test_everything_in_it_says_what_it_is(pages):
    """No row lacks its sentence: that is for the code to mend, not for the page."""
    silent = [
        (name, row)
        for name, text in pages.items()
        if name in {"tables.md", "commands.md", "assets.md"}
        for row in text.splitlines()
        if row.startswith("| `") and row.split(" | ")[-1].strip(" |") == ""
    ]
    assert silent == []
