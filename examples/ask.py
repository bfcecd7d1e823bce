"""Ask about a picture, in five lines: ``python examples/ask.py cat.jpg "What is this?"``.

The server is LLAVACHAT_ADDRESS, or localhost:50051.
"""

import sys

from llavachat import Client

with Client.from_environment() as client, client.start(sys.argv[1], sys.argv[2]) as reply:
    for text in reply:
        print(text, end="", flush=True)
print()
