"""Wraps every endpoint: first applies faults, then checks the API key. Exceptions become error responses."""

import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from voicecare.providers.elevenlabs.sandbox.errors import JSON_TYPE, ApiError, preset_error
from voicecare.providers.elevenlabs.sandbox.faults.faults import RequestInfo
from voicecare.providers.elevenlabs.sandbox.faults.injection import single_chunk
from voicecare.providers.elevenlabs.sandbox.faults.response import ConnectionClosed, ResponseWriter
from voicecare.providers.elevenlabs.sandbox.records import ResponseRecord
from voicecare.providers.elevenlabs.sandbox.state import SANDBOX, Sandbox

Endpoint = Callable[[Sandbox, web.Request], Awaitable[Any]]
WebHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def json_endpoint(call: Endpoint) -> WebHandler:
    """Returns a request handler that responds with the JSON that `call` returns.

    If `call` raises ApiError, the handler responds with this error.
    """

    async def handler(request: web.Request) -> web.StreamResponse:
        sandbox = request.app[SANDBOX]
        info = RequestInfo(request.path, request.method, voice_id=request.match_info.get("voice_id", ""))
        writer = ResponseWriter(request, sandbox.faults.find_for(info), ResponseRecord())

        async def answer() -> web.StreamResponse:
            body = json.dumps(await call(sandbox, request)).encode()
            return await writer.send({"Content-Type": JSON_TYPE}, single_chunk(body), length=len(body))

        return await answer_or_refuse(request, writer, answer)

    return handler


async def answer_or_refuse(
    request: web.Request, writer: ResponseWriter, answer: Callable[[], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Returns the response of `answer`, or an error response.

    It is an error response if the fault, the check of the API key or `answer` raises ApiError.
    """
    try:
        await writer.apply_early_fault()
        api_key, accepted = request.headers.get("xi-api-key"), request.app[SANDBOX].config.api_key
        if not api_key:
            raise preset_error("needs_authorization")
        if accepted and api_key != accepted:
            raise preset_error("invalid_api_key")
        return await answer()
    except ApiError as error:
        return await writer.refuse(error)
    except ConnectionClosed:
        return web.Response()  # aiohttp requires a response. It is not sent, because the connection is closed.


@web.middleware
async def plain_errors(request: web.Request, handler: WebHandler) -> web.StreamResponse:
    """Gives the errors for unknown paths and methods the same JSON bodies as the provider."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return web.json_response({"detail": "Not Found"}, status=404)
    except web.HTTPMethodNotAllowed as error:
        allowed = {"Allow": error.headers["Allow"]}
        return web.json_response({"detail": "Method Not Allowed"}, status=405, headers=allowed)


async def add_trace_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Adds the headers `x-trace-id` and `x-region`, which every response of the provider has."""
    response.headers.setdefault("x-trace-id", uuid.uuid4().hex)
    response.headers.setdefault("x-region", request.app[SANDBOX].config.region)
