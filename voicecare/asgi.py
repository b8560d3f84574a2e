"""The ASGI application: `daphne voicecare.asgi:application` serves everything. Plain ASGI, so other servers do too."""

import os
from collections.abc import Awaitable, Callable
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voicecare.settings")
django_application = get_asgi_application()

# What follows imports models, which needs the applications that the line above has loaded.
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402

from tts.runtime import runtime  # noqa: E402
from voicecare.infrastructure import daphne_patches  # noqa: E402
from voicecare.routing import websocket_urlpatterns  # noqa: E402

daphne_patches.disable_form_parsing()
_router = ProtocolTypeRouter({"http": django_application, "websocket": URLRouter(websocket_urlpatterns)})


async def application(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    await runtime.start()  # daphne sends no lifespan event, so the first scope of any kind starts the process
    await _router(scope, receive, send)
