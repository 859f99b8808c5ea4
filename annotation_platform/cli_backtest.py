"""The command that replays past rounds under another policy."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annotation_platform.cli_output import OUT, AsJson, bar_of, print_json, print_rows
from annotation_platform.errors import SettingsError
from annotation_platform.params import read_params
from annotation_platform.settings import read_settings

if TYPE_CHECKING:
    from annotation_platform.backtesting.backtest import Backtest
    from annotation_platform.backtesting.figures import Estimate

_NAMES = {
    "objects_f1": "F1 of objects",
    "choices_right": "choices right",
    "released_objects_f1": "F1 of objects, released",
    "released_choices_right": "choices right, released",
    "review_rate": "images to review",
    "left_out_rate": "images left out",
    "answers": "answers",
    "seconds": "seconds of people",
    "cost": "cost",
}
_DIGITS = {"answers": ",.0f", "seconds": ",.0f", "cost": ",.2f"}


def backtest(
    policy: Annotated[
        Path, typer.Option(help="A params.yaml: the policy that might have been.", metavar="FILE")
    ],
    rounds: Annotated[
        str, typer.Option(help="Such as round-0001,round-0002; by default all that are merged.")
    ] = "",
    method: Annotated[
        str,
        typer.Option(help="By which it decides classes: majority, dawid-skene or one-coin."),
    ] = "",
    truth: Annotated[
        str, typer.Option(help="Which truth to use: gold, later, review; by default all of them.")
    ] = "",
    price_per_hour: Annotated[float, typer.Option(min=0, help="Of people; 0: no cost.")] = 0.0,
    draws: Annotated[int, typer.Option(min=1, help="How often its answers are drawn.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Replay past rounds under another policy: accuracy, answers, seconds and cost.

    Asks nobody and changes nothing. Refuses what the record cannot support.
    """
    from annotation_platform.backtesting.backtest import backtest as replay
    from annotation_platform.backtesting.reading import read_record
    from annotation_platform.backtesting.truth import SOURCES
    from annotation_platform.consensus.evidence import METHODS
    from annotation_platform.landing.lake import lake_of

    other = read_params(policy)
    _require("--method", [method] if method else [], METHODS)
    _require("--truth", _listed(truth), SOURCES)
    settings = read_settings()
    today = read_params(settings.params_path)
    record = read_record(
        lake_of(settings), today, rounds=_listed(rounds), sources=_listed(truth) or SOURCES
    )
    with bar_of("replaying") as progress:
        found = replay(
            record,
            today,
            other,
            method=method,
            draws=draws,
            seed=seed,
            price_per_hour=price_per_hour,
            progress=progress,
        )
    if as_json:
        print_json(_facts(found))
    else:
        _show(found)


def _listed(names: str) -> list[str]:
    return [name for name in names.replace(",", " ").split() if name]


def _require(option: str, names: list[str], known: tuple[str, ...]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SettingsError(f"{option}: there is no {unknown[0]}. There are: {', '.join(known)}.")


def _facts(found: "Backtest") -> dict[str, Any]:
    facts = asdict(found)
    facts["figures"] = {
        name: {side: _finite(estimate) for side, estimate in figure.items()}
        for name, figure in facts["figures"].items()
    }
    return facts


def _finite(estimate: dict[str, float]) -> dict[str, float | None]:
    """Return an estimate in which what is not a number is null: JSON has no word for it."""
    return {name: value if math.isfinite(value) else None for name, value in estimate.items()}


def _show(found: "Backtest") -> None:
    rows = []
    for name, figure in found.figures.items():
        digits = _DIGITS.get(name, ".3f")
        both = [_both(each, digits) for each in (figure.recorded, figure.policy)]
        change = _both(figure.difference, f"+{digits}")
        low, high = (_plain(each, digits) for each in (figure.rerun.low, figure.rerun.high))
        rows.append([_NAMES[name], *both, change, f"{low} to {high}"])
    print_rows(["", "as recorded", "the policy", "difference", "a real run"], rows)
    known = ", ".join(f"{count} by {source}" for source, count in found.truth.items())
    for line in (
        f"{', '.join(found.rounds)}: {found.images} images, the truth known of {known}",
        "in brackets: where it lies; a real run: where it would lie on as many other images (95 %)",
        *(f"note: {note}" for note in found.notes),
    ):
        OUT.print(line, markup=False, soft_wrap=True)


def _both(estimate: "Estimate", digits: str) -> str:
    value, low, high = (
        _plain(each, digits) for each in (estimate.value, estimate.low, estimate.high)
    )
    return value if low == value == high else f"{value} ({low} to {high})"


def _plain(value: float, digits: str) -> str:
    return f"{value:{digits}}" if math.isfinite(value) else "–"
