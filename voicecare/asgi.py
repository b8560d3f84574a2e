"""The ASGI application for HTTP and WebSocket.

Run it with `daphne voicecare.asgi:application` or another ASGI server.
"""

import os
from collections.abc import Awaitable, Callable
from typing import Any

from django.core.asgi import get_asgi_application

from voicecare.observability import processes

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voicecare.settings")
processes.set_up()  # before the application, because traces add a middleware
django_application = get_asgi_application()

# The imports below load models. Models need the applications that the line above has set up.
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402

from tts.runtime import runtime  # noqa: E402
from voicecare.infrastructure import daphne_patches, http_responses  # noqa: E402
from voicecare.routing import websocket_urlpatterns  # noqa: E402

daphne_patches.disable_form_parsing()
daphne_patches.escape_subprotocols()
_router = ProtocolTypeRouter({"http": django_application, "websocket": URLRouter(websocket_urlpatterns)})


async def application(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    # daphne sends no lifespan event, so the first request or connection starts the runtime. Later calls do nothing.
    await runtime.start()
    if scope["type"] != "http":
        await _router(scope, receive, send)
        return
    # daphne takes the scheme from X-Forwarded-Proto. With several proxies this is a list, separated by commas, whose
    # first entry is the scheme of the client.
    schemes = [scheme.strip().lower() for scheme in scope.get("scheme", "http").split(",")]
    scope["scheme"] = "https" if next(filter(None, schemes), "") == "https" else "http"
    if runtime.is_closed:
        await http_responses.refuse(send)
        return
    with runtime.http_request():
        await http_responses.serve(_router, scope, receive, send)
