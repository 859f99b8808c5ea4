"""Nothing outside ``schema/shapes`` asks which shape a label has."""

import ast
from pathlib import Path

from annotation_platform.schema.shapes import SHAPES, STATEMENTS

ROOT = Path(__file__).parents[3]
PRODUCT = ("annotation_platform", "assets", "resources", "sensors")
OWN = ROOT / "annotation_platform" / "schema" / "shapes"


def names_in(node):
    """Return the shape names in an expression: one text, or a tuple, list or set of them."""
    if isinstance(node, ast.Constant):
        return {node.value} & SHAPES.keys() if isinstance(node.value, str) else set()
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return set().union(*(names_in(each) for each in node.elts))
    return names_in(node.value) if isinstance(node, ast.Starred) else set()


def compares(node):
    """Return the shape names that a node compares something with.

    ``none`` and ``unsure`` are ordinary words: they count only where the other side names a shape.
    """
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        sides = [node.func.value, *node.args] if node.func.attr in {"isin", "are", "eq"} else []
    elif isinstance(node, ast.Match):
        patterns = [each for case in node.cases for each in ast.walk(case.pattern)]
        values = [each.value for each in patterns if isinstance(each, ast.MatchValue)]
        sides = [node.subject, *values]
    else:
        sides = []
    found = set().union(*(names_in(side) for side in sides))
    others = " ".join(ast.unparse(side) for side in sides if not names_in(side))
    return found if "shape" in others else found - {*STATEMENTS}


def comparisons(source):
    """Return the line and the names of each comparison with a shape name in a module's text."""
    tree = ast.parse(source)
    return [(node.lineno, sorted(compares(node))) for node in ast.walk(tree) if compares(node)]


def test_no_product_module_compares_with_the_name_of_a_shape():
    modules = [path for root in PRODUCT for path in sorted((ROOT / root).rglob("*.py"))]
    assert len(modules) > 100
    found = {
        str(path.relative_to(ROOT)): lines
        for path in modules
        if OWN not in path.parents and (lines := comparisons(path.read_text()))
    }
    assert found == {}


def test_the_search_finds_every_way_to_compare():
    ways = [
        'label.shape == "box"',
        '"polygon" != shape',
        'row["shape"] in {"box", "mask"}',
        'labels["shape"].isin(["none", "unsure"])',
        'labels["shape"].isin([*others, "choice"])',
        'labels["shape"] == "none"',
        'match label.shape:\n    case "box" | "mask":\n        pass',
    ]
    assert [bool(comparisons(way)) for way in ways] == [True] * len(ways)
    assert comparisons('answer == "none"; shape == other.shape; x in {"a"}; f("box")') == []
