"""Models by round."""

from annotation_platform.schema.tables.shared import MAYBE_SHA256, ROUND_ID
from annotation_platform.schema.tables.table import Table, count, number, text


class TrainedModels(Table, name="trained_model", version=2):
    """The model trained on a round's version."""

    round_id = ROUND_ID.as_key()
    dataset_tag = text("version it was trained on")
    weights_sha256 = text("digest of the detector; empty: no boxes", pattern=MAYBE_SHA256)
    started_from = text("digest of the weights it started from; empty: from scratch")
    train_images = count("images of the train split")
    epochs = number("passes over these images", 0)
    cpu_seconds = number("processor time of the training", 0, unit="seconds")
    final_loss = number("mean loss over the last tenth")
    steps = count("training steps")
    ended_by = text("limit of the policy that ended the training; empty: not recorded").or_else("")
    seed = count("random seed of the first weights, the order and the augmentation", low=None)
    policy_digest = text("SHA-256 of the training policy")
    profile = text("name and start of the digest of the prediction profile")
    calibration = text("digest of the calibration of its scores; empty: not calibrated")
    calibration_images = count("images of the val split, which it was not trained on")
    calibration_error_before = number("expected calibration error of its raw scores", 0, 1)
    calibration_error = number("the same after calibration, on held-out images", 0, 1)
    classifier_sha256 = text("digest of the classifier's weights", pattern=MAYBE_SHA256)
    classifier_images = count("images with a classification in the train split")
    classifier_steps = count("training steps of the classifier")
    classifier_calibration = text("digest of the calibration of its scores; empty: not calibrated")
    classifier_error_before = number("expected calibration error of its raw scores", 0, 1).formerly(
        "choice_error_before"
    )
    classifier_error = number("the same after calibration, on held-out images", 0, 1).formerly(
        "choice_error"
    )
