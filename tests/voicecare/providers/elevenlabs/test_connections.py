"""The connections over a real socket: dead ones are discarded, and those opened in advance are few and short-lived."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.voicecare.providers.elevenlabs.test_client import (
    ALL,
    END,
    REACHED_S,
    REQUEST,
    SOUND,
    UNREACHED_S,
    Exchange,
    Provider,
    chunk,
    head,
    open_client,
    provider_and_client,
    running_provider,
    running_server,
    speak_all,
    speak_and_fail,
    whole,
)
from tests.waiting import eventually
from voicecare.providers import errors as e
from voicecare.providers.elevenlabs import connections
from voicecare.providers.elevenlabs.client import MAX_PRECONNECTS, SpeechClient

NEW = replace(REQUEST, new_connection=True)


class Forgetful:
    """A provider whose first connections die: once `forget` was called, requests on them are not answered."""

    def __init__(self, *, reset: bool) -> None:
        self.reset = reset
        self.served: list[asyncio.StreamWriter] = []
        self.forgotten: set[asyncio.StreamWriter] = set()
        self.met_dead = 0

    def forget(self) -> None:
        self.forgotten.update(self.served)

    async def script(self, exchange: Exchange) -> None:
        if exchange.writer in self.forgotten:
            self.met_dead += 1
            if self.reset:
                exchange.reset()
            else:
                await exchange.wait_for_close()
            return
        self.served.append(exchange.writer)
        await asyncio.sleep(REACHED_S)  # so that requests of the same time get connections of their own
        await exchange.write(head(), *map(chunk, SOUND), END)


async def speak_new(client: SpeechClient) -> bytes:
    async with client.speak(NEW, first_byte_s=UNREACHED_S, stall_s=UNREACHED_S) as reply:
        return b"".join([chunk async for chunk in reply])


@pytest.mark.parametrize("reset", [False, True], ids=["drop", "reset"])
async def test_one_dead_connection_discards_the_other_idle_ones(reset: bool) -> None:
    path = Forgetful(reset=reset)
    async with provider_and_client(path.script) as (provider, client):
        await asyncio.gather(*(speak_all(client) for _ in range(12)))
        assert provider.connections == 12
        path.forget()
        failed = await speak_and_fail(client, first_byte_s=REACHED_S * 3)
        assert failed.error.is_unanswered
        for _ in range(3):
            assert await speak_all(client) == b"".join(SOUND)
        assert (path.met_dead, provider.connections) == (1, 13)
        await eventually(lambda: provider.open, wanted=lambda count: count == 1)  # the dead ones are closed


async def test_a_request_on_a_new_connection_does_not_meet_an_idle_one() -> None:
    path = Forgetful(reset=False)
    async with provider_and_client(path.script) as (provider, client):
        await speak_all(client)
        path.forget()
        for _ in range(2):
            assert await speak_new(client) == b"".join(SOUND)
        await eventually(lambda: provider.open, wanted=lambda count: count == 1)  # each is closed after its request
    assert (path.met_dead, provider.connections) == (0, 3)


async def test_a_failed_request_on_a_new_connection_discards_no_idle_ones() -> None:
    is_silent = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        if is_silent.is_set():
            await exchange.wait_for_close()
        await ALL(exchange)

    async with provider_and_client(script) as (provider, client):
        await speak_all(client)
        is_silent.set()
        with pytest.raises(e.NoFirstByte):
            async with client.speak(NEW, first_byte_s=REACHED_S, stall_s=UNREACHED_S):
                pass
        is_silent.clear()
        await speak_all(client)
    assert provider.connections == 2


@pytest.mark.parametrize("status", [500, 404])
async def test_a_response_with_an_error_discards_nothing(status: int) -> None:
    async with running_provider(ALL) as provider, open_client(provider.url) as client:
        await speak_all(client)
        provider.script = lambda exchange: exchange.write(whole(status, b"{}"))
        await speak_and_fail(client)
        provider.script = ALL
        await speak_all(client)
    assert provider.connections == 1


async def test_cancellation_discards_nothing() -> None:
    received = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        received.set()
        await exchange.wait_for_close()

    async with provider_and_client(ALL) as (provider, client):
        await asyncio.gather(speak_all(client), speak_all(client))
        provider.script = script
        task = asyncio.create_task(speak_all(client))
        await received.wait()
        task.cancel()
        await asyncio.wait({task})
        provider.script = ALL
        before = provider.connections
        await speak_all(client)
        assert provider.connections == before


@pytest.mark.parametrize("refused", [speak_and_fail, SpeechClient.preconnect], ids=["speech", "preconnect"])
async def test_a_refused_connection_discards_nothing(refused: Callable[[SpeechClient], Awaitable[object]]) -> None:
    may_end = asyncio.Event()

    async def long(exchange: Exchange) -> None:
        await exchange.write(head(), chunk(SOUND[0]))
        await may_end.wait()
        await exchange.write(END)

    provider = Provider(long)
    server = await asyncio.start_server(provider.serve, "127.0.0.1")
    async with open_client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        async with client.speak(REQUEST, first_byte_s=UNREACHED_S, stall_s=UNREACHED_S) as reply:
            server.close()  # the accepted connection stays open
            await refused(client)
            may_end.set()
            assert [data async for data in reply] == [SOUND[0]]
        provider.script = ALL
        assert await speak_all(client) == b"".join(SOUND)
    assert provider.connections == 1


async def test_a_response_in_progress_continues_when_idle_connections_are_discarded() -> None:
    may_end = asyncio.Event()

    async def long(exchange: Exchange) -> None:
        await exchange.write(head(), chunk(SOUND[0]))
        await may_end.wait()
        await exchange.write(chunk(SOUND[1]), END)

    async with provider_and_client(long) as (provider, client):
        async with client.speak(REQUEST, first_byte_s=UNREACHED_S, stall_s=UNREACHED_S) as reply:
            assert await anext(reply) == SOUND[0]
            provider.script = Exchange.wait_for_close
            await speak_and_fail(client, first_byte_s=REACHED_S)
            may_end.set()
            assert [data async for data in reply] == [SOUND[1]]
        await eventually(lambda: provider.open, wanted=lambda count: count == 0)


async def test_closing_the_client_ends_responses_of_discarded_pools() -> None:
    async def long(exchange: Exchange) -> None:
        await exchange.write(head(), chunk(SOUND[0]))
        await exchange.wait_for_close()

    async with provider_and_client(long) as (provider, client):
        async with client.speak(REQUEST, first_byte_s=UNREACHED_S, stall_s=UNREACHED_S) as reply:
            assert await anext(reply) == SOUND[0]
            provider.script = Exchange.wait_for_close
            await speak_and_fail(client, first_byte_s=REACHED_S)
            await client.close()
            with pytest.raises(e.ConnectionBroken):
                await anext(reply)
        await eventually(lambda: provider.open, wanted=lambda count: count == 0)


KEEPALIVE_TIMER = "02"  # of the sockets in /proc/net/tcp


def socket_timer(port: int) -> str:
    """The timer of the socket with this local port: its kind and the hundredths of a second left, hexadecimal."""
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return next(fields[5] for fields in sockets if int(fields[1].partition(":")[2], 16) == port)


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads the timers of sockets in /proc, which is Linux")
async def test_the_operating_system_probes_idle_connections() -> None:
    async with provider_and_client(ALL) as (provider, client):
        await speak_all(client)
        port = provider.requests[0].writer.get_extra_info("peername")[1]
        # Until the last byte is acknowledged, the timer is that of the retransmission.
        timer = await eventually(lambda: socket_timer(port), wanted=lambda seen: seen.startswith(KEEPALIVE_TIMER))
        _, _, hundredths = timer.partition(":")
    assert 0 < int(hundredths, 16) / 100 <= 30


# Connections that are opened in advance


async def test_devices_that_start_together_open_few_connections() -> None:
    async with provider_and_client(ALL) as (provider, client):
        await asyncio.gather(*(client.preconnect() for _ in range(150)))
        assert provider.connections == MAX_PRECONNECTS
        await asyncio.gather(*(client.preconnect() for _ in range(150)))
        assert provider.connections == MAX_PRECONNECTS


async def test_unused_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "UNUSED_S", REACHED_S)
    async with provider_and_client(ALL) as (provider, client):
        await asyncio.gather(*(client.preconnect() for _ in range(5)))
        assert provider.open == 5
        await eventually(lambda: provider.open, 5, wanted=lambda count: count == 0)
        assert await speak_all(client) == b"".join(SOUND)


async def test_connections_in_use_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "UNUSED_S", REACHED_S)
    async with provider_and_client(ALL) as (provider, client):
        await client.preconnect()
        await speak_all(client)
        await asyncio.sleep(3 * REACHED_S)
        await speak_all(client)
    assert provider.connections == 1


async def test_a_preconnect_does_not_shorten_the_life_of_a_used_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "UNUSED_S", REACHED_S)
    async with provider_and_client(ALL) as (provider, client):
        await speak_all(client)
        await client.preconnect()
        await asyncio.sleep(3 * REACHED_S)
        await speak_all(client)
    assert provider.connections == 1


async def test_a_dead_connection_is_found_by_the_next_preconnect() -> None:
    async with provider_and_client(ALL) as (provider, client):
        await asyncio.gather(speak_all(client), speak_all(client))
        for exchange in list(provider.requests):
            exchange.reset()
        await client.preconnect()
        assert await speak_all(client) == b"".join(SOUND)


# Free calls


@pytest.mark.parametrize(
    ("status", "kind"),
    [(200, None), (401, e.AuthorizationError), (404, e.BadRequest), (429, e.RateLimited), (503, e.ServerError)],
)
async def test_a_free_call_raises_the_error_of_its_status(status: int, kind: type[e.ProviderError] | None) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET /v1/models HTTP/1.1\r\n")
        writer.write(whole(status, b"[]"))

    async with running_server(serve) as url, open_client(url) as client:
        if kind is None:
            await client.check(UNREACHED_S)
        else:
            with pytest.raises(kind):
                await client.check(UNREACHED_S)


async def test_a_free_call_without_a_response() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with running_server(serve) as url, open_client(url) as client:
        with pytest.raises(e.NoFirstByte):
            await client.check(REACHED_S)
    with pytest.raises(e.Unreachable):
        await client.check(UNREACHED_S)  # the client is closed
