"""The chats' volume on its way from machine to machine, and back.

Knows EC2 and nothing of what is on the volume. What AWS says is asked anew at every step, so that
whatever came in between is seen: a machine that is going, a volume that is being detached.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from firstboot.account import CallFailed, call, wait_for

DEVICE = "/dev/sdf"
GOING = ("shutting-down", "terminated")
STOP_SECONDS = 600
"""EC2 itself ends a machine that does not stop within some minutes."""

FREE_SECONDS = 300
BACK_SECONDS = 45
"""For a volume on the way back, whose whole time is short; see `limit.SPARE_SECONDS`."""

WAKE_SECONDS = 150
"""For a machine that is still stopping; its volume is with it then, and was not waited for."""


@dataclass(frozen=True)
class Machine:
    """A machine as EC2 has it.

    Attributes:
        state: EC2's word, such as "running"; "terminated" for one that it knows no more.
        group: name of the Auto Scaling group that brought it; "" for none.
        is_spot: it is spare capacity, which EC2 does not stop: it ends, by its group.
    """

    id: str
    state: str
    group: str = ""
    is_spot: bool = False


def find_machine(instance: str) -> Machine:
    """What EC2 says of a machine."""
    try:
        answer = call("ec2", "describe-instances", "--instance-ids", instance)
        found = answer["Reservations"][0]["Instances"][0]
    except CallFailed as error:
        if "InvalidInstanceID" not in str(error):
            raise
        return Machine(instance, "terminated")
    tags = {tag["Key"]: tag["Value"] for tag in found.get("Tags", [])}
    return Machine(
        instance,
        str(found["State"]["Name"]),
        tags.get("aws:autoscaling:groupName", ""),
        found.get("InstanceLifecycle") == "spot",
    )


class Handover:
    """One volume, and the machine that wants it.

    Args:
        volume: the volume's id.
        instance: this machine's.
        say: takes a line for the log.

    Attributes:
        holder: the machine that had the volume, once anything was done to it.
    """

    def __init__(self, volume: str, instance: str, say: Callable[[str], None]) -> None:
        self.volume = volume
        self.instance = instance
        self.say = say
        self.holder: Machine | None = None

    def find_attachment(self) -> dict[str, Any] | None:
        """Which machine has the volume, or is getting it or letting it go; None if it is free."""
        answer = call("ec2", "describe-volumes", "--volume-ids", self.volume)
        for attachment in answer["Volumes"][0].get("Attachments", []):
            if attachment.get("State", "attached") != "detached":
                return dict(attachment)
        return None

    # --- there

    def claim(self) -> None:
        """Attach the volume to this machine.

        The machine that holds it goes down first, as an orderly shutdown is what ends its turns
        and closes its files.

        Raises:
            CallFailed: AWS refuses. What was done until then is undone by `give_back`.
        """
        attachment = self.find_attachment()
        if attachment and attachment["InstanceId"] != self.instance:
            holder = find_machine(str(attachment["InstanceId"]))
            if attachment.get("State") == "detaching" or holder.state in GOING:
                self.say(f"{holder.id} is letting the chats go")
            else:
                self.take_down(holder)
            self.wait_until_free(FREE_SECONDS)
            attachment = None
        if attachment is None:
            self.attach(self.instance, FREE_SECONDS)

    def take_down(self, holder: Machine) -> None:
        """Let a machine end its turns and let the volume go."""
        own = find_machine(self.instance).group
        if holder.is_spot and not holder.group:
            raise CallFailed(
                f"{holder.id} holds the chats; it is spot capacity of no group: end it"
            )
        # Before anything is done to it: what fails half-way has to be undone as well.
        self.holder = holder
        if not holder.is_spot:
            self.say(f"stopping {holder.id}, which holds the chats")
            # One that is only just starting cannot be stopped yet.
            self.wait_for_state(holder, ("running", "stopping", "stopped"), STOP_SECONDS)
            call("ec2", "stop-instances", "--instance-ids", holder.id)
            self.wait_for_state(holder, ("stopped",), STOP_SECONDS)
            self.detach(holder.id)
        elif holder.group == own:
            self.say(f"waiting for the end of {holder.id}, which this machine takes the place of")
            self.wait_for_state(holder, GOING, STOP_SECONDS)
        else:
            self.say(f"ending {holder.id}, which holds the chats and is spot capacity")
            set_size(holder.group, 0)
            self.wait_for_state(holder, ("terminated",), STOP_SECONDS)

    def take_if_free(self) -> bool:
        """Attach the volume unless another machine holds it; whether it is here."""
        attachment = self.find_attachment()
        if attachment and attachment["InstanceId"] != self.instance:
            holder = find_machine(str(attachment["InstanceId"]))
            if attachment.get("State") != "detaching" and holder.state not in GOING:
                self.say(f"{holder.id} holds the chats, and is {holder.state}")
                return False
            self.say(f"{holder.id} is letting the chats go")
            self.wait_until_free(FREE_SECONDS)
            attachment = None
        if attachment is None:
            self.say("nobody has the chats: attaching their volume")
            self.attach(self.instance, FREE_SECONDS)
        return True

    # --- and back

    def give_back(self) -> None:
        """Undo whatever of `claim` was done: the machine before this one runs again, on the chats.

        Each step is tried whatever became of the one before; a machine that is started without
        the volume attaches it itself, once it is free.
        """
        holder = self.holder
        if holder is None:
            return
        self.say(f"giving the chats back to {holder.id}")
        for step in (self.let_go, self.hand_back, self.wake):
            try:
                step(holder)
            except CallFailed as error:
                self.say(f"the chats are not all the way back: {error}")

    def let_go(self, _: Machine) -> None:
        """Detach the volume from this machine, if it has come so far."""
        attachment = self.find_attachment()
        if attachment and attachment["InstanceId"] == self.instance:
            if attachment.get("State") != "detaching":
                self.detach(self.instance)
            self.wait_until_free(BACK_SECONDS)

    def hand_back(self, holder: Machine) -> None:
        """Attach the free volume to the machine that had it; one that has ended takes it itself."""
        if not holder.is_spot and self.find_attachment() is None:
            self.attach(holder.id, BACK_SECONDS)

    def wake(self, holder: Machine) -> None:
        """Have the machine before this one, or its group's next, run again."""
        if holder.is_spot:
            set_size(holder.group, 1)
            return
        # It may have been told to stop only just now.
        self.wait_for_state(holder, ("stopped", "running", "pending"), WAKE_SECONDS)
        call("ec2", "start-instances", "--instance-ids", holder.id)

    # --- steps of both

    def detach(self, instance: str) -> None:
        """Ask for the volume to leave a machine."""
        words = ("--volume-id", self.volume, "--instance-id", instance)
        call("ec2", "detach-volume", *words)

    def attach(self, instance: str, seconds: float) -> None:
        """Attach the free volume to a machine and wait until it is."""
        words = ("--volume-id", self.volume, "--instance-id", instance, "--device", DEVICE)
        call("ec2", "attach-volume", *words)

        def is_there() -> bool:
            found = self.find_attachment() or {}
            return (found.get("InstanceId"), found.get("State")) == (instance, "attached")

        wait_for(f"{self.volume} attached to {instance}", is_there, seconds)

    def wait_until_free(self, seconds: float) -> None:
        """Wait until no machine has the volume any more."""
        wait_for(f"{self.volume} free", lambda: self.find_attachment() is None, seconds)

    def wait_for_state(self, machine: Machine, states: tuple[str, ...], seconds: float) -> None:
        """Wait until a machine is in one of some states."""
        what = f"{machine.id} {' or '.join(states)}"
        wait_for(what, lambda: find_machine(machine.id).state in states, seconds)


def set_size(group: str, machines: int) -> None:
    """Tell an Auto Scaling group how many machines it shall have."""
    words = ("--auto-scaling-group-name", group, "--desired-capacity", str(machines))
    call("autoscaling", "set-desired-capacity", *words)
