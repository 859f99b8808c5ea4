"""What import-linter cannot see: assets know no place and no client of a cloud."""

import ast
from pathlib import Path

import pytest

ASSETS = Path(__file__).parents[2] / "assets"
CLIENTS = {"boto3", "botocore"}


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
