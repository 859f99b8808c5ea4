"""The registry of weights: each by its SHA-256, with a card; one of them is promoted.

<folder>/<sha256>.pt      the weights        <folder>/<sha256>.json   their card
<folder>/promoted.json    the promoted weights, and every promotion with its reason
<folder>/calibrations/<digest>.json   a calibration
<folder>/calibrations/<digest of weights and profile>.txt   the digest of their calibration
<folder>/classifiers/     the same for classifiers
"""

import fcntl
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from annotation_platform.errors import ModelError
from annotation_platform.models.cards import ModelCard
from annotation_platform.models.classification.calibration import Temperature
from annotation_platform.models.detection.calibration import Calibration, StoredCalibration
from annotation_platform.storage.objects import LocalObjectStore

if TYPE_CHECKING:
    from annotation_platform.models.detection.detector import NetworkDetector

__all__ = ["ModelCard", "ModelRegistry", "PromotionRecord"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PROMOTED = "promoted.json"
_CALIBRATIONS = "calibrations"
_CLASSIFIERS = "classifiers"


Known = TypeVar("Known", Calibration, Temperature)
CalibrationT = TypeVar("CalibrationT", bound=StoredCalibration)
CalibrationT_co = TypeVar("CalibrationT_co", bound=StoredCalibration, covariant=True)


@dataclass(frozen=True)
class ProfileCalibration(Generic[CalibrationT_co]):
    """The calibration of a model under a profile."""

    profile: str
    calibration: CalibrationT_co

    @property
    def digest(self) -> str:
        """Digest of the calibration; empty where it leaves scores unchanged."""
        return self.calibration.effective_digest


class PromotionRecord(BaseModel):
    """One promotion: the weights, the reason and the time (UTC).

    ``best_sha256`` is the best model promoted up to then; empty where it was not given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights_sha256: str
    reason: str
    promoted_at: datetime
    best_sha256: str = ""


class _Promotions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    promoted: str
    history: tuple[PromotionRecord, ...]


class ModelRegistry:
    """Weights in a folder. Weights and cards are written atomically and never changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._store = LocalObjectStore(folder)

    @property
    def classifiers(self) -> "ModelRegistry":
        """The registry of classifiers, which has its own promotions."""
        return ModelRegistry(self.folder / _CLASSIFIERS)

    def add(self, weights: bytes, card: ModelCard) -> str:
        """Store ``weights`` with their card and return their SHA-256.

        Adding the same weights again restores a damaged file and keeps the first card.
        """
        sha256 = hashlib.sha256(weights).hexdigest()
        self._store.create(f"{sha256}.json", card.to_json().encode())
        self._store.put(f"{sha256}.pt", weights)
        return sha256

    def has(self, sha256: str) -> bool:
        """Return whether the registry has these weights."""
        return bool(_SHA256.fullmatch(sha256)) and (self.folder / f"{sha256}.pt").is_file()

    def card(self, sha256: str) -> ModelCard:
        """Return the card of these weights; unknown weights are a ModelError."""
        path = self._path(sha256, ".json")
        return ModelCard.from_json(path.read_bytes(), where=str(path))

    def cards(self) -> dict[str, ModelCard]:
        """Return the cards of all weights that were ever added, by SHA-256."""
        files = sorted(self.folder.glob("*.json"))
        return {file.stem: self.card(file.stem) for file in files if _SHA256.fullmatch(file.stem)}

    def weights_path(self, sha256: str) -> Path:
        """Return the path of these weights, unread; unknown weights are a ModelError."""
        return self._path(sha256, ".pt")

    def read(self, sha256: str) -> bytes:
        """Return the file of these weights; a changed file is a ModelError."""
        path = self.weights_path(sha256)
        data = path.read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise ModelError(
                f"{path}: the file was changed or damaged: its SHA-256 is {found[:12]}…. "
                "Restore it from a copy, or delete it and train again."
            )
        return data

    def load(self, sha256: str) -> "NetworkDetector":
        """Return the detector of these weights; a changed file is a ModelError."""
        from annotation_platform.models.detection.detector import NetworkDetector

        return NetworkDetector.from_bytes(self.read(sha256), where=str(self.weights_path(sha256)))

    def calibrate(
        self, weights: Sequence[str], profile: str, calibration: StoredCalibration
    ) -> str:
        """Store the calibration of these weights under a profile and return its digest.

        It replaces their earlier one, whose file stays under its digest.
        """
        digest = calibration.digest
        self._store.put(f"{_CALIBRATIONS}/{digest}.json", calibration.to_json().encode())
        self._store.put(_calibrated(weights, profile), digest.encode())
        return digest

    def calibrate_better(
        self, weights: Sequence[str], profile: str, found: CalibrationT
    ) -> ProfileCalibration[CalibrationT]:
        """Store a calibration as ``calibrate`` does, unless it changes nothing; return it.

        Too few images give no calibration: they do not replace one that was fitted to more.
        """
        if found.changes_scores or not (self.folder / _calibrated(weights, profile)).is_file():
            self.calibrate(weights, profile, found)
        return ProfileCalibration(profile, found)

    def calibration(self, weights: Sequence[str], profile: str) -> Calibration | None:
        """Return the calibration of a detector's weights under a profile; None: there is none."""
        return self._stored(weights, profile, Calibration.from_json)

    def temperature(self, weights: Sequence[str], profile: str) -> Temperature | None:
        """Return the calibration of a classifier's weights under a profile; None: there is none."""
        return self._stored(weights, profile, Temperature.from_json)

    def promoted_last(self, most: int) -> list[str]:
        """Return up to ``most`` different weights, the latest promotion first."""
        newest = (record.weights_sha256 for record in reversed(self.history()))
        return list(dict.fromkeys(newest))[:most]

    def promoted(self) -> str | None:
        """Return the SHA-256 of the promoted weights; None before the first promotion."""
        promotions = self._promotions()
        return promotions.promoted if promotions else None

    def history(self) -> tuple[PromotionRecord, ...]:
        """Return every promotion, oldest first."""
        promotions = self._promotions()
        return promotions.history if promotions else ()

    def promote(
        self,
        sha256: str,
        reason: str,
        *,
        best_sha256: str = "",
        now: datetime | None = None,
    ) -> None:
        """Promote these weights: predictions use them from now on.

        The history is append-only; promoting the promoted weights again adds nothing.
        """
        self._path(sha256, ".pt")
        record = PromotionRecord(
            weights_sha256=sha256,
            reason=reason,
            promoted_at=now or datetime.now(UTC),
            best_sha256=best_sha256,
        )
        with self._locked():
            before = self._promotions()
            if before is not None and before.promoted == sha256:
                return
            history = (*(before.history if before else ()), record)
            content = _Promotions(promoted=sha256, history=history).model_dump(mode="json")
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            self._store.put(_PROMOTED, text.encode())

    def _path(self, sha256: str, suffix: str) -> Path:
        path = self.folder / f"{sha256}{suffix}"
        # The form is checked first, so that no path leaves the folder.
        if not _SHA256.fullmatch(sha256) or not path.is_file():
            raise ModelError(
                f"{self.folder}: no weights {sha256[:12]!r}. Train a model, or add the file."
            )
        return path

    def _stored(
        self, weights: Sequence[str], profile: str, read: Callable[..., Known]
    ) -> Known | None:
        path = self.folder / _calibrated(weights, profile)
        if not path.is_file():
            return None
        file = path.parent / f"{path.read_text().strip()}.json"
        if not file.is_file():
            raise ModelError(f"{file}: the calibration is missing. Restore it, or delete {path}.")
        found = read(file.read_bytes(), where=str(file))
        if found.digest != file.stem:
            raise ModelError(f"{file}: changed or damaged. Restore it, or delete {path}.")
        return found

    def _promotions(self) -> _Promotions | None:
        path = self.folder / _PROMOTED
        if not path.is_file():
            return None
        try:
            return _Promotions.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ModelError(
                f"{path}: damaged: {error.errors()[0]['msg']}. "
                "Restore it, or delete it and promote a model again."
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # Without the lock, two simultaneous promotions would lose one record of the history.
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _calibrated(weights: Sequence[str], profile: str) -> str:
    """Return the name of the file with the digest of the calibration of weights and profile."""
    key = hashlib.sha256(json.dumps([*weights, profile]).encode()).hexdigest()
    return f"{_CALIBRATIONS}/{key[:32]}.txt"
