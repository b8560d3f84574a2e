"""Health and metrics of this process: `/healthz`, `/readyz` and `/metrics`."""

import asyncio
import ipaddress
import secrets

from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tts.runtime import runtime
from usage.alerts import heartbeats
from voicecare.core.database import run_in_db_thread

REDIS_TIMEOUT_S = 0.5  # each request to /readyz pings Redis
DATABASE_TIMEOUT_S = 2.0


async def healthz(request: HttpRequest) -> HttpResponse:
    """Return 200 while the process runs."""
    return JsonResponse({"status": "up"})


async def readyz(request: HttpRequest) -> HttpResponse:
    """Return 503 without a database or while draining. Otherwise return 200.

    `degraded` names the parts that do not work. Speech continues without them.
    """
    if runtime.draining:
        return JsonResponse({"status": "draining"}, status=503)
    try:
        async with asyncio.timeout(DATABASE_TIMEOUT_S):
            missing = await run_in_db_thread(heartbeats.missing_processes)
    except (DatabaseError, TimeoutError):
        return JsonResponse({"status": "no database"}, status=503)
    dependencies = runtime.dependencies
    failing = {
        "broker": await _is_broker_unavailable(),
        "cache": dependencies.phrase_cache.failing,
        "provider": dependencies.circuit.is_open or dependencies.quota.is_exhausted,
        "offline_voice": not dependencies.offline_voice.is_running,
    }
    degraded = [*(name for name, is_failing in failing.items() if is_failing), *missing]
    return JsonResponse({"status": "ready", "degraded": degraded})


async def metrics(request: HttpRequest) -> HttpResponse:
    """Metrics for Prometheus. Allowed from this machine, or with `Authorization: Bearer <METRICS_TOKEN>`."""
    if not _may_read_metrics(request):
        detail = "Set METRICS_TOKEN and send it as a bearer token."
        return JsonResponse({"detail": detail, "code": "forbidden"}, status=403)
    return HttpResponse(generate_latest(), content_type=CONTENT_TYPE_LATEST)


async def _is_broker_unavailable() -> bool:
    """Without REDIS_URL, a folder is the broker. It is always available."""
    if not settings.REDIS_URL:
        return False
    client = Redis.from_url(settings.REDIS_URL, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S)
    try:
        async with client:
            await client.ping()
    except (RedisError, OSError):
        return True
    return False


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
