"""The deployment: places and secrets, from ``ANNOTATION_*`` in the environment.

Policy is not here but in ``params.yaml``. Everything has a default under ``ANNOTATION_HOME``.
"""

import os
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from annotation_platform.errors import SettingsError
from annotation_platform.registry_address import is_address, parse_address
from annotation_platform.schema.keys import SHOWN

PROJECT_ROOT = Path(__file__).resolve().parent.parent
"""The source tree this code runs from: it goes into every version."""

SHORTEST_SECRET = 16
"""Characters that a secret of webhooks must have."""

_WEBHOOK_SECRET = "ANNOTATION_WEBHOOK_SECRET"


class Settings(BaseSettings):
    """Where things live. Read once, at a composition root."""

    model_config = SettingsConfigDict(
        env_prefix="ANNOTATION_",
        frozen=True,
        extra="ignore",
        # What a variable holds may be a secret, and a traceback shows where an error came from.
        hide_input_in_errors=True,
    )

    home: Path = Field(default=Path(".annotation"), description="everything below, by default")
    params: Path | None = Field(default=None, description="the policy file")
    landing: str = Field(default="", description="where images are dropped: a folder or s3://")
    landing_queue: str = Field(default="", description="SQS queue of the landing bucket's events")
    lake: str = Field(default="", description="images, tables, ledger: a folder or s3://")
    shown: str = Field(
        default="", description="what people see where classes are masked: a folder or s3://"
    )
    shown_profile: str = Field(default="", description="AWS profile that may read that alone")
    receipts: str = Field(default="", description="dynamodb://table for what has landed")
    runner: str = Field(default="", description="Ray cluster for the work on images: ray://…")
    download_hosts: str = Field(default="", description="hosts that lists may name, by commas")
    registry: str = Field(
        default="", repr=False, description="git repository of the versions: a path or an address"
    )
    remote: str = Field(default="", description="DVC remote for the versions' files")
    pages_url: str = Field(default="", description="where `up` serves reports; it sets this itself")
    labeling: str = Field(
        default="label-studio", description="name of the labelling back end; or simulated"
    )
    label_studio_url: str = "http://127.0.0.1:8080"
    label_studio_token: SecretStr = SecretStr("")
    label_studio_requests_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = (
        Field(default=None, description="the most that each client sends; by default no limit")
    )
    labeling_poll_seconds: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="longest time between two polls"
    )
    webhook_url: str = Field(default="", description="where Label Studio reaches the receiver")
    webhook_host: str = Field(default="127.0.0.1", description="where the receiver listens")
    webhook_port: int = Field(default=8090, ge=1, le=65535, description="where it listens")
    webhook_secret: SecretStr = Field(
        default=SecretStr(""), description="what webhooks must hold; drawn at each start by default"
    )

    alert_webhook: SecretStr = Field(default=SecretStr(""), description="is posted alerts as JSON")
    alert_slack: SecretStr = Field(default=SecretStr(""), description="incoming webhook of Slack")
    alert_email: str = Field(default="", description="who is sent alerts, by commas")
    alert_smtp: SecretStr = Field(
        default=SecretStr(""),
        description="by what server: smtp://user:password@host:port, smtps://",
    )
    alert_from: str = Field(default="", description="who sends; by default the server's user")
    alert_stalled_hours: float = Field(
        default=48.0, gt=0, allow_inf_nan=False, description="how long a round may stand still"
    )

    @field_validator("alert_email", "alert_from")
    @classmethod
    def _usable_email(cls, given: str) -> str:
        if any(sign in given for sign in "\r\n"):
            raise ValueError("write addresses on one line, by commas")
        return given

    @field_validator("alert_smtp")
    @classmethod
    def _usable_mail_server(cls, given: SecretStr) -> SecretStr:
        text = given.get_secret_value()
        if text and not _is_mail_server(text):
            raise ValueError(
                "write it like smtp://user:password@mail.example.org:587, with signs such as / @ : "
                "# ? in a password as %2F %40 %3A %23 %3F"
            )
        return given

    @model_validator(mode="after")
    def _mail_is_whole(self) -> "Settings":
        if bool(self.alert_email) != bool(self.alert_smtp.get_secret_value()):
            raise ValueError("ANNOTATION_ALERT_EMAIL and ANNOTATION_ALERT_SMTP go together")
        return self

    @field_validator("label_studio_requests_per_second", mode="before")
    @classmethod
    def _no_rate(cls, given: object) -> object:
        # As with the texts, an empty variable is one that is not set.
        return None if given == "" else given

    @field_validator("webhook_url")
    @classmethod
    def _usable_address(cls, given: str) -> str:
        if given and not _is_address(given):
            # Without the value: a password may stand in it.
            raise ValueError("write it like https://labels.example.org/hints, without a password")
        return given

    @field_validator("webhook_secret")
    @classmethod
    def _long_secret(cls, given: SecretStr) -> SecretStr:
        text = given.get_secret_value()
        if text and (len(text) < SHORTEST_SECRET or not (text.isascii() and text.isprintable())):
            raise ValueError(f"at least {SHORTEST_SECRET} printable ASCII characters are needed")
        return given

    @property
    def home_path(self) -> Path:
        """The home as an absolute path."""
        return self.home.expanduser().absolute()

    @property
    def policy_path(self) -> Path:
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
        """Location of images, tables and annotations: an absolute path, or ``s3://bucket/prefix``."""
        return _place(self.lake, self.home_path / "lake")

    @property
    def shown_url(self) -> str:
        """The location of masked images that annotators see; by default in the lake."""
        return _place(self.shown or f"{self.lake_url.rstrip('/')}/{SHOWN}", Path())

    @property
    def landing_path(self) -> Path:
        """The landing zone where it is a folder; a SettingsError where it is not."""
        return _folder("ANNOTATION_LANDING", self.landing_url)

    @property
    def lake_path(self) -> Path:
        """The lake where it is a folder; a SettingsError where it is not."""
        return _folder("ANNOTATION_LAKE", self.lake_url)

    @property
    def cache_path(self) -> Path:
        """The folder with copies of objects in S3; it may be emptied at any time."""
        return self.home_path / "cache"

    @property
    def registry_path(self) -> Path:
        """The git repository that holds the versions, where it is a folder; else a SettingsError.

        By default it is the project's own.
        """
        if is_address(self.registry):
            raise SettingsError(
                f"ANNOTATION_REGISTRY: {parse_address(self.registry).shown} is no folder, and here "
                "only a folder will do."
            )
        return Path(self.registry_place)

    @property
    def registry_place(self) -> str:
        """The git repository that holds the versions: an absolute path, or an address.

        There may be a secret in it: only ``registry_address`` takes it apart.
        """
        if is_address(self.registry):
            return self.registry
        return str(Path(self.registry).expanduser().absolute() if self.registry else PROJECT_ROOT)

    @property
    def mirrors_path(self) -> Path:
        """The folder of copies of registries behind an address; it may be emptied when at rest."""
        return self.cache_path / "registries"

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
    def change_signals_path(self) -> Path:
        """The file whose modification time says when Label Studio last hinted at a change."""
        return self.home_path / "hints"

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
        # What is about several variables names them itself.
        name = "_".join(["ANNOTATION", *(str(part) for part in first["loc"])]).upper()
        where = f"{name} in the environment: " if first["loc"] else ""
        problem = str(first["msg"]).removeprefix("Value error, ")
        # The value itself is not printed: it may be a secret.
        raise SettingsError(f"{where}{problem}.") from error


def settings_environment(settings: Settings) -> dict[str, str]:
    """Return the environment that gives a child process the same settings, secrets excepted."""
    passed = {
        "ANNOTATION_HOME": str(settings.home_path),
        "ANNOTATION_PARAMS": str(settings.policy_path),
        "ANNOTATION_LANDING": settings.landing_url,
        "ANNOTATION_LANDING_QUEUE": settings.landing_queue,
        "ANNOTATION_LAKE": settings.lake_url,
        "ANNOTATION_SHOWN": settings.shown_url,
        "ANNOTATION_SHOWN_PROFILE": settings.shown_profile,
        "ANNOTATION_RECEIPTS": settings.receipts,
        "ANNOTATION_RUNNER": settings.runner,
        "ANNOTATION_REGISTRY": settings.registry_place,
        "ANNOTATION_REMOTE": settings.remote_url,
        "ANNOTATION_PAGES_URL": settings.pages_url,
        "ANNOTATION_LABELING": settings.labeling,
        "ANNOTATION_LABEL_STUDIO_URL": settings.label_studio_url,
        "ANNOTATION_LABEL_STUDIO_REQUESTS_PER_SECOND": (
            str(settings.label_studio_requests_per_second or "")
        ),
        "ANNOTATION_LABELING_POLL_SECONDS": str(settings.labeling_poll_seconds),
    }
    # No child receives webhooks.
    inherited = {key: value for key, value in os.environ.items() if key != _WEBHOOK_SECRET}
    return {**inherited, **passed}


def _is_mail_server(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"smtp", "smtps"} and bool(parts.hostname and parts.port)
    except ValueError:
        return False


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    usable = parts.scheme in {"http", "https"} and port != 0 and "@" not in parts.netloc
    return usable and bool(parts.hostname)


def _place(given: str, default: Path) -> str:
    return given if "://" in given else str(Path(given or default).expanduser().absolute())


def _folder(variable: str, place: str) -> Path:
    if "://" in place:
        raise SettingsError(f"{variable}: {place} is no folder, and here only a folder will do.")
    return Path(place)
