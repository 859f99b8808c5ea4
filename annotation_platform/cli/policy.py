"""Commands about policy: replay rounds under another one, and the guidelines of the past."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annotation_platform.cli.options import AsJson, with_option_groups
from annotation_platform.cli.output import (
    OUT,
    finite,
    print_json,
    print_line,
    print_rows,
    progress_bar,
)
from annotation_platform.cli.registries import (
    own_lake,
    own_policy,
    own_registry,
    own_settings,
    published_tags,
    remote_url,
)
from annotation_platform.errors import SettingsError

if TYPE_CHECKING:
    import pandas as pd

    from annotation_platform.backtesting.backtest import Backtest
    from annotation_platform.backtesting.figures import Estimate
    from annotation_platform.reporting.guidelines import GuidelineChanges
    from annotation_platform.storage.lake import Lake

app = typer.Typer(help="Compare policies on past rounds; list guidelines.", no_args_is_help=True)

_NAMES = {
    "objects_f1": "F1 of objects",
    "choices_right": "classifications right",
    "released_objects_f1": "F1 of objects, released",
    "released_choices_right": "classifications right, released",
    "review_rate": "images to review",
    "left_out_rate": "images left out",
    "annotations": "annotations",
    "seconds": "annotator seconds",
    "cost": "cost",
}
_DIGITS = {"annotations": ",.0f", "seconds": ",.0f", "cost": ",.2f"}
_SHORT = 12


@dataclass(frozen=True)
class Replay:
    """How a back-test draws and what it counts."""

    method: Annotated[
        str,
        typer.Option(help="Consensus method of the policy: majority, dawid-skene or one-coin."),
    ] = ""
    price_per_hour: Annotated[
        float, typer.Option(min=0, help="Price of an hour of annotation; 0: no cost is shown.")
    ] = 0.0
    draws: Annotated[
        int, typer.Option(min=1, help="Number of times that annotations are drawn.")
    ] = 20
    seed: Annotated[int, typer.Option(min=0, help="Random seed for drawing annotations.")] = 0


@app.command()
@with_option_groups
def backtest(
    policy: Annotated[Path, typer.Option(help="The other policy, a params.yaml.", metavar="FILE")],
    replay: Replay,
    rounds: Annotated[
        str, typer.Option(help="Rounds, such as round-0001,round-0002; all merged ones by default.")
    ] = "",
    truth: Annotated[
        str, typer.Option(help="Sources of ground truth: gold, later, review; all by default.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Replay past rounds under another policy: accuracy, annotations, seconds and cost.

    No annotator is asked and nothing is changed. A policy that needs annotations which were never
    recorded is refused.
    """
    from annotation_platform.backtesting import backtest as backtesting
    from annotation_platform.backtesting.reading import read_record
    from annotation_platform.backtesting.truth import SOURCES
    from annotation_platform.consensus.evidence import METHODS
    from annotation_platform.policy import read_policy

    other = read_policy(policy)
    _require("--method", [replay.method] if replay.method else [], METHODS)
    _require("--truth", _listed(truth), SOURCES)
    settings = own_settings()
    today = own_policy(settings)
    record = read_record(
        own_lake(settings), today, rounds=_listed(rounds), sources=_listed(truth) or SOURCES
    )
    options = asdict(replay)
    price_per_hour = options.pop("price_per_hour")
    with progress_bar("replaying") as progress:
        found = backtesting.backtest(record, today, other, **options, progress=progress)
    found = backtesting.with_cost(found, price_per_hour)
    if as_json:
        print_json(_backtest_facts(found))
    else:
        _show_backtest(found)


def _listed(names: str) -> list[str]:
    return [name for name in names.replace(",", " ").split() if name]


def _require(option: str, names: list[str], known: tuple[str, ...]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SettingsError(f"{option}: there is no {unknown[0]}. There are: {', '.join(known)}.")


def _backtest_facts(found: "Backtest") -> dict[str, Any]:
    facts = asdict(found)
    facts["figures"] = {
        name: {
            side: {key: finite(value) for key, value in estimate.items()}
            for side, estimate in figure.items()
        }
        for name, figure in facts["figures"].items()
    }
    return facts


def _show_backtest(found: "Backtest") -> None:
    rows = []
    for name, figure in found.figures.items():
        digits = _DIGITS.get(name, ".3f")
        both = [_interval(each, digits) for each in (figure.recorded, figure.policy)]
        change = _interval(figure.difference, f"+{digits}")
        low, high = (_number(each, digits) for each in (figure.rerun.low, figure.rerun.high))
        rows.append([_NAMES[name], *both, change, f"{low} to {high}"])
    print_rows(["", "as recorded", "the policy", "difference", "a new run"], rows)
    known = ", ".join(f"{count} by {source}" for source, count in found.truth.items())
    for line in (
        f"{', '.join(found.rounds)}: {found.images} images, ground truth: {known}",
        "in brackets: 95 % interval on these images; a new run: the same on as many other images",
        *(f"note: {note}" for note in found.notes),
    ):
        print_line(line)


def _interval(estimate: "Estimate", digits: str) -> str:
    value, low, high = (
        _number(each, digits) for each in (estimate.value, estimate.low, estimate.high)
    )
    return value if low == value == high else f"{value} ({low} to {high})"


def _number(value: float, digits: str) -> str:
    return f"{value:{digits}}" if math.isfinite(value) else "–"


@app.command()
def guidelines(
    digest: Annotated[
        str,
        typer.Argument(
            metavar="DIGEST", help="Digest of a guideline, or a prefix: lists its images."
        ),
    ] = "",
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="OLD NEW", help="Show the changes between two guidelines."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the guidelines that annotators were given, since when, and what was labelled."""
    from annotation_platform.reporting.guidelines import find_guideline

    lake = own_lake()
    if diff is not None:
        old, new = diff
        _differences(find_guideline(old, lake), find_guideline(new, lake), lake, as_json)
    elif digest:
        _images_under(find_guideline(digest, lake), lake, as_json)
    else:
        _all_guidelines(lake, as_json)


def _all_guidelines(lake: "Lake", as_json: bool) -> None:
    from annotation_platform.reporting.guidelines import guideline_versions

    found = guideline_versions(lake, _newest_labels(lake))
    if as_json:
        versions = [
            {
                "digest": each.digest,
                "since": each.rounds[0] if each.rounds else None,
                "since_at": each.since.isoformat() if each.since else None,
                "rounds": each.rounds,
                "annotations": each.annotations,
                "images": each.images,
                "changes": _change_facts(each.changes) if each.changes else None,
            }
            for each in found
        ]
        print_json({"guidelines": versions})
        return
    if not found:
        OUT.print("No guidelines yet: no task was published.")
        return
    rows = [
        [
            each.digest[:_SHORT],
            each.rounds[0] if each.rounds else "never",
            str(each.since)[:19] if each.since else "",
            each.annotations,
            each.images,
            each.changes.sentence if each.changes else "the first",
        ]
        for each in found
    ]
    print_rows(["guidelines", "since", "at", "annotations", "images", "changes"], rows)


def _images_under(digest: str, lake: "Lake", as_json: bool) -> None:
    from annotation_platform.reporting.guidelines import images_under_guideline

    found = images_under_guideline(digest, lake, _newest_labels(lake))
    if as_json:
        print_json({"digest": digest, "images": found.published, "unpublished": found.others})
        return
    for image in found.published:
        print_line(image)
    for image in found.others:
        print_line(f"{image} (not published)")
    if not found.published and not found.others:
        OUT.print("No label was made under this guideline.")


def _differences(old: str, new: str, lake: "Lake", as_json: bool) -> None:
    from annotation_platform.labeling.guidelines import read_guideline
    from annotation_platform.reporting.guidelines import changes_between

    changes = changes_between(read_guideline(lake.store, old), read_guideline(lake.store, new))
    if as_json:
        print_json({"old": old, "new": new, "changes": _change_facts(changes)})
        return
    print_line(f"{old[:_SHORT]} to {new[:_SHORT]}: {changes.sentence}")
    for line in changes.text:
        print_line(f"  {line}")


def _change_facts(changes: "GuidelineChanges") -> dict[str, Any]:
    return {
        "added": changes.added,
        "renamed": changes.renamed,
        "retired": changes.retired,
        "other": changes.other,
        "text": changes.text,
    }


def _newest_labels(lake: "Lake") -> "pd.DataFrame":
    from annotation_platform.versioning.contents import newest_labels

    settings = own_settings()
    return newest_labels(
        own_registry(settings), remote_url(settings), expected=published_tags(lake)
    )
