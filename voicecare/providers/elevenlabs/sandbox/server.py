"""The sandbox as a process: listens on this machine only, until it is told to stop."""

import asyncio
import signal
from collections.abc import Callable

from aiohttp import web

from voicecare.providers.elevenlabs.sandbox.app import make_app

HOST = "127.0.0.1"
SHUTDOWN_S = 0.05  # aiohttp takes 0 for "without end"


async def serve(port: int, first_byte_ms: float, announce: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT; `announce` gets the base URL once it listens. Port 0 takes a free one.

    Stops at once: requests under way are cut, as nobody waits for the end of an imitation.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopped.set)
    # Without handler_cancellation a client that leaves would go unnoticed until the next write.
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
