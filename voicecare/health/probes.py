"""HTTP endpoints for probes and Prometheus: `/healthz`, `/readyz` and `/metrics`."""

import asyncio
import ipaddress
import secrets
from collections.abc import Awaitable, Callable

from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.decorators import async_only_middleware
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from tts.runtime import runtime
from voicecare.core.database import run_in_db_thread
from voicecare.health.database import is_migrated
from voicecare.health.parts import DATABASE_TIMEOUT_S, check_parts

Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]


async def healthz(request: HttpRequest) -> HttpResponse:
    """Returns status 200 as long as the process responds."""
    return JsonResponse({"status": "up"})


async def readyz(request: HttpRequest) -> HttpResponse:
    """Returns status 200 if this process can serve devices.

    Returns 503 without a database, before `migrate` has run, or while the process shuts down. `degraded` in the JSON
    body has the names of the parts that do not work. Speech continues without them.
    """
    if runtime.draining:
        return JsonResponse({"status": "draining"}, status=503)
    try:
        async with asyncio.timeout(DATABASE_TIMEOUT_S):
            has_all_tables = await run_in_db_thread(is_migrated)
        if not has_all_tables:
            return JsonResponse({"status": "migrations missing"}, status=503)
        parts = await check_parts()
    except (DatabaseError, TimeoutError):
        return JsonResponse({"status": "no database"}, status=503)
    return JsonResponse({"status": "ready", "degraded": [part.name for part in parts if not part.works]})


@async_only_middleware
def answer_health_checks(get_response: Handler) -> Handler:
    """Middleware that responds to `/healthz` and `/readyz`. It must be the first middleware.

    Probes and load balancers send an IP address or the name of a container in the header Host, which may not be in
    ALLOWED_HOSTS. Other middleware would reject such a request. A response from here also needs no session, no database
    connection and no thread.
    """

    async def answer(request: HttpRequest) -> HttpResponse:
        return await _HEALTH_CHECKS.get(request.path_info, get_response)(request)

    return answer


_HEALTH_CHECKS: dict[str, Handler] = {"/healthz": healthz, "/readyz": readyz}


async def metrics(request: HttpRequest) -> HttpResponse:
    """Returns the metrics for Prometheus, or status 403 if the request is not allowed.

    With the setting METRICS_TOKEN, requests need `Authorization: Bearer <METRICS_TOKEN>`. Without it, requests from
    this machine are allowed.
    """
    if not _may_read_metrics(request):
        detail = "Set METRICS_TOKEN and send it as a bearer token."
        return JsonResponse({"detail": detail, "code": "forbidden"}, status=403)
    return HttpResponse(generate_latest(), content_type=CONTENT_TYPE_LATEST)


def _may_read_metrics(request: HttpRequest) -> bool:
    if settings.METRICS_TOKEN:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return secrets.compare_digest(token.encode(), settings.METRICS_TOKEN.encode())
    # With a proxy on this machine, every client has a local address. The proxy adds this header.
    if "X-Forwarded-For" in request.headers:
        return False
    try:
        return ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False
