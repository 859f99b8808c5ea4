"""The application: every noun with its commands, and how a command ends."""

import signal
import sys
from collections.abc import Sequence
from gc import freeze, set_threshold

import typer
from rich.console import Console
from typer.exceptions import TyperException

from annotation_platform.actor import COMMAND
from annotation_platform.cli import (
    audit,
    catalog,
    dataset,
    image,
    model,
    people,
    policy,
    quarantine,
    running,
    vendor,
    version,
)
from annotation_platform.cli import round as rounds
from annotation_platform.cli.consensus import consensus
from annotation_platform.cli.migrate import migrate
from annotation_platform.errors import AnnotationPlatformError

_OBJECTS = 50_000
"""Number of new objects after which Python collects garbage; its default is 700."""

_RUN = "Run the platform"
_FILES = "Without a platform"
_LABEL = "Images and annotations"
_DATA = "Datasets and versions"
_LEARN = "Models and policy"

app = typer.Typer(
    help="Annotate images in rounds and publish versioned datasets.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (
    running.demo,
    running.init,
    running.up,
    running.ingest,
    running.status,
    migrate,
):
    app.command(rich_help_panel=_RUN)(command)
for name, noun, panel in (
    ("round", rounds.app, _LABEL),
    ("image", image.app, _LABEL),
    ("quarantine", quarantine.app, _LABEL),
    ("people", people.app, _LABEL),
    ("vendor", vendor.app, _LABEL),
    ("version", version.app, _DATA),
    ("dataset", dataset.app, _DATA),
    ("catalog", catalog.app, _DATA),
    ("audit", audit.app, _DATA),
    ("model", model.app, _LEARN),
    ("policy", policy.app, _LEARN),
):
    app.add_typer(noun, name=name, rich_help_panel=panel)
app.command(rich_help_panel=_FILES)(consensus)


def main() -> None:
    """Run a command.

    Exit codes: 0 done; 1 the result is negative; 2 an error that the user can correct; 130 Ctrl-C.
    """
    # Loaded modules stay; collecting garbage among them takes a tenth of a short command.
    set_threshold(_OBJECTS)
    # A terminating signal unwinds like Ctrl-C, so that no server is left running.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        COMMAND.set(_command(sys.argv[1:]))
        # Typer returns the code of an early end, 130 for Ctrl-C, instead of raising it.
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except AnnotationPlatformError as error:
        _print_error(str(error))
        sys.exit(2)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except TyperException as error:
        _print_error(error.format_message())
        sys.exit(error.exit_code)
    finally:
        # Otherwise the interpreter collects garbage once more before it ends. DuckDB would report
        # what is not freed then as leaked.
        if "duckdb" not in sys.modules:
            freeze()


def _command(words: Sequence[str]) -> str:
    """Return the command among the words of a command line, without its arguments."""
    path, known = ["annotation-platform"], typer.main.get_command(app)
    for word in words:
        within = getattr(known, "commands", {})
        if word not in within:
            break
        known = within[word]
        path.append(word)
    return " ".join(path)


def _print_error(text: str) -> None:
    Console(stderr=True, highlight=False).print(f"error: {text}", markup=False, soft_wrap=True)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
