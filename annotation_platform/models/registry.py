"""The registry of weights: each by its SHA-256, with a card, and one of them promoted.

<folder>/<sha256>.pt      the weights        <folder>/<sha256>.json   their card
<folder>/promoted.json    which one makes the proposals, and every one that ever did, with reasons
<folder>/calibrations/<digest>.json   what scores mean   <weights and profile>.txt   which holds now
<folder>/classifiers/     the same for the weights that say what images as a whole are
"""

import fcntl
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from annotation_platform.errors import ModelError
from annotation_platform.models.cards import ModelCard
from annotation_platform.models.classification.calibration import Temperature
from annotation_platform.models.detection.calibration import Calibration
from annotation_platform.storage.objects import LocalObjectStore

if TYPE_CHECKING:
    from annotation_platform.models.detection.detector import NetworkDetector

__all__ = ["ModelCard", "ModelRegistry", "PromotionRecord"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PROMOTED = "promoted.json"
_CALIBRATIONS = "calibrations"
_CLASSIFIERS = "classifiers"


Known = TypeVar("Known", Calibration, Temperature)


class PromotionRecord(BaseModel):
    """One promotion: which weights, why, and when (UTC).

    ``best_sha256`` is the best model ever promoted, as known since then; empty where nobody said.
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
    """Weights in a folder. Every file is written whole or not at all, and never changed after."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._store = LocalObjectStore(folder)

    @property
    def classifiers(self) -> "ModelRegistry":
        """The registry of classifiers, of which another one is promoted than of detectors."""
        return ModelRegistry(self.folder / _CLASSIFIERS)

    def add(self, weights: bytes, card: ModelCard) -> str:
        """Keep ``weights`` with their card and return their SHA-256.

        Adding the same weights again mends a damaged file and keeps the first card.
        """
        sha256 = hashlib.sha256(weights).hexdigest()
        self._store.create(f"{sha256}.json", card.to_json().encode())
        self._store.put(f"{sha256}.pt", weights)
        return sha256

    def has(self, sha256: str) -> bool:
        """Return whether these weights are here."""
        return bool(_SHA256.fullmatch(sha256)) and (self.folder / f"{sha256}.pt").is_file()

    def card(self, sha256: str) -> ModelCard:
        """Return the card of these weights; weights that are not here are a ModelError."""
        path = self._path(sha256, ".json")
        return ModelCard.from_json(path.read_bytes(), where=str(path))

    def cards(self) -> dict[str, ModelCard]:
        """Return the card of all weights that were ever added, by their SHA-256."""
        files = sorted(self.folder.glob("*.json"))
        return {file.stem: self.card(file.stem) for file in files if _SHA256.fullmatch(file.stem)}

    def weights_path(self, sha256: str) -> Path:
        """Return the file of these weights, unread; weights that are not here are a ModelError."""
        return self._path(sha256, ".pt")

    def load(self, sha256: str) -> "NetworkDetector":
        """Return the detector of these weights; a file that is not what it was is a ModelError."""
        from annotation_platform.models.detection.detector import NetworkDetector

        path = self.weights_path(sha256)
        data = path.read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise ModelError(
                f"{path}: the file was changed or damaged: its SHA-256 is {found[:12]}…. "
                "Restore it from a copy, or delete it and train again."
            )
        # What was hashed is what is loaded: the file is not read a second time.
        return NetworkDetector.from_bytes(data, where=str(path))

    def calibrate(
        self, weights: Sequence[str], profile: str, calibration: Calibration | Temperature
    ) -> str:
        """Keep what the scores of these weights mean under a profile and return its digest.

        It replaces what was known of them; that stays readable by its digest.
        """
        digest = calibration.digest
        self._store.put(f"{_CALIBRATIONS}/{digest}.json", calibration.to_json().encode())
        self._store.put(_calibrated(weights, profile), digest.encode())
        return digest

    def calibration(self, weights: Sequence[str], profile: str) -> Calibration | None:
        """Return what the scores of these weights mean under a profile; None: not known."""
        return self._meaning(weights, profile, Calibration.from_json)

    def temperature(self, weights: Sequence[str], profile: str) -> Temperature | None:
        """Return the same of a classifier's probabilities."""
        return self._meaning(weights, profile, Temperature.from_json)

    def promoted_last(self, most: int) -> list[str]:
        """Return up to ``most`` different weights, those promoted last first."""
        newest = (record.weights_sha256 for record in reversed(self.history()))
        return list(dict.fromkeys(newest))[:most]

    def promoted(self) -> str | None:
        """Return the SHA-256 of the weights that make the proposals; None before the first."""
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
        """Let these weights make the proposals from now on.

        The history only grows; promoting what is promoted already adds nothing to it.
        """
        self._path(sha256, ".pt")
        record = PromotionRecord(
            weights_sha256=sha256,
            reason=reason,
            promoted_at=now or datetime.now(UTC),
            best_sha256=best_sha256,
        )
        with self._alone():
            before = self._promotions()
            if before is not None and before.promoted == sha256:
                return
            history = (*(before.history if before else ()), record)
            content = _Promotions(promoted=sha256, history=history).model_dump(mode="json")
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            self._store.put(_PROMOTED, text.encode())

    def _path(self, sha256: str, suffix: str) -> Path:
        path = self.folder / f"{sha256}{suffix}"
        # The form is checked first, so that no digest leads out of the folder.
        if not _SHA256.fullmatch(sha256) or not path.is_file():
            raise ModelError(
                f"{self.folder}: no weights {sha256[:12]!r}. Train a model, or add the file."
            )
        return path

    def _meaning(
        self, weights: Sequence[str], profile: str, read: Callable[..., Known]
    ) -> Known | None:
        path = self.folder / _calibrated(weights, profile)
        if not path.is_file():
            return None
        file = path.parent / f"{path.read_text().strip()}.json"
        if not file.is_file():
            raise ModelError(f"{file}: the calibration is gone. Restore it, or delete {path}.")
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
    def _alone(self) -> Iterator[None]:
        # Two runs that promote at once would lose one line of the history.
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _calibrated(weights: Sequence[str], profile: str) -> str:
    """Return the name of the file that says which calibration holds for weights and a profile."""
    key = hashlib.sha256(json.dumps([*weights, profile]).encode()).hexdigest()
    return f"{_CALIBRATIONS}/{key[:32]}.txt"
