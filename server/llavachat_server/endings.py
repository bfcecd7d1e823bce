"""What ends a server that was not told to end."""


class StartError(Exception):
    """The server can not start; one sentence for the operator."""


class EngineEnded(Exception):
    """The engine failed and can not go on; one sentence for the operator."""


class StoreLost(Exception):
    """Another server owns the chats now; one sentence for the operator."""
