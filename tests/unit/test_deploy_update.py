"""`llavachat up --update` of what sleeps; CDK's command line, AWS and the tunnel are played.

The whole way is walked in `tests/infra/deploy`, by the real command line.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from llavachat.cli.deploy import rollout, up
from llavachat.cli.deploy.account import Account
from llavachat.cli.deploy.credentials import read_options, save_options
from llavachat.cli.deploy.stack import Deployment
from llavachat.cli.failure import ExitCode, Failure

MADE_WITH = {"instance_type": "g5.xlarge", "zone": "us-east-1a"}
WISH = up.Wish((), (), {"budget_usd": "200"}, update=True)


class Cloud:
    """An account with one deployment; each service's client is the account itself.

    Args:
        state: of its machine; "" for none.
        spot: whether the machine comes in a group.
        refuses: why none comes; "" for nothing.
    """

    region = "us-east-1"

    def __init__(self, state: str, *, spot: bool = False, refuses: str = "") -> None:
        self.state, self.spot, self.refuses = state, spot, refuses
        self.tried: list[dict[str, str]] = []

    def client(self, service: str) -> Any:
        """Any service's."""
        return self

    def describe_stacks(self, **names: str) -> Any:
        """It stands."""
        outputs = [] if self.spot else [{"OutputKey": "InstanceId", "OutputValue": "i-1"}]
        now = datetime.now(UTC)
        return {
            "Stacks": [
                {"StackStatus": "UPDATE_COMPLETE", "CreationTime": now, "Outputs": outputs},
            ]
        }

    def describe_instances(self, **names: Any) -> Any:
        """Its machine."""
        machine = {
            "InstanceId": "i-1",
            "InstanceType": "g5.xlarge",
            "Placement": {"AvailabilityZone": "us-east-1a"},
            "State": {"Name": self.state},
            "LaunchTime": datetime.now(UTC),
        }
        return {"Reservations": [{"Instances": [machine]}] if self.state else []}

    def describe_instance_types(self, **names: Any) -> Any:
        """Four vCPUs."""
        return {"InstanceTypes": [{"VCpuInfo": {"DefaultVCpus": 4}}]}

    def get_service_quota(self, **names: str) -> Any:
        """Room for two machines."""
        return {"Quota": {"Value": 8}}

    def get_waiter(self, state: str) -> Any:
        """Nothing takes time."""
        return self

    def wait(self, **words: Any) -> None:
        """It is so."""

    def start_instances(self, **names: Any) -> None:
        """The machine boots."""
        self.state = "running"

    def set_desired_capacity(self, **words: Any) -> None:
        """A machine comes, or a try fails."""
        if self.refuses:
            failed = {"ActivityId": "1", "StatusCode": "Failed", "StatusMessage": self.refuses}
            self.tried = [failed]
        else:
            self.state = "running" if words["DesiredCapacity"] else ""

    def describe_scaling_activities(self, **names: str) -> Any:
        """What was tried."""
        return {"Activities": self.tried}


Update = Callable[[Cloud], ExitCode]


@pytest.fixture
def update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Update:
    """A function that updates what was deployed from here, by a deployment that goes well."""
    monkeypatch.setenv("LLAVACHAT_STATE_DIR", str(tmp_path))
    save_options("llavachat", "us-east-1", "localhost:50051", MADE_WITH)
    monkeypatch.setattr(up, "find_app", lambda: None)
    monkeypatch.setattr(up, "prepare", lambda *_: None)
    monkeypatch.setattr(rollout, "deploy", lambda *_, **__: "")
    monkeypatch.setattr(up, "greet", greet)
    return lambda cloud: up.up(cast(Account, cloud), "llavachat", WISH, port=None)


def greet(account: Account, deployment: Deployment, port: int | None) -> None:
    """The tunnel's first check, and no more."""
    if deployment.machine is None or deployment.machine.state != "running":
        raise Failure("The machine does not run.")


def test_a_machine_that_was_stopped_is_woken(
    update: Update, capsys: pytest.CaptureFixture[str]
) -> None:
    """A budget replaces no machine, and CloudFormation leaves the one that stands asleep."""
    assert ExitCode.OK == update(Cloud("stopped"))
    assert "is updated; its machine was stopped, and is started." in capsys.readouterr().err


def test_a_group_that_went_idle_gets_a_machine_and_who_updates_is_told(
    update: Update, capsys: pytest.CaptureFixture[str]
) -> None:
    """CloudFormation leaves its size alone, and calls what nobody has tried a success."""
    assert ExitCode.OK == update(Cloud("", spot=True))
    assert "no machine has tried this release yet" in capsys.readouterr().err


def test_a_machine_that_runs_is_left_alone(
    update: Update, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after every update that replaces it."""
    assert ExitCode.OK == update(Cloud("running"))
    assert "is started" not in capsys.readouterr().err


def play_cloudformation(cloud: Cloud) -> Callable[..., str]:
    """A deployment that makes a machine, if there is none, only where its user data changes."""
    generations = ["0"]

    def deploy(account: Account, app: object, name: str, options: Any, *, update: bool) -> str:
        if options.get("generation", "0") not in generations:
            generations.append(options["generation"])
            cloud.state = "running"
        return ""

    return deploy


def test_a_machine_that_was_terminated_by_hand_is_made_again_each_time(
    update: Update, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """CloudFormation takes it to be there, and makes one only where something of it changes."""
    cloud = Cloud("")
    monkeypatch.setattr(rollout, "deploy", play_cloudformation(cloud))
    for generation in ("1", "2"):
        cloud.state = ""
        assert ExitCode.OK == update(cloud)
        told = capsys.readouterr().err
        assert "llavachat has no machine; a new one is made, and takes over the chats." in told
        assert "was stopped" not in told
        kept = read_options("llavachat", "us-east-1")
        assert {**MADE_WITH, "budget_usd": "200", "generation": generation} == kept
    assert ExitCode.OK == update(cloud)
    assert kept == read_options("llavachat", "us-east-1")


def test_an_update_that_fails_without_a_machine_to_go_back_to_tells_why(
    update: Update, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not that there is none, which is why it was begun."""
    monkeypatch.setattr(rollout, "deploy", lambda *_, **__: "no room on /dev/xvda")
    with pytest.raises(Failure, match="was rolled back: no room on /dev/xvda"):
        update(Cloud(""))
    assert MADE_WITH == read_options("llavachat", "us-east-1")


def test_options_are_remembered_though_no_machine_comes(update: Update) -> None:
    """What was deployed stands so; the next update would else take the new option back."""
    with pytest.raises(Failure, match="There is no spare capacity now: none left"):
        update(Cloud("", spot=True, refuses="none left"))
    expected = {**MADE_WITH, "budget_usd": "200"}
    assert expected == read_options("llavachat", "us-east-1")


def test_options_of_a_first_deployment_are_remembered_before_its_tunnel(
    update: Update, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is known of its key yet; its server becomes the active one when it is reached."""
    (tmp_path / "profiles.json").unlink()
    cloud = Cloud("running")
    monkeypatch.setattr(up, "find_deployment", lambda *_: None)
    monkeypatch.setattr(up, "deploy_new", lambda *_: dict(MADE_WITH))

    def fail(*_: object) -> None:
        raise Failure("no tunnel")

    monkeypatch.setattr(up, "greet", fail)
    with pytest.raises(Failure, match="no tunnel"):
        update(cloud)
    assert MADE_WITH == read_options("llavachat", "us-east-1")


def test_what_the_app_refuses_is_told_in_its_own_words() -> None:
    """Each wrong option, and nothing of what CDK says around it."""
    lines = [
        "llavachat cannot be deployed like this:",
        "idle-minutes: no such option; did you mean idle_minutes?",
        "spot='maybe': allowed is true or false",
        ".venv-cdk/bin/python cdk/app.py: Subprocess exited with error 1",
        "another line of CDK's",
    ]
    expected = f"{lines[1]} {lines[2]}"
    assert "" == rollout.find_refusal([])
    assert expected == rollout.find_refusal(["Synthesising", *lines])
    assert "" == rollout.find_refusal(["llavachat | 1/9 | UPDATE_FAILED", *lines[3:]])
