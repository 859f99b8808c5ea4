"""Certificates on labels without annotators, and what was found since."""

from annotation_platform.schema.tables.shared import ROUND, ROUND_ID
from annotation_platform.schema.tables.table import Table, count, flag, number, text


class Certificates(Table, name="certificates", version=2):
    """What may become labels without a person in a round, of all classes and of each one."""

    round_id = ROUND_ID.as_key()
    class_name = text("a class; empty: all together", key=True)
    granted = flag("whether labels of it are accepted")
    reason = text("why not, as a sentence; empty if granted")
    alpha = number("share of wrong and missed labels that is allowed", 0, 1)
    delta = number("chance of certifying more than that", 0, 1)
    bound = number("upper bound of the share that the audit showed", 0, 1)
    threshold = number("least confidence of an accepted image")
    most_labels = number("images with more are not accepted", 0)
    sampled_images = count("images of the calibration sample").formerly(
        "audited_images", "audited_pictures"
    )
    accepted_images = count("sampled images that would be accepted").formerly("accepted_pictures")
    accepted_labels = count("labels of those")
    errors = count("wrong and missed among them")
    share = number("of the proposed labels, expected to be accepted", 0, 1)
    seconds_saved = number("of people's time; of images seen again none is", 0, unit="seconds")
    weights_sha256 = text("the model it holds for; empty: it proposed nothing")
    profile = text("how the model was run")
    calibration = text("digest of what turns its scores into probabilities; empty: none")


class CertificateRechecks(
    Table, name="certificate_rechecks", version=2, renamed_from=("reaudits",)
):
    """What people found since in images accepted without a person, by certificate."""

    round_id = ROUND_ID.as_key()
    certified_round = text("the round of the certificate", pattern=ROUND, key=True)
    images = count("accepted images drawn by lot since and labelled blind").formerly("pictures")
    labels = count("accepted labels of those")
    errors = count("wrong and missed among them")
    alpha = number("share that the certificate allows", 0, 1)
    contradicted = flag("whether they show more than that: its labels are withdrawn")
