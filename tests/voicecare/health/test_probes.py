"""Health and metrics URLs for operators and probes. tests/e2e tests draining on a real server."""

import pytest
from django.test import AsyncClient, override_settings

pytestmark = pytest.mark.django_db(transaction=True)


async def test_healthz_returns_the_status_up(async_client: AsyncClient):
    assert (await async_client.get("/healthz")).json() == {"status": "up"}


@pytest.mark.parametrize("host", ["10.1.2.3:8000", "voicecare-web", "kube-probe.invalid", "[fd00::1]:8000", "", "a b"])
async def test_healthz_answers_for_any_host(async_client: AsyncClient, host: str):
    assert (await async_client.get("/healthz", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "page", ["/metrics", "/admin/login/", "/api/v1/patients/", "/healthz/", "/readyz/x", "//healthz"]
)
async def test_all_other_pages_refuse_an_unknown_host(async_client: AsyncClient, page: str):
    assert (await async_client.get(page, headers={"Host": "10.1.2.3:8000"})).status_code == 400


async def test_metrics_are_available_on_this_machine(async_client: AsyncClient):
    reply = await async_client.get("/metrics")
    assert reply.status_code == 200
    assert b"voicecare_first_chunk_seconds" in reply.content


@pytest.mark.parametrize(
    "extra", [{"X-Forwarded-For": "203.0.113.9"}, {"X-Forwarded-For": ""}], ids=["proxied", "proxied without address"]
)
async def test_metrics_are_refused_to_clients_of_a_proxy(async_client: AsyncClient, extra: dict[str, str]):
    assert (await async_client.get("/metrics", headers=extra)).status_code == 403


@override_settings(METRICS_TOKEN="a-token-for-metrics")
@pytest.mark.parametrize(
    ("given", "status"), [("Bearer a-token-for-metrics", 200), ("Bearer another", 403), ("", 403), ("Bearer ü", 403)]
)
async def test_with_a_metrics_token_only_the_right_token_is_accepted(
    async_client: AsyncClient, given: str, status: int
):
    reply = await async_client.get("/metrics", headers={"Authorization": given})
    assert reply.status_code == status
