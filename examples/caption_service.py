"""One service that calls another: captions over HTTP, answered by llavachat over gRPC.

    LLAVACHAT_ADDRESS=gpu.internal:50051 LLAVACHAT_TLS_CA_FILE=ca.pem LLAVACHAT_API_KEY=... \\
        python examples/caption_service.py 8080
    curl --data-binary @cat.jpg http://localhost:8080/caption

What a service in front of another owes to both sides:
- TLS and the key come from the environment, never from the code;
- the caller's time limit (``X-Timeout-Seconds``) becomes the gRPC deadline, less what was used;
- the caller's ``traceparent`` (W3C Trace Context) goes on, with a span of our own;
- a retry by the caller (``Idempotency-Key``) asks the model once;
- every kind of failure has its own HTTP status, and a full server its Retry-After.
"""

import json
import math
import re
import secrets
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from llavachat import (
    Client,
    DeadlineExceeded,
    FinishReason,
    ImageError,
    InvalidRequest,
    LimitReached,
    LlavaChatError,
    RequestIdReused,
    ServerUnavailable,
    load_picture,
)

MAX_BODY_BYTES = 20 * 1024 * 1024
DEFAULT_TIMEOUT_SECONDS = 30.0
_WHOLE = {FinishReason.EOS, FinishReason.STOP_SEQUENCE, FinishReason.MAX_TOKENS}
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})")


def continue_trace(traceparent: str | None) -> str:
    """The traceparent for our call: the caller's trace, or a new one, and a new span."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    trace_id, flags = match.groups() if match else (secrets.token_hex(16), "01")
    return f"00-{trace_id}-{secrets.token_hex(8)}-{flags}"


def parse_limit(text: str | None) -> float | None:
    """The caller's time limit in seconds, or ours. None: it is no time."""
    try:
        seconds = DEFAULT_TIMEOUT_SECONDS if text is None else float(text)
    except ValueError:
        return None
    # "nan" is a number to Python, and over nothing.
    return seconds if 0 < seconds < math.inf else None


class CaptionHandler(BaseHTTPRequestHandler):
    """``POST /caption`` with a picture as its body."""

    client: Client

    def do_POST(self) -> None:
        """Answer with JSON: a caption, or an error."""
        began = time.monotonic()
        if self.path != "/caption":
            return self._answer(404, {"error": "POST a picture to /caption"})
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or not 0 < int(length) <= MAX_BODY_BYTES:
            return self._answer(413, {"error": f"send 1 to {MAX_BODY_BYTES} bytes"})
        body = self.rfile.read(int(length))
        limit_seconds = parse_limit(self.headers.get("X-Timeout-Seconds"))
        if limit_seconds is None:
            return self._answer(400, {"error": "X-Timeout-Seconds must be over 0 seconds"})
        try:
            picture = load_picture(body)
            reply = self.client.start(
                picture,
                "What is in the picture?",
                max_tokens=60,
                request_id=self.headers.get("Idempotency-Key"),
                metadata={"traceparent": continue_trace(self.headers.get("traceparent"))},
                timeout_seconds=max(limit_seconds - (time.monotonic() - began), 0.001),
            )
            caption = reply.read()
            if reply.finish_reason not in _WHOLE:
                # A retry under the same key would be told the same half again.
                return self._answer(502, {"error": "the caption was cut short; use another key"})
            return self._answer(200, {"caption": caption, "model": reply.model.name})
        except (ImageError, InvalidRequest) as error:
            return self._answer(400, {"error": str(error)})
        except RequestIdReused:
            return self._answer(422, {"error": "this key was used with another picture"})
        except DeadlineExceeded:
            return self._answer(504, {"error": "the caption took too long"})
        except (LimitReached, ServerUnavailable) as error:
            seconds = max(round(error.retry_after_seconds or 1), 1)
            return self._answer(503, {"error": "try again later"}, {"Retry-After": str(seconds)})
        except LlavaChatError as error:
            self.log_error("llavachat: %s", error)
            return self._answer(502, {"error": "the model can not be asked"})

    def _answer(
        self, status: int, content: dict[str, str], headers: dict[str, str] | None = None
    ) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve on 127.0.0.1, at the port that the command line names (0: a free one)."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    # One client for all threads: it holds one connection, which TLS makes costly to open. While no
    # server is there, callers had better be told to come back than stand in a line of threads.
    with Client.from_environment(restart_seconds=0) as client:
        CaptionHandler.client = client
        server = ThreadingHTTPServer(("127.0.0.1", port), CaptionHandler)
        print(f"captions on http://127.0.0.1:{server.server_port}/caption", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
