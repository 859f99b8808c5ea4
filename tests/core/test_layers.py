"""What import-linter cannot see: assets know no place and no client of a cloud."""

import ast
from pathlib import Path

import pytest

ASSETS = Path(__file__).parents[2] / "assets"
CLIENTS = {"boto3", "botocore"}
MOST_LINES = 20


def breaches(source):
    """Return what a module of ``assets/`` must not hold: clients of S3, and addresses in it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        modules = []
        if isinstance(node, ast.Import):
            modules = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        found += [name for name in modules if name.partition(".")[0] in CLIENTS]
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "s3://" in node.value:
            found.append(node.value)
    return found


@pytest.mark.parametrize("path", sorted(ASSETS.glob("**/*.py")), ids=lambda path: path.name)
def test_assets_name_neither_boto3_nor_a_place_in_s3(path):
    assert breaches(path.read_text()) == []


@pytest.mark.parametrize(
    "planted",
    [
        "import boto3",
        "import botocore.client as client",
        "from boto3.session import Session",
        "def read():\n    from botocore import UNSIGNED",
        'BUCKET = "s3://images/landing"',
        'def place(name):\n    return f"s3://{name}/landing"',
    ],
)
def test_a_planted_one_is_found(planted):
    assert breaches(planted)


def bodies(source):
    """Return the lines of the body of each asset, without its docstring, by name."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef):
            continue
        makers = [each.func for each in node.decorator_list if isinstance(each, ast.Call)]
        if any(isinstance(each, ast.Name) and each.id == "tables_made" for each in makers):
            first = node.body[1] if ast.get_docstring(node) else node.body[0]
            found[node.name] = node.end_lineno - first.lineno + 1
    return found


def test_the_body_of_an_asset_is_short_and_writes_no_table():
    found = {}
    for path in ASSETS.glob("*.py"):
        source = path.read_text()
        found |= bodies(source)
        assert ".tables.write(" not in source, path.name
    assert "reviewed_labels" in found
    assert {name: lines for name, lines in found.items() if lines >= MOST_LINES} == {}


def test_a_long_body_is_found():
    lines = "\n".join(f"    x = {number}" for number in range(MOST_LINES))
    source = f'@tables_made("a")\ndef a():\n    """Text."""\n{lines}\n'
    assert bodies(source) == {"a": MOST_LINES}


def writers(root):
    """Return the modules of the product that write a table of the lake."""
    found = set()
    for folder in ("annotation_platform", "assets", "resources", "sensors"):
        for path in (root / folder).glob("**/*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr == "write"
                    and ast.unparse(node.func.value).endswith("tables")
                ):
                    found.add(str(path.relative_to(root)))
    return found


def test_the_io_manager_alone_writes_tables():
    # `without` writes into a copy in memory, of the lake as it was.
    assert writers(ASSETS.parent) == {
        "resources/storage.py",
        "annotation_platform/provenance/without.py",
    }


def test_another_writer_is_found(tmp_path):
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "a.py").write_text('lake.tables.write("conflicts", round_id, frame)\n')
    assert writers(tmp_path) == {"assets/a.py"}
