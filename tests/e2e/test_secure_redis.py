"""A Redis that needs a password and TLS serves everything that a web process uses it for."""

import json
from collections.abc import Callable

from tests.conftest import Member
from tests.e2e.device import Device
from tests.e2e.rows import in_database
from tests.server import ServerProcess
from tests.services import SecureRedisProcess
from tts.cache.stores import REDIS_PREFIX
from tts.models import Phrase


async def test_slots_wake_ups_and_phrases_use_a_redis_with_a_password_and_tls(
    own_server: Callable[..., ServerProcess], alice: Member
) -> None:
    text = (await in_database(Phrase.objects.create, text="This phrase is kept in a Redis with a password.")).text
    with SecureRedisProcess() as redis, redis.client() as client:
        server = own_server(REDIS_URL=redis.url, PHRASE_STORE="redis")
        async with Device(server.ws, alice.token) as device:
            await device.start(greeting=False)
            spoken = await device.speak(text)
        assert (spoken.terminal["type"], spoken.terminal["source"]) == ("speech.finished", "live")
        assert client.keys(f"{REDIS_PREFIX}*")
        assert client.pubsub_channels("*")
        assert server.gauge("voicecare_slots_unlimited_total") == 0
        assert not {"broker", "cache"} & set(json.loads(server.get("/readyz")[1])["degraded"])
        server.stop()
    assert redis.password not in server.logged()
