"""How well and how fast annotators work."""

from annotation_platform.schema.tables.shared import ANNOTATOR, DRIFTED, EFFECT, P_VALUE, ROUND_ID
from annotation_platform.schema.tables.table import Table, count, flag, number, text


class AnnotatorQuality(Table, name="annotator_quality"):
    """The quality of each annotator of a round, against the other annotators and on gold tasks."""

    round_id = ROUND_ID
    annotator = ANNOTATOR.as_key()
    annotations = count("counted annotations").formerly("answers")
    images = count("images among them")
    quality = number("share of decisions that the others' consensus confirms", 0, 1)
    low = number("lower end of its 95 % interval", 0, 1)
    high = number("upper end of its 95 % interval", 0, 1)
    gold_annotations = count("annotations of gold tasks").formerly("gold_answers")
    gold_quality = number("share of decisions that the ground truth confirms", 0, 1)
    gold_low = number("lower end of its 95 % interval", 0, 1)
    gold_high = number("upper end of its 95 % interval", 0, 1)
    agreement_with_others = number("agreement beyond chance, 1 is full", None, 1)
    seconds_per_annotation = number(
        "median time spent on an annotation", 0, unit="seconds"
    ).formerly("seconds_per_answer")
    unchanged_share = number("share of annotations that left their pre-annotations unchanged", 0, 1)
    flags = text("findings that a person should examine, comma separated")


class AnnotatorPace(Table, name="annotator_pace", version=2):
    """How the time that each annotator takes differs from that of the rounds before."""

    round_id = ROUND_ID
    annotator = ANNOTATOR.as_key()
    pre_annotated = flag(
        "whether the annotations began from pre-annotations; the others have their own rows",
        key=True,
    ).formerly("proposals")
    feature = text(
        "seconds per annotation, or per label", one_of=["annotation", "label"], key=True
    ).formerly(answer="annotation")
    effect = EFFECT
    p_value = P_VALUE
    drifted = DRIFTED
    detail = text("the two medians, as a phrase")
    annotations = count("timed annotations of the round").formerly("answers")
    earlier_annotations = count("timed annotations of earlier rounds").formerly("earlier_answers")
