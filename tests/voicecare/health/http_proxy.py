"""A small HTTP proxy in front of a server, as nginx is, with the mistakes that such a proxy is configured with."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import aiohttp
from aiohttp import web

NOT_PASSED_ON = {"connection", "upgrade", "transfer-encoding", "content-length", "host", "date", "server"}


@dataclass(frozen=True)
class Mistakes:
    """What the proxy does wrong: without any, it is a good proxy."""

    buffers: bool = False
    drops_upgrade: bool = False
    adds_address: bool = False
    drops_address: bool = False
    drops_scheme: bool = False
    drops_host: bool = False
    host: str = ""  # sent in place of the host that the client asked for


@asynccontextmanager
async def http_proxy(
    upstream: str, mistakes: Mistakes | None = None, context: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Run a proxy in front of `upstream` and yield its URL. With a `context` it speaks TLS, as localhost."""
    wrong = mistakes or Mistakes()
    scheme = "https" if context else "http"

    def forwarded(request: web.Request) -> dict[str, str]:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in NOT_PASSED_ON}
        for name in [name for name in headers if name.lower().startswith(("x-forwarded", "sec-websocket"))]:
            made_up = headers.pop(name)
            if wrong.adds_address and name.lower() == "x-forwarded-for":
                headers[name] = f"{made_up}, {request.remote}"
        if not wrong.drops_host:
            headers["Host"] = wrong.host or request.host
        if not wrong.drops_address:
            headers.setdefault("X-Forwarded-For", request.remote or "")
        if not wrong.drops_scheme:
            headers["X-Forwarded-Proto"] = scheme
        return headers

    async def pass_on(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade") == "websocket" and not wrong.drops_upgrade:
            return await pass_on_socket(request)
        async with http.request(
            request.method, upstream + request.path_qs, headers=forwarded(request), allow_redirects=False
        ) as reply:
            headers = {name: value for name, value in reply.headers.items() if name.lower() not in NOT_PASSED_ON}
            if wrong.buffers:
                return web.Response(status=reply.status, headers=headers, body=await reply.read())
            response = web.StreamResponse(status=reply.status, headers=headers)
            await response.prepare(request)
            async for chunk in reply.content.iter_any():
                await response.write(chunk)
            return response

    async def pass_on_socket(request: web.Request) -> web.StreamResponse:
        async with http.ws_connect(upstream + request.path_qs, headers=forwarded(request)) as server:
            device = web.WebSocketResponse()
            await device.prepare(request)

            async def pass_back() -> None:
                async for message in server:
                    await device.send_str(message.data)
                await device.close()

            answers = asyncio.create_task(pass_back())
            async for message in device:
                await server.send_str(message.data)
            answers.cancel()
            with suppress(asyncio.CancelledError):
                await answers
            return device

    async with aiohttp.ClientSession(auto_decompress=False) as http:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", pass_on)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        try:
            yield f"{scheme}://localhost:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()
