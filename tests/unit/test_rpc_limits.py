"""Channel arguments: each is one that gRPC knows, and the sizes follow the profile."""

from importlib.util import find_spec
from pathlib import Path
from resource import RLIM_INFINITY

import pytest
from llavachat_server.rpc.limits import ARGUMENTS, channel_arguments, count_connections


def test_every_argument_is_known_to_grpc() -> None:
    """A misspelt argument is ignored without a word, so each must stand in the library."""
    spec = find_spec("grpc._cython.cygrpc")
    assert spec is not None
    assert spec.origin is not None
    library = Path(spec.origin).read_bytes()
    unknown = [
        name
        for name, _ in channel_arguments(max_image_bytes=1, max_images=1)
        if name.encode() not in library
    ]
    assert [] == unknown


def test_every_argument_stands_in_the_documentation() -> None:
    """With its value and its reason, as they are in the code."""
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    for argument in ARGUMENTS:
        assert f"| `{argument.name}` | {argument.value:,} | {argument.why} |" in text
    stated = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `grpc.")}
    assert {name for name, _ in channel_arguments(max_image_bytes=1, max_images=1)} == stated


def test_connections_fit_into_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some are left for the server's own files, and there is always room for a few."""
    for soft, expected in ((1024, 768), (100_000, 4096), (64, 16), (RLIM_INFINITY, 4096)):
        monkeypatch.setattr("resource.getrlimit", lambda _, soft=soft: (soft, soft))
        assert expected == count_connections()


def test_a_message_holds_its_pictures_and_a_little_more() -> None:
    """The largest request is the pictures at their limit, and 64 KiB for the rest."""
    arguments = dict(channel_arguments(max_image_bytes=1000, max_images=3))
    assert 3 * 1000 + 64 * 1024 == arguments["grpc.max_receive_message_length"]
