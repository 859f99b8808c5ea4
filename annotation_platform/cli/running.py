"""The commands without a noun that run the platform: demo, init, up, ingest and status."""

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from annotation_platform.cli.options import AsJson, with_option_groups
from annotation_platform.cli.output import (
    OUT,
    print_json,
    print_line,
    print_result,
    print_rows,
    table_of,
)
from annotation_platform.cli.registries import own_lake, own_policy, own_settings

_WATCH_SECONDS = 2.0


@dataclass(frozen=True)
class DemoImages:
    """Which images the demonstration uses."""

    images: Annotated[
        Path | None, typer.Option(help="Folder of your own images; drawn images by default.")
    ] = None
    truth: Annotated[
        Path | None, typer.Option(help="Ground truth of --images: Pascal VOC or COCO.")
    ] = None
    batches: Annotated[int, typer.Option(min=1, help="Number of batches; each is a round.")] = 3
    batch_images: Annotated[int, typer.Option(min=1, help="Number of drawn images per batch.")] = 40
    limit: Annotated[
        int, typer.Option(min=0, help="Maximum number of images taken from --images; 0: all.")
    ] = 0


@dataclass(frozen=True)
class DemoRounds:
    """How the images of the demonstration are annotated and learned from."""

    annotators: Annotated[
        int, typer.Option(min=1, max=50, help="Number of simulated annotators.")
    ] = 4
    k: Annotated[
        int, typer.Option("--k", min=1, max=25, help="Number of annotations per task.")
    ] = 3
    seed: Annotated[
        int, typer.Option(help="Random seed for images, annotators, splits and training.")
    ] = 0
    labeling: Annotated[
        str, typer.Option(help="Labelling back end: label-studio or simulated.")
    ] = "label-studio"
    training_seconds: Annotated[
        float,
        typer.Option(
            min=0,
            help="CPU seconds of training per round; 0: 60 with Label Studio, 180 with images of "
            "your own, 10 without a server.",
        ),
    ] = 0.0


@with_option_groups
def demo(
    material: DemoImages,
    rounds: DemoRounds,
    home: Annotated[Path, typer.Option(help="Folder of the demonstration; it is created.")] = Path(
        ".demo"
    ),
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the servers running at the end, until Ctrl-C.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run every step on real servers, with simulated annotators."""
    from annotation_platform.demo import command

    command.run(
        command.Request(
            home=home,
            images=material.images,
            truth=material.truth,
            batches=material.batches,
            batch_images=material.batch_images,
            limit=material.limit,
            annotators=rounds.annotators,
            annotations_per_task=rounds.k,
            seed=rounds.seed,
            labeling=rounds.labeling,
            training_seconds=rounds.training_seconds,
            keep=keep,
            as_json=as_json,
        ),
        OUT,
    )


def init(as_json: AsJson = False) -> None:
    """Create the folders of ANNOTATION_HOME and its params.yaml. What is there stays as it is."""
    from annotation_platform.servers.home import make_home
    from annotation_platform.storage.files import write_file

    settings = own_settings()
    made = make_home(settings)
    policy, own = settings.policy_path, settings.home_path / "params.yaml"
    if settings.params is None and policy != own:
        write_file(own, policy.read_bytes())
        made.append(own)
    names = [str(path) for path in made]
    print_result(
        {"created": names, "policy": str(settings.policy_path), "landing": settings.landing_url},
        as_json,
        "\n".join([f"created {name}" for name in names] or ["Nothing to create."])
        + f"\nEdit {settings.policy_path}, then run `annotation-platform up`.",
    )


def up(
    port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000,
    label_studio_port: Annotated[int, typer.Option(help="Port of Label Studio.")] = 8080,
    page_port: Annotated[int, typer.Option(help="Port of the page that lists all rounds.")] = 3001,
) -> None:
    """Start Label Studio and Dagster on your own folder, until Ctrl-C."""
    from annotation_platform.servers.up import serve

    serve(
        own_settings(),
        port=port,
        label_studio_port=label_studio_port,
        page_port=page_port,
        say=lambda text: OUT.print(text, soft_wrap=True),
    )


def ingest(
    source: Annotated[
        str,
        typer.Argument(
            help="Image, folder, zip or tar archive, CSV list of images, or s3://bucket/prefix."
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(help="Existing labels: COCO, YOLO, Pascal VOC or Label Studio."),
    ] = None,
    labels_format: Annotated[
        str,
        typer.Option(
            help="Format of --labels: coco, yolo, voc or label-studio; detected by default."
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Copy images into the landing zone, from which the next round takes them."""
    from annotation_platform.ingestion.downloads import Downloads
    from annotation_platform.ingestion.labels import read_labels
    from annotation_platform.ingestion.landing_zone import open_landing_zone
    from annotation_platform.ingestion.send import send

    settings = own_settings()
    policy = own_policy(settings)
    hosts = [host.strip() for host in settings.download_hosts.split(",") if host.strip()]
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("copying files", total=None)
        sent = send(
            source,
            open_landing_zone(settings.landing_url),
            downloads=Downloads(hosts, maximum_bytes=policy.cleaning.maximum_bytes),
            policy=policy.cleaning,
            labels=read_labels(labels, labels_format or None) if labels else None,
            progress=lambda count: bar.update(task, completed=count),
        )
    if as_json:
        print_json({**asdict(sent), "landing": settings.landing_url})
    else:
        if sent.problems:
            print_rows(["where", "problem"], [[each.where, each.problem] for each in sent.problems])
        known = f", {sent.known} were there already" if sent.known else ""
        failed = f", {len(sent.problems)} could not be copied" if sent.problems else ""
        print_line(f"{sent.copied} files copied into {settings.landing_url}{known}{failed}")
    if sent.problems:
        raise typer.Exit(1)


def status(
    watch: Annotated[
        bool, typer.Option("--watch", help="Print again after each change, until Ctrl-C.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show each round and what it waits for."""
    from annotation_platform.reporting.status import round_states

    settings = own_settings()
    gate, lake = own_policy(settings).drift.gate, own_lake(settings)
    known: list[dict[str, object]] | None = None
    while known is None or watch:
        states = round_states(lake, drift_gate=gate)
        if states != known:
            _show(states, settings.landing_url, as_json, clear=watch)
        known = states
        if watch:
            # One entry in the access log covers the watch: it reads every two seconds.
            lake = own_lake(settings, audited=False)
            time.sleep(_WATCH_SECONDS)


def _show(states: list[dict[str, object]], landing: str, as_json: bool, *, clear: bool) -> None:
    if as_json:
        print_json({"rounds": states})
        sys.stdout.flush()
        return
    if clear and OUT.is_terminal:
        OUT.clear()
    if states:
        OUT.print(table_of(states, title="rounds"))
    else:
        OUT.print(f"No round yet. Put images into {landing}.")
