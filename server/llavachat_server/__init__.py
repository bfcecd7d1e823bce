"""The llavachat server: chats about pictures, over gRPC, on one machine.

Imports run down only: app -> rpc -> (chats, images, engine) -> values.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("llavachat")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"
