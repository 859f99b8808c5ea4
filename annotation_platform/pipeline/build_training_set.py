"""The training set: the labels of all finished rounds, each in a split that never changes."""

from dataclasses import dataclass

from annotation_platform.curation import training_set
from annotation_platform.labeling.round_decisions import cancelled_rounds
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.result import BarChart, Counts, Result, Thumbnails
from annotation_platform.schema.shapes import AREAS
from annotation_platform.schema.tables import Frame, LabelTasks, Splits, TrainingRounds, TrainingSet
from annotation_platform.schema.tables.shared import Split


@dataclass(frozen=True, kw_only=True)
class TrainingSetBuilt(Result):
    """The training set, its rounds, and the new splits; None if there are none."""

    training_set: Frame[TrainingSet]
    training_rounds: Frame[TrainingRounds]
    splits: Frame[Splits] | None


def build_training_set(context: RoundContext) -> TrainingSetBuilt:
    """Return the labels of all rounds finished by now, and record their lineage."""
    tables, policy = context.tables, context.policy
    settings = training_set.TrainingSetSettings(
        ontology=policy.ontology,
        splits=policy.splits,
        seed=policy.seed,
        cancelled=cancelled_rounds(context.lake.store, tables.rounds(LabelTasks)),
        use_auto=policy.auto_accept.enabled and policy.auto_accept.use_in_training,
    )
    built = training_set.build_training_set(tables, context.round_id, settings)
    images = built.labels.drop_duplicates(TrainingSet.image_id)
    return TrainingSetBuilt(
        training_set=built.labels,
        training_rounds=built.included(context.round_id),
        splits=None if built.splits.empty else built.splits,
        figures={
            "images": len(images),
            "boxes": int(built.labels[TrainingSet.shape].isin(AREAS).sum()),
            "test_images": int((images[TrainingSet.split] == Split.TEST).sum()),
            "splits": Counts(images[TrainingSet.split]),
            "classes": BarChart(built.labels[TrainingSet.class_name].dropna()),
            "origins": Counts(built.labels[TrainingSet.origin]),
            "rounds": built.rounds,
            "held_rounds": built.held,
            "held_images": dict(list(built.held_images.items())[:100]),
            "preview": Thumbnails(images, built.labels, policy.ontology),
        },
    )
