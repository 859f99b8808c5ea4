"""Commands about annotators: their accounts and their skills."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from annotation_platform.cli.options import AsJson, Email
from annotation_platform.cli.output import print_result
from annotation_platform.cli.registries import own_lake, own_settings

app = typer.Typer(help="Manage annotators and their skills.", no_args_is_help=True)
skill_app = typer.Typer(
    help="Manage skills, which decide who annotates and who reviews what.", no_args_is_help=True
)
app.add_typer(skill_app, name="skill")

Skill = Annotated[
    str, typer.Argument(metavar="SKILL", help="Expertise that the policy names, or reviewer.")
]


@app.command("add")
def people_add(email: Email, as_json: AsJson = False) -> None:
    """Create an annotator's account in Label Studio and print its password, once."""
    from annotation_platform.labeling.backends.label_studio.people import add_person

    person = add_person(*_label_studio(), email)
    facts = {"email": person.email, "password": person.password}
    print_result(facts, as_json, f"{person.email} can log in with the password {person.password}")
    # The password is printed even if the audit log cannot be written.
    _record_person(person.email, "added")


@app.command("list")
def people_list(as_json: AsJson = False) -> None:
    """List the annotators to whom tasks are assigned."""
    from annotation_platform.labeling.backends.label_studio.http import LabelStudioHttp
    from annotation_platform.labeling.backends.label_studio.people import members

    found = members(LabelStudioHttp(*_label_studio()))
    print_result({"people": found}, as_json, "\n".join(found) or "No annotators yet.")


@app.command("remove")
def people_remove(email: Email, as_json: AsJson = False) -> None:
    """Remove an annotator: no further tasks and no access; existing annotations stay."""
    from annotation_platform.labeling.backends.label_studio.people import email_in, remove_person

    remove_person(*_label_studio(), email)
    _record_person(email_in(email), "removed")
    print_result({"removed": email}, as_json, f"{email} was removed.")


@skill_app.command("add")
def skill_add(email: Email, skill: Skill, as_json: AsJson = False) -> None:
    """Grant a skill to an annotator, such as agronomy or reviewer."""
    _set_skill(email, skill, granted=True, as_json=as_json)


@skill_app.command("remove")
def skill_remove(email: Email, skill: Skill, as_json: AsJson = False) -> None:
    """Revoke a skill of an annotator; existing annotations still count."""
    _set_skill(email, skill, granted=False, as_json=as_json)


@skill_app.command("list")
def skill_list(email: Email, as_json: AsJson = False) -> None:
    """List the skills of an annotator."""
    from annotation_platform.labeling.skills import Skills

    found = Skills(own_lake().store).of(email)
    facts = {"email": email, "skills": found}
    print_result(facts, as_json, ", ".join(found) or "No skills recorded.")


def _set_skill(email: str, skill: str, *, granted: bool, as_json: bool) -> None:
    from annotation_platform.audit_log.recording import record_skill
    from annotation_platform.labeling.skills import Skills

    lake, now = own_lake(), datetime.now(UTC)
    skills = Skills(lake.store)
    skills.set(email, skill, granted=granted, now=now)
    record_skill(email, skill, lake, granted=granted, now=now)
    found = skills.of(email)
    facts = {"email": email, "skills": found}
    print_result(facts, as_json, f"{email}: {', '.join(found) or 'no skills'}")


def _record_person(email: str, change: str) -> None:
    from annotation_platform.audit_log.recording import record_person

    record_person(email, change, own_lake(), now=datetime.now(UTC))


def _label_studio() -> tuple[str, str]:
    """Return address and token of the Label Studio that ``annotation-platform up`` runs."""
    from annotation_platform.labeling.backends.label_studio.running import running_label_studio

    return running_label_studio(own_settings())
