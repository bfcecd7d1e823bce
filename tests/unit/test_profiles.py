"""Profiles: what each promises."""

import re

import pytest
from llavachat_server.profiles import PROFILES, Profile
from llavachat_server.settings import Settings
from llavachat_server.values import HUB_ID


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_a_profile_is_consistent(profile: Profile) -> None:
    """Hub ids are pinned to a commit, and defaults lie within limits."""
    is_hub_id = HUB_ID.fullmatch(profile.model) is not None
    assert is_hub_id is (re.fullmatch(r"[0-9a-f]{40}", profile.revision) is not None)
    assert 1 <= profile.default_sampling.max_tokens <= profile.max_tokens
    assert profile.max_running_turns >= 1
    assert profile.max_turn_seconds > 0


def test_the_setting_allows_exactly_the_profiles() -> None:
    """What --profile takes and what there is are the same names."""
    allowed = Settings.model_json_schema()["properties"]["profile"]["enum"]
    assert sorted(PROFILES) == sorted(allowed)
