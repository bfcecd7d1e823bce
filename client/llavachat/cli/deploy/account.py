"""An AWS account in one region: boto3's clients, and its errors as sentences."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ProfileNotFound,
)

from llavachat.cli.failure import ExitCode, Failure, wrong_use

_SETTINGS = Config(retries={"mode": "standard", "max_attempts": 4}, connect_timeout=10)
NAME_REGION = "give --region, or set AWS_REGION, or run `aws configure`"
_NO_LOGIN = {"InvalidClientTokenId", "ExpiredToken", "ExpiredTokenException", "AuthFailure"}


class Account:
    """Clients of one region, made when they are asked for.

    Args:
        region: None for the one that the environment or AWS's own configuration names.
        needs_region: False: `region` is "" where none is named, and few clients can be made.

    Raises:
        Failure: no region is named.
    """

    def __init__(self, region: str | None, *, needs_region: bool = True) -> None:
        try:
            # As the AWS command line reads it; boto3 knows AWS_DEFAULT_REGION alone.
            region = region or os.environ.get("AWS_REGION") or None
            self.session = boto3.Session(region_name=region)
        except ProfileNotFound as error:
            raise wrong_use(f"{error}; see AWS_PROFILE.") from None
        self._clients: dict[str, Any] = {}
        self.region = str(self.session.region_name or "")
        if needs_region and not self.region:
            raise wrong_use(f"No AWS region is named; {NAME_REGION}.")

    def client(self, service: str) -> Any:
        """The client of a service."""
        if service not in self._clients:
            self._clients[service] = self.session.client(service, config=_SETTINGS)
        return self._clients[service]


@contextmanager
def telling() -> Iterator[None]:
    """Turns AWS's errors into sentences.

    Raises:
        Failure: in place of them.
    """
    try:
        yield
    except ClientError as error:
        raise explain(error) from None
    except NoCredentialsError:
        raise wrong_use(
            "There are no AWS credentials; run `aws configure`, or set AWS_PROFILE."
        ) from None
    except EndpointConnectionError as error:
        raise Failure(f"AWS can not be reached: {error}", ExitCode.UNAVAILABLE) from None
    except BotoCoreError as error:
        raise Failure(f"AWS could not be asked: {error}") from None


def explain(error: ClientError) -> Failure:
    """A refusal by AWS: what was asked, what was said, what to do."""
    code = str(error.response["Error"].get("Code", ""))
    message = str(error.response["Error"].get("Message", code)).rstrip(".")
    hint = ""
    if code in _NO_LOGIN:
        hint = " The credentials are wrong or have expired; sign in again."
    elif "AccessDenied" in code or code == "UnauthorizedOperation":
        hint = " The credentials lack that right."
    elif code == "InsufficientInstanceCapacity":
        # AWS's sentence names other zones, where a machine that stands can not go.
        hint = " Try later, or see 'Another zone' in docs/deploy.md."
    return Failure(f"AWS refused {error.operation_name}: {message}.{hint}")
