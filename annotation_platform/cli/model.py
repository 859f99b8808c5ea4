"""Commands about models: train them, list them, evaluate them, measure what label noise costs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from annotation_platform.cli.model_figures import (
    evaluation_facts,
    show_evaluation,
    show_noise_curve,
)
from annotation_platform.cli.options import AsJson, with_option_groups
from annotation_platform.cli.output import (
    OUT,
    finite,
    print_json,
    print_line,
    print_result,
    share_bar,
    table_of,
)
from annotation_platform.cli.registries import own_settings
from annotation_platform.cli.round import run_round_job
from annotation_platform.errors import SettingsError
from annotation_platform.storage.files import write_file

Kind = Literal["bbox", "segm", "keypoints"]
Policy = Annotated[Path, typer.Option("--policy", help="Policy file.")]

app = typer.Typer(help="Train, list and evaluate models.", no_args_is_help=True)


@app.command()
def train(
    round_id: Annotated[
        str, typer.Option("--round", help="Round whose version is learned from (job train_model).")
    ] = "",
    data: Annotated[
        Path | None, typer.Option(help="Folder of a checked-out version, instead of --round.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the weights, with --data.")] = None,
    policy: Policy = Path("params.yaml"),
    as_json: AsJson = False,
) -> None:
    """Train a detector on the version of a round, or on a checked-out version.

    With --round, the model is evaluated and promoted or kept, like Dagster's job does it. With
    --data and --out, as `dvc repro` calls it, only the weights are written.
    """
    from annotation_platform.models.from_version import train_on_version
    from annotation_platform.policy import read_policy

    if round_id and not (data or out):
        run_round_job("train_model", round_id, as_json)
        return
    if round_id or data is None or out is None:
        raise SettingsError("model train: give --round, or --data and --out.")
    known = read_policy(policy)
    with share_bar("training") as progress:
        train_on_version(data, known.training, known.seed, out, progress=progress)
    print_result({"out": str(out)}, as_json, f"weights in {out}")


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the models of this home: what they were trained on, and which are promoted."""
    from annotation_platform.models.registry import ModelRegistry

    detectors = ModelRegistry(own_settings().models_path)
    rows = [
        {
            "model": sha256,
            "task": task,
            "promoted": sha256 == registry.promoted(),
            "trained_on": card.dataset_tag,
            "train_images": card.train_images,
            "cpu_seconds": round(card.cpu_seconds),
            "architecture": card.architecture,
        }
        for task, registry in (("detection", detectors), ("classification", detectors.classifiers))
        for sha256, card in registry.cards().items()
    ]
    if as_json:
        print_json({"models": rows})
        return
    shown = [{**row, "model": str(row["model"])[:12]} for row in rows]
    OUT.print(table_of(shown, title="models") if shown else "No models yet.")


@dataclass(frozen=True)
class DetectionOptions:
    """DetectionOptions in files."""

    truth: Annotated[Path | None, typer.Option(help="COCO ground truth, JSON.")] = None
    predictions: Annotated[Path | None, typer.Option(help="COCO results, JSON.")] = None
    kind: Annotated[
        str, typer.Option("--type", help="Geometry to compare: bbox, segm or keypoints.")
    ] = "bbox"
    intervals: Annotated[
        bool, typer.Option("--intervals/--no-intervals", help="Add 95 % intervals.")
    ] = True


@dataclass(frozen=True)
class DetectorOptions:
    """A detector and the version whose test split it is evaluated on."""

    data: Annotated[
        Path | None, typer.Option(help="Folder of a checked-out version, instead of --truth.")
    ] = None
    weights: Annotated[
        Path | None, typer.Option(help="Weights of a detector, instead of --predictions.")
    ] = None
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures, with --data.")] = None


@app.command()
@with_option_groups
def evaluate(
    detections: DetectionOptions, detector: DetectorOptions, as_json: AsJson = False
) -> None:
    """Evaluate detections: COCO's AP and AR, overall and per class, with intervals.

    Either two files, --truth and --predictions; or a detector on the test split of a checked-out
    version, --data, --weights and --out, as `dvc repro` calls it.
    """
    truth, predictions = detections.truth, detections.predictions
    data, weights, out = detector.data, detector.weights, detector.out
    if data and weights and out and not (truth or predictions):
        from annotation_platform.models.from_version import evaluate_on_version

        evaluate_on_version(data, weights, out)
        text = out.read_text().strip()
        print_result(json.loads(text), as_json, text)
    elif truth and predictions and not (data or weights or out):
        kind = _kind(detections.kind)
        _evaluate_files(truth, predictions, kind, detections.intervals, as_json=as_json)
    else:
        raise SettingsError(
            "evaluate: give --truth and --predictions, or --data, --weights and --out."
        )


def _kind(text: str) -> Kind:
    kinds: dict[str, Kind] = {"bbox": "bbox", "segm": "segm", "keypoints": "keypoints"}
    if text not in kinds:
        raise SettingsError(f"--type {text}: it is one of {', '.join(kinds)}.")
    return kinds[text]


def _evaluate_files(
    truth: Path, predictions: Path, kind: Kind, with_intervals: bool, *, as_json: bool
) -> None:
    from annotation_platform.models.evaluation.coco_files import read_results, read_truth
    from annotation_platform.models.evaluation.coco_metrics import coco_figures
    from annotation_platform.models.evaluation.evaluation import figure_intervals

    content = read_truth(truth, kind)
    results = read_results(predictions, kind, content)
    figures = coco_figures(content, results, kind)
    intervals = figure_intervals(figures) if with_intervals else None
    names = {one["id"]: str(one.get("name", one["id"])) for one in content["categories"]}
    counts = {
        "images": len(content["images"]),
        "annotations": len(content["annotations"]),
        "detections": len(results),
    }
    if as_json:
        print_json(evaluation_facts(figures, intervals, names) | {"type": kind} | counts)
    else:
        show_evaluation(figures, intervals, names)
        print_line(", ".join(f"{number} {name}" for name, number in counts.items()))


@app.command("noise-curve")
def noise_curve(
    version: Annotated[
        str, typer.Option(help="Version, such as training-set@v1.2.0 or 1.2.0.")
    ] = "",
    data: Annotated[
        Path | None, typer.Option(help="Folder of a checked-out version, instead of --version.")
    ] = None,
    shares: Annotated[str, typer.Option(help="Shares of wrong labels, in percent.")] = "0,5,10,20",
    training_seconds: Annotated[
        float,
        typer.Option(min=0, help="CPU seconds of training per model; 0: as the policy says."),
    ] = 0.0,
    policy: Policy = Path("params.yaml"),
    out: Annotated[Path | None, typer.Option(help="Folder for the table and a chart.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what label noise costs: the mAP of models trained with injected wrong labels.

    A share of the train split's boxes is given another class, moved or dropped; the test split
    stays as it is. Neither the version nor any model of the platform changes.
    """
    from annotation_platform.models.from_version import noise_curve_on_version
    from annotation_platform.policy import read_policy
    from annotation_platform.schema.version_names import typed_tag
    from annotation_platform.versioning.loading import load

    if bool(version) == (data is not None):
        raise SettingsError("noise-curve: give --version or --data, one of them.")
    known = read_policy(policy)
    training = known.training
    if training_seconds:
        training = training.model_copy(update={"cpu_seconds": training_seconds})
    with share_bar("training with label noise") as progress:
        curve = noise_curve_on_version(
            data or load(typed_tag(version)).fetch(),
            training,
            known.seed,
            shares=_shares(shares),
            progress=progress,
        )
    if out is not None:
        from annotation_platform.reporting.noise_chart import draw_noise_curve

        write_file(out / "noise-curve.csv", curve.to_csv(index=False).encode())
        write_file(out / "noise-curve.svg", draw_noise_curve(curve))
    rows: list[dict[Any, Any]] = curve.to_dict("records")
    if as_json:
        print_json({"curve": [{key: finite(value) for key, value in row.items()} for row in rows]})
    else:
        show_noise_curve(rows)


def _shares(text: str) -> list[float]:
    try:
        return [float(one) / 100 for one in text.split(",")]
    except ValueError as error:
        raise SettingsError(f"--shares {text}: give percents such as 0,5,10,20.") from error
