"""What people are asked and say, and what follows from several answers."""

from annotation_platform.schema.columns import Table, count, flag, number, optional_text, text, time
from annotation_platform.schema.shared_columns import (
    ANSWER_STATES,
    DECISIONS,
    GEOMETRY,
    IMAGE_ID,
    ISSUE_KINDS,
    LABEL,
    PLACE,
    PURPOSES,
    ROUND_ID,
    SELECTION_RULES,
    SHA256,
    TASK_STATES,
)

SELECTED_IMAGES = Table(
    "selected_images",
    "The images of this round that people are asked about, in order.",
    {
        **ROUND_ID,
        **IMAGE_ID,
        "rank": count("position in the order of asking, from 0"),
        "rule": text("what chose it", one_of=SELECTION_RULES),
        "reason": text("why it was chosen, in words"),
        "score": number("what the rule went by; missing where it went by no number"),
        "audit": flag("whether it was drawn by lot from the whole pool, before anything else"),
        "outlier_score": number("deviations by which it is farther from the others than usual"),
    },
    ["image_id"],
)

AUDIT_FRAME = Table(
    "audit_frame",
    "The images that a round chose from, and so drew its audit of; none where auto-accept is off.",
    {
        **ROUND_ID,
        **IMAGE_ID,
        "by_rule": flag("whether it would be asked about if nobody were audited: never accepted"),
        "predictions_sha256": text(
            "digest of the model_predictions it was chosen by", pattern=SHA256
        ),
    },
    ["image_id"],
)

LABEL_TASKS = Table(
    "label_tasks",
    "One row per place: each of the k blind copies of each task.",
    {
        **ROUND_ID,
        "task_id": text("round, step and image"),
        "step": text("the question asked, e.g. boxes"),
        **IMAGE_ID,
        "place": count("number of the copy", low=1),
        "stands_for": count(
            "the place it fills; another one where it replaces a copy that is used up", low=1
        ),
        "assignee": text("whom the place is meant for; empty: anybody"),
        "purpose": text("label, or gold: the answer is known", one_of=PURPOSES),
        "blind": flag("whether it shows no proposals, to see what they do to people"),
        "expertise": text("skill that whoever answers must have; empty: none"),
        "guideline": text("digest of classes and guidelines it was asked under", pattern=SHA256),
        "backend": text("where people answer it"),
        "backend_task": text("the task's id over there"),
    },
    ["task_id", "place"],
)

HUMAN_LABELS = Table(
    "human_labels",
    "What people said: one row per label of each counted answer, from the answers ledger.",
    {
        **ROUND_ID,
        "task_id": text("round, step and image"),
        **IMAGE_ID,
        "place": count("the copy that was answered", low=1),
        "answer_id": text("back end and annotation id"),
        "revision": text("digest of this state of the answer", pattern=SHA256),
        "annotator": text("pseudonym"),
        "label_id": text("answer and running number"),
        **LABEL,
        "lead_time_seconds": number("seconds spent on the answer", 0),
        "submitted_at": time("when the answer took this form"),
        "weights_sha256": text("model behind the pre-annotation it began from; empty: none"),
        "changed": flag("whether it differs from that pre-annotation, by value"),
        "purpose": text("label, or gold: the answer is known", one_of=PURPOSES),
        "blind": flag("whether the annotator saw no proposals"),
        "guideline": text("digest of classes and guidelines it was made under", pattern=SHA256),
        "refused_regions": count("regions of the answer that are no usable label"),
        "problems": text("what is wrong with regions of the answer, a JSON list; or empty"),
    },
    ["label_id"],
)

ANSWERS = Table(
    "answers",
    "Every answer ever seen in a round, counted or not: what people are paid by.",
    {
        **ROUND_ID,
        "answer_id": text("back end and annotation id"),
        "task_id": text("round, step and image"),
        **IMAGE_ID,
        "place": count("the copy that was answered", low=None),
        "purpose": text("label or gold; empty if no such task was asked", one_of=[*PURPOSES, ""]),
        "annotator": text("pseudonym"),
        "state": text("counted, or why not", one_of=ANSWER_STATES),
        "detail": text("why it is not counted, as a sentence; empty if it is"),
        "revisions": count("states of it that were seen"),
        "lead_time_seconds": number("seconds spent on it", 0),
        "created_at": time("when it was first given"),
        "submitted_at": time("when it took its present form"),
    },
    ["answer_id"],
)

ROUND_TASKS = Table(
    "round_tasks",
    "How far each task of a round is.",
    {
        **ROUND_ID,
        "task_id": text("round, step and image"),
        **IMAGE_ID,
        "purpose": text("label, or gold: the answer is known", one_of=PURPOSES),
        "places": count("answers asked for"),
        "counted": count("answers that hold a place"),
        "state": text(
            "answered, waiting, left (the round was closed without it) or cancelled",
            one_of=TASK_STATES,
        ),
    },
    ["task_id"],
)

ANNOTATOR_QUALITY = Table(
    "annotator_quality",
    "How well each annotator of a round does, beside the others and on known answers.",
    {
        **ROUND_ID,
        "annotator": text("pseudonym"),
        "answers": count("counted answers"),
        "images": count("images among them"),
        "quality": number("share of decisions that the others' consensus confirms", 0, 1),
        "low": number("lower end of its 95 % interval", 0, 1),
        "high": number("upper end of its 95 % interval", 0, 1),
        "gold_answers": count("answers on tasks whose answer is known"),
        "gold_quality": number("share of decisions that the known answers confirm", 0, 1),
        "gold_low": number("lower end of its 95 % interval", 0, 1),
        "gold_high": number("upper end of its 95 % interval", 0, 1),
        "agreement_with_others": number("agreement beyond chance, 1 is full", None, 1),
        "seconds_per_answer": number("median time spent on an answer", 0),
        "unchanged_share": number("share of answers that left their proposals as they were", 0, 1),
        "flags": text("what somebody should look at, comma separated"),
    },
    ["annotator"],
)

ANNOTATOR_PACE = Table(
    "annotator_pace",
    "How the time that each annotator takes differs from that of the rounds before.",
    {
        **ROUND_ID,
        "annotator": text("pseudonym"),
        "proposals": flag("whether the answers began from proposals; the others are rows apart"),
        "feature": text("seconds per answer, or per label", one_of=["answer", "label"]),
        "effect": number("how far apart the two are, 0 to 1", 0, 1),
        "p_value": number("how likely chance alone makes that much", 0, 1),
        "drifted": flag("whether it is no chance, and large enough to matter"),
        "detail": text("the two medians, as a phrase"),
        "answers": count("timed answers of the round"),
        "earlier_answers": count("timed answers that they were compared with"),
    },
    ["annotator", "proposals", "feature"],
)

CONSENSUS_LABELS = Table(
    "consensus_labels",
    "One resolved set of labels per image.",
    {
        **ROUND_ID,
        "task_id": text("round, step and image"),
        **IMAGE_ID,
        "label_id": text("image and running number"),
        **LABEL,
        "support": count("annotators who say so: saw the object, or saw nothing"),
        "answers": count("counted answers on the image"),
        "class_agreement": number("share of supporters who chose the class", 0, 1),
        "mean_iou": number("mean IoU of the supporters' boxes with the fused one", 0, 1),
        "disputed": flag("settled by rule against somebody's vote"),
    },
    ["label_id"],
)

CONFLICTS = Table(
    "conflicts",
    "Where the answers of a round contradict each other or the policy, and what kind it is.",
    {
        **ROUND_ID,
        "task_id": text("round, step and image"),
        **IMAGE_ID,
        "conflict_id": text("image, kind and running number"),
        "kind": text("class, overlap, missing, duplicate, outside_ontology, unsure, tied, …"),
        "label_id": optional_text("resolved label that it is about"),
        "shape": optional_text("of the place it is about"),
        **PLACE,
        **GEOMETRY,
        "annotators": text("pseudonyms of those involved, comma separated"),
        "detail": text("a sentence with the numbers"),
        "settled": flag("whether a rule settled it; if not, a person has to"),
    },
    ["conflict_id"],
)

LABEL_ISSUES = Table(
    "label_issues",
    "Labels that are probably wrong and objects that probably lack one, most suspected first.",
    {
        **ROUND_ID,
        **IMAGE_ID,
        "issue_id": text("image, kind and running number"),
        "kind": text("wrong, swapped, placed or missed", one_of=ISSUE_KINDS),
        "label_id": optional_text("the suspected label; missing where one is missing"),
        "score": number("probability that it is an error", 0, 1),
        **PLACE,
        "suggestion": text("what it should be, as a sentence"),
    },
    ["issue_id"],
)

REVIEW_TASKS = Table(
    "review_tasks",
    "The images of a round that a reviewer decides about, and why.",
    {
        **ROUND_ID,
        "review_id": text("the task of the reviewer"),
        "task_id": text("the task whose answers are in dispute"),
        **IMAGE_ID,
        "kinds": text("kinds of unsettled conflicts, comma separated; or sample"),
        "reasons": text("what the reviewer is told"),
        "reviewer": text("whom it is meant for; empty: anybody who did not answer it"),
        "backend": text("where it is decided; empty: nobody is asked"),
        "backend_task": text("the task's id over there"),
    },
    ["review_id"],
)

REVIEWED_LABELS = Table(
    "reviewed_labels",
    "The labels of a round as they may be published: undisputed, or decided by a reviewer.",
    {
        **ROUND_ID,
        "task_id": text("round, step and image"),
        **IMAGE_ID,
        "label_id": text("image and running number"),
        **LABEL,
        "support": count("annotators who say so: saw the object, or saw nothing"),
        "answers": count("counted answers on the image"),
        "decision": text("undisputed, or what became of the dispute", one_of=DECISIONS),
        "decided_by": text("pseudonym of the reviewer; empty: a rule, or nobody yet"),
        "comment": text("what the reviewer wrote; or what keeps the image out"),
        "decided_at": time("when"),
    },
    ["label_id"],
)
