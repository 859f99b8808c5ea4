"""A round of questions from asking to collecting."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from annotation_platform.audit_log.noting import note_decisions, note_policy
from annotation_platform.consensus.lead import leads
from annotation_platform.errors import NotReadyError
from annotation_platform.images.accepted import accepted_images
from annotation_platform.labeling.client import LabelingClient, Place
from annotation_platform.labeling.guidelines import read_guideline, record_guideline
from annotation_platform.labeling.ledger import (
    AnswersLedger,
    Count,
    answers_table,
    count_answers,
    human_labels,
    lost_sentence,
    require_complete,
    round_tasks,
)
from annotation_platform.labeling.moments import answers_made_of, as_of
from annotation_platform.labeling.places import PlacePlan, Plan, Wanted, assign_places
from annotation_platform.labeling.record import RoundRecord, State
from annotation_platform.labeling.rejections import rejections
from annotation_platform.labeling.round_annotations import (
    RoundAnnotations,
    collect_new,
    counting_rules,
    look_at_annotations,
)
from annotation_platform.labeling.shown_pictures import ShownPictures
from annotation_platform.labeling.skills import QUALIFIED, REVIEWER, Skills
from annotation_platform.labeling.tasks import (
    shown_proposals,
    task_copies,
    task_name,
    tasks_table,
)
from annotation_platform.params import LabelingPolicy, Params
from annotation_platform.schema.rounds import round_number
from annotation_platform.schema.tables import empty_table
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.round_tables import table_digest


@dataclass(frozen=True)
class Standing:
    """How far people are with a round, and what is due.

    ``more`` holds the tasks that need further answers before they lead by enough, and how many;
    ``lost`` the copies that nobody can answer any more, because the back end's task was deleted,
    and ``resend`` whether policy has them made again; ``close`` says why the policy closes the
    round now, and is empty if it does not.
    """

    count: Count
    state: State
    more: dict[str, int]
    close: str
    lost: list[Place] = field(default_factory=list)
    resend: bool = False

    @property
    def asks_again(self) -> bool:
        """Whether people must be asked again: with the copies there are nothing more can come."""
        if self.state != "open":
            return False
        free = len(self.count.places) - len(self.count.counted)
        lost = {self.count.copies[copy] for copy in self.lost}
        used_up = len(self.count.stuck) + len(lost) == free
        further = used_up and bool(self.count.stuck or self.more)
        return further or (self.resend and bool(self.lost))

    @property
    def mergeable(self) -> bool:
        """Whether nothing more is to come."""
        enough = self.count.complete and not self.more
        return enough or self.state != "open" or bool(self.close)

    @property
    def sentence(self) -> str:
        """How far it is, for people."""
        count = self.count
        lost = f" {lost_sentence(len(self.lost))}" if self.lost else ""
        filled = f"{len(count.counted)} of {len(count.places)} places filled"
        return f"{filled}, {len(count.surplus)} surplus.{lost}"

    @property
    def digest(self) -> str:
        """Changes when the round must be merged anew."""
        return f"{self.count.digest}-{self.state}"


@dataclass(frozen=True)
class Answers:
    """The counted answers of a round, what was left out of them, and how far each task is."""

    labels: pd.DataFrame  # schema.tables.HUMAN_LABELS
    answers: pd.DataFrame  # schema.tables.ANSWERS
    tasks: pd.DataFrame  # schema.tables.ROUND_TASKS

    @property
    def surplus(self) -> dict[str, int]:
        """Answers kept but not counted, by reason."""
        states = self.answers["state"]
        return dict(Counter(states[states != "counted"]))

    @property
    def minutes(self) -> float:
        """Time that people spent on all answers, as the back end measured it."""
        return float(self.answers["lead_time_seconds"].sum()) / 60.0


def ask_people(
    round_id: str,
    selected: pd.DataFrame,
    predictions: pd.DataFrame,
    labeling: LabelingClient,
    lake: Lake,
    policy: Params,
    *,
    known: pd.DataFrame,
    pictures: ShownPictures,
    now: datetime,
) -> pd.DataFrame:
    """Put the tasks of a round before people and return the ``label_tasks`` table.

    Who is meant to answer which place is fixed in the lake before anybody is asked, and so are
    the classes and guidelines: asking again adds what is missing, and the further answers that
    tasks need by now, whoever joined or left meanwhile. A task that was deleted in the back end
    is made again only if policy says so, and never one that was answered. Proposals of a class
    that the round's ontology does not have, or that is masked, are not shown. A round without
    images asks nobody.

    Args:
        round_id: the round.
        selected: its ``selected_images``.
        predictions: its ``model_predictions``.
        labeling: where people answer.
        lake: where everything is kept.
        policy: of the moment.
        known: labels of images whose answer is known (``image_id`` and label columns); a share of
            them is asked about too, to see how well people do.
        pictures: what people see of each image.
        now: the time.

    Raises:
        NotReadyError: something is to be masked, and no model has looked at an image; then nothing
            is fixed and nobody is asked.
        SettingsError: the model that looked does not know what is to be masked; likewise.
    """
    note_policy(policy, lake, used_for=f"label_tasks of {round_id}", now=now)
    if selected.empty:
        return empty_table("label_tasks")
    pictures.check(selected["image_id"])
    known = known[known["image_id"].isin(pictures.showable(known["image_id"]))]
    plan = PlacePlan(lake.store, round_id).read()
    if not plan.waves:
        plan = _first_wave(round_id, selected, predictions, labeling, lake, policy, known, now)
    else:
        plan = _next_wave(round_id, plan, labeling, lake, policy, now)
    ontology = read_guideline(lake.store, plan.guideline)
    usable = predictions["class_name"].isin(set(ontology.names) - pictures.hidden)
    shown = predictions[usable] if policy.labeling.preannotate else predictions.head(0)
    copies = task_copies(
        round_id,
        plan.places,
        accepted_images(lake.tables),
        shown,
        ontology=ontology,
        minimum_score=policy.labeling.minimum_score,
        notes=rejections(lake.tables),
        keys=pictures.keys(place.image_id for place in plan.places),
    )
    closed = _closed(round_id, labeling, lake, policy)
    return tasks_table(
        round_id,
        copies,
        labeling.publish_round(round_id, ontology, copies, closed=closed),
        backend_of=labeling.backend_of,
        guideline=plan.guideline,
        pseudonym=AnswersLedger(lake.store).pseudonym,
    )


def stand(
    round_id: str,
    tasks: pd.DataFrame,
    labeling: LabelingClient,
    lake: Lake,
    policy: Params,
    *,
    now: datetime,
) -> Standing:
    """Return how far people are, from the ledger and from what the back end shows now.

    Nothing is written: a sensor's tick may call it.
    """
    seen = look_at_annotations(round_id, tasks, labeling, lake)
    return standing_of(round_id, tasks, seen, labeling, lake, policy, now=now)


def standing_of(
    round_id: str,
    tasks: pd.DataFrame,
    seen: RoundAnnotations,
    labeling: LabelingClient,
    lake: Lake,
    policy: Params,
    *,
    now: datetime,
) -> Standing:
    """Return how far people are, by annotations that were looked at before."""
    record, count = RoundRecord(lake.store, round_id), seen.count
    if record.state != "open":
        return Standing(count, record.state, {}, "")
    more = _more_answers(round_id, count, tasks, lake, policy.labeling)
    asked_at = PlacePlan(lake.store, round_id).read().asked_at
    close = "" if count.complete and not more else _why_close(count, asked_at, policy, now)
    lost = [] if count.complete else count.lost(labeling.held_places(round_id))
    return Standing(count, "open", more, close, lost, policy.labeling.resend_lost)


def _closed(round_id: str, labeling: LabelingClient, lake: Lake, policy: Params) -> set[Place]:
    """Return the copies that nobody is asked for any more: answered, or lost and left."""
    if not lake.tables.exists("label_tasks", round_id):
        return set()
    tasks = lake.tables.read("label_tasks", round_id)
    count = ledger_count(round_id, tasks, lake)
    filled = {copy for copy, place in count.copies.items() if count.places[place] is not None}
    if policy.labeling.resend_lost:
        return filled
    return filled | (set(count.copies) - set(labeling.held_places(round_id)))


def deadline_passed(round_id: str, lake: Lake, policy: LabelingPolicy, *, now: datetime) -> bool:
    """Return whether a round is past its deadline, cheaply."""
    asked_at = PlacePlan(lake.store, round_id).read().asked_at
    wait = timedelta(hours=policy.deadline_hours)
    return bool(wait) and asked_at is not None and now >= asked_at + wait


def collect_answers(
    round_id: str,
    tasks: pd.DataFrame,
    labeling: LabelingClient,
    lake: Lake,
    policy: Params,
    *,
    now: datetime,
) -> Answers:
    """Write what people submitted into the ledger and return the round's answers.

    The lineage of the labels is recorded; the caller writes the tables. A round that is past its
    deadline, with enough annotations, is closed here, and that is recorded.

    Raises:
        NotReadyError: an answer is still missing; what came so far is in the ledger all the same.
    """
    note_policy(policy, lake, used_for=f"human_labels of {round_id}", now=now)
    seen = collect_new(round_id, tasks, labeling, lake, now=now)
    standing = standing_of(round_id, tasks, seen, labeling, lake, policy, now=now)
    if not standing.mergeable:
        if not standing.asks_again:
            require_complete(round_id, standing.count, lost=len(standing.lost))
        raise NotReadyError(
            f"{round_id} needs further answers: on {len(standing.more)} tasks people disagree,"
            f" {len(standing.count.stuck)} places were answered by somebody who may not have"
            f" them, and {len(standing.lost)} tasks were deleted. Materialise"
            " label_tasks to ask for them; labeling_complete_sensor does so by"
            " itself."
        )
    if standing.close:
        close_round(round_id, standing.close, "policy", labeling, lake, now=now)
    note_decisions(round_id, lake, now=now)
    made_of = answers_made_of(round_id, lake, policy.consensus)
    disregarded = policy.consensus.disregarded
    answers = answers_as_of(round_id, as_of(lake, made_of), disregarded=disregarded)
    for name, table in (("human_labels", answers.labels), ("round_tasks", answers.tasks)):
        lake.tables.lineage.write(name, round_id, table_digest(name, table), made_of)
    return answers


def answers_as_of(round_id: str, lake: Lake, *, disregarded: Collection[str] = ()) -> Answers:
    """Return the answers of a round from what the lake holds alone; nobody is asked.

    Nothing is written. A round that was not closed and lacks an answer is a NotReadyError. Tasks
    that only annotators answered who are ``disregarded``, by pseudonym, are left for others.
    """
    tasks = lake.tables.read("label_tasks", round_id)
    count = ledger_count(round_id, tasks, lake)
    state = RoundRecord(lake.store, round_id).state
    if state == "open":
        require_complete(round_id, count)
    authors = {answer.revision.submission.author for answer in count.answers}
    pseudonyms = {author: AnswersLedger(lake.store).pseudonym(author) for author in authors}
    labels = empty_table("human_labels")
    if state != "cancelled" and not tasks.empty:
        ontology = read_guideline(lake.store, str(tasks["guideline"].iloc[0]))
        images = accepted_images(lake.tables)
        labels = human_labels(round_id, count, tasks, images, ontology, pseudonyms)
    seen = answers_table(round_id, count, tasks, pseudonyms)
    left = _only_by(disregarded, count, pseudonyms)
    return Answers(labels, seen, round_tasks(round_id, count, tasks, state=state, left=left))


def _only_by(disregarded: Collection[str], count: Count, pseudonyms: Mapping[str, str]) -> set[str]:
    """Return the tasks that these annotators answered and nobody else."""
    by: dict[str, set[str]] = defaultdict(set)
    for (task_id, _), revision in count.counted.items():
        by[task_id].add(pseudonyms[revision.submission.author])
    return {task_id for task_id, names in by.items() if names <= set(disregarded)}


def seen_answers(
    round_id: str, labeling: LabelingClient, lake: Lake, *, names: bool, now: datetime
) -> pd.DataFrame:
    """Return the ``answers`` table of a round as it stands now; what is new goes into the ledger.

    With ``names`` the annotators are e-mail addresses instead of pseudonyms.
    """
    tasks = lake.tables.read("label_tasks", round_id)
    fetch_answers(round_id, labeling, lake, now=now)
    count = ledger_count(round_id, tasks, lake)
    authors = {answer.revision.submission.author for answer in count.answers}
    shown = {
        author: author if names else AnswersLedger(lake.store).pseudonym(author)
        for author in authors
    }
    return answers_table(round_id, count, tasks, shown)


def ledger_count(round_id: str, tasks: pd.DataFrame, lake: Lake) -> Count:
    """Return what became of the answers that the ledger has of a round."""
    return count_answers(
        AnswersLedger(lake.store).read(round_id), tasks, counting_rules(round_id, lake)
    )


def fetch_answers(round_id: str, labeling: LabelingClient, lake: Lake, *, now: datetime) -> int:
    """Write what people submitted into the ledger; return how much of it was new."""
    return AnswersLedger(lake.store).append(round_id, labeling.submissions(round_id), now=now)


def close_round(
    round_id: str, reason: str, by: str, labeling: LabelingClient, lake: Lake, *, now: datetime
) -> None:
    """Close a round: what people said so far counts, what is missing is left, later is late."""
    fetch_answers(round_id, labeling, lake, now=now)
    entries = AnswersLedger(lake.store).entries(round_id)
    RoundRecord(lake.store, round_id).write(
        "closed", reason=reason, by=by, now=now, entries=entries
    )
    note_decisions(round_id, lake, now=now)


def _first_wave(
    round_id: str,
    selected: pd.DataFrame,
    predictions: pd.DataFrame,
    labeling: LabelingClient,
    lake: Lake,
    policy: Params,
    known: pd.DataFrame,
    now: datetime,
) -> Plan:
    """Fix whom the round asks what."""
    least = policy.labeling.minimum_score
    seen = shown_proposals(predictions, policy.ontology, minimum_score=least)
    classes = {str(key): set(rows["class_name"]) for key, rows in seen.groupby("image_id")}
    order = [str(image) for image in selected.sort_values("rank")["image_id"]]
    gold = sorted(set(known["image_id"]) - set(order))
    rng = np.random.default_rng([policy.seed, round_number(round_id)])
    share = min(len(gold), round(policy.labeling.gold_share * len(order)))
    drawn = [gold[position] for position in rng.permutation(len(gold))[:share]]
    asked = [_wanted(image, "label", classes.get(image, set()), policy) for image in order]
    # What is concluded from an audit holds only if nobody saw proposals of what is audited; and the
    # truth by which models are judged must not come from them, where it is asked for again.
    splits = lake.tables.read_all("splits")
    judging = set(splits.loc[splits["split"] != "train", "key"])
    audited = selected["audit"] | (selected["rule"] == "reaudit")
    unseen = judging.union(selected.loc[audited, "image_id"])
    asked = [replace(task, blind=task.image_id in unseen) for task in asked]
    for image, spot in zip(drawn, rng.integers(0, len(asked) + 1, len(drawn)), strict=True):
        # Among the others, so that nobody can tell.
        asked.insert(int(spot), _wanted(image, "gold", classes.get(image, set()), policy))
    skills = Skills(lake.store)
    asked = _with_vendors(round_id, asked, labeling)
    places = assign_places(
        asked,
        _annotators(labeling, skills),
        qualified=_qualified(skills, asked),
        blind_share=_blind_share(policy.labeling),
        seed=policy.seed,
    )
    guideline = record_guideline(lake.store, policy.ontology)
    plan = PlacePlan(lake.store, round_id)
    return plan.add(plan.read(), places, guideline=guideline, now=now)


def _next_wave(
    round_id: str,
    plan: Plan,
    labeling: LabelingClient,
    lake: Lake,
    policy: Params,
    now: datetime,
) -> Plan:
    """Ask on where the answers do not lead by enough, and where copies are used up."""
    if not lake.tables.exists("label_tasks", round_id):
        return plan
    tasks = lake.tables.read("label_tasks", round_id)
    standing = stand(round_id, tasks, labeling, lake, policy, now=now)
    if not (standing.asks_again and (standing.count.stuck or standing.more)):
        return plan
    used_up = defaultdict(list)
    for task_id, number in standing.count.stuck:
        used_up[task_id].append(number)
    involved = defaultdict(set)
    for answer in standing.count.answers:
        said = answer.revision.submission
        involved[said.image_id].add(said.author)
    of_image = defaultdict(list)
    for place in plan.places:
        of_image[place.image_id].append(place)
    first = {image: places[0] for image, places in of_image.items()}
    asked = []
    for image, place in first.items():
        task = task_name(round_id, image)
        instead_of = tuple(used_up[task])
        answers = len(instead_of) + standing.more.get(task, 0)
        if answers:
            blind = all(one.blind for one in of_image[image])
            asked.append(
                Wanted(image, answers, place.purpose, place.expertise, False, instead_of, blind)
            )
    skills = Skills(lake.store)
    asked = _with_vendors(round_id, asked, labeling)
    places = assign_places(
        asked,
        _annotators(labeling, skills),
        taken=plan.places,
        involved=involved,
        qualified=_qualified(skills, asked),
        blind_share=_blind_share(policy.labeling),
        seed=policy.seed,
    )
    record = PlacePlan(lake.store, round_id)
    return record.add(plan, places, guideline=plan.guideline, now=now)


def _blind_share(policy: LabelingPolicy) -> float:
    return policy.blind_share if policy.preannotate else 1.0


def _with_vendors(round_id: str, asked: list[Wanted], labeling: LabelingClient) -> list[Wanted]:
    """Return the tasks, those marked that are answered where people are not known by name."""
    people = labeling.people_for(round_id, [task_name(round_id, task.image_id) for task in asked])
    return [replace(task, outside=not people[task_name(round_id, task.image_id)]) for task in asked]


def _annotators(labeling: LabelingClient, skills: Skills) -> list[str]:
    """Return whom places are assigned to: not those who review, as long as there are others."""
    everybody = labeling.annotators()
    others = sorted(set(everybody) - set(skills.people(REVIEWER)))
    return others or everybody


def _wanted(image_id: str, purpose: str, classes: set[str], policy: Params) -> Wanted:
    labeling = policy.labeling
    answers = labeling.first_answers(classes)
    skills = sorted({labeling.expertise_by_class.get(name, "") for name in classes} - {""})
    # Gold tasks are how people qualify; who was given another skill by hand needs no further one.
    needed = QUALIFIED if labeling.qualify_answers and purpose != "gold" else ""
    expertise = skills[0] if skills else labeling.expertise or needed
    return Wanted(image_id, answers, purpose, expertise)


def _qualified(skills: Skills, asked: list[Wanted]) -> dict[str, set[str]]:
    return {skill: set(skills.people(skill)) for skill in {task.expertise for task in asked} - {""}}


def _more_answers(
    round_id: str, count: Count, tasks: pd.DataFrame, lake: Lake, policy: LabelingPolicy
) -> dict[str, int]:
    """Return the answered tasks that need further answers to lead by enough, and how many.

    Of a task whose answer is known nobody needs to hear more.
    """
    if not policy.stop_at_lead or not count.answered:
        return {}
    ontology = read_guideline(lake.store, str(tasks["guideline"].iloc[0]))
    authors = {answer.revision.submission.author for answer in count.answers}
    same = {author: author for author in authors}
    labels = human_labels(round_id, count, tasks, accepted_images(lake.tables), ontology, same)
    labels = labels[labels["purpose"] == "label"]
    places = Counter(task_id for task_id, _ in count.places)
    short = {
        task_id: min(policy.stop_at_lead - lead, policy.most_answers - places[task_id])
        for task_id, lead in leads(labels).items()
    }
    return {task_id: answers for task_id, answers in short.items() if answers > 0}


def _why_close(count: Count, asked_at: datetime | None, policy: Params, now: datetime) -> str:
    labeling = policy.labeling
    wait = timedelta(hours=labeling.deadline_hours)
    share = len(count.counted) / max(1, len(count.places))
    if not wait or asked_at is None or now < asked_at + wait or share < labeling.minimum_share:
        return ""
    return f"its {labeling.deadline_hours:g} hours are over and {share:.0%} of the answers are in"
