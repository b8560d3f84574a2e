"""What every call passes on its way in: faults of the edge, then the key; and on its way out: refusals as answers."""

import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from voicecare.providers.elevenlabs.sandbox.errors import JSON_TYPE, ApiError, refusal
from voicecare.providers.elevenlabs.sandbox.faults.faults import Traits
from voicecare.providers.elevenlabs.sandbox.faults.injection import whole
from voicecare.providers.elevenlabs.sandbox.faults.response import HungUp, Wire
from voicecare.providers.elevenlabs.sandbox.records import Delivery
from voicecare.providers.elevenlabs.sandbox.state import SANDBOX, Sandbox

Call = Callable[[Sandbox, web.Request], Awaitable[Any]]
WebHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def api(call: Call) -> WebHandler:
    """A route from a function that returns JSON or raises ApiError."""

    async def handler(request: web.Request) -> web.StreamResponse:
        sandbox = request.app[SANDBOX]
        traits = Traits(request.path, request.method, voice_id=request.match_info.get("voice_id", ""))
        wire = Wire(request, sandbox.faults.take(traits), Delivery())

        async def answer() -> web.StreamResponse:
            body = json.dumps(await call(sandbox, request)).encode()
            return await wire.send({"Content-Type": JSON_TYPE}, whole(body), length=len(body))

        return await passed(request, wire, answer)

    return handler


async def passed(
    request: web.Request, wire: Wire, answer: Callable[[], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """The answer, or the refusal in its place."""
    try:
        await wire.threshold()
        if not request.headers.get("xi-api-key"):
            raise refusal("needs_authorization")
        return await answer()
    except ApiError as error:
        return await wire.refuse(error)
    except HungUp:
        return web.Response()  # aiohttp wants one; the connection is closed, so that it goes nowhere


@web.middleware
async def plain_errors(request: web.Request, handler: WebHandler) -> web.StreamResponse:
    """Unknown routes and methods in the provider's words."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return web.json_response({"detail": "Not Found"}, status=404)
    except web.HTTPMethodNotAllowed as error:
        allowed = {"Allow": error.headers["Allow"]}
        return web.json_response({"detail": "Method Not Allowed"}, status=405, headers=allowed)


async def add_trace(_request: web.Request, response: web.StreamResponse) -> None:
    """The two headers that every answer of the provider carries."""
    response.headers.setdefault("x-trace-id", uuid.uuid4().hex)
    response.headers.setdefault("x-region", "us-central1")
