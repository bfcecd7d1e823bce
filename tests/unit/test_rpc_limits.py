"""Channel arguments: each is one that gRPC knows, and the sizes follow the profile."""

from importlib.util import find_spec
from pathlib import Path
from resource import RLIM_INFINITY

import pytest
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.chats.importer import MAX_FILE_BYTES
from llavachat_server.profiles import PROFILES
from llavachat_server.rpc.limits import ARGUMENTS, channel_arguments, count_connections

NONE = {"max_image_bytes": 1, "max_images": 1, "max_prompt_chars": 1}


def test_every_argument_is_known_to_grpc() -> None:
    """A misspelt argument is ignored without a word, so each must stand in the library."""
    spec = find_spec("grpc._cython.cygrpc")
    assert spec is not None
    assert spec.origin is not None
    library = Path(spec.origin).read_bytes()
    unknown = [name for name, _ in channel_arguments(**NONE) if name.encode() not in library]
    assert [] == unknown


def test_every_argument_stands_in_the_documentation() -> None:
    """With its value and its reason, as they are in the code."""
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    for argument in ARGUMENTS:
        assert f"| `{argument.name}` | {argument.value:,} | {argument.why} |" in text
    stated = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `grpc.")}
    assert {name for name, _ in channel_arguments(**NONE)} == stated


def test_connections_fit_into_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some are left for the server's own files, and there is always room for a few."""
    for soft, expected in ((1024, 768), (100_000, 4096), (64, 16), (RLIM_INFINITY, 4096)):
        monkeypatch.setattr("resource.getrlimit", lambda _, soft=soft: (soft, soft))
        assert expected == count_connections()


def longest_message(**limits: int) -> int:
    """In bytes."""
    return dict(channel_arguments(**limits))["grpc.max_receive_message_length"]


def test_a_message_holds_its_pictures_its_texts_and_a_little_more() -> None:
    """Pictures at their limit, two texts of the longest characters, and 64 KiB for the rest."""
    found = longest_message(max_image_bytes=64 * 1024**2, max_images=3, max_prompt_chars=100)
    assert 3 * 64 * 1024**2 + 2 * 4 * 100 + 64 * 1024 == found


def test_a_message_holds_any_picture_that_is_given_away() -> None:
    """However small and few those are that questions may have."""
    found = longest_message(max_image_bytes=1024, max_images=0, max_prompt_chars=1)
    assert MAX_FILE_BYTES < found < MAX_FILE_BYTES + 100_000


def test_the_longest_question_fits() -> None:
    """All of its texts at their limits, each in characters of four bytes, are in the allowance."""
    profile, char = PROFILES["shapes"], "\U0001f600"
    request = pb.StartChatRequest(
        images=[pb.Image(data=bytes(MAX_FILE_BYTES), num_frames=10_000)],
        prompt=char * profile.max_prompt_chars,
        system_prompt=char * profile.max_prompt_chars,
        labels={f"{number:02}" + char * 62: char * 64 for number in range(16)},
        params=pb.GenerationParams(stop=[char * 64] * 8, seed=2**64 - 1),
        request_id="x" * 128,
    )
    limit = longest_message(
        max_image_bytes=MAX_FILE_BYTES, max_images=1, max_prompt_chars=profile.max_prompt_chars
    )
    assert request.ByteSize() <= limit
