"""What the page's server refuses, asked as a stranger would."""

import asyncio

import pytest

from lvm_jax.demo.refusals import LOOPBACK, MAX_REQUEST_BYTES, Guard


def ask(method="GET", path="/", hosts=LOOPBACK, **headers):
    """The status and the headers with which a guarded application answers."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"yes")]})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        sent.append(message)

    fields = {"host": "127.0.0.1:7860"} | {k.replace("_", "-"): v for k, v in headers.items()}
    raw = [(k.encode(), v.encode()) for k, v in fields.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": raw}
    asyncio.run(Guard(app, hosts)(scope, None, send))
    return sent[0]["status"], dict(sent[0]["headers"])


def test_the_page_passes_with_a_policy():
    for host in ("127.0.0.1:7860", "localhost:7860", "[::1]:7860"):
        status, headers = ask(host=host)
        assert status == 200
        assert headers[b"x-app"] == b"yes"
        assert headers[b"content-security-policy"].startswith(b"default-src 'self'")
    post = {"content_length": "12", "origin": "http://127.0.0.1:7860"}
    assert ask("POST", "/gradio_api/queue/join", **post)[0] == 200


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (421, {"host": "evil.example:7860"}),
        (421, {"host": ""}),
        (403, {"origin": "https://evil.example"}),
        (403, {"origin": "null"}),
        (403, {"origin": "http://127.0.0.1:9999"}),
        (404, {"path": "/gradio_api/proxy=https://example.org"}),
        (404, {"path": "/gradio_api/file=/etc/passwd"}),
        (404, {"path": "/gradio_api/file/etc/passwd"}),
        (405, {"method": "POST", "path": "/gradio_api/upload", "content_length": "9"}),
        (405, {"method": "POST", "path": "/gradio_api/run/predict", "content_length": "9"}),
        (405, {"method": "DELETE", "path": "/gradio_api/queue/join"}),
        (411, {"method": "POST", "path": "/gradio_api/queue/join"}),
        (413, {"method": "POST", "path": "/gradio_api/queue/join", "content_length": f"{MAX_REQUEST_BYTES + 1}"}),
    ],
)  # fmt: skip
def test_strangers_are_refused(status, request_):
    found, headers = ask(**request_)
    assert found == status
    assert b"x-app" not in headers


def test_another_host_can_be_allowed():
    assert ask(hosts=(), host="box.lan:7860")[0] == 200
