"""The minimal relay: a Channels consumer on daphne, one aiohttp session, nothing else.

A text frame is the body of the request to UPSTREAM_URL. Every read of the response becomes a binary frame. A text frame
marks the end.
"""

import os
from typing import Any

import aiohttp
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

settings.configure()

URL = os.environ["UPSTREAM_URL"] + "/v1/text-to-speech/bench/stream"
KEEPALIVE_S = 240.0  # longer than the pauses between rounds, as in the server
END = "end"


class Relay(AsyncWebsocketConsumer):
    session: aiohttp.ClientSession

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        async with self.session.post(URL, data=text_data) as reply:
            async for chunk in reply.content.iter_any():
                await self.send(bytes_data=chunk)
        await self.send(text_data=END)


_relay = Relay.as_asgi()


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "websocket":
        await _answer_ready(send)
        return
    if not hasattr(Relay, "session"):
        Relay.session = _new_session()
    await _relay(scope, receive, send)


async def _answer_ready(send: Any) -> None:
    """Answer that the relay is up. This also creates the session, so that no device waits for it."""
    if not hasattr(Relay, "session"):
        Relay.session = _new_session()
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"ready"})


def _new_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S))
