"""Models by round."""

from annotation_platform.schema.tables.shared import MAYBE_SHA256, ROUND_ID
from annotation_platform.schema.tables.table import Table, count, number, text


class TrainedModels(Table, name="trained_model", version=2):
    """The model a round's version gave."""

    round_id = ROUND_ID.as_key()
    dataset_tag = text("version it learned from")
    weights_sha256 = text("digest of the detector; empty: no boxes", pattern=MAYBE_SHA256)
    started_from = text("digest of the weights it started from; empty: from scratch")
    train_images = count("images it learned from")
    epochs = number("passes over them", 0)
    cpu_seconds = number("processor time spent", 0, unit="seconds")
    final_loss = number("mean loss over the last tenth")
    steps = count("batches learned from")
    seed = count("of first weights, order and variations", low=None)
    policy_digest = text("SHA-256 of the training policy")
    profile = text("how thoroughly it will propose: name and start of the digest")
    calibration = text("digest of what its scores mean; empty: taken as they are")
    calibration_images = count("images of the val split, which it did not learn from")
    calibration_error_before = number("expected error of its own scores", 0, 1)
    calibration_error = number("the same of calibrated ones, on images held out", 0, 1)
    classifier_sha256 = text("digest of the weights that know choices", pattern=MAYBE_SHA256)
    classifier_images = count("images with a choice that those learned from")
    classifier_steps = count("batches they learned from")
    classifier_calibration = text("digest of what its scores mean; empty: taken as they are")
    classifier_error_before = number("expected error of its own scores", 0, 1).formerly(
        "choice_error_before"
    )
    classifier_error = number("the same of calibrated ones, on images held out", 0, 1).formerly(
        "choice_error"
    )
