"""Options that several commands share, and groups of options as one parameter."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]
Email = Annotated[str, typer.Argument(help="E-mail address of an account in Label Studio.")]
RoundId = Annotated[str, typer.Argument(metavar="ROUND", help="Round, such as round-0001.")]
ImageId = Annotated[
    str, typer.Argument(metavar="IMAGE", help="Image id, or a unique prefix of it.")
]
Version = Annotated[str, typer.Argument(help="Version, such as training-set@v1.2.0 or 1.2.0.")]
Reason = Annotated[str, typer.Option(help="Reason for the decision; it is recorded.")]


@dataclass(frozen=True)
class Registry:
    """Which registry a command reads, and which remote holds its files."""

    registry: Annotated[
        str,
        typer.Option(help="Path or address of the registry; the platform's own by default."),
    ] = ""
    remote: Annotated[
        str, typer.Option(help="Location of the registry's files, if it is not the recorded one.")
    ] = ""


@dataclass(frozen=True)
class DatasetFolder:
    """Where a command writes a dataset, and how."""

    out: Annotated[Path, typer.Option(help="Folder to write: new, or empty.")]
    link: Annotated[
        bool, typer.Option("--link", help="Hard-link the images instead of copying them.")
    ] = False
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if the format cannot hold everything.")
    ] = False


def with_option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command in which each dataclass parameter becomes one option per field.

    Typer reads options from the parameters of a function. Groups keep such a function short: the
    fields of a dataclass, declared with ``Annotated`` like parameters, are its options.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {}
    flat: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if is_dataclass(hints[name]):
            groups[name] = hints[name]
            flat += _parameters(hints[name])
        else:
            flat.append(
                parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            )

    @wraps(command)
    def flattened(**given: Any) -> None:
        grouped = {
            name: group(**{each.name: given.pop(each.name) for each in fields(group)})
            for name, group in groups.items()
        }
        command(**given, **grouped)

    described: Any = flattened
    described.__signature__ = inspect.Signature(flat)
    described.__annotations__ = {each.name: each.annotation for each in flat}
    return flattened


def _parameters(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if each.default is MISSING else each.default,
            annotation=hints[each.name],
        )
        for each in fields(group)
    ]
