"""Machines, a volume and a group as EC2 has them, with what it refuses: a state at a time.

Each description moves what is under way by one step, so that who waits sees every state.
"""

from __future__ import annotations

from typing import Any

from firstboot.account import CallFailed

NEXT = {"pending": "running", "stopping": "stopped", "shutting-down": "terminated"}


class Cloud:
    """One volume "vol-1" and the machines around it.

    Attributes:
        states: machines' states by id.
        groups: the groups that brought machines, by id; those machines are spot capacity.
        sizes: groups' sizes.
        holder: the machine that the volume is attached to; "" for none.
        attachment: the attachment's state.
        calls: what changed something, in order.
        broken: operations that are refused.
    """

    def __init__(self, holder: str = "i-old", **states: str) -> None:
        self.states = {"i-new": "running"}
        self.states |= {name.replace("_", "-"): state for name, state in states.items()}
        self.groups: dict[str, str] = {}
        self.sizes: dict[str, int] = {}
        self.holder = holder
        self.attachment = "attached"
        self.looks: dict[str, int] = {}
        self.calls: list[str] = []
        self.broken: set[str] = set()

    def call(self, service: str, operation: str, *words: str, **_: Any) -> Any:
        """Answer as the AWS command line does."""
        given = dict(zip(words[::2], words[1::2], strict=True))
        if operation in self.broken:
            raise CallFailed(f"aws {service} {operation}: refused")
        if not operation.startswith("describe"):
            self.calls.append(" ".join([operation, *self.tell(given)]))
        return getattr(self, operation.replace("-", "_"))(given)

    def tell(self, given: dict[str, str]) -> list[str]:
        """The words of a call that differ."""
        names = ("--instance-id", "--instance-ids", "--auto-scaling-group-name")
        return [given[name] for name in (*names, "--desired-capacity", "--status") if name in given]

    def describe_volumes(self, _: dict[str, str]) -> Any:
        """The volume; then it moves on."""
        attachments = []
        if self.holder:
            attachments = [{"State": self.attachment, "InstanceId": self.holder}]
        if self.attachment == "detaching":
            self.holder, self.attachment = "", "attached"
        elif self.states.get(self.holder) in ("shutting-down", "terminated"):
            self.states[self.holder], self.attachment = "terminated", "detaching"
        elif self.attachment == "attaching":
            self.attachment = "attached"
        return {"Volumes": [{"Attachments": attachments}]}

    def describe_instances(self, given: dict[str, str]) -> Any:
        """A machine; then it moves on."""
        name = given["--instance-ids"]
        if name not in self.states:
            raise CallFailed(f"aws ec2 describe-instances: (InvalidInstanceID.NotFound) {name}")
        machine: dict[str, Any] = {"State": {"Name": self.states[name]}}
        if group := self.groups.get(name):
            machine["InstanceLifecycle"] = "spot"
            machine["Tags"] = [{"Key": "aws:autoscaling:groupName", "Value": group}]
        # At every second look: who waits sees it as it was, and then as it is.
        self.looks[name] = self.looks.get(name, 0) + 1
        if self.looks[name] % 2 == 0:
            self.states[name] = NEXT.get(self.states[name], self.states[name])
        if self.states[name] == "terminated" and self.holder == name:
            self.attachment = "detaching"
        return {"Reservations": [{"Instances": [machine]}]}

    def stop_instances(self, given: dict[str, str]) -> None:
        """Not a spot machine, and not one that starts."""
        name = given["--instance-ids"]
        if name in self.groups:
            raise CallFailed("aws ec2 stop-instances: (UnsupportedOperation) one-time Spot request")
        self.must(self.states[name] in ("running", "stopping", "stopped"), "IncorrectInstanceState")
        if self.states[name] == "running":
            self.states[name] = "stopping"

    def start_instances(self, given: dict[str, str]) -> None:
        """Only one that is down, or up already."""
        name = given["--instance-ids"]
        known = self.states.get(name) in ("stopped", "running", "pending")
        self.must(known, "IncorrectInstanceState")
        if self.states[name] == "stopped":
            self.states[name] = "pending"

    def detach_volume(self, given: dict[str, str]) -> None:
        """Only from the machine that has it."""
        attached = (given["--instance-id"], "attached") == (self.holder, self.attachment)
        self.must(attached, "IncorrectState")
        self.attachment = "detaching"

    def attach_volume(self, given: dict[str, str]) -> None:
        """Only if it is free, and to a machine that runs or is down."""
        self.must(not self.holder, "VolumeInUse")
        name = given["--instance-id"]
        self.must(self.states.get(name) in ("running", "stopped"), "IncorrectState")
        self.holder, self.attachment = name, "attaching"

    def set_desired_capacity(self, given: dict[str, str]) -> None:
        """The group ends its machine, or brings one."""
        group, size = given["--auto-scaling-group-name"], int(given["--desired-capacity"])
        self.sizes[group] = size
        for name, own in self.groups.items():
            if own == group and size == 0:
                self.states[name] = "shutting-down"

    def signal_resource(self, _: dict[str, str]) -> None:
        """CloudFormation hears it."""

    def must(self, is_so: bool, refusal: str) -> None:
        """Refuse unless something is so."""
        if not is_so:
            raise CallFailed(f"An error occurred ({refusal})")
