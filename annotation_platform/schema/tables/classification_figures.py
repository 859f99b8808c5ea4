"""Figures of classifiers by class."""

from annotation_platform.schema.tables.shared import ROUND_ID, SHA256
from annotation_platform.schema.tables.table import Table, count, number, text


class ClassificationFigures(
    Table, name="classification_figures", version=2, renamed_from=("choice_figures",)
):
    """Quality of a round's classifier on test images with a classification, by class."""

    round_id = ROUND_ID
    class_name = text("class; empty: all classes", key=True)
    weights_sha256 = text("the classifier", pattern=SHA256)
    images = count("test images with a classification")
    labelled = count("images labelled with the class; of all: their labels").formerly("chosen")
    predicted = count("images for which the class is predicted").formerly("proposed")
    correct = count("images labelled and predicted").formerly("right")
    accuracy = number("correct by labelled; of all: images with only correct classes", 0, 1)
    accuracy_low = number("lower end of its 95 % interval", 0, 1)
    accuracy_high = number("upper end of its 95 % interval", 0, 1)
    f1 = number("2 correct / (predicted + labelled), 0 to 1", 0, 1)
    f1_low = number("lower end of its 95 % interval", 0, 1)
    f1_high = number("upper end of its 95 % interval", 0, 1)
