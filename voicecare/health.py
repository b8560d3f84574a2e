"""Is this process up, may it be sent traffic, and what has it measured."""

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

REDIS_TIMEOUT_S = 0.5  # for Redis, whose state is asked for each time
DATABASE_TIMEOUT_S = 2.0


async def healthz(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"status": "up"})


async def readyz(request: HttpRequest) -> HttpResponse:
    """503 without a database or while going down; what is merely degraded is named, and speech goes on."""
    if runtime.draining:
        return JsonResponse({"status": "draining"}, status=503)
    try:
        async with asyncio.timeout(DATABASE_TIMEOUT_S):
            missed = await run_in_db_thread(heartbeats.missing_processes)
    except (DatabaseError, TimeoutError):
        return JsonResponse({"status": "no database"}, status=503)
    services = runtime.dependencies
    amiss = {
        "broker": await _is_broker_unavailable(),
        "cache": services.phrase_cache.failing,
        "provider": services.circuit.is_open or services.quota.is_exhausted,
        "offline_voice": not services.offline_voice.is_running,
    }
    degraded = [*(name for name, is_amiss in amiss.items() if is_amiss), *missed]
    return JsonResponse({"status": "ready", "degraded": degraded})


async def metrics(request: HttpRequest) -> HttpResponse:
    """For Prometheus: from this machine, or with `Authorization: Bearer <METRICS_TOKEN>`."""
    if not _may_read_metrics(request):
        detail = "Set METRICS_TOKEN and send it as a bearer token."
        return JsonResponse({"detail": detail, "code": "forbidden"}, status=403)
    return HttpResponse(generate_latest(), content_type=CONTENT_TYPE_LATEST)


async def _is_broker_unavailable() -> bool:
    """A folder that serves as the broker is never away."""
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
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return secrets.compare_digest(given.encode(), settings.METRICS_TOKEN.encode())
    # A proxy on this machine makes every client look local; the header that it adds gives it away.
    return _is_loopback(request.META.get("REMOTE_ADDR", "")) and "X-Forwarded-For" not in request.headers


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
