"""An ASGI middleware that refuses requests before the server reads their body.

The page sends everything in one message to Gradio's queue, so no other POST is allowed. This closes the routes that
would store an upload, fetch another address or serve a file. A request must be small, come from the page itself and
name this machine. A policy in every response forbids the browser to load anything from elsewhere.
"""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

MAX_FILES_BYTES = 48 << 20  # of all files of one message
# Base64 takes 4 bytes for 3; the rest of the message fits into a megabyte.
MAX_REQUEST_BYTES = MAX_FILES_BYTES * 4 // 3 + (1 << 20)
LOOPBACK = ("127.0.0.1", "localhost", "::1")

_POSTS = ("/gradio_api/queue/join", "/gradio_api/reset", "/gradio_api/cancel")
_CLOSED = ("/gradio_api/proxy=", "/gradio_api/file", "/gradio_api/stream", "/gradio_api/vibe")
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:; font-src 'self' data:; "
        "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Guard:
    """Wraps an ASGI application.

    Args:
      app: answers the requests that pass.
      hosts: allowed names of this machine, without a port; empty allows any name.
    """

    def __init__(
        self,
        app: Callable[[Message, Receive, Send], Awaitable[None]],
        hosts: Iterable[str] = LOOPBACK,
    ) -> None:
        self._app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Refuses with a status and one line, or passes the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        refused = refusal(scope["method"], scope["path"], headers, self._hosts)
        if refused:
            status, words = refused
            start = {"type": "http.response.start", "status": status, "headers": _encoded(_HEADERS)}
            await send(start)
            await send({"type": "http.response.body", "body": f"{words}\n".encode()})
            return

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_encoded(_HEADERS)]
            await send(message)

        await self._app(scope, receive, send_with_policy)


def refusal(
    method: str, path: str, headers: MutableMapping[str, str], hosts: frozenset[str]
) -> tuple[int, str] | None:
    """Status and reason if the request is refused, else None.

    Args:
      method, path: of the request.
      headers: by lower-case name.
      hosts: see `Guard`.
    """
    host = headers.get("host", "")
    if hosts and urlsplit(f"//{host}").hostname not in hosts:
        # DNS rebinding: another site's name that resolves to this machine.
        return 421, f"this page is not {host!r}"
    origin = headers.get("origin")
    if origin and urlsplit(origin).netloc != host:
        return 403, f"requests from {origin} are refused"
    if any(path.startswith(closed) for closed in _CLOSED):
        return 404, f"{path} is closed"
    if method in ("GET", "HEAD"):
        return None
    if method != "POST" or path.rstrip("/") not in _POSTS:
        return 405, f"{method} {path} is closed"
    length = headers.get("content-length", "")
    if not length.isdecimal():
        return 411, "a request must tell its length"
    if int(length) > MAX_REQUEST_BYTES:
        return 413, f"{length} bytes: a request has at most {MAX_REQUEST_BYTES}"
    return None


def _encoded(headers: MutableMapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
