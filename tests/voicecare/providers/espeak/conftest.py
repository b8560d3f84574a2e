"""The offline voice with a real worker, one for each test module."""

from collections.abc import AsyncIterator

import pytest_asyncio

from voicecare.providers.espeak.client import OfflineSynthesizer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def espeak() -> AsyncIterator[OfflineSynthesizer]:
    service = OfflineSynthesizer()
    await service.start()
    yield service
    await service.close()
