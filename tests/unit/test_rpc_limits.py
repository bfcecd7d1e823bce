"""Channel arguments: each is one that gRPC knows, and the sizes follow the profile."""

from importlib.util import find_spec
from pathlib import Path

from llavachat_server.rpc.limits import channel_arguments


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


def test_a_message_holds_its_pictures_and_a_little_more() -> None:
    """The largest request is the pictures at their limit, and 64 KiB for the rest."""
    arguments = dict(channel_arguments(max_image_bytes=1000, max_images=3))
    assert 3 * 1000 + 64 * 1024 == arguments["grpc.max_receive_message_length"]
