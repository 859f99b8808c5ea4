"""Commands about the audit log and the access log: their integrity and their contents."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from annotation_platform.cli.options import AsJson
from annotation_platform.cli.output import OUT, print_json, print_line, print_rows
from annotation_platform.cli.registries import own_lake, own_settings
from annotation_platform.errors import DataError

app = typer.Typer(
    help="Read and verify the log of releases, decisions and reads.", no_args_is_help=True
)

_SHOWN = 50
_SHORT = 12
_DIGEST = 40
_MEANS = {"run", "asset", "command"}
"""Facts about how something was done; only ``--json`` prints them."""


@app.command("verify")
def audit_verify(as_json: AsJson = False) -> None:
    """Find the first line of the logs that was changed, added, moved or removed."""
    from annotation_platform.audit_log.events import EventLog
    from annotation_platform.audit_log.verify import verify_logs
    from annotation_platform.ingestion.lake import access_log_of

    settings = own_settings()
    found = verify_logs(EventLog(own_lake(settings, audited=False).store), access_log_of(settings))
    if as_json:
        print_json({"whole": found.whole, **asdict(found)})
    else:
        for text in (*found.notes, *(each.sentence for each in found.problems)):
            print_line(text)
        print_line(
            f"{found.events} events in {found.entries} entries, {found.uses} accesses to the lake"
            f" on {found.files} days: {'whole' if found.whole else 'not whole'}."
        )
    if not found.whole:
        raise typer.Exit(1)


@app.command("show")
def audit_show(
    since: Annotated[
        str,
        typer.Option(metavar="WHEN", help="Earliest time: 2026-05-01, or 2026-05-01T12:30 in UTC."),
    ] = "",
    action: Annotated[
        str, typer.Option(help="Only this action, such as release, review or policy.")
    ] = "",
    author: Annotated[str, typer.Option(help="Only actions of this actor.")] = "",
    reads: Annotated[
        bool, typer.Option("--reads", help="Show who read annotations, from the access log.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show releases, reviews, decisions and policy changes: actor, time and reason."""
    from annotation_platform.audit_log.events import ACTIONS
    from annotation_platform.audit_log.reading import (
        READS,
        LogFilter,
        parse_moment,
        read_events,
        read_reads,
    )
    from annotation_platform.ingestion.lake import access_log_of

    known = READS if reads else ACTIONS
    if action not in {"", *known}:
        raise DataError(f"--action {action}: there is no such action. Give {', '.join(known)}.")
    log_filter = LogFilter(parse_moment(since) if since else None, action, author)
    settings = own_settings()
    lake = own_lake(settings, audited=False)
    found = (
        read_reads(lake, access_log_of(settings), log_filter)
        if reads
        else read_events(lake, log_filter)
    )
    if as_json:
        print_json({"reads" if reads else "events": found.lines, "unreadable": found.unreadable})
        return
    _show(found.lines, _read_row if reads else _event_row)
    for line in found.unreadable[:1]:
        print_line(
            f"{len(found.unreadable)} lines cannot be read, the first is {line}: see"
            " `annotation-platform audit verify`."
        )


def _show(lines: list[dict[str, Any]], row_of: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    if not lines:
        OUT.print("No matching entries.")
        return
    if len(lines) > _SHOWN:
        OUT.print(f"{len(lines) - _SHOWN} earlier entries; --json prints all")
    rows = [row_of(line) for line in lines[-_SHOWN:]]
    print_rows(list(rows[0]), [list(row.values()) for row in rows])


def _event_row(line: dict[str, Any]) -> dict[str, Any]:
    facts = {key: value for key, value in line.get("facts", {}).items() if key not in _MEANS}
    return {
        "number": line.get("number"),
        "at": str(line["at"])[:19],
        "author": line.get("author"),
        "action": line.get("action"),
        "subject": _short(str(line.get("subject"))),
        "reason": line.get("reason"),
        "facts": "\n".join(f"{key}: {_fact(value)}" for key, value in facts.items()),
    }


def _read_row(line: dict[str, Any]) -> dict[str, Any]:
    return {
        "at": str(line["at"])[:19],
        "author": line.get("author", ""),
        "why": line.get("reason") or line.get("command", ""),
        "asset": line.get("asset", ""),
        "action": line.get("action"),
        "key": line.get("key"),
    }


def _fact(value: Any) -> str:
    """Return a fact as text; for a changed setting, its new and its old value."""
    if not isinstance(value, dict):
        return _short(str(value))
    return ", ".join(f"{key} is {pair[1]}, was {pair[0]}" for key, pair in value.items())


def _short(text: str) -> str:
    """Return the first digits of a digest; any other text unchanged."""
    is_digest = len(text) >= _DIGEST and all(each in "0123456789abcdef" for each in text)
    return text[:_SHORT] if is_digest else text
