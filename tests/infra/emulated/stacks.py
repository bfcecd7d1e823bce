"""CloudFormation's way with a stack: in order, waiting for signals, replacing, rolling back.

moto's own applies a change set within the call, removes before it adds, neither waits nor rolls
back, and makes what is merely described. This takes its place for change sets and deletion.
"""

from __future__ import annotations

import copy
import json
import re
import threading
import time
from dataclasses import dataclass
from typing import Any

from moto.cloudformation import models, parsing
from moto.ec2 import ec2_backends
from moto.ec2.models.core import TaggedEC2Resource

from emulated.resources import KINDS, REMOVALS, Clients

MINUTES = re.compile(r"PT(\d+)M")


class Failed(Exception):
    """A resource was not made; the text is its reason."""


@dataclass
class Standing:
    """A resource that stands.

    Attributes:
        template: as the template has it.
        resolved: the same with every reference resolved, which is what tells a change.
        resource: moto's object, or ours.
    """

    template: dict[str, Any]
    resolved: dict[str, Any]
    resource: Any


def list_references(value: Any) -> set[str]:
    """Logical ids that a part of a template refers to."""
    if isinstance(value, list):
        return {name for item in value for name in list_references(item)}
    if not isinstance(value, dict):
        return set()
    found: set[str] = set()
    for key, item in value.items():
        if key == "Ref":
            found.add(item)
        elif key == "Fn::GetAtt":
            found.add(item[0] if isinstance(item, list) else item.split(".")[0])
        elif key == "Fn::Sub":
            text = item[0] if isinstance(item, list) else item
            found |= {name.split(".")[0] for name in re.findall(r"\$\{([^!}]+)\}", text)}
        if key != "Ref":
            found |= list_references(item)
    return found


def order(resources: dict[str, Any]) -> list[str]:
    """Logical ids, each after what it needs."""
    done: list[str] = []

    def visit(name: str) -> None:
        if name in done or name not in resources:
            return
        body = resources[name]
        needs = body.get("DependsOn", [])
        needs = {needs} if isinstance(needs, str) else set(needs)
        for need in sorted(needs | list_references(body.get("Properties", {}))):
            if need != name:
                visit(need)
        done.append(name)

    for name in resources:
        visit(name)
    return done


class Conductor:
    """Runs one change to one stack, in a thread of its own.

    Args:
        backend: moto's CloudFormation of one account and region.
        stack: moto's stack.
        clients: gives boto3 clients of the same account.
    """

    def __init__(self, backend: Any, stack: Any, clients: Clients) -> None:
        self.backend = backend
        self.stack = stack
        self.clients = clients
        self.signals: dict[tuple[str, str], str] = {}
        self.signalled = threading.Condition()
        if not hasattr(stack, "standing"):
            stack.standing = {}
        self.standing: dict[str, Standing] = stack.standing

    def tell(self, name: str, body: dict[str, Any], status: str, reason: str = "") -> None:
        """Add an event, as `cdk deploy` shows them."""
        standing = self.standing.get(name)
        physical = getattr(standing and standing.resource, "physical_resource_id", "") or ""
        self.stack.events.append(
            models.Event(
                stack_id=self.stack.stack_id,
                stack_name=self.stack.name,
                logical_resource_id=name,
                physical_resource_id=physical,
                resource_type=body["Type"],
                resource_status=status,
                resource_status_reason=reason or None,
                resource_properties=None,
            )
        )

    def enter(self, status: str, reason: str = "") -> None:
        """Give the stack itself a status."""
        self.stack._add_stack_event(status, resource_status_reason=reason or None)
        self.stack.status = status

    # --- deployment

    def deploy(self, change_set: Any) -> None:
        """Apply a change set to its end, or to the end of its rollback."""
        word = change_set.change_set_type
        before_parameters = dict(self.stack.resource_map.input_parameters)
        before = {name: each.template for name, each in self.standing.items()}
        template = change_set.template_dict
        try:
            self.load(template, change_set.parameters)
            self.reach(template["Resources"])
        except Exception as error:
            self.enter(f"{word}_FAILED" if word == "CREATE" else "UPDATE_FAILED", str(error))
            self.roll_back(word, before, before_parameters)
            return
        self.enter(f"{word}_COMPLETE_CLEANUP_IN_PROGRESS") if word == "UPDATE" else None
        self.remove([name for name in self.standing if name not in template["Resources"]])
        self.stack.template = change_set.template
        self.stack.template_dict = template
        self.stack.parameters = change_set.parameters
        self.stack.output_map = self.stack._create_output_map()
        change_set.execution_status = "EXECUTE_COMPLETE"
        self.enter(f"{word}_COMPLETE")

    def load(self, template: dict[str, Any], parameters: dict[str, Any] | None) -> None:
        """Make parameters and conditions known to references."""
        names = self.stack.resource_map
        names._template = template
        names.input_parameters = parameters or {}
        names.load_mapping()
        names.load_parameters()
        names.load_conditions()

    def reach(self, resources: dict[str, Any]) -> None:
        """Make or change everything that a template holds; nothing is removed yet."""
        for name in order(resources):
            body = resources[name]
            if "Condition" in body:
                names = self.stack.resource_map
                if not names.lazy_condition_map[body["Condition"]]:
                    continue
            resolved = parsing.clean_json(copy.deepcopy(body), self.stack.resource_map)
            standing = self.standing.get(name)
            if standing is None:
                self.make(name, body, resolved)
            elif standing.resolved.get("Properties") != resolved.get("Properties"):
                self.change(name, body, resolved, standing)
            else:
                standing.template = body

    def make(self, name: str, body: dict[str, Any], resolved: dict[str, Any]) -> None:
        """Make one resource, and wait for its signal if it has to give one."""
        self.tell(name, body, "CREATE_IN_PROGRESS")
        waits = body.get("CreationPolicy", {}).get("ResourceSignal")
        try:
            resource = self.create(name, body, resolved)
        except Exception as error:
            self.tell(name, body, "CREATE_FAILED", str(error))
            raise Failed(f"The following resource(s) failed to create: [{name}].") from error
        self.stand(name, body, resolved, resource)
        if waits:
            minutes = int(MINUTES.fullmatch(waits["Timeout"])[1])  # type: ignore[index]
            self.wait_for_signal(name, body, minutes * 60)
        self.tell(name, body, "CREATE_COMPLETE")

    def create(self, name: str, body: dict[str, Any], resolved: dict[str, Any]) -> Any:
        """Make it, by our own hand or moto's."""
        if kind := KINDS.get(body["Type"]):
            physical = parsing.generate_resource_name(body["Type"], self.stack.name, name)
            return kind.make(self.clients, physical, copy.deepcopy(resolved.get("Properties", {})))
        resource = parsing.parse_and_create_resource(
            name,
            copy.deepcopy(body),
            self.stack.resource_map,
            account_id=self.backend.account_id,
            region_name=self.backend.region_name,
        )
        if resource is None:
            raise Failed(f"{body['Type']} is not emulated")
        return resource

    def stand(self, name: str, body: dict[str, Any], resolved: Any, resource: Any) -> None:
        """Remember a resource, and make it known to references."""
        resource.cf_resource_type = body["Type"]
        resource.logical_resource_id = name
        self.standing[name] = Standing(body, resolved, resource)
        names = self.stack.resource_map
        names._parsed_resources[name] = resource
        names._resource_json_map = {key: each.template for key, each in self.standing.items()}
        if isinstance(resource, TaggedEC2Resource):
            tags = {tag["Key"]: tag["Value"] for tag in resolved["Properties"].get("Tags", [])}
            tags |= self.stack.tags
            if tags:
                ec2 = ec2_backends[self.backend.account_id][self.backend.region_name]
                ec2.create_tags([resource.physical_resource_id], tags)

    def change(
        self, name: str, body: dict[str, Any], resolved: dict[str, Any], standing: Standing
    ) -> None:
        """Change one resource in place, or replace it."""
        self.tell(name, body, "UPDATE_IN_PROGRESS")
        kind = KINDS.get(body["Type"])
        try:
            if kind and kind.change:
                kind.change(
                    self.clients,
                    standing.resource.physical_resource_id,
                    copy.deepcopy(resolved["Properties"]),
                )
                resource = standing.resource
            elif kind:
                resource = self.create(name, body, resolved)
                kind.remove(self.clients, standing.resource.physical_resource_id, standing.resolved)
            else:
                resource = parsing.parse_and_update_resource(
                    name,
                    copy.deepcopy(body),
                    self.stack.resource_map,
                    account_id=self.backend.account_id,
                    region_name=self.backend.region_name,
                )
                if resource is None:
                    raise Failed(f"changing {body['Type']} is not emulated")
        except Exception as error:
            self.tell(name, body, "UPDATE_FAILED", str(error))
            raise Failed(f"The following resource(s) failed to update: [{name}].") from error
        self.stand(name, body, resolved, resource)
        self.tell(name, body, "UPDATE_COMPLETE")

    def wait_for_signal(self, name: str, body: dict[str, Any], seconds: float) -> None:
        """Wait for one signal; a failure ends the wait at once."""
        deadline = time.monotonic() + seconds
        with self.signalled:
            while True:
                given = {key[1]: word for key, word in self.signals.items() if key[0] == name}
                failed = [unique for unique, word in given.items() if word == "FAILURE"]
                if failed:
                    reason = f"Received FAILURE signal with UniqueId {failed[0]}"
                    self.tell(name, body, "CREATE_FAILED", reason)
                    raise Failed(f"The following resource(s) failed to create: [{name}].")
                if given:
                    reason = f"Received SUCCESS signal with UniqueId {next(iter(given))}"
                    self.tell(name, body, "CREATE_IN_PROGRESS", reason)
                    return
                if not self.signalled.wait(timeout=deadline - time.monotonic()):
                    reason = "Failed to receive 1 resource signal(s) within the specified duration"
                    self.tell(name, body, "CREATE_FAILED", reason)
                    raise Failed(f"The following resource(s) failed to create: [{name}].")

    def take_signal(self, name: str, unique: str, status: str) -> None:
        """A machine's word."""
        with self.signalled:
            self.signals[name, unique] = status
            self.signalled.notify_all()

    # --- the way back

    def roll_back(self, word: str, before: dict[str, Any], parameters: dict[str, Any]) -> None:
        """Undo: what was changed is changed back, what was made is removed."""
        prefix = "ROLLBACK" if word == "CREATE" else "UPDATE_ROLLBACK"
        self.enter(f"{prefix}_IN_PROGRESS")
        try:
            if before:
                self.load(self.stack.template_dict, parameters)
                self.reach(before)
            self.remove([name for name in self.standing if name not in before], creating=True)
        except Exception as error:
            self.enter(f"{prefix}_FAILED", str(error))
            return
        self.enter(f"{prefix}_COMPLETE")

    def remove(self, names: list[str], *, creating: bool = False) -> None:
        """Remove resources, each before what it needs.

        Args:
            creating: they were made by the change that is rolled back, which spares what
                RetainExceptOnCreate would keep nothing.
        """
        bodies = {name: each.template for name, each in self.standing.items()}
        for name in reversed(order(bodies)):
            if name not in names:
                continue
            standing = self.standing[name]
            policy = standing.template.get("DeletionPolicy", "Delete")
            self.tell(name, standing.template, "DELETE_IN_PROGRESS")
            if policy == "Retain" or (policy == "RetainExceptOnCreate" and not creating):
                self.tell(name, standing.template, "DELETE_SKIPPED")
            else:
                if policy == "Snapshot":
                    physical = standing.resource.physical_resource_id
                    self.clients("ec2").create_snapshot(VolumeId=physical)
                self.destroy(name, standing)
                self.tell(name, standing.template, "DELETE_COMPLETE")
            del self.standing[name]
            self.stack.resource_map._parsed_resources.pop(name, None)
            self.stack.resource_map._resource_json_map.pop(name, None)

    def destroy(self, name: str, standing: Standing) -> None:
        """Remove one resource, by our own hand or moto's."""
        try:
            if kind := KINDS.get(standing.template["Type"]):
                kind.remove(
                    self.clients,
                    standing.resource.physical_resource_id,
                    standing.resolved.get("Properties", {}),
                )
            elif removal := REMOVALS.get(standing.template["Type"]):
                removal(self.clients, standing.resource.physical_resource_id)
            else:
                self.stack.resource_map._delete_resource(standing.resource, standing.resolved)
        except Exception as error:
            self.tell(name, standing.template, "DELETE_FAILED", str(error))
            raise Failed(f"{name}: {error}") from error

    def delete(self) -> None:
        """Remove the whole stack."""
        self.enter("DELETE_IN_PROGRESS")
        try:
            self.remove(list(self.standing))
        except Failed as error:
            self.enter("DELETE_FAILED", str(error))
            return
        self.enter("DELETE_COMPLETE")
        for key, change_set in list(self.backend.change_sets.items()):
            if change_set.stack is self.stack:
                del self.backend.change_sets[key]
        self.backend.stacks.pop(self.stack.stack_id, None)
        self.backend.deleted_stacks[self.stack.stack_id] = self.stack


def describe(stack: Any) -> str:
    """Every event of a stack with a reason, for who looks for a failure."""
    return "\n".join(
        json.dumps([event.logical_resource_id, event.resource_status, event.resource_status_reason])
        for event in stack.events
        if event.resource_status_reason
    )
