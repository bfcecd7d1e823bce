"""What the first boot does that needs no machine."""

import json
import ssl
import stat
import subprocess
import sys
from pathlib import Path
from string import Template

import pytest
from conftest import ROOT

MACHINE = ROOT / "cdk" / "llavachat_cdk" / "machine"
sys.path.insert(0, str(MACHINE))

from firstboot import credentials, volume  # noqa: E402
from firstboot.__main__ import describe  # noqa: E402


@pytest.fixture(scope="module")
def kept() -> dict[str, str]:
    """A certificate as the first machine makes it."""
    return credentials.make_certificate("chat.example.internal")


def test_the_certificate_is_for_the_private_name_and_the_tunnel(
    kept: dict[str, str], tmp_path: Path
) -> None:
    """Python's own TLS reads it; both names and the loopback address are in it."""
    file = tmp_path / "certificate"
    file.write_text(kept["certificate"])
    decoded = ssl._ssl._test_decode_cert(str(file))  # type: ignore[attr-defined]
    expected = {
        ("DNS", "chat.example.internal"),
        ("DNS", "localhost"),
        ("IP Address", "127.0.0.1"),
    }
    assert expected == set(decoded["subjectAltName"])


@pytest.mark.parametrize(
    ("domain", "is_good"),
    [("chat.example.internal", True), ("other.internal", False), ("", True)],
)
def test_a_kept_certificate_serves_as_long_as_its_name_does(
    kept: dict[str, str], domain: str, is_good: bool
) -> None:
    """Another domain needs another certificate; none needs localhost alone."""
    assert is_good == credentials.is_good(kept, domain)


def test_what_cloudformation_made_is_no_certificate_yet() -> None:
    """The secret begins with a placeholder."""
    assert not credentials.is_good({"unused": "abc"}, "chat.example.internal")


def test_a_certificate_that_ends_soon_is_made_anew(
    kept: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soon being more than its whole life here."""
    monkeypatch.setattr(credentials, "RENEW_SECONDS", 11 * 365 * 24 * 3600)
    assert not credentials.is_good(kept, "chat.example.internal")


def test_a_credential_can_be_read_by_root_alone(tmp_path: Path) -> None:
    """Also while it is being written."""
    path = tmp_path / "credentials" / "api-key"
    credentials.write_private(path, "secret\n")
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert 0o700 == stat.S_IMODE(path.parent.stat().st_mode)
    assert [path] == list(path.parent.iterdir())


def test_the_agents_settings_are_json_once_filled_in() -> None:
    """No placeholder is left but the agent's own."""
    values = {"name": "n", "service_log": "/llavachat/n/service", "chats_folder": "/chats"}
    text = Template((MACHINE / "agent.json").read_text()).substitute(values)
    settings = json.loads(text)
    assert "LlavaChat" == settings["metrics"]["namespace"]
    assert ["/", "/chats"] == settings["metrics"]["metrics_collected"]["disk"]["resources"]


def test_alarms_read_metrics_that_the_agent_sends(template: dict[str, object]) -> None:
    """Names are the agent's: plugin, underscore, measurement."""
    plugins = json.loads((MACHINE / "agent.json").read_text())["metrics"]["metrics_collected"]
    prefix = {"nvidia_gpu": "nvidia_smi", "procstat": "procstat_lookup"}
    sent = {
        f"{prefix.get(plugin, plugin)}_{measurement}"
        for plugin, body in plugins.items()
        for each in (body if isinstance(body, list) else [body])
        for measurement in each["measurement"]
    }
    watched = {
        word
        for word in json.dumps(template).replace("\\", "").split('"')
        if word.startswith(("nvidia_smi_", "procstat_", "disk_", "mem_"))
    }
    assert watched
    assert watched <= sent


def test_a_volume_that_does_not_appear_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the names that were looked for."""
    monkeypatch.setattr(volume, "DEVICE_SECONDS", 0)
    with pytest.raises(TimeoutError, match="vol-012 is attached, but none of /dev/disk/by-id/nvme"):
        volume.find_device("vol-012")


def test_a_failed_program_is_told_in_one_line() -> None:
    """By its name, its status and its last words."""
    error = subprocess.CalledProcessError(32, ["mount", "x"], stderr="one\nwrong fs type\n")
    assert "mount ended with 32. wrong fs type" == describe(error)


def test_the_first_boot_speaks_the_systems_python() -> None:
    """Amazon Linux 2023 has 3.9: no syntax that it does not know."""
    import ast

    for path in sorted((MACHINE / "firstboot").glob("*.py")):
        ast.parse(path.read_text(), feature_version=(3, 9))
        assert not path.read_text().count("match ("), path
