"""The models that are trained on a version and predict in the next round, and the report."""

from annotation_platform.pipeline.evaluate import evaluate
from annotation_platform.pipeline.report import report
from annotation_platform.pipeline.train import train
from assets.making import step

trained_model = step(
    train,
    about="The detector and classifier trained on the train split of the round's version.",
    group="training",
    kinds={"pytorch"},
    code_version="3",
    pool="gpu",
)

model_evaluation = step(
    evaluate,
    about="The quality of the models on the test split, and whether they are promoted.",
    group="training",
    kinds={"pytorch"},
    code_version="3",
    reads=["cleaned_images", "model_predictions", "consensus_labels", "human_labels"],
    pool="gpu",
)

# A version that was replaced before training has a report, but no model and no evaluation.
round_report = step(
    report,
    about="The figures of the round from arrivals to model, in one row.",
    group="reporting",
    kinds={"pandas"},
    code_version="1",
    reads=[
        "cleaned_images",
        "label_tasks",
        "calibration_frame",
        "human_labels",
        "consensus_labels",
        "reviewed_labels",
        "auto_labels",
        "certificates",
        "error_bars",
        "dataset_version",
        "model_evaluation",
    ],
)
