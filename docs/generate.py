"""Write docs/reference/ from the code: tables, policy, settings, commands, assets.

    make reference

``tests/core/test_reference.py`` says when it has to be run again.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import typer
from pydantic import BaseModel
from typer.main import get_command

from annotation_platform.cli import app
from annotation_platform.definitions import defs
from annotation_platform.policy import Policy
from annotation_platform.schema.tables import TABLES
from annotation_platform.settings import Settings

FOLDER = Path(__file__).resolve().parent / "reference"
_GENERATED = "<!-- Written by docs/generate.py from the code. -->"
_TYPES = {
    "string[pyarrow]": "text",
    "int64": "whole number",
    "Int64": "whole number",
    "float64": "number",
    "bool": "yes or no",
    "datetime64[us, UTC]": "time, UTC",
    "object": "vector of numbers",
}


def pages() -> dict[str, str]:
    """Return the text of each page by its name."""
    made = {
        "tables": _tables(),
        "policy": _policy(),
        "settings": _settings(),
        "commands": _commands(),
        "assets": _assets(),
    }
    return {f"{name}.md": f"{_GENERATED}\n\n" + "\n".join(lines) for name, lines in made.items()}


def _tables() -> Iterator[str]:
    yield "# Tables\n"
    yield (
        "Each is in the lake as `tables/<name>/<round>.parquet` and is checked on every write, "
        "and where it is read as it is now. `annotation-platform catalog query` reads them "
        "in SQL.\n"
    )
    for name, table in TABLES.items():
        yield f"## {name}\n\n{table.about} Schema version {table.schema_version}.\n"
        if table.old_names:
            yield f"Renamed from {_names(table.old_names)}.\n"
        yield from _head("column", "type", "")
        for column, declared in table.columns.items():
            kind = _TYPES[declared.dtype] + (", may be missing" if declared.nullable else "")
            key = " (key)" if declared.key else ""
            about = declared.about
            if declared.unit:
                about += f" ({declared.unit})"
            if declared.renamed_from:
                about += f"; renamed from {_names(declared.renamed_from)}"
            yield _row(f"`{column}`{key}", kind, about)
        yield ""


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{each}`" for each in names)


def _policy() -> Iterator[str]:
    yield "# Policy: params.yaml\n"
    yield (
        "What counts as good data. It is versioned with the data; an unknown key is an error. "
        "All but `ontology` may be left out.\n"
    )
    for name, field in Policy.model_fields.items():
        model = field.annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            yield f"## {name}\n\nBy default `{field.default}`.\n"
            continue
        yield f"## {name}\n\n{_flowing(model.__doc__)}\n"
        yield from _fields(model)


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    if not prefix:
        yield from _head("key", "default", "")
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _fields(inner, f"{prefix}{name}.")
            continue
        limits = ", ".join(filter(None, map(_limit, field.metadata)))
        default = "needed" if field.is_required() else f"`{field.get_default()!r}`"
        said = "; ".join(part for part in (field.description or "", limits) if part)
        yield _row(f"`{prefix}{name}`", default, said)
    if not prefix:
        yield ""


def _limit(given: object) -> str:
    """Return a limit of pydantic's as one reads it; empty where it says nothing to a reader."""
    signs = {"gt": "> {}", "ge": "≥ {}", "lt": "< {}", "le": "≤ {}", "min_length": "{} or more"}
    said = [sign.format(getattr(given, name)) for name, sign in signs.items()
            if getattr(given, name, None) is not None]  # fmt: skip
    return ", ".join(said)


def _settings() -> Iterator[str]:
    yield "# Settings: the environment\n"
    yield "Where things live, and secrets; never policy.\n"
    yield from _head("variable", "default", "")
    for name, field in Settings.model_fields.items():
        default = "" if field.default in ("", None) else f"`{field.default}`"
        yield _row(f"`ANNOTATION_{name.upper()}`", default, field.description or "")
    yield ""


def _commands() -> Iterator[str]:
    yield "# Commands\n"
    yield (
        "Exit codes: 0 done; 1 the result is negative; 2 an error, one line that says what to do.\n"
    )
    yield from _described(get_command(app), "annotation-platform")


def _described(
    command: "typer.core.TyperGroup | typer.core.TyperCommand", name: str
) -> Iterator[str]:
    inner = getattr(command, "commands", None)
    if inner is not None:
        for each in sorted(inner):
            yield from _described(inner[each], f"{name} {each}")
        return
    yield f"## {name}\n\n{_flowing(command.help)}\n"
    shown = [each for each in command.params if not getattr(each, "hidden", False)]
    shown = [each for each in shown if each.name != "help"]
    if not shown:
        return
    yield from _head("argument or option", "default", "")
    for each in shown:
        is_option = each.param_type_name == "option"
        names = [*each.opts, *each.secondary_opts]
        called = ", ".join(names) if is_option else (each.metavar or str(each.name).upper())
        default = "needed" if each.required else _shown(each.default)
        yield _row(f"`{called}`", default, getattr(each, "help", "") or "")
    yield ""


def _shown(default: object) -> str:
    return "" if default in (None, "", False) or callable(default) else f"`{default}`"


def _assets() -> Iterator[str]:
    yield "# Assets, checks, jobs and sensors\n"
    yield from _head("asset", "group", "")
    for spec in sorted(defs.resolve_all_asset_specs(), key=lambda each: each.key.to_user_string()):
        about = (spec.description or "").partition("\n")[0]
        yield _row(f"`{spec.key.to_user_string()}`", spec.group_name or "", about)
    yield ""
    yield from _head("check", "of", "")
    graph = defs.resolve_asset_graph()
    for key in sorted(graph.asset_check_keys, key=lambda each: each.name):
        about = graph.get_check_spec(key).description or ""
        yield _row(f"`{key.name}`", f"`{key.asset_key.to_user_string()}`", about.partition("\n")[0])
    yield ""
    for kind, things in (("job", defs.jobs), ("sensor", defs.sensors)):
        yield from _head(kind, "")
        for each in sorted(things or [], key=lambda one: one.name):
            yield _row(f"`{each.name}`", _flowing(each.description).partition("\n")[0])
        yield ""


def _head(*names: str) -> Iterator[str]:
    yield _row(*names)
    yield _row(*("---" for _ in names))


def _row(*cells: str | None) -> str:
    told = (" ".join(_flowing(cell).replace("|", "\\|").split()) for cell in cells)
    return f"| {' | '.join(told)} |"


def _flowing(text: str | None) -> str:
    """Return a docstring without its indentation, paragraphs kept."""
    lines = [line.strip() for line in (text or "").strip().splitlines()]
    return "\n".join(lines).replace("``", "`")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text)
