"""Clients of AWS's services, and of servers that speak like them."""

from functools import cache
from typing import Any

from botocore.exceptions import ProfileNotFound

from annotation_platform.errors import SettingsError


def s3_client(*, attempts: int = 8, profile: str = "") -> Any:
    """Return a client configured by AWS's variables, or by a profile of AWS's files.

    It retries requests that S3 refuses temporarily, with pauses.
    """
    try:
        return aws_client("s3", attempts=attempts, read_seconds=60, profile=profile)
    except ProfileNotFound as error:
        raise SettingsError(f"{error}. Name a profile of ~/.aws/credentials.") from error
    except ValueError as error:
        raise SettingsError(f"{error}. Set AWS_ENDPOINT_URL to http://… or https://….") from error


def aws_client(
    service: str, *, attempts: int = 8, read_seconds: int = 30, profile: str = ""
) -> Any:
    """Return a client of one of AWS's services, with pauses between its ``attempts``."""
    # Imported late: a lake in a folder does not need it.
    import boto3
    import botocore.session
    from botocore.config import Config

    retries = {"mode": "adaptive", "total_max_attempts": attempts}
    settings = Config(retries=retries, connect_timeout=5, read_timeout=read_seconds)
    # Not boto3's shared session, which keeps an account after it has changed.
    core = botocore.session.Session()
    core.register_component("data_loader", _service_models())
    session = boto3.Session(botocore_session=core, profile_name=profile or None)
    return session.client(service, config=settings)


@cache
def _service_models() -> Any:
    """Return what reads the descriptions of AWS's services, and keeps them: S3's takes 0.1 s."""
    import botocore.session

    return botocore.session.Session().get_component("data_loader")
