"""Endpoints, and a receiver for them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pytest_django import Settings

from tests.voicecare.webhooks.receiver import Receiver
from voicecare.webhooks.models import WebhookEndpoint


@pytest.fixture(autouse=True)
def local_receivers(settings: Settings) -> None:
    settings.WEBHOOK_ALLOW_PRIVATE = True


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def endpoint(receiver: Receiver) -> Callable[..., WebhookEndpoint]:
    """Return a function that creates an endpoint with the URL of the receiver, which then checks the signatures."""

    def create(**columns: Any) -> WebhookEndpoint:
        row = WebhookEndpoint(**{"url": receiver.url, **columns})
        receiver.secret = row.new_secret()
        row.save()
        return row

    return create
