"""WebSocket routes. HTTP routes are in urls.py."""

from collections.abc import Awaitable, Callable
from typing import Any

from django.urls import path, re_path

from tts.consumers import device_socket
from tts.devices.refusing import refuse
from tts.protocol.refusals import UNKNOWN_PATH
from voicecare.health.diagnostics import diagnostics_socket


async def reject_unknown_path(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """Refuses a WebSocket with an unknown path, as a device with a wrong address.

    Without this route, Channels would log an exception for each such connection.
    """
    await receive()
    await refuse(scope, send, UNKNOWN_PATH)


websocket_urlpatterns = [
    path("ws/device/", device_socket),  # type: ignore[arg-type]  # Django's stubs know views only
    path("ws/diagnostics/", diagnostics_socket),  # type: ignore[arg-type]  # as above
    re_path("", reject_unknown_path),  # type: ignore[arg-type]
]
