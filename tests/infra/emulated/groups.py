"""Auto Scaling groups that find no spare capacity: they stand without a machine, and try again.

moto's raise where there is no machine, and never tell of their tries.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from moto.autoscaling.exceptions import ValidationError
from moto.autoscaling.models import FakeAutoScalingGroup
from moto.autoscaling.responses import AutoScalingResponse
from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError

NO_SPOT = (
    "Could not launch Spot Instances. InsufficientInstanceCapacity - There is no Spot capacity "
    "available that matches your request. Launching EC2 instance failed."
)


def bring_machines(original: Callable[..., None]) -> Callable[..., None]:
    """A try that fails is kept, and is no error of the call that led to it."""

    def bring(self: FakeAutoScalingGroup, count_needed: int, tags: dict[str, str]) -> None:
        try:
            original(self, count_needed, tags)
        except EC2ClientError:
            tries = self.__dict__.setdefault("tries", [])
            tries.insert(
                0,
                {
                    "ActivityId": f"{self.name}-{len(tries)}",
                    "AutoScalingGroupName": self.name,
                    "Cause": "An instance was started in response to a difference of capacity.",
                    "StartTime": datetime.now(tz=UTC),
                    "StatusCode": "Failed",
                    "StatusMessage": NO_SPOT,
                },
            )

    return bring


def describe_scaling_activities(self: AutoScalingResponse) -> Any:
    """The tries that failed, the newest first; an error where there is no such group."""
    name = self._get_param("AutoScalingGroupName")
    group = self.autoscaling_backend.autoscaling_groups.get(name)
    if group is None:
        raise ValidationError(
            f"AutoScalingGroup name not found - AutoScalingGroup {name} not found"
        )
    return ActionResult({"Activities": getattr(group, "tries", [])})
