"""The command line. Each command calls the library; none holds logic of its own."""

import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from gc import freeze, set_threshold
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from typer.exceptions import TyperException

from annotation_platform.cli_audit import audit_app
from annotation_platform.cli_backtest import backtest
from annotation_platform.cli_consensus import consensus
from annotation_platform.cli_erase import erase
from annotation_platform.cli_formats import convert, export
from annotation_platform.cli_handoff import handoff_app
from annotation_platform.cli_history import guidelines, history
from annotation_platform.cli_impact import impact
from annotation_platform.cli_migrate import migrate
from annotation_platform.cli_models import evaluate, noise_curve, relabel
from annotation_platform.cli_output import (
    OUT,
    AsJson,
    Email,
    answer,
    print_json,
    print_rows,
    table_of,
)
from annotation_platform.cli_pictures import duplicates, ingest, inspect, quarantine_app
from annotation_platform.cli_provenance import apply, diff, explain
from annotation_platform.cli_rounds import answers, pin, round_app, skill_app
from annotation_platform.cli_versions import checkout, gc, rebuild, stage, verify, versions
from annotation_platform.doer import COMMAND
from annotation_platform.errors import AnnotationPlatformError
from annotation_platform.settings import read_settings

_OBJECTS = 50_000
"""So many new objects, and not Python's 700, are looked at for garbage."""

_WATCH_SECONDS = 2.0

app = typer.Typer(
    help="Image annotation in rounds: clean, propose, label, agree, publish, learn.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
people_app = typer.Typer(help="Who labels.", no_args_is_help=True)
app.add_typer(people_app, name="people")
people_app.add_typer(skill_app, name="skill")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(round_app, name="round")
app.add_typer(handoff_app, name="handoff")
app.add_typer(audit_app, name="audit")
for command in (
    ingest,
    inspect,
    duplicates,
    answers,
    pin,
    consensus,
    backtest,
    history,
    guidelines,
    versions,
    stage,
    verify,
    rebuild,
    diff,
    apply,
    explain,
    impact,
    erase,
    migrate,
    gc,
    checkout,
    convert,
    export,
    evaluate,
    noise_curve,
    relabel,
):
    app.command()(command)


@app.command()
def demo(
    home: Annotated[Path, typer.Option(help="Where everything is put; made anew.")] = Path(".demo"),
    images: Annotated[Path | None, typer.Option(help="A folder of real pictures.")] = None,
    truth: Annotated[Path | None, typer.Option(help="Their Pascal VOC or COCO labels.")] = None,
    batches: Annotated[int, typer.Option(min=1, help="How many times pictures land.")] = 3,
    batch_images: Annotated[int, typer.Option(min=1, help="Drawn pictures a batch.")] = 40,
    limit: Annotated[int, typer.Option(min=0, help="Take so many real pictures; 0: all.")] = 0,
    annotators: Annotated[int, typer.Option(min=1, max=50, help="Simulated people.")] = 4,
    k: Annotated[int, typer.Option("--k", min=1, max=25, help="Answers a picture.")] = 3,
    seed: Annotated[int, typer.Option(help="Of pictures, people, splits and training.")] = 0,
    labeling: Annotated[str, typer.Option(help="label-studio or simulated.")] = "label-studio",
    training_seconds: Annotated[
        float, typer.Option(min=0, help="CPU seconds a round; 0: 180, or 10 without Label Studio.")
    ] = 0.0,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the servers up at the end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the whole job on real servers, with simulated people."""
    from annotation_platform.demo import command

    command.run(
        command.Request(
            home=home,
            images=images,
            truth=truth,
            batches=batches,
            batch_images=batch_images,
            limit=limit,
            annotators=annotators,
            answers_per_task=k,
            seed=seed,
            labeling=labeling,
            training_seconds=training_seconds,
            keep=keep,
            as_json=as_json,
        ),
        OUT,
    )


@app.command()
def up(
    port: Annotated[int, typer.Option(help="Of the Dagster UI.")] = 3000,
    label_studio_port: Annotated[int, typer.Option(help="Of Label Studio.")] = 8080,
    page_port: Annotated[int, typer.Option(help="Of the page of all rounds.")] = 3001,
) -> None:
    """Start Label Studio and Dagster on your own folder, until Ctrl-C."""
    from annotation_platform.servers.up import serve

    serve(
        read_settings(),
        port=port,
        label_studio_port=label_studio_port,
        page_port=page_port,
        say=lambda text: OUT.print(text, soft_wrap=True),
    )


@app.command()
def status(
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it anew when it changes, until Ctrl-C.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show every round and what it waits for."""
    from annotation_platform.lake import lake_of
    from annotation_platform.params import read_params
    from annotation_platform.reporting.status import round_states

    settings = read_settings()
    gate, lake = read_params(settings.params_path).drift.gate, lake_of(settings)
    known: list[dict[str, object]] | None = None
    while known is None or watch:
        states = round_states(lake, drift_gate=gate)
        if states != known:
            _show(states, settings.landing_url, as_json, anew=watch)
        known = states
        if watch:
            # The first look is written down for all: they come every two seconds.
            lake = lake_of(settings, audited=False)
            time.sleep(_WATCH_SECONDS)


def _show(states: list[dict[str, object]], landing: str, as_json: bool, *, anew: bool) -> None:
    if as_json:
        print_json({"rounds": states})
        sys.stdout.flush()
        return
    if anew and OUT.is_terminal:
        OUT.clear()
    if states:
        OUT.print(table_of(states, title="rounds"))
    else:
        OUT.print(f"No round yet. Put pictures into {landing}.")


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="One SELECT; SHOW TABLES lists the tables.")],
    as_json: AsJson = False,
) -> None:
    """Ask in SQL: images, quarantine, predictions, labels, versions and every table."""
    from annotation_platform.catalogue.query import run_query, to_answer
    from annotation_platform.lake import lake_of

    settings = read_settings()
    found = to_answer(run_query(lake_of(settings), sql))
    if as_json:
        print_json({"columns": found.columns, "rows": found.rows})
        return
    print_rows(found.columns, found.rows)


@app.command("athena-ddl")
def athena_ddl(
    location: Annotated[
        str, typer.Option(help="The lake in S3; the tables are in tables/ below it.")
    ] = "s3://bucket/prefix",
) -> None:
    """Print the statements that make the lake's tables known to Amazon Athena."""
    from annotation_platform.catalogue.athena import external_tables

    sys.stdout.write("\n".join(f"{each};\n" for each in external_tables(location).values()))


@app.command()
def train(
    data: Annotated[Path, typer.Option(help="A version's folder.")],
    out: Annotated[Path, typer.Option(help="Where the weights go.")],
    params: Annotated[Path, typer.Option(help="The policy.")] = Path("params.yaml"),
) -> None:
    """Train the detector on a checked-out version (what `dvc repro` calls)."""
    from annotation_platform.models.from_version import train_on_version
    from annotation_platform.params import read_params

    policy = read_params(params)
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=1.0)
        train_on_version(
            data,
            policy.training,
            policy.seed,
            out,
            progress=lambda share: bar.update(task, completed=share),
        )
    OUT.print(f"weights in {out}")


@people_app.command("add")
def people_add(email: Email, as_json: AsJson = False) -> None:
    """Make an account in Label Studio for somebody who labels, and print its password once."""
    from annotation_platform.labeling.people import add_person

    person = add_person(*_label_studio(), email)
    facts = {"email": person.email, "password": person.password}
    answer(facts, as_json, f"{person.email} can log in with the password {person.password}")
    # Whatever becomes of the note, the password is shown.
    _note_person(person.email, "added")


@people_app.command("list")
def people_list(as_json: AsJson = False) -> None:
    """List those whom places are assigned to."""
    from annotation_platform.labeling.people import list_people

    found = list_people(*_label_studio())
    answer({"people": found}, as_json, "\n".join(found) or "Nobody but the administrator.")


@people_app.command("remove")
def people_remove(email: Email, as_json: AsJson = False) -> None:
    """Take somebody off: no new places, no access; what they answered stays."""
    from annotation_platform.labeling.people import email_in, remove_person

    remove_person(*_label_studio(), email)
    _note_person(email_in(email), "removed")
    answer({"removed": email}, as_json, f"{email} was removed.")


def main() -> None:
    """Run a command: 0 done, 1 the answer is no, 2 an error that the user can mend, 130 Ctrl-C."""
    # What is loaded now stays, and looking for garbage in it is a tenth of a short command.
    set_threshold(_OBJECTS)
    # A terminating signal unwinds like Ctrl-C, so that no server is left behind.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        COMMAND.set(_command(sys.argv[1:]))
        # Typer gives back the code of an early end, 130 for Ctrl-C, instead of raising it.
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except AnnotationPlatformError as error:
        _complain(str(error))
        sys.exit(2)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except TyperException as error:
        _complain(error.format_message())
        sys.exit(error.exit_code)
    finally:
        # Else the interpreter looks for garbage in all of it once more before it ends. DuckDB would
        # take what is then not freed for leaked, and say so.
        if "duckdb" not in sys.modules:
            freeze()


def _command(words: Sequence[str]) -> str:
    """Return the command in what was typed, without its arguments."""
    path, known = ["annotation-platform"], typer.main.get_command(app)
    for word in words:
        within = getattr(known, "commands", {})
        if word not in within:
            break
        known = within[word]
        path.append(word)
    return " ".join(path)


def _complain(text: str) -> None:
    Console(stderr=True, highlight=False).print(f"error: {text}", markup=False, soft_wrap=True)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _note_person(email: str, change: str) -> None:
    from annotation_platform.audit_log.noting import note_person
    from annotation_platform.lake import lake_of

    note_person(email, change, lake_of(read_settings()), now=datetime.now(UTC))


def _label_studio() -> tuple[str, str]:
    """Return address and token of the Label Studio that ``annotation-platform up`` runs."""
    from annotation_platform.servers.up import running_label_studio

    return running_label_studio(read_settings())


if __name__ == "__main__":
    main()
