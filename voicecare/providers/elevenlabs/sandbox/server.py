"""Runs the sandbox as an HTTP server on SANDBOX_HOST.

By default this is 127.0.0.1, so that other machines cannot connect.
"""

import asyncio
import os
import signal
from collections.abc import Callable

from aiohttp import web

from voicecare.providers.elevenlabs.sandbox.app import make_app

HOST = os.environ.get("SANDBOX_HOST") or "127.0.0.1"  # from the environment: this package does not need Django
SHUTDOWN_S = 0.05  # for aiohttp, 0 means no timeout


async def serve(port: int, first_byte_ms: float, announce: Callable[[str], None]) -> None:
    """Serves requests until SIGTERM or SIGINT. Raises OSError if the port cannot be used. Port 0 chooses a free port.

    `announce` is called with the base URL as soon as the server accepts connections. `first_byte_ms` is the time to the
    first byte of speech. At the end, the server stops immediately, and requests in progress are cut.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopped.set)
    # Without handler_cancellation, a closed connection is only noticed at the next write.
    runner = web.AppRunner(
        make_app(first_byte_ms), handler_cancellation=True, access_log=None, shutdown_timeout=SHUTDOWN_S
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, port, backlog=1024)
        await site.start()
        announce(f"http://{HOST}:{runner.addresses[0][1]}")
        await stopped.wait()
    finally:
        await runner.cleanup()
