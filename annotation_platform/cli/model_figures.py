"""How the figures of models are printed: COCO's AP and AR, and noise curves."""

import math
from typing import TYPE_CHECKING, Any

from annotation_platform.cli.output import finite, print_rows

if TYPE_CHECKING:
    from annotation_platform.models.evaluation.coco_metrics import CocoFigures
    from annotation_platform.models.evaluation.evaluation import FigureIntervals

_NAMES = {
    "ap": "AP      IoU 0.50:0.95",
    "ap50": "AP50    IoU 0.50",
    "ap75": "AP75    IoU 0.75",
    "ap_small": "AP      small",
    "ap_medium": "AP      medium",
    "ap_large": "AP      large",
    "ar1": "AR1     1 per image",
    "ar10": "AR10    10 per image",
    "ar100": "AR100   100 per image",
    "ar": "AR      20 per image",
    "ar50": "AR50    IoU 0.50",
    "ar75": "AR75    IoU 0.75",
    "ar_small": "AR      small",
    "ar_medium": "AR      medium",
    "ar_large": "AR      large",
}


def evaluation_facts(
    figures: "CocoFigures", intervals: "FigureIntervals | None", names: dict[int, str]
) -> dict[str, Any]:
    """Return the figures for JSON; a figure without ground truth is null.

    Args:
        figures: AP and AR in ``[0, 1]``, overall and by category id.
        intervals: their 95 % intervals; None leaves them out.
        names: class names by category id.
    """
    facts: dict[str, Any] = {name: finite(value) for name, value in figures.overall.items()}
    facts["per_class"] = {
        names[category]: {name: finite(value) for name, value in row.items()}
        for category, row in figures.per_class.items()
    }
    if intervals is None:
        return facts
    for category, found in intervals.per_class.items():
        ends = {name: [finite(one.low), finite(one.high)] for name, one in found.items()}
        facts["per_class"][names[category]]["intervals"] = ends
    facts["intervals"] = {
        name: [finite(one.low), finite(one.high)] for name, one in intervals.overall.items()
    }
    return facts


def show_evaluation(
    figures: "CocoFigures", intervals: "FigureIntervals | None", names: dict[int, str]
) -> None:
    """Print the figures as two tables: overall, and per class."""
    rows = []
    for name, value in figures.overall.items():
        found = intervals.overall.get(name) if intervals else None
        ends = f"{_three(found.low)} – {_three(found.high)}" if found else ""
        rows.append([_NAMES[name], _three(value), ends])
    print_rows(["figure", "value", "95 %"], rows)
    recall = "ar100" if "ar100" in figures.overall else "ar"
    by_class = [
        [names[category], _three(row["ap"]), _three(row["ap50"]), _three(row[recall])]
        for category, row in figures.per_class.items()
    ]
    print_rows(["class", "AP", "AP50", "AR"], by_class)


def show_noise_curve(rows: list[dict[Any, Any]]) -> None:
    """Print a noise curve: one row per share of wrong labels."""
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
            for row in rows
        ],
    )


def _three(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
