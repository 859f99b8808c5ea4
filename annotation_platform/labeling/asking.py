"""Whom a round asks what: its first wave of places, and further ones where they are needed."""

from collections import defaultdict
from dataclasses import replace
from datetime import datetime

import numpy as np
import pandas as pd

from annotation_platform.governance.audit_log.recording import record_policy
from annotation_platform.images.accepted import accepted_images
from annotation_platform.labeling.assignment_plan import (
    AnnotationRequest,
    PlacePlan,
    Plan,
    assign_places,
)
from annotation_platform.labeling.backends.protocol import LabelingBackend, Place
from annotation_platform.labeling.guidelines import read_guideline, record_guideline
from annotation_platform.labeling.ledger import AnnotationsLedger
from annotation_platform.labeling.rejections import rejections
from annotation_platform.labeling.rounds import ledger_count, stand
from annotation_platform.labeling.shown_images import ShownImages
from annotation_platform.labeling.skills import QUALIFIED, REVIEWER, Skills
from annotation_platform.labeling.tasks import (
    shown_proposals,
    task_copies,
    task_name,
    tasks_table,
)
from annotation_platform.policy import LabelingPolicy, Policy
from annotation_platform.schema.rounds import round_number
from annotation_platform.schema.tables import LabelTasks, Splits
from annotation_platform.storage.lake import Lake


def ask_people(
    round_id: str,
    selected: pd.DataFrame,
    predictions: pd.DataFrame,
    labeling: LabelingBackend,
    lake: Lake,
    policy: Policy,
    *,
    known: pd.DataFrame,
    images: ShownImages,
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
        images: what people see of each image.
        now: the time.

    Raises:
        NotReadyError: something is to be masked, and no model has looked at an image; then nothing
            is fixed and nobody is asked.
        SettingsError: the model that looked does not know what is to be masked; likewise.
    """
    record_policy(policy, lake, used_for=f"label_tasks of {round_id}", now=now)
    if selected.empty:
        return LabelTasks.empty()
    images.check(selected["image_id"])
    known = known[known["image_id"].isin(images.showable(known["image_id"]))]
    plan = PlacePlan(lake.store, round_id).read()
    if not plan.waves:
        plan = _first_wave(round_id, selected, predictions, labeling, lake, policy, known, now)
    else:
        plan = _next_wave(round_id, plan, labeling, lake, policy, now)
    ontology = read_guideline(lake.store, plan.guideline)
    usable = predictions["class_name"].isin(set(ontology.names) - images.hidden)
    shown = predictions[usable] if policy.labeling.preannotate else predictions.head(0)
    copies = task_copies(
        round_id,
        plan.places,
        accepted_images(lake.tables),
        shown,
        ontology=ontology,
        minimum_score=policy.labeling.minimum_score,
        notes=rejections(lake.tables),
        keys=images.keys(place.image_id for place in plan.places),
    )
    closed = _closed(round_id, labeling, lake, policy)
    return tasks_table(
        round_id,
        copies,
        labeling.publish(round_id, ontology, copies, closed=closed),
        backend_of=labeling.backend_of,
        guideline=plan.guideline,
        pseudonym=AnnotationsLedger(lake.store).pseudonym,
    )


def _closed(round_id: str, labeling: LabelingBackend, lake: Lake, policy: Policy) -> set[Place]:
    """Return the copies that nobody is asked for any more: answered, or lost and left."""
    if not lake.tables.exists(LabelTasks, round_id):
        return set()
    tasks = lake.tables.read(LabelTasks, round_id)
    count = ledger_count(round_id, tasks, lake)
    filled = {copy for copy, place in count.copies.items() if count.places[place] is not None}
    if policy.labeling.resend_lost:
        return filled
    held = labeling.held_places(round_id)
    return filled if held is None else filled | (set(count.copies) - set(held))


def _first_wave(
    round_id: str,
    selected: pd.DataFrame,
    predictions: pd.DataFrame,
    labeling: LabelingBackend,
    lake: Lake,
    policy: Policy,
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
    splits = lake.tables.read_all(Splits)
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
    labeling: LabelingBackend,
    lake: Lake,
    policy: Policy,
    now: datetime,
) -> Plan:
    """Ask on where the answers do not lead by enough, and where copies are used up."""
    if not lake.tables.exists(LabelTasks, round_id):
        return plan
    tasks = lake.tables.read(LabelTasks, round_id)
    standing = stand(round_id, tasks, labeling, lake, policy, now=now)
    if not (standing.asks_again and (standing.count.stuck or standing.more)):
        return plan
    used_up = defaultdict(list)
    for task_id, number in standing.count.stuck:
        used_up[task_id].append(number)
    involved = defaultdict(set)
    for annotation in standing.count.annotations:
        said = annotation.revision.submission
        involved[said.image_id].add(said.author)
    of_image = defaultdict(list)
    for place in plan.places:
        of_image[place.image_id].append(place)
    first = {image: places[0] for image, places in of_image.items()}
    asked = []
    for image, place in first.items():
        task = task_name(round_id, image)
        instead_of = tuple(used_up[task])
        annotations = len(instead_of) + standing.more.get(task, 0)
        if annotations:
            blind = all(one.blind for one in of_image[image])
            asked.append(
                AnnotationRequest(
                    image, annotations, place.purpose, place.expertise, False, instead_of, blind
                )
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


def _with_vendors(
    round_id: str, asked: list[AnnotationRequest], labeling: LabelingBackend
) -> list[AnnotationRequest]:
    """Return the tasks, those marked that are answered where people are not known by name."""
    people = labeling.people_for(round_id, [task_name(round_id, task.image_id) for task in asked])
    return [replace(task, outside=not people[task_name(round_id, task.image_id)]) for task in asked]


def _annotators(labeling: LabelingBackend, skills: Skills) -> list[str]:
    """Return whom places are assigned to: not those who review, as long as there are others."""
    everybody = labeling.annotators()
    others = sorted(set(everybody) - set(skills.people(REVIEWER)))
    return others or everybody


def _wanted(image_id: str, purpose: str, classes: set[str], policy: Policy) -> AnnotationRequest:
    labeling = policy.labeling
    annotations = labeling.first_annotations(classes)
    skills = sorted({labeling.expertise_by_class.get(name, "") for name in classes} - {""})
    # Gold tasks are how people qualify; who was given another skill by hand needs no further one.
    needed = QUALIFIED if labeling.qualify_annotations and purpose != "gold" else ""
    expertise = skills[0] if skills else labeling.expertise or needed
    return AnnotationRequest(image_id, annotations, purpose, expertise)


def _qualified(skills: Skills, asked: list[AnnotationRequest]) -> dict[str, set[str]]:
    return {skill: set(skills.people(skill)) for skill in {task.expertise for task in asked} - {""}}
