"""Commands about rounds under way: who said what, who may answer, and when it is enough."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annotation_platform.actor import system_user
from annotation_platform.cli_output import OUT, AsJson, Email, answer, print_json, table_of
from annotation_platform.settings import read_settings

if TYPE_CHECKING:
    from annotation_platform.labeling.client import LabelingClient
    from annotation_platform.storage.lake import Lake

round_app = typer.Typer(help="Close, cancel or re-open a round.", no_args_is_help=True)
skill_app = typer.Typer(help="What people know: who may answer, who reviews.", no_args_is_help=True)

Reason = Annotated[str, typer.Option(help="Why; it stays in the round's record.")]
RoundId = Annotated[str, typer.Argument(help="Such as round-0001.")]
SkillName = Annotated[
    str, typer.Argument(metavar="SKILL", help="An expertise that policy names, or reviewer.")
]


@round_app.command("close")
def round_close(round_id: RoundId, reason: Reason, as_json: AsJson = False) -> None:
    """Wait for no further answers: what is fully answered counts, other images are asked later."""
    from annotation_platform.labeling.rounds import close_round

    lake, labeling = _places()
    lake.tables.read("label_tasks", round_id)
    now = datetime.now(UTC)
    close_round(round_id, reason, system_user(), labeling, lake, now=now)
    _say(round_id, "closed", as_json)


@round_app.command("cancel")
def round_cancel(round_id: RoundId, reason: Reason, as_json: AsJson = False) -> None:
    """Count nothing of a round; its images are asked about again. The answers are kept."""
    _decide(round_id, "cancelled", reason, as_json)


@round_app.command("reopen")
def round_reopen(round_id: RoundId, reason: Reason, as_json: AsJson = False) -> None:
    """Let a closed or cancelled round go on as if it never had been."""
    _decide(round_id, "reopened", reason, as_json)


@round_app.command("show")
def round_show(round_id: RoundId, as_json: AsJson = False) -> None:
    """Show how far each stage of a round is, and what was decided about it."""
    from annotation_platform.landing.lake import lake_of
    from annotation_platform.reporting.status import round_progress

    progress = round_progress(lake_of(read_settings()), round_id)
    if as_json:
        print_json(progress)
        return
    OUT.print(table_of(progress["stages"], title=round_id))
    for decision in progress["decisions"]:
        text = "{action} by {by} at {at}: {reason}".format(**decision)
        OUT.print(text, markup=False)


@round_app.command("report")
def round_report(
    round_id: RoundId,
    out: Annotated[Path | None, typer.Option(help="The file; ROUND.html by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the report of a round as one HTML page: figures, pictures, advice for the next."""
    from annotation_platform.errors import DataError
    from annotation_platform.landing.lake import lake_of
    from annotation_platform.params import read_params
    from annotation_platform.reporting.round_page import render_round

    settings = read_settings()
    page = render_round(lake_of(settings), round_id, read_params(settings.params_path))
    place = out or Path(f"{round_id}.html")
    try:
        place.write_text(page, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{place}: cannot be written ({error.strerror}).") from error
    answer({"round": round_id, "file": str(place)}, as_json, f"The report is in {place}.")


def answers(
    round_id: RoundId,
    surplus: Annotated[bool, typer.Option("--surplus", help="Only those not counted.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write them as CSV.")] = None,
    names: Annotated[
        bool, typer.Option("--names", help="With real addresses, for paying; keep it private.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List every answer ever given in a round: counted, or why not; late ones can be paid."""
    from annotation_platform.labeling.rounds import seen_answers

    lake, labeling = _places()
    found = seen_answers(round_id, labeling, lake, names=names, now=datetime.now(UTC))
    if surplus:
        found = found[found["state"] != "counted"]
    if out is not None:
        found.to_csv(out, index=False)
    states = {str(key): int(number) for key, number in found["state"].value_counts().items()}
    if as_json:
        rows = found.to_dict("records")
        print_json({"round": round_id, "states": states, "answers": rows})
        return
    by_person = found.groupby(["annotator", "state"], as_index=False).agg(
        answers=("answer_id", "size"), minutes=("lead_time_seconds", lambda s: round(s.sum() / 60))
    )
    shown: list[dict[str, Any]] = [
        {str(key): value for key, value in row.items()} for row in by_person.to_dict("records")
    ]
    OUT.print(table_of(shown, title=f"answers of {round_id}") if shown else "No answer yet.")
    if out is not None:
        OUT.print(f"{len(found)} answers in {out}", markup=False)


def pin(
    image_id: Annotated[str, typer.Argument(metavar="ID", help="Of an image; `query` finds it.")],
    reason: Reason,
    out: Annotated[bool, typer.Option("--out", help="Never ask; by default: always ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Have people asked about an image whatever the selection says, or never; it is recorded."""
    from annotation_platform.errors import DataError
    from annotation_platform.landing.lake import lake_of
    from annotation_platform.selection.pins import Pins

    lake = lake_of(read_settings())
    if image_id not in set(lake.tables.read_all("cleaned_images")["image_id"]):
        raise DataError(
            f'{image_id}: no such image. `annotation-platform query "SELECT image_id, source_key'
            ' FROM images"` lists them.'
        )
    by = system_user()
    Pins(lake.store).set(image_id, wanted=not out, reason=reason, by=by, now=datetime.now(UTC))
    said = "is not asked about" if out else "is asked about in the next round"
    answer({"image_id": image_id, "wanted": not out}, as_json, f"{image_id} {said}.")


@skill_app.command("add")
def skill_add(email: Email, skill: SkillName, as_json: AsJson = False) -> None:
    """Say that somebody has a skill, such as agronomy, or `reviewer`."""
    _skill(email, skill, granted=True, as_json=as_json)


@skill_app.command("remove")
def skill_remove(email: Email, skill: SkillName, as_json: AsJson = False) -> None:
    """Say that somebody has a skill no longer; what they answered still counts."""
    _skill(email, skill, granted=False, as_json=as_json)


@skill_app.command("list")
def skill_list(email: Email, as_json: AsJson = False) -> None:
    """List what somebody knows."""
    from annotation_platform.labeling.skills import Skills
    from annotation_platform.landing.lake import lake_of

    found = Skills(lake_of(read_settings()).store).of(email)
    answer({"email": email, "skills": found}, as_json, ", ".join(found) or "No skill on record.")


def _places() -> "tuple[Lake, LabelingClient]":
    from annotation_platform.labeling.backends import labeling_of
    from annotation_platform.landing.lake import lake_of
    from annotation_platform.params import read_params

    settings = read_settings()
    lake = lake_of(settings)
    return lake, labeling_of(settings, lake, read_params(settings.params_path))


def _decide(round_id: str, action: Any, reason: str, as_json: bool) -> None:
    from annotation_platform.audit_log.noting import note_decisions
    from annotation_platform.labeling.ledger import AnswersLedger
    from annotation_platform.labeling.record import RoundRecord
    from annotation_platform.landing.lake import lake_of

    lake, now = lake_of(read_settings()), datetime.now(UTC)
    lake.tables.read("label_tasks", round_id)
    RoundRecord(lake.store, round_id).write(
        action,
        reason=reason,
        by=system_user(),
        now=now,
        entries=AnswersLedger(lake.store).entries(round_id),
    )
    note_decisions(round_id, lake, now=now)
    _say(round_id, action, as_json)


def _say(round_id: str, action: str, as_json: bool) -> None:
    follows = {
        "closed": "labeling_complete_sensor merges what was answered.",
        "cancelled": "labeling_complete_sensor takes its labels out.",
        "reopened": "People can answer it again.",
    }
    facts = {"round": round_id, "action": action}
    answer(facts, as_json, f"{round_id} is {action}. {follows[action]}")


def _skill(email: str, skill: str, *, granted: bool, as_json: bool) -> None:
    from annotation_platform.audit_log.noting import note_skill
    from annotation_platform.labeling.skills import Skills
    from annotation_platform.landing.lake import lake_of

    lake, now = lake_of(read_settings()), datetime.now(UTC)
    skills = Skills(lake.store)
    skills.set(email, skill, granted=granted, now=now)
    note_skill(email, skill, lake, granted=granted, now=now)
    facts = {"email": email, "skills": skills.of(email)}
    answer(facts, as_json, f"{email}: {', '.join(skills.of(email)) or 'no skill'}")
