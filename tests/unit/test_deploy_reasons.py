"""Why a deployment failed, as CloudFormation's events and CDK tell it; both are played."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError
from llavachat.cli.deploy import down, rollout
from llavachat.cli.deploy.account import Account, explain
from llavachat.cli.deploy.power import list_refusals, refuse_changing, start, stop
from llavachat.cli.deploy.stack import Deployment
from llavachat.cli.deploy.toolkit import App
from llavachat.cli.failure import ExitCode, Failure

STACK = "arn:aws:cloudformation:us-east-1:123456789012:stack/llavachat/1"
FULL = "We currently do not have sufficient g5.xlarge capacity in the Availability Zone"
LINKED = (
    "Account 123456789012 is a linked account. To enable budgets for your account, ask the payer "
    "account to enable budgets first."
)


def tell(number: int, what: str, status: str, reason: str = "") -> dict[str, Any]:
    """An event as CloudFormation has it."""
    event = {
        "EventId": str(number),
        "StackId": STACK,
        "LogicalResourceId": what,
        "PhysicalResourceId": STACK if what == "llavachat" else "",
        "ResourceStatus": status,
    }
    return {**event, "ResourceStatusReason": reason} if reason else event


def refuse(code: str, message: str = "none") -> ClientError:
    """AWS's refusal."""
    return ClientError({"Error": {"Code": code, "Message": message}}, "Describe")


class Stack:
    """An account, and CloudFormation and its paginator, with the events of one stack.

    Args:
        events: the oldest first; None where there is no such stack.
        status: of the stack.
    """

    region = "us-east-1"

    def __init__(
        self, events: list[dict[str, Any]] | None, status: str = "ROLLBACK_COMPLETE"
    ) -> None:
        self.events, self.status = events, status

    def client(self, service: str) -> Any:
        """Any service's."""
        return self

    def get_paginator(self, operation: str) -> Any:
        """Of the one operation that is asked for by pages."""
        assert "describe_stack_events" == operation
        return self

    def paginate(self, **names: str) -> Iterator[Any]:
        """The newest first, a hundred at a time."""
        newest_first = self.look()[::-1]
        for first in range(0, len(newest_first), 100):
            yield {"StackEvents": newest_first[first : first + 100]}

    def describe_stacks(self, **names: str) -> Any:
        """It is there, or not."""
        self.look()
        stack = {"StackStatus": self.status, "CreationTime": datetime.now(UTC)}
        return {"Stacks": [stack]}

    def look(self) -> list[dict[str, Any]]:
        """Its events, if there is such a stack."""
        if self.events is None:
            raise refuse("ValidationError", "Stack [llavachat] does not exist")
        return self.events

    def describe_instances(self, **names: Any) -> Any:
        """No machine."""
        return {"Reservations": []}

    def describe_scaling_activities(self, **names: str) -> Any:
        """A group that is not there yet, by the error that others provide for."""
        raise refuse("ValidationError", "AutoScalingGroup name not found")


def account(stack: Stack) -> Account:
    """The same, as the commands take it."""
    return cast(Account, stack)


def roll_back(first: int, rolled_back: int) -> list[dict[str, Any]]:
    """A creation in which the machine finds no room, and all else is given up for it."""
    return [
        tell(first, "llavachat", "REVIEW_IN_PROGRESS", "User Initiated"),
        tell(first + 1, "llavachat", "CREATE_IN_PROGRESS", "User Initiated"),
        tell(first + 2, "Machine", "CREATE_FAILED", FULL),
        tell(first + 3, "Bucket", "CREATE_FAILED", "Resource creation cancelled"),
        tell(first + 4, "Topic", "CREATE_FAILED", "Resource creation cancelled"),
        tell(first + 5, "llavachat", "ROLLBACK_IN_PROGRESS", "failed to create: [Machine, Bucket]"),
        *[tell(first + 6 + each, "Role", "DELETE_COMPLETE") for each in range(rolled_back)],
        tell(first + 6 + rolled_back, "llavachat", "ROLLBACK_COMPLETE"),
    ]


@pytest.mark.parametrize("rolled_back", [3, 250])
def test_the_reason_is_what_failed_first(rolled_back: int) -> None:
    """And not what was cancelled for it; behind a rollback of any length."""
    stack = Stack(roll_back(0, rolled_back))
    assert f"Machine: {FULL}" == down.find_reason(account(stack), "llavachat")


def test_an_older_changes_failure_is_no_reason() -> None:
    """Neither where another change has begun since, nor where it was refused before it began."""
    began = tell(20, "llavachat", "UPDATE_IN_PROGRESS", "User Initiated")
    events = roll_back(0, 3)
    before = down.find_newest_event(account(Stack(events)), "llavachat")
    assert "" == down.find_reason(account(Stack([*events, began])), "llavachat")
    assert "" == down.find_reason(account(Stack(events)), "llavachat", after=before)
    assert "" == down.find_newest_event(account(Stack(None)), "llavachat")


class Cdk:
    """CDK's command line, which has ended already.

    Args:
        lines: what it said.
    """

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def poll(self) -> int:
        """It failed."""
        return 1

    def finish(self) -> int:
        """The same."""
        return 1


@pytest.fixture
def deploy(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A function that deploys where CDK ends with these lines; why it failed."""

    def run(stack: Stack, lines: list[str], then: list[dict[str, Any]], **options: str) -> str:
        def start(*_: object) -> Cdk:
            if then:
                stack.events = [*(stack.events or []), *then]
            return Cdk(lines)

        monkeypatch.setattr(rollout, "CdkRun", start)
        monkeypatch.setattr(rollout, "show", lambda *_: "")
        return rollout.deploy(account(stack), cast(App, None), "llavachat", options)

    return run


def test_what_cdk_says_is_told_where_cloudformation_began_nothing(
    deploy: Callable[..., str],
) -> None:
    """It looks at a change before it makes it: that a log group of that name is there already."""
    review = tell(1, "llavachat", "REVIEW_IN_PROGRESS", "User Initiated")
    said = "'AWS::Logs::LogGroup' with identifier '/llavachat/llavachat/service' already exists"
    new = Stack(None, "REVIEW_IN_PROGRESS")
    assert said == deploy(new, [said], [review])
    # The failure of an earlier deployment would mislead.
    standing = Stack(roll_back(0, 3), "UPDATE_ROLLBACK_COMPLETE")
    assert said == deploy(standing, [said], [])


def test_who_may_have_no_budget_is_told_how_to_do_without(deploy: Callable[..., str]) -> None:
    """An organization's accounts get one only once its own account lets them."""
    failed = [
        tell(1, "llavachat", "CREATE_IN_PROGRESS", "User Initiated"),
        tell(2, "Monthly", "CREATE_FAILED", LINKED),
    ]
    reason = deploy(Stack(None), ["failed"], failed)
    assert f"Monthly: {LINKED} With `-o budget_usd=0` it is deployed without a budget." == reason


def test_a_group_that_is_not_there_yet_has_refused_nothing(deploy: Callable[..., str]) -> None:
    """Spare capacity is asked about from the first second on, before there is a group."""
    assert {} == list_refusals(account(Stack([])), "llavachat")
    assert "no rights" == deploy(Stack(None), ["no rights"], [], spot="true")


def test_a_stack_that_was_never_begun_is_at_nobodys_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stays REVIEW_IN_PROGRESS for ever, so it can be deployed again, and removed.

    Its template, which tells what would be lost, can not be had.
    """
    now = datetime.now(UTC)
    drawn_up = Deployment("llavachat", "REVIEW_IN_PROGRESS", now, {}, None, "llavachat")
    refuse_changing(drawn_up)
    assert (False, False) == (drawn_up.changes, drawn_up.stands)
    monkeypatch.setattr(down, "need_deployment", lambda *_: drawn_up)
    monkeypatch.setattr(down, "list_volumes", lambda *_: [])
    monkeypatch.setattr(down, "delete_stack", lambda *_: None)
    monkeypatch.setattr(down, "forget", lambda *_: None)
    monkeypatch.setattr(down, "forget_profile", lambda *_: None)
    assert ExitCode.OK == down.down(account(Stack([])), "llavachat", yes=True)
    assert "there is nothing to lose" in capsys.readouterr().err
    at_work = Deployment("llavachat", "CREATE_IN_PROGRESS", now, {}, None, "llavachat")
    with pytest.raises(Failure, match="is being changed"):
        refuse_changing(at_work)


@pytest.mark.parametrize("command", [stop, start])
def test_what_was_never_begun_has_no_machine_to_stop(command: Callable[..., ExitCode]) -> None:
    """AWS would be asked about a group of spare capacity that was never made."""
    drawn_up = Stack([], "REVIEW_IN_PROGRESS")
    with pytest.raises(Failure, match="never made; `llavachat up` makes it"):
        command(account(drawn_up), "llavachat")


def test_a_machine_that_finds_no_room_is_not_sent_to_another_zone() -> None:
    """As AWS's own sentence does."""
    said = str(explain(refuse("InsufficientInstanceCapacity", f"{FULL}; choose us-east-1c.")))
    assert said.endswith("Try later, or see 'Another zone' in docs/deploy.md.")
