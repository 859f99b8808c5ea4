"""The commands about models: how good one is, and what is to be asked about again."""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import Progress

from annotation_platform.cli_output import OUT, AsJson, print_json, print_rows
from annotation_platform.errors import SettingsError
from annotation_platform.settings import read_settings
from annotation_platform.storage.files import write_file

if TYPE_CHECKING:
    from annotation_platform.models.coco_metrics import CocoFigures
    from annotation_platform.models.evaluation import FigureIntervals

Kind = Literal["bbox", "segm", "keypoints"]

_SAID = {
    "ap": "AP      IoU 0.50:0.95",
    "ap50": "AP50    IoU 0.50",
    "ap75": "AP75    IoU 0.75",
    "ap_small": "AP      small",
    "ap_medium": "AP      medium",
    "ap_large": "AP      large",
    "ar1": "AR1     1 a picture",
    "ar10": "AR10    10 a picture",
    "ar100": "AR100   100 a picture",
    "ar": "AR      20 a picture",
    "ar50": "AR50    IoU 0.50",
    "ar75": "AR75    IoU 0.75",
    "ar_small": "AR      small",
    "ar_medium": "AR      medium",
    "ar_large": "AR      large",
}


def evaluate(
    truth: Annotated[Path | None, typer.Option(help="COCO ground truth, JSON.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="COCO results, JSON.")] = None,
    kind: Annotated[
        str, typer.Option("--type", help="What is compared: bbox, segm or keypoints.")
    ] = "bbox",
    intervals: Annotated[
        bool, typer.Option("--intervals/--no-intervals", help="How far chance may carry them.")
    ] = True,
    data: Annotated[Path | None, typer.Option(help="Or a version's folder …")] = None,
    weights: Annotated[Path | None, typer.Option(help="… and a detector's weights …")] = None,
    out: Annotated[Path | None, typer.Option(help="… and a JSON file for the figures.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say how good detections are: COCO's AP and AR, in all and by class, with intervals.

    Of two files, --truth and --predictions; or of a detector on a checked-out version's test
    split, --data, --weights and --out (what `dvc repro` calls).
    """
    if data and weights and out and not (truth or predictions):
        from annotation_platform.models.from_version import evaluate_on_version

        evaluate_on_version(data, weights, out)
        OUT.print(out.read_text().strip())
    elif truth and predictions and not (data or weights or out):
        _evaluate_files(truth, predictions, _kind(kind), intervals=intervals, as_json=as_json)
    else:
        raise SettingsError(
            "evaluate: give --truth and --predictions, or --data, --weights and --out."
        )


def noise_curve(
    version: Annotated[str, typer.Option(help="Such as training-set@v1.2.0 or 1.2.0 …")] = "",
    data: Annotated[Path | None, typer.Option(help="… or the folder of a checked-out one.")] = None,
    shares: Annotated[str, typer.Option(help="Of wrong labels, in percent.")] = "0,5,10,20",
    seconds: Annotated[
        float, typer.Option(min=0, help="CPU seconds a model; 0: as training.cpu_seconds says.")
    ] = 0.0,
    params: Annotated[Path, typer.Option(help="The policy.")] = Path("params.yaml"),
    out: Annotated[Path | None, typer.Option(help="A folder for the table and a chart.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what wrong labels cost: mAP of models that learned from a version spoilt on purpose.

    A share of the train split's boxes gets another class, is moved or is dropped; the test split
    is left as it is. Neither the version nor any model of the platform is touched.
    """
    from annotation_platform.models.from_version import noise_curve_on_version
    from annotation_platform.params import read_params

    if bool(version) == (data is not None):
        raise SettingsError("noise-curve: give --version or --data, one of them.")
    policy = read_params(params)
    training = policy.training
    if seconds:
        training = training.model_copy(update={"cpu_seconds": seconds})
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training on spoilt labels", total=1.0)
        curve = noise_curve_on_version(
            data or _fetched(version),
            training,
            policy.seed,
            shares=_shares(shares),
            progress=lambda done: bar.update(task, completed=done),
        )
    if out is not None:
        from annotation_platform.reporting.noise_chart import draw_noise_curve

        write_file(out / "noise-curve.csv", curve.to_csv(index=False).encode())
        write_file(out / "noise-curve.svg", draw_noise_curve(curve))
    if as_json:
        rows = curve.to_dict("records")
        print_json({"curve": [{key: _finite(value) for key, value in row.items()} for row in rows]})
        return
    print_rows(
        ["wrong labels", "swapped", "moved", "dropped", "mAP", "95 %", "mAP@0.5", "difference"],
        [
            [
                f"{row['share']:.0%} of {row['boxes']}",
                *(row[kind] for kind in ("swapped", "moved", "dropped")),
                _three(row["map"]),
                f"{_three(row['map_low'])} – {_three(row['map_high'])}",
                _three(row["map50"]),
                f"{row['difference']:+.3f} ({row['difference_low']:+.3f} – "
                f"{row['difference_high']:+.3f})",
            ]
            for row in curve.to_dict("records")
        ],
    )


def _fetched(version: str) -> Path:
    from annotation_platform.versioning.loading import load
    from annotation_platform.versioning.manifest import typed_tag

    return load(typed_tag(version)).fetch()


def _shares(text: str) -> list[float]:
    try:
        return [float(one) / 100 for one in text.split(",")]
    except ValueError as error:
        raise SettingsError(f"--shares {text}: give percents such as 0,5,10,20.") from error


def relabel(
    round_id: Annotated[str, typer.Option("--round", help="Whose model, such as round-0001.")],
    by: Annotated[str, typer.Option(help="Who decides it; it is recorded.")],
    kind: Annotated[
        list[str] | None,
        typer.Option(help="Which findings: miss, background, class, place, … By default all."),
    ] = None,
    most: Annotated[int, typer.Option(min=0, help="So many images at most; 0: all.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Have people look again at images where the model and their labels disagree."""
    from annotation_platform.landing.lake import lake_of
    from annotation_platform.models.findings import images_to_ask_again
    from annotation_platform.selection.pins import Pins

    lake = lake_of(read_settings())
    findings = lake.tables.read("model_findings", round_id)
    wanted = images_to_ask_again(findings, kinds=kind or (), most=most)
    pins, now = Pins(lake.store), datetime.now(UTC)
    for image_id, reason in wanted.items():
        pins.set(image_id, wanted=True, reason=f"{round_id}: {reason}", by=by, now=now)
    rows = [{"image_id": image_id, "reason": reason} for image_id, reason in wanted.items()]
    if as_json:
        print_json({"round": round_id, "pinned": rows})
        return
    print_rows(["image", "reason"], [list(row.values()) for row in rows], most=20)
    OUT.print(f"{len(rows)} images pinned by {by}.", markup=False, soft_wrap=True)


def _kind(text: str) -> Kind:
    kinds: dict[str, Kind] = {"bbox": "bbox", "segm": "segm", "keypoints": "keypoints"}
    if text not in kinds:
        raise SettingsError(f"--type {text}: it is one of {', '.join(kinds)}.")
    return kinds[text]


def _evaluate_files(
    truth: Path, predictions: Path, kind: Kind, *, intervals: bool, as_json: bool
) -> None:
    from annotation_platform.models.coco_files import read_results, read_truth
    from annotation_platform.models.coco_metrics import coco_figures
    from annotation_platform.models.evaluation import figure_intervals

    content = read_truth(truth, kind)
    results = read_results(predictions, kind, content)
    figures = coco_figures(content, results, kind)
    found = figure_intervals(figures) if intervals else None
    names = {one["id"]: str(one.get("name", one["id"])) for one in content["categories"]}
    counts = {
        "images": len(content["images"]),
        "annotations": len(content["annotations"]),
        "detections": len(results),
    }
    if as_json:
        print_json(_facts(figures, found, names) | {"type": kind} | counts)
    else:
        _show(figures, found, names)
        said = ", ".join(f"{number} {name}" for name, number in counts.items())
        OUT.print(said, markup=False, soft_wrap=True)


def _facts(
    figures: "CocoFigures", intervals: "FigureIntervals | None", names: dict[int, str]
) -> dict[str, Any]:
    facts: dict[str, Any] = {name: _finite(value) for name, value in figures.overall.items()}
    facts["per_class"] = {
        names[category]: {name: _finite(value) for name, value in row.items()}
        for category, row in figures.per_class.items()
    }
    if intervals is None:
        return facts
    for category, found in intervals.per_class.items():
        ends = {name: [_finite(one.low), _finite(one.high)] for name, one in found.items()}
        facts["per_class"][names[category]]["intervals"] = ends
    facts["intervals"] = {
        name: [_finite(one.low), _finite(one.high)] for name, one in intervals.overall.items()
    }
    return facts


def _show(
    figures: "CocoFigures", intervals: "FigureIntervals | None", names: dict[int, str]
) -> None:
    rows = []
    for name, value in figures.overall.items():
        found = intervals.overall.get(name) if intervals else None
        ends = f"{_three(found.low)} – {_three(found.high)}" if found else ""
        rows.append([_SAID[name], _three(value), ends])
    print_rows(["figure", "value", "95 %"], rows)
    recall = "ar100" if "ar100" in figures.overall else "ar"
    by_class = [
        [names[category], _three(row["ap"]), _three(row["ap50"]), _three(row[recall])]
        for category, row in figures.per_class.items()
    ]
    print_rows(["class", "AP", "AP50", "AR"], by_class)


def _finite(value: float) -> float | None:
    """Return the figure, or nothing where there is no truth: JSON has no word for NaN."""
    return None if math.isnan(value) else value


def _three(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
