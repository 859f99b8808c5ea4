"""Whether later annotations contradict the certificates of labels accepted without a person."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from annotation_platform.curation.certificates import BETS, log_wealth
from annotation_platform.curation.units import Audit, audited_units
from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.tables import AutoLabels, CertificateRechecks, Frame

_FIRST_CONTRADICTION = np.tile(-BETS / 1e6, (1, 1))


@dataclass(frozen=True)
class Recheck:
    """Later annotations, without predictions, of images accepted under one certificate.

    Attributes:
        round_id: the round of the certificate.
        accepted: the labels accepted in that round.
        audit: the images in the order in which they were drawn at random, with their labels.
        alpha: the error that the certificate allows.
        most_labels: the most labels of an image accepted under the certificate.
        level: ``delta`` of the certificate.
    """

    round_id: str
    accepted: Frame[AutoLabels]
    audit: Audit
    alpha: float
    most_labels: float
    level: float


def contradicted(
    labels: FloatArray, errors: FloatArray, *, alpha: float, most_labels: float, level: float
) -> bool:
    """Return whether accepted images that were annotated later show an error above ``alpha``.

    A gambler bets that the error is above ``alpha``. If it is not, the wealth ever reaches
    ``1 / level`` with probability ``level`` at most, so the test may be repeated after every image.
    A contradicted certificate no longer holds.

    Args:
        labels: ``(N,)`` labels of each image, in the order in which the images were drawn.
        errors: ``(N,)`` errors in each image.
        alpha: of the certificate.
        most_labels: of the certificate: no image has more labels or counts more errors.
        level: in ``(0, 1)``.
    """
    gains = np.minimum(errors, most_labels) - alpha * labels
    wealth = log_wealth(gains[:, None], _FIRST_CONTRADICTION, worst=alpha * most_labels)
    return bool(wealth.max(initial=0.0) >= -np.log(level))


def judge_certificates(rechecks: Sequence[Recheck], *, round_id: str) -> Frame[CertificateRechecks]:
    """Return the ``certificate_rechecks``: later errors by certificate, and whether it holds."""
    rows: list[dict[str, object]] = []
    for each in rechecks:
        classes = sorted(each.accepted[AutoLabels.class_name].unique())
        units = audited_units(each.accepted, each.audit, classes, minimum_probability=0.0)
        labels, errors = units.labels.sum(axis=1), units.errors.sum(axis=1)
        rows.append(
            {
                "round_id": round_id,
                "certified_round": each.round_id,
                "images": len(labels),
                "labels": round(float(labels.sum())),
                "errors": round(float(errors.sum())),
                "alpha": each.alpha,
                "contradicted": contradicted(
                    labels,
                    errors,
                    alpha=each.alpha,
                    most_labels=each.most_labels,
                    level=each.level,
                ),
            }
        )
    return CertificateRechecks.from_rows(rows)
