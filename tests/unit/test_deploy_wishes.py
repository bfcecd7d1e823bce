"""What `llavachat up` refuses of a wish before AWS is asked for anything."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from llavachat.cli.deploy.account import Account
from llavachat.cli.deploy.stack import Deployment, Machine
from llavachat.cli.deploy.up import Wish, choose_update, find_limit, refuse_another
from llavachat.cli.failure import Failure
from llavachat.cli.profiles import Profile, Profiles, write_profiles

SNAPSHOT = "snap-0123456789abcdef0"
MADE_WITH = {"instance_type": "g5.xlarge", "zone": "us-east-1a", "budget_usd": "100"}


class Region:
    """An account that may not be asked."""

    region = "us-east-1"


ACCOUNT = cast(Account, Region())


def remember(options: dict[str, str]) -> None:
    """A deployment was made from here, with these options."""
    where = {"stack": "llavachat", "region": "us-east-1", "options": json.dumps(options)}
    profile = Profile("localhost:50051", deployment=where)
    write_profiles(Profiles("llavachat", {"llavachat": profile}))


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state folder of the test's own, in which the deployment is known."""
    monkeypatch.setenv("LLAVACHAT_STATE_DIR", str(tmp_path))
    remember(MADE_WITH)


def stand(*, idle: bool = False) -> Deployment:
    """A deployment; spare capacity that went idle has no machine."""
    now = datetime.now(UTC)
    machine = Machine("i-1", "g5.xlarge", "us-east-1a", "running", now)
    parts: tuple[Any, ...] = (None, "llavachat") if idle else (machine, "")
    return Deployment("llavachat", "CREATE_COMPLETE", now, {}, *parts)


@pytest.mark.parametrize("idle", [False, True])
@pytest.mark.parametrize(
    ("zones", "options", "sentence"),
    [
        (("us-east-1b",), {}, "stands in us-east-1a, and its chats live there; 'Another zone'"),
        ((), {"zone": "us-east-1b"}, "stands in us-east-1a, and its chats live there"),
        ((), {"restore_snapshot_id": SNAPSHOT}, f"has chats of its own, and {SNAPSHOT} is for"),
    ],
)
def test_what_would_leave_the_chats_behind_is_refused(
    zones: tuple[str, ...], options: dict[str, str], sentence: str, idle: bool
) -> None:
    """With an update or without, also where no machine tells its zone."""
    with pytest.raises(Failure, match=sentence):
        choose_update(ACCOUNT, stand(idle=idle), Wish((), zones, options, update=True))
    with pytest.raises(Failure, match=sentence):
        refuse_another(ACCOUNT, stand(idle=idle), Wish((), zones, options, update=False))


@pytest.mark.parametrize("wished", [{}, {"restore_snapshot_id": SNAPSHOT}])
def test_a_restored_deployment_is_updated_with_its_snapshot_or_without(
    wished: dict[str, str],
) -> None:
    """Named again, remembered, or left out: CloudFormation keeps the one that it began from."""
    restored = {**MADE_WITH, "restore_snapshot_id": SNAPSHOT}
    remember(restored)
    assert restored == choose_update(ACCOUNT, stand(), Wish((), (), wished, update=True))
    left_out = Wish((), (), {"restore_snapshot_id": ""}, update=True)
    assert {**restored, "restore_snapshot_id": ""} == choose_update(ACCOUNT, stand(), left_out)


@pytest.mark.parametrize(
    ("known", "seconds"),
    [
        ({}, 900),
        (MADE_WITH, 600),
        ({**MADE_WITH, "profile": "llava-1.5-13b"}, 900),
        ({**MADE_WITH, "profile": "shapes"}, 300),
        ({**MADE_WITH, "profile": "of-a-newer-release"}, 900),
    ],
)
def test_a_larger_model_may_take_longer_to_load(known: dict[str, str], seconds: float) -> None:
    """Its weights come from their mirror after every stop; one that is not known may be large."""
    assert seconds == find_limit(stand(), known)
    assert 1800 == find_limit(stand(idle=True), known)
