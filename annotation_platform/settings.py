"""The deployment: places and secrets, from ``ANNOTATION_*`` in the environment.

Policy is not here but in ``params.yaml``. Everything has a default under ``ANNOTATION_HOME``.
"""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from annotation_platform.errors import SettingsError

PROJECT_ROOT = Path(__file__).resolve().parent.parent
"""The source tree this code runs from: it goes into every version."""


class Settings(BaseSettings):
    """Where things live. Read once, at a composition root."""

    model_config = SettingsConfigDict(env_prefix="ANNOTATION_", frozen=True, extra="ignore")

    home: Path = Field(default=Path(".annotation"), description="everything below, by default")
    params: Path | None = Field(default=None, description="the policy file")
    landing: str = Field(default="", description="where images are dropped: a folder or s3://")
    landing_queue: str = Field(default="", description="SQS queue of the landing bucket's events")
    lake: str = Field(default="", description="images, tables, ledger: a folder or s3://")
    receipts: str = Field(default="", description="dynamodb://table for what has landed")
    runner: str = Field(default="", description="Ray cluster for the work on pictures: ray://…")
    download_hosts: str = Field(default="", description="hosts that lists may name, by commas")
    registry: str = Field(default="", description="git repository that holds the versions")
    remote: str = Field(default="", description="DVC remote for the versions' files")
    labeling: Literal["label-studio", "simulated"] = "label-studio"
    label_studio_url: str = "http://127.0.0.1:8080"
    label_studio_token: SecretStr = SecretStr("")

    @property
    def home_path(self) -> Path:
        """The home as an absolute path."""
        return self.home.expanduser().absolute()

    @property
    def params_path(self) -> Path:
        """The policy: ``ANNOTATION_PARAMS``, or the home's, or the project's own."""
        if self.params is not None:
            return self.params.expanduser().absolute()
        own = self.home_path / "params.yaml"
        return own if own.is_file() else PROJECT_ROOT / "params.yaml"

    @property
    def landing_url(self) -> str:
        """What is watched for new images: an absolute path, or ``s3://bucket/prefix``."""
        return _place(self.landing, self.home_path / "landing")

    @property
    def lake_url(self) -> str:
        """Where images, tables and answers are: an absolute path, or ``s3://bucket/prefix``."""
        return _place(self.lake, self.home_path / "lake")

    @property
    def landing_path(self) -> Path:
        """The landing place where it is a folder; a SettingsError where it is not."""
        return _folder("ANNOTATION_LANDING", self.landing_url)

    @property
    def lake_path(self) -> Path:
        """The lake where it is a folder; a SettingsError where it is not."""
        return _folder("ANNOTATION_LAKE", self.lake_url)

    @property
    def cache_path(self) -> Path:
        """The folder of copies of what lies in S3; it may be emptied at any time."""
        return self.home_path / "cache"

    @property
    def registry_path(self) -> Path:
        """The git repository that holds the versions; by default the project's own."""
        return Path(self.registry).expanduser().absolute() if self.registry else PROJECT_ROOT

    @property
    def remote_url(self) -> str:
        """The DVC remote: a URL, or the absolute path of a folder."""
        return _place(self.remote, self.home_path / "remote")

    @property
    def audit_path(self) -> Path:
        """The folder of what was read and written in the lake, by whom; a file a day."""
        return self.home_path / "audit"

    @property
    def models_path(self) -> Path:
        """The folder of model weights, by digest."""
        return self.home_path / "models"

    @property
    def secrets_path(self) -> Path:
        """The file of passwords and tokens that the platform made itself; mode 0600."""
        return self.home_path / "secrets.json"


def read_settings() -> Settings:
    """Return the settings of this process; a bad value is a SettingsError naming the variable."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "ANNOTATION_" + "_".join(str(part) for part in first["loc"]).upper()
        # The value itself is not printed: it may be a secret.
        raise SettingsError(f"{name} in the environment: {first['msg']}.") from error


def settings_environment(settings: Settings) -> dict[str, str]:
    """Return the environment that gives a child process the same settings, secrets excepted."""
    passed = {
        "ANNOTATION_HOME": str(settings.home_path),
        "ANNOTATION_PARAMS": str(settings.params_path),
        "ANNOTATION_LANDING": settings.landing_url,
        "ANNOTATION_LANDING_QUEUE": settings.landing_queue,
        "ANNOTATION_LAKE": settings.lake_url,
        "ANNOTATION_RECEIPTS": settings.receipts,
        "ANNOTATION_RUNNER": settings.runner,
        "ANNOTATION_REGISTRY": str(settings.registry_path),
        "ANNOTATION_REMOTE": settings.remote_url,
        "ANNOTATION_LABELING": settings.labeling,
        "ANNOTATION_LABEL_STUDIO_URL": settings.label_studio_url,
    }
    return {**os.environ, **passed}


def _place(given: str, default: Path) -> str:
    return given if "://" in given else str(Path(given or default).expanduser().absolute())


def _folder(variable: str, place: str) -> Path:
    if "://" in place:
        raise SettingsError(f"{variable}: {place} is no folder, and here only a folder will do.")
    return Path(place)
