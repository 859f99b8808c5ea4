"""What import-linter cannot see: circles, private APIs, and places and clients of a cloud."""

import ast
import re
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "assets"
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
    """Return the lines of the body of each function, without its docstring, by name."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            first = node.body[1] if ast.get_docstring(node) else node.body[0]
            found[node.name] = node.end_lineno - first.lineno + 1
    return found


def test_what_an_asset_does_beyond_its_use_case_is_short_and_writes_no_table():
    """Modules of assets declare steps; ``making`` and ``metadata`` are the machinery below them."""
    found = {}
    for path in ASSETS.glob("*.py"):
        source = path.read_text()
        assert ".tables.write(" not in source, path.name
        if "import step" in source:
            found |= bodies(source)
    assert "_decide" in found
    assert {name: lines for name, lines in found.items() if lines >= MOST_LINES} == {}


def test_a_long_body_is_found():
    lines = "\n".join(f"    x = {number}" for number in range(MOST_LINES))
    source = f'def a():\n    """Text."""\n{lines}\n'
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


def library_layers():
    """Return the import contract of the library's packages."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (found,) = (each for each in contracts["contracts"] if "containers" in each)
    return found


def test_the_layers_have_no_exception_and_no_packages_that_import_each_other():
    contract = library_layers()
    assert "ignore_imports" not in contract
    assert not any(":" in layer for layer in contract["layers"])


def test_every_package_and_module_of_the_library_has_a_layer():
    named = {name for layer in library_layers()["layers"] for name in layer.split(" | ")}
    library = ROOT / "annotation_platform"
    modules = {path.stem for path in library.glob("*.py")} - {"__init__", "definitions"}
    packages = {path.parent.name for path in library.glob("*/__init__.py")}
    assert named == modules | packages


def test_the_tree_in_contributing_has_the_layers_in_their_order():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    (tree,) = re.findall(r"^```text\n(.*?)^```", page, re.M | re.S)
    assert [re.split(r" {2,}", line)[0] for line in tree.splitlines()] == library_layers()["layers"]


def circle_in(imports):
    """Return modules that import each other in a circle; empty if there are none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_modules_import_each_other_in_a_circle():
    graph = grimp.build_graph("annotation_platform", "assets", "resources", "sensors")
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 400
    assert circle_in(imports) == []


def test_a_planted_circle_is_found():
    assert set(circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == {"b", "c"}


def private_parts(source):
    """Return the private modules of Dagster that a module imports."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{each.name}" for each in node.names]
    return [
        name
        for name in names
        if name.startswith("dagster") and any(part.startswith("_") for part in name.split("."))
    ]


def test_no_private_module_of_dagster_is_imported():
    folders = ("annotation_platform", "assets", "resources", "sensors", "tests", "benchmarks")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    found = {str(path): private_parts(path.read_text()) for path in paths}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "planted", ["from dagster._core.storage import sql", "import dagster_aws._utils"]
)
def test_a_private_import_is_found(planted):
    assert private_parts(planted)
