"""Where moto 5.2.1 answers otherwise than AWS, and the real CDK command line stumbles on it.

`test_emulated.py` holds, for each mend, that moto still needs it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from moto.autoscaling.models import FakeAutoScalingGroup
from moto.autoscaling.responses import AutoScalingResponse
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import CloudFormationBackend, Stack
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.responses import EmptyResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.elastic_block_store import EBSBackend
from moto.ec2.models.instances import Instance, InstanceBackend
from moto.iam.access_control import IAMPolicy, PermissionResult
from moto.s3.models import FakeBucket
from moto.servicequotas.models import ServiceQuotasBackend
from moto.ssm.responses import SimpleSystemManagerResponse

from emulated import groups, quotas, sessions

if TYPE_CHECKING:
    from emulated.account import Account


class ChangeSetNotFound(ValidationError):
    """The code that the command line knows."""

    code = "ChangeSetNotFound"


class NoCapacity(EC2ClientError):
    """What EC2 says when a zone has no such machine left."""

    def __init__(self, kind: str, zone: str) -> None:
        super().__init__(
            "InsufficientInstanceCapacity",
            f"We currently do not have sufficient {kind} capacity in the Availability Zone you "
            f"requested ({zone}).",
        )


def execute_change_set(account: Account) -> Callable[..., None]:
    """In the background, by our conductor: moto's blocks, and neither waits nor rolls back."""

    def execute(
        self: CloudFormationBackend, change_set_name: str, stack_name: str | None = None
    ) -> None:
        change_set = self.describe_change_set(change_set_name)
        assert change_set is not None
        conductor = account.conduct(change_set.stack)
        conductor.enter(f"{change_set.change_set_type}_IN_PROGRESS", "User Initiated")
        threading.Thread(target=conductor.deploy, args=(change_set,), daemon=True).start()

    return execute


def delete_stack(account: Account) -> Callable[..., None]:
    """In the background, in the right order, honouring what is to be kept."""

    def delete(self: CloudFormationBackend, name_or_stack_id: str) -> None:
        for stack in list(self.stacks.values()):
            if name_or_stack_id in (stack.name, stack.stack_id):
                conductor = account.conduct(stack)
                threading.Thread(target=conductor.delete, daemon=True).start()

    return delete


def signal_resource(account: Account) -> Callable[..., Any]:
    """moto has no SignalResource."""

    def signal(self: CloudFormationResponse) -> Any:
        account.signal(
            self._get_param("StackName"),
            self._get_param("LogicalResourceId"),
            self._get_param("UniqueId"),
            self._get_param("Status"),
        )
        return EmptyResult()

    return signal


def describe_change_set(original: Callable[..., Any]) -> Callable[..., Any]:
    """The command line waits for ChangeSetNotFound by its code."""

    def describe(self: CloudFormationBackend, change_set_name: str) -> Any:
        try:
            return original(self, change_set_name)
        except ValidationError as error:
            raise ChangeSetNotFound(change_set_name) from error

    return describe


def delete_change_set(original: Callable[..., None]) -> Callable[..., None]:
    """Deleting an absent change set is no error; moto trips over it, and the CLI tries again."""

    def delete(self: CloudFormationBackend, change_set_name: str) -> None:
        names = {each.change_set_name for each in self.change_sets.values()}
        if change_set_name in self.change_sets or change_set_name in names:
            original(self, change_set_name)

    return delete


def run_instances(account: Account, original: Callable[..., Any]) -> Callable[..., Any]:
    """A zone may be full; a machine that is started does something."""

    def run(self: InstanceBackend, *args: Any, **kwargs: Any) -> Any:
        kind, zone = str(kwargs.get("instance_type")), str(kwargs.get("placement"))
        if zone in account.full_zones or (kind, zone) in account.full_places:
            raise NoCapacity(kind, zone)
        reservation = original(self, *args, **kwargs)
        for machine in reservation.instances:
            account.launch(machine.id)
        return reservation

    return run


def follow(account: Account, original: Callable[..., Any], starts: bool) -> Callable[..., Any]:
    """A machine that is stopped, started or terminated notices."""

    def act(self: Instance, *args: Any, **kwargs: Any) -> Any:
        answer = original(self, *args, **kwargs)
        (account.launch if starts else account.stop)(self.id)
        return answer

    return act


def attach_volume(account: Account, original: Callable[..., Any]) -> Callable[..., Any]:
    """A machine sees the volume that is attached to it."""

    def attach(
        self: EBSBackend, volume_id: str, instance_id: str, device_path: str, *args: Any
    ) -> Any:
        answer = original(self, volume_id, instance_id, device_path, *args)
        # The root volumes of new machines pass here, too.
        if device_path == "/dev/sdf":
            account.attach(volume_id, instance_id)
        return answer

    return attach


def detach_volume(account: Account, original: Callable[..., Any]) -> Callable[..., Any]:
    """And loses it again."""

    def detach(self: EBSBackend, volume_id: str, *args: Any, **kwargs: Any) -> Any:
        answer = original(self, volume_id, *args, **kwargs)
        account.detach(volume_id)
        return answer

    return detach


def get_permission(original: Callable[..., Any]) -> Callable[..., Any]:
    """moto overlooks conditions: a policy that demands TLS refuses everything."""

    def get(self: FakeBucket, action: str, resource: str) -> Any:
        if not self.policy:
            return original(self, action, resource)
        policy = json.loads(self.policy)
        plain = [each for each in policy["Statement"] if "Condition" not in each]
        if not plain:
            return PermissionResult.NEUTRAL
        text = json.dumps({**policy, "Statement": plain})
        return IAMPolicy(text).is_action_permitted(action, resource)

    return get


def list_given(self: Stack) -> dict[str, Any]:
    """Parameters as they were given: moto would pass on the image that a name stood for."""
    slots = self.resource_map._template.get("Parameters", {})
    defaults = {name: slot.get("Default") for name, slot in slots.items()}
    return defaults | self.resource_map.input_parameters


def has_parameters(self: Stack, other: dict[str, Any]) -> bool:
    """A default that is given is no change."""
    return list_given(self) == list_given(self) | other


@contextmanager
def mended(account: Account) -> Iterator[None]:
    """moto with every mend, while the context lasts."""
    cloudformation, machines = CloudFormationBackend, InstanceBackend
    table: list[tuple[Any, str, Any]] = [
        (cloudformation, "execute_change_set", execute_change_set(account)),
        (cloudformation, "delete_stack", delete_stack(account)),
        (
            cloudformation,
            "describe_change_set",
            describe_change_set(cloudformation.describe_change_set),
        ),
        (cloudformation, "delete_change_set", delete_change_set(cloudformation.delete_change_set)),
        (Stack, "stack_parameters", property(list_given)),
        (Stack, "has_parameters", has_parameters),
        (
            FakeAutoScalingGroup,
            "replace_autoscaling_group_instances",
            groups.bring_machines(FakeAutoScalingGroup.replace_autoscaling_group_instances),
        ),
        (
            AutoScalingResponse,
            "describe_scaling_activities",
            groups.describe_scaling_activities,
        ),
        (ServiceQuotasBackend, "get_service_quota", quotas.get_service_quota),
        (FakeBucket, "get_permission", get_permission(FakeBucket.get_permission)),
        (EBSBackend, "attach_volume", attach_volume(account, EBSBackend.attach_volume)),
        (EBSBackend, "detach_volume", detach_volume(account, EBSBackend.detach_volume)),
        (machines, "run_instances", run_instances(account, machines.run_instances)),
        (Instance, "start", follow(account, Instance.start, True)),
        (Instance, "stop", follow(account, Instance.stop, False)),
        (Instance, "terminate", follow(account, Instance.terminate, False)),
    ]
    with ExitStack() as stack:
        for owner, name, mend in table:
            stack.enter_context(patch.object(owner, name, mend))
        stack.enter_context(
            patch.object(
                CloudFormationResponse, "signal_resource", signal_resource(account), create=True
            )
        )
        stack.enter_context(
            patch.object(
                SimpleSystemManagerResponse, "start_session", sessions.start_session, create=True
            )
        )
        yield
