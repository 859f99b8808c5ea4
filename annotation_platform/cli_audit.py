"""Commands about the audit logs: whether they are whole, and what they say."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from annotation_platform.cli_output import OUT, AsJson, print_json, print_rows
from annotation_platform.errors import DataError
from annotation_platform.settings import read_settings

audit_app = typer.Typer(
    help="Who published, decided and read what; and whether that record is whole.",
    no_args_is_help=True,
)

_SHOWN = 50
_SHORT = 12
_DIGEST = 40
_THROUGH = {"run", "asset", "command"}
"""Facts that say how something was done; --json shows them."""


@audit_app.command("verify")
def audit_verify(as_json: AsJson = False) -> None:
    """Find the first line of the audit logs that was changed, added, moved or taken away."""
    from annotation_platform.audit_log.events import EventLog
    from annotation_platform.audit_log.verify import verify_logs
    from annotation_platform.landing.lake import lake_of, uses_of

    settings = read_settings()
    found = verify_logs(EventLog(lake_of(settings, audited=False).store), uses_of(settings))
    if as_json:
        print_json({"whole": found.whole, **asdict(found)})
    else:
        for text in (*found.notes, *(each.sentence for each in found.problems)):
            OUT.print(text, markup=False, soft_wrap=True)
        OUT.print(
            f"{found.events} events in {found.entries} entries, {found.uses} uses of the lake on"
            f" {found.files} days: {'whole' if found.whole else 'not whole'}.",
            soft_wrap=True,
        )
    if not found.whole:
        raise typer.Exit(1)


@audit_app.command("show")
def audit_show(
    since: Annotated[
        str, typer.Option(metavar="WHEN", help="From 2026-05-01, or 2026-05-01T12:30 in UTC, on.")
    ] = "",
    action: Annotated[str, typer.Option(help="Such as release, review or policy.")] = "",
    author: Annotated[str, typer.Option(help="By whom.")] = "",
    reads: Annotated[bool, typer.Option("--reads", help="Who read answers, instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show releases, reviews, decisions and changes of policy: by whom, when and why."""
    from annotation_platform.audit_log.events import ACTIONS
    from annotation_platform.audit_log.reading import (
        READS,
        Wanted,
        parse_moment,
        read_events,
        read_reads,
    )
    from annotation_platform.landing.lake import lake_of, uses_of

    known = READS if reads else ACTIONS
    if action not in {"", *known}:
        raise DataError(f"--action {action}: there is no such action. Give {', '.join(known)}.")
    wanted = Wanted(parse_moment(since) if since else None, action, author)
    settings = read_settings()
    lake = lake_of(settings, audited=False)
    found = read_reads(lake, uses_of(settings), wanted) if reads else read_events(lake, wanted)
    if as_json:
        print_json({"reads" if reads else "events": found.lines, "unreadable": found.unreadable})
        return
    _show(found.lines, _of_read if reads else _of_event)
    for place in found.unreadable[:1]:
        OUT.print(
            f"{len(found.unreadable)} lines cannot be read, the first is {place}: see"
            " `annotation-platform audit verify`.",
            markup=False,
            soft_wrap=True,
        )


def _show(lines: list[dict[str, Any]], row_of: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    if not lines:
        OUT.print("Nothing of that kind yet.")
        return
    if len(lines) > _SHOWN:
        OUT.print(f"{len(lines) - _SHOWN} earlier ones; --json gives all")
    rows = [row_of(line) for line in lines[-_SHOWN:]]
    print_rows(list(rows[0]), [list(row.values()) for row in rows])


def _of_event(line: dict[str, Any]) -> dict[str, Any]:
    facts = {key: value for key, value in line.get("facts", {}).items() if key not in _THROUGH}
    return {
        "number": line.get("number"),
        "at": str(line["at"])[:19],
        "author": line.get("author"),
        "action": line.get("action"),
        "subject": _short(str(line.get("subject"))),
        "reason": line.get("reason"),
        "facts": "\n".join(f"{key}: {_said(value)}" for key, value in facts.items()),
    }


def _of_read(line: dict[str, Any]) -> dict[str, Any]:
    return {
        "at": str(line["at"])[:19],
        "author": line.get("author", ""),
        "why": line.get("reason") or line.get("command", ""),
        "asset": line.get("asset", ""),
        "action": line.get("action"),
        "key": line.get("key"),
    }


def _said(value: Any) -> str:
    """Return a fact for people: of a changed setting what it was and what it is."""
    if not isinstance(value, dict):
        return _short(str(value))
    return ", ".join(f"{key} is {pair[1]}, was {pair[0]}" for key, pair in value.items())


def _short(text: str) -> str:
    """Return the beginning of a digest; anything else as it is."""
    is_digest = len(text) >= _DIGEST and all(each in "0123456789abcdef" for each in text)
    return text[:_SHORT] if is_digest else text
