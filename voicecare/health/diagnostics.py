"""What `manage.py doctor --url` asks the server through its proxy: a slow reply, and a WebSocket.

    GET /diagnostics      a line of JSON with what the server sees of the request, then one line after each pause
    /ws/diagnostics/      accepts the WebSocket, sends one message and closes it

Both need a token that is signed with SECRET_KEY and valid for a minute, so nobody else can use them.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from django.core import signing
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

PATH, SOCKET_PATH = "/diagnostics", "/ws/diagnostics/"
LINES, PAUSE_S = 6, 0.3
GREETING = "voicecare"
_SALT = "voicecare.diagnostics"
_MAX_AGE_S = 60


def authorization() -> str:
    """Returns the value of the header Authorization that both need."""
    return f"Bearer {signing.dumps(GREETING, salt=_SALT)}"


async def diagnostics(request: HttpRequest) -> HttpResponseBase:
    """Streams a reply in LINES lines, with PAUSE_S seconds between two of them. 403 without a valid token."""
    if not _is_valid(request.headers.get("Authorization", "")):
        return JsonResponse({"detail": "This is for `manage.py doctor` only.", "code": "forbidden"}, status=403)
    seen = {
        "scheme": request.scheme,
        "host": request.get_host(),
        "client": request.META.get("REMOTE_ADDR", ""),
        "is_forwarded": "X-Forwarded-For" in request.headers,
    }
    return StreamingHttpResponse(_lines(seen), content_type="audio/mpeg")  # a proxy treats it as it treats speech


async def diagnostics_socket(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """An ASGI application. Refuses the WebSocket (HTTP 403) without a valid token."""
    await receive()
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    if _is_valid(headers.get("authorization", "")):
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": GREETING})
    await send({"type": "websocket.close"})


async def _lines(seen: dict[str, Any]) -> AsyncIterator[bytes]:
    yield f"{json.dumps(seen)}\n".encode()
    for _ in range(LINES - 1):
        await asyncio.sleep(PAUSE_S)
        yield b"...\n"


def _is_valid(authorization: str) -> bool:
    try:
        signing.loads(authorization.removeprefix("Bearer "), salt=_SALT, max_age=_MAX_AGE_S)
    except signing.BadSignature:
        return False
    return True
