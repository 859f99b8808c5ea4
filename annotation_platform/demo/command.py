"""The ``demo`` command: it checks its options, runs the demonstration and prints the results."""

import json
import math
import sys
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from annotation_platform.demo.material import Material, drawn_material, real_material
from annotation_platform.demo.narrator import Narrator
from annotation_platform.demo.run import DemoOptions, DemoResult, run_demo
from annotation_platform.errors import DataError, SettingsError
from annotation_platform.schema.version_names import version_tag
from annotation_platform.versioning.registry import checkout_on_new_machine

_SHOWN = 10
_LOG_WIDTH = 160
_TRAINING_SECONDS = {"label-studio": 60.0, "simulated": 10.0}
# Photographs have smaller objects and more variety than drawn images.
_PHOTOGRAPH_SECONDS = 180.0


@dataclass(frozen=True)
class Request:
    """The options of the command line."""

    home: Path
    images: Path | None
    truth: Path | None
    batches: int
    batch_images: int
    limit: int
    annotators: int
    annotations_per_task: int
    seed: int
    labeling: str
    training_seconds: float
    keep: bool
    as_json: bool


def run(request: Request, out: Console) -> None:
    """Run the demonstration and print the table, a clone's contents, and the JSON line.

    Raises:
        SettingsError, DataError: an option or a file is missing or wrong; nothing was started.
    """
    options = _options(request)
    with Narrator() as narrator:

        def finished(result: DemoResult) -> None:
            narrator.stage("cloning the registry and pulling the last version")
            cloned = _clone_last_version(result)
            narrator.close()
            _show(result, cloned, request, out)
            if request.keep:
                out.print("The servers keep running; Ctrl-C stops them.")
                while True:
                    time.sleep(1.0)

        # Drawn while the servers boot; problems of a user's own files are found before that.
        material = _material(request, narrator) if request.images else None
        run_demo(
            lambda: material or _material(request, narrator), options, narrator, finished=finished
        )


def _options(request: Request) -> DemoOptions:
    if request.labeling not in _TRAINING_SECONDS:
        raise SettingsError(
            f"--labeling {request.labeling}: unknown. Pass one of {', '.join(_TRAINING_SECONDS)}."
        )
    if request.annotations_per_task > request.annotators:
        raise SettingsError(
            f"--k {request.annotations_per_task}: {request.annotators} annotators cannot give "
            "that many annotations of one image. Pass more --annotators."
        )
    if (request.images is None) != (request.truth is None):
        raise SettingsError("--images and --truth go together: pass both, or neither.")
    labeling: Literal["label-studio", "simulated"]
    labeling = "simulated" if request.labeling == "simulated" else "label-studio"
    seconds = _TRAINING_SECONDS[labeling]
    if request.images is not None and labeling == "label-studio":
        seconds = _PHOTOGRAPH_SECONDS
    return DemoOptions(
        home=request.home,
        annotators=request.annotators,
        annotations_per_task=request.annotations_per_task,
        seed=request.seed,
        labeling=labeling,
        training_cpu_seconds=request.training_seconds or seconds,
    )


def _material(request: Request, narrator: Narrator) -> Material:
    if request.images is None or request.truth is None:
        narrator.stage(f"drawing {request.batches} batches of {request.batch_images} images")
        return drawn_material(request.batches, request.batch_images, seed=request.seed)
    narrator.stage(f"reading images and their ground truth from {request.images}")
    material, problems = real_material(
        request.images,
        request.truth,
        batches=request.batches,
        limit=request.limit,
        seed=request.seed,
    )
    for problem in problems[:_SHOWN]:
        narrator.say(f"left out: {problem}")
    return material


def _clone_last_version(result: DemoResult) -> str:
    """Return a sentence on the last version, read from a clone with git, dvc and pycocotools."""
    from pycocotools.coco import COCO

    tag = version_tag("training-set", str(result.rounds[-1]["version"]))
    with tempfile.TemporaryDirectory() as temporary:
        folder = checkout_on_new_machine(result.registry, tag, Path(temporary) / "clone")
        data = folder / "datasets" / "training-set"
        images = boxes = 0
        for file in sorted((data / "coco").glob("*.json")):
            with redirect_stdout(StringIO()):
                coco = COCO(str(file))
            names = [image["file_name"] for image in coco.imgs.values()]
            missing = [name for name in names if not (data / name).is_file()]
            if missing:
                raise DataError(f"{tag}: dvc pull did not fetch {missing[0]}. Run the demo again.")
            images, boxes = images + len(names), boxes + len(coco.anns)
    return (
        f"Clone of {result.registry} at {tag} after dvc pull: "
        f"{images} images and {boxes} boxes, read by pycocotools."
    )


def _show(result: DemoResult, cloned: str, request: Request, out: Console) -> None:
    table = Table(title="one row per round", title_justify="left")
    names = [
        "round", "landed", "accepted", "quarantined", "duplicates", "tasks", "annotations",
        "agreement", "minutes", "minutes_without", "consensus_f1", "model_map50", "test_images",
        "version",
    ]  # fmt: skip
    for name in names:
        is_number = name not in ("round", "version")
        table.add_column(name.replace("_", " "), justify="right" if is_number else "left")
    for row in result.rounds:
        table.add_row(*(_cell(row[name]) for name in names))
    # With --json, standard output holds the JSON line alone.
    console = Console(stderr=True, highlight=False) if request.as_json else out
    # In a log the table is as wide as it needs to be.
    console.width = console.width if console.is_terminal else _LOG_WIDTH
    console.print(table)
    console.print(_effect_of_predictions(result.rounds[-1]), soft_wrap=True)
    console.print(cloned, soft_wrap=True)
    if request.as_json:
        rounds = [{name: _plain(value) for name, value in row.items()} for row in result.rounds]
        data = {"registry": str(result.registry), "remote": str(result.remote), "rounds": rounds}
        sys.stdout.write(json.dumps(data) + "\n")
        sys.stdout.flush()


def _effect_of_predictions(row: dict[str, Any]) -> str:
    """Return a text on the effect of pre-annotations on time and labels in the last round."""
    measured = (
        f"measured {row['anchoring']:.2f} ({row['anchoring_low']:.2f} to "
        f"{row['anchoring_high']:.2f})"
    )
    return (
        f"Annotators needed {row['minutes']:.1f} minutes in {row['round']} with predictions and "
        f"{row['minutes_without']:.1f} without: {row['spared']:.0%} less, and "
        f"{row['spared_with_predictions']:.0%} less on tasks that showed predictions. The other "
        f"tasks measure label errors and anchoring. The consensus F1 is "
        f"{row['f1_before_review']:.3f} with predictions and {row['f1_without']:.3f} without. "
        f"Annotators accept a share of {row['anchoring_set']:.2f} of all predictions unchecked; "
        + ("it could not be measured." if math.isnan(row["anchoring"]) else f"{measured}.")
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3f}"
    return str(value)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
