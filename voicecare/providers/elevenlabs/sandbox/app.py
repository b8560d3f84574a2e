"""Makes the sandbox as an aiohttp application."""

from collections.abc import AsyncIterator

from aiohttp import web

from voicecare.providers.elevenlabs.sandbox import control
from voicecare.providers.elevenlabs.sandbox.account.synthesizer import Synthesizer
from voicecare.providers.elevenlabs.sandbox.api import account, analytics, speech, voices
from voicecare.providers.elevenlabs.sandbox.api.middleware import add_trace_headers, plain_errors
from voicecare.providers.elevenlabs.sandbox.state import SANDBOX, Sandbox
from voicecare.providers.espeak.client import OfflineSynthesizer

MAX_REQUEST_BYTES = 64 * 1024 * 1024


def make_app(first_byte_ms: float = 120.0) -> web.Application:
    """Returns the application with a new account. `first_byte_ms` is the time to the first byte of speech.

    The espeak worker process is started with the application and stopped with it.
    """
    app = web.Application(middlewares=[plain_errors], client_max_size=MAX_REQUEST_BYTES)
    espeak = OfflineSynthesizer()
    app[SANDBOX] = Sandbox(Synthesizer(espeak), first_byte_ms)
    for part in (speech, voices, account, analytics, control):
        part.add_routes(app.router)
    app.on_response_prepare.append(add_trace_headers)

    async def with_espeak(_app: web.Application) -> AsyncIterator[None]:
        await espeak.start()
        yield
        await espeak.close()

    app.cleanup_ctx.append(with_espeak)
    return app
