"""llavachat on AWS: one private machine with a GPU, as a stack or as a construct for others.

Nothing here imports the client or the server: the stack carries their wheel as a file.

    from llavachat_cdk import LlavaChat, Options

    LlavaChat(stack, "Chat", options=Options(profile="llava-1.5-7b", idle_minutes=15))
"""

from llavachat_cdk.configuration import ConfigurationError, Options, read_context
from llavachat_cdk.llavachat import LlavaChat
from llavachat_cdk.release import Release
from llavachat_cdk.stack import LlavaChatStack

__all__ = [
    "ConfigurationError",
    "LlavaChat",
    "LlavaChatStack",
    "Options",
    "Release",
    "read_context",
]
