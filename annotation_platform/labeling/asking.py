"""Publishes the tasks of a round: its first batch of assignments, and further ones if needed."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from annotation_platform.audit_log.recording import record_policy
from annotation_platform.images.accepted import accepted_images
from annotation_platform.labeling.assignment_plan import (
    AnnotationRequest,
    Assignment,
    AssignmentPlan,
    Plan,
    plan_assignments,
)
from annotation_platform.labeling.backends.protocol import AssignmentKey, LabelingBackend
from annotation_platform.labeling.context import LabelingContext
from annotation_platform.labeling.guidelines import read_guideline, record_guideline
from annotation_platform.labeling.round_annotations import ledger_count
from annotation_platform.labeling.rounds import RoundProgress, round_progress
from annotation_platform.labeling.shown_images import ShownImages
from annotation_platform.labeling.skills import QUALIFIED, REVIEWER, Skills
from annotation_platform.labeling.tasks import TaskContent, task_name, task_replicas, tasks_table
from annotation_platform.models.shown_predictions import shown_predictions
from annotation_platform.policy import LabelingPolicy, Policy
from annotation_platform.schema.rounds import round_number
from annotation_platform.schema.tables import (
    Frame,
    LabelTasks,
    ModelPredictions,
    ReviewedLabels,
    SelectedImages,
    Splits,
)
from annotation_platform.schema.tables.shared import Purpose, ReviewDecision, Split
from annotation_platform.storage.pseudonyms import pseudonym_of
from annotation_platform.storage.round_tables import RoundTables

_REJECTED = "A reviewer rejected the last labels of this image: "


def ask_people(
    context: LabelingContext,
    selected: Frame[SelectedImages],
    predictions: Frame[ModelPredictions],
    *,
    known: pd.DataFrame,
    images: ShownImages,
) -> Frame[LabelTasks]:
    """Publish the tasks of a round and return the ``label_tasks`` table.

    The assignments, classes and guidelines are fixed in the lake before anything is published.
    Publishing again adds what is missing, and the further annotations that tasks need by now, also
    if annotators joined or left since. A task that was deleted in the back end is created again
    only if the policy asks for it, and never if it was annotated. Predictions of a class that is
    masked, or not in the round's ontology, are not shown. A round without images publishes nothing.

    Args:
        context: the round, its back end, lake, policy and time.
        selected: its ``selected_images``.
        predictions: its ``model_predictions``.
        known: labels of images with ground truth (``image_id`` and label columns); a share of them
            becomes gold tasks, which measure annotator quality.
        images: the images as annotators see them.

    Raises:
        NotReadyError: classes are to be masked, and an image has no predictions; nothing is fixed
            or published.
        SettingsError: the model that predicted does not know a masked class; likewise.
    """
    round_id, lake, policy = context.round_id, context.lake, context.policy
    record_policy(policy, lake, used_for=f"label_tasks of {round_id}", now=context.now)
    if selected.empty:
        return LabelTasks.empty()
    images.check(selected[SelectedImages.image_id])
    known = known[known["image_id"].isin(images.showable(known["image_id"]))]
    plan = AssignmentPlan(lake.store, round_id).read()
    if not plan.batches:
        plan = _first_batch(context, _requests(context, selected, predictions, known))
    else:
        plan = _next_batch(context, plan)
    ontology = read_guideline(lake.store, plan.guideline)
    usable = predictions[ModelPredictions.class_name].isin(set(ontology.names) - images.hidden)
    content = TaskContent(
        images=accepted_images(lake.tables),
        predictions=predictions[usable] if policy.labeling.preannotate else predictions.head(0),
        ontology=ontology,
        minimum_score=policy.labeling.minimum_score,
        notes=_rejections(lake.tables),
        keys=images.keys(assignment.image_id for assignment in plan.assignments),
    )
    replicas = task_replicas(round_id, plan.assignments, content)
    labeling = context.labeling
    return tasks_table(
        round_id,
        replicas,
        labeling.publish(round_id, ontology, replicas, closed=_closed(context)),
        backend_of=labeling.backend_of,
        guideline=plan.guideline,
        pseudonym=partial(pseudonym_of, lake.store),
    )


def _rejections(tables: RoundTables) -> dict[str, str]:
    """Return the note for each image whose latest labels a reviewer rejected, by its id."""
    reviewed = tables.read_all(ReviewedLabels).sort_values(ReviewedLabels.round_id, kind="stable")
    last = reviewed.drop_duplicates(ReviewedLabels.image_id, keep="last")
    rejected = last[last[ReviewedLabels.decision] == ReviewDecision.REJECTED]
    notes = _REJECTED + rejected[ReviewedLabels.comment]
    return dict(zip(rejected[ReviewedLabels.image_id], notes, strict=True))


def _closed(context: LabelingContext) -> set[AssignmentKey]:
    """Return the replicas that need no annotation: those annotated, or lost and not resent."""
    round_id, lake = context.round_id, context.lake
    if not lake.tables.exists(LabelTasks, round_id):
        return set()
    count = ledger_count(round_id, lake.tables.read(LabelTasks, round_id), lake)
    filled = {
        replica for replica, key in count.replicas.items() if count.assignments[key] is not None
    }
    if context.policy.labeling.republish_deleted:
        return filled
    held = context.labeling.held_assignments(round_id)
    return filled if held is None else filled | (set(count.replicas) - set(held))


def _requests(
    context: LabelingContext,
    selected: pd.DataFrame,
    predictions: pd.DataFrame,
    known: pd.DataFrame,
) -> list[AnnotationRequest]:
    """Return the requests of the first batch: the selected images by rank, with gold tasks."""
    policy = context.policy
    least = policy.labeling.minimum_score
    shown = shown_predictions(predictions, policy.ontology, minimum_score=least)
    by_image = shown.groupby(ModelPredictions.image_id)
    classes = {str(image): set(rows[ModelPredictions.class_name]) for image, rows in by_image}
    ranked = selected.sort_values(SelectedImages.rank)[SelectedImages.image_id]
    order = [str(image) for image in ranked]
    gold = sorted(set(known["image_id"]) - set(order))
    rng = np.random.default_rng([policy.seed, round_number(context.round_id)])
    share = min(len(gold), round(policy.labeling.gold_share * len(order)))
    drawn = [gold[position] for position in rng.permutation(len(gold))[:share]]
    requests = [
        _request(image, Purpose.LABEL, classes.get(image, set()), policy) for image in order
    ]
    unseen = _without_predictions(context, selected)
    requests = [replace(each, without_predictions=each.image_id in unseen) for each in requests]
    for image, spot in zip(drawn, rng.integers(0, len(requests) + 1, len(drawn)), strict=True):
        # Gold tasks are spread among the others, so that annotators cannot recognize them.
        task = _request(image, Purpose.GOLD, classes.get(image, set()), policy)
        requests.insert(int(spot), task)
    return requests


def _without_predictions(context: LabelingContext, selected: pd.DataFrame) -> set[str]:
    """Return the images whose tasks show no pre-annotations.

    An audit is valid only if its annotators saw no predictions of the audited images, and the
    ground truth by which models are evaluated must not come from predictions.
    """
    splits = context.lake.tables.read_all(Splits)
    evaluated = set(splits.loc[splits[Splits.split] != Split.TRAIN, Splits.key])
    audited = selected[SelectedImages.calibration_sample] | (
        selected[SelectedImages.rule] == "recheck"
    )
    return evaluated.union(selected.loc[audited, SelectedImages.image_id])


def _first_batch(context: LabelingContext, requests: list[AnnotationRequest]) -> Plan:
    """Fix the first assignments of the round, and its classes and guidelines."""
    store, policy = context.lake.store, context.policy
    assignments = _planned(context, requests)
    guideline = record_guideline(store, policy.ontology)
    plan = AssignmentPlan(store, context.round_id)
    return plan.add(plan.read(), assignments, guideline=guideline, now=context.now)


def _next_batch(context: LabelingContext, plan: Plan) -> Plan:
    """Add assignments where the vote margin is too small and where replicas are used up."""
    round_id, lake = context.round_id, context.lake
    if not lake.tables.exists(LabelTasks, round_id):
        return plan
    progress = round_progress(
        round_id,
        lake.tables.read(LabelTasks, round_id),
        context.labeling,
        lake,
        context.policy,
        now=context.now,
    )
    if not (progress.asks_again and (progress.count.used_up or progress.more)):
        return plan
    involved = defaultdict(set)
    for annotation in progress.count.annotations:
        submission = annotation.revision.submission
        involved[submission.image_id].add(submission.author)
    requests = _further_requests(round_id, plan, progress)
    assignments = _planned(context, requests, taken=plan.assignments, involved=involved)
    record = AssignmentPlan(lake.store, round_id)
    return record.add(plan, assignments, guideline=plan.guideline, now=context.now)


def _further_requests(
    round_id: str, plan: Plan, progress: RoundProgress
) -> list[AnnotationRequest]:
    """Return the tasks of a plan that need further annotations, in the order of the plan."""
    used_up = defaultdict(list)
    for task_id, number in progress.count.used_up:
        used_up[task_id].append(number)
    of_image: dict[str, list[Assignment]] = defaultdict(list)
    for assignment in plan.assignments:
        of_image[assignment.image_id].append(assignment)
    requests = []
    for image, assignments in of_image.items():
        task = task_name(round_id, image)
        instead_of = tuple(used_up[task])
        annotations = len(instead_of) + progress.more.get(task, 0)
        if annotations:
            request = AnnotationRequest(
                image,
                annotations,
                assignments[0].purpose,
                assignments[0].expertise,
                instead_of=instead_of,
                without_predictions=all(each.without_predictions for each in assignments),
            )
            requests.append(request)
    return requests


def _planned(
    context: LabelingContext,
    requests: list[AnnotationRequest],
    *,
    taken: list[Assignment] | None = None,
    involved: Mapping[str, set[str]] | None = None,
) -> list[Assignment]:
    """Return assignments for requests among the annotators of the back end."""
    labeling, policy = context.labeling, context.policy
    skills = Skills(context.lake.store)
    requests = _with_vendors(context.round_id, requests, labeling)
    return plan_assignments(
        requests,
        _annotators(labeling, skills),
        taken=taken or [],
        involved=involved,
        qualified=_qualified(skills, requests),
        share_without_predictions=_share_without_predictions(policy.labeling),
        seed=policy.seed,
    )


def _share_without_predictions(policy: LabelingPolicy) -> float:
    return policy.without_predictions_share if policy.preannotate else 1.0


def _with_vendors(
    round_id: str, requests: list[AnnotationRequest], labeling: LabelingBackend
) -> list[AnnotationRequest]:
    """Return the requests, marked ``outside`` where the back end's annotators are not known."""
    names = {task.image_id: task_name(round_id, task.image_id) for task in requests}
    people = labeling.people_for(round_id, list(names.values()))
    return [replace(task, outside=not people[names[task.image_id]]) for task in requests]


def _annotators(labeling: LabelingBackend, skills: Skills) -> list[str]:
    """Return the possible assignees: no reviewers, as long as there are other people."""
    annotators = labeling.annotators()
    others = sorted(set(annotators) - set(skills.people(REVIEWER)))
    return others or annotators


def _request(image_id: str, purpose: str, classes: set[str], policy: Policy) -> AnnotationRequest:
    labeling = policy.labeling
    annotations = labeling.first_annotations(classes)
    skills = sorted({labeling.expertise_by_class.get(name, "") for name in classes} - {""})
    # People qualify through gold tasks, and another skill granted by hand makes up for it.
    needed = QUALIFIED if labeling.qualify_annotations and purpose != Purpose.GOLD else ""
    expertise = skills[0] if skills else labeling.expertise or needed
    return AnnotationRequest(image_id, annotations, purpose, expertise)


def _qualified(skills: Skills, requests: list[AnnotationRequest]) -> dict[str, set[str]]:
    needed = {task.expertise for task in requests} - {""}
    return {skill: set(skills.people(skill)) for skill in needed}
