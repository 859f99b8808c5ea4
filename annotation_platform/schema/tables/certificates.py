"""Certificates of automatic labels, and their later rechecks."""

from annotation_platform.schema.tables.shared import ROUND, ROUND_ID
from annotation_platform.schema.tables.table import Table, count, flag, number, text


class Certificates(Table, name="certificates", version=2):
    """Which predictions of a round become labels without annotators, overall and by class."""

    round_id = ROUND_ID.as_key()
    class_name = text("class; empty: all classes together", key=True)
    granted = flag("whether its predictions become labels")
    reason = text("why not, as a sentence; empty if granted")
    alpha = number("share of wrong and missed labels that is allowed", 0, 1)
    delta = number("chance of certifying more than that", 0, 1)
    bound = number("upper bound of that share, from the calibration sample", 0, 1)
    threshold = number("least confidence of an accepted image")
    most_labels = number("images with more are not accepted", 0)
    sampled_images = count("images of the calibration sample").formerly(
        "audited_images", "audited_pictures"
    )
    accepted_images = count("sampled images that would be accepted").formerly("accepted_pictures")
    accepted_labels = count("labels of these images")
    errors = count("wrong and missed labels among them")
    share = number("share of the predicted labels that is expected to be accepted", 0, 1)
    seconds_saved = number("annotation time saved; rechecked images save none", 0, unit="seconds")
    weights_sha256 = text("digest of the model it is valid for; empty: it predicted nothing")
    profile = text("name and start of the digest of the prediction profile")
    calibration = text("digest of what turns its scores into probabilities; empty: none")


class CertificateRechecks(
    Table, name="certificate_rechecks", version=2, renamed_from=("reaudits",)
):
    """Label errors that annotators found later in automatically accepted images."""

    round_id = ROUND_ID.as_key()
    certified_round = text("the round of the certificate", pattern=ROUND, key=True)
    images = count(
        "accepted images that a later random sample had annotated without predictions"
    ).formerly("pictures")
    labels = count("accepted labels of these images")
    errors = count("wrong and missed labels among them")
    alpha = number("share that the certificate allows", 0, 1)
    contradicted = flag("whether they prove a larger share: its labels are withdrawn")
