"""The ASGI application. `daphne voicecare.asgi:application` serves HTTP and WebSocket; other ASGI servers can, too."""

import os
from collections.abc import Awaitable, Callable
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voicecare.settings")
django_application = get_asgi_application()

# The imports below load models. Models need the applications that the line above has set up.
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402

from tts.runtime import runtime  # noqa: E402
from voicecare.infrastructure import daphne_patches  # noqa: E402
from voicecare.routing import websocket_urlpatterns  # noqa: E402

daphne_patches.disable_form_parsing()
_router = ProtocolTypeRouter({"http": django_application, "websocket": URLRouter(websocket_urlpatterns)})


async def application(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    # daphne sends no lifespan event, so the first request or connection starts the runtime. Later calls do nothing.
    await runtime.start()
    await _router(scope, receive, send)
