"""Hedged requests: a second request for the first words of a speech, when the first request brings no audio in time.

Some replies of the provider come seconds late. The patient hears whichever request brings audio first, and the other
one is cancelled. The provider may bill both, so a policy limits how many characters are requested twice.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from statistics import median

from tts.resilience.concurrency import SlotTimeout
from tts.resilience.speech_gateway import AudioStream
from voicecare.core import metrics
from voicecare.providers.errors import ProviderError

REMEMBERED_ANSWERS = 100
MIN_ANSWERS = 20  # before that, nobody knows what is usual
USUAL_FACTOR = 2.5  # an answer that takes longer than this many medians is unusual
MIN_DELAY_S = 0.1
MAX_SAVED_CHARACTERS = 5_000  # a quiet night does not pay for a morning on which every speech is requested twice

OpenRequest = Callable[[], AbstractAsyncContextManager[AudioStream]]
Relay = Callable[[AudioStream, bytes], Awaitable[None]]


class HedgePolicy:
    """Decides when a second request may be sent. Each process has one.

    `share` is the largest part of the requested characters that may be requested twice, 0 for none. Each first request
    adds this part of its characters to an allowance, and each second request takes all of its characters from it. So
    the share holds over any time, and no clock is needed.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._allowance = 0.0  # characters
        self._answers: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=REMEMBERED_ANSWERS))
        self._delays_s: dict[str, float] = {}  # by model; computed after an answer, so that no patient waits for it

    def on_requested(self, characters: int) -> None:
        """Note a first request."""
        self._allowance = min(self._allowance + characters * self._share, MAX_SAVED_CHARACTERS)

    def on_answered(self, model: str, seconds: float) -> None:
        """Note the time from a request to its first audio."""
        answers = self._answers[model]
        answers.append(seconds)
        if self._share and len(answers) >= MIN_ANSWERS:
            self._delays_s[model] = max(USUAL_FACTOR * median(answers), MIN_DELAY_S)

    def delay_s(self, model: str) -> float | None:
        """Return how long to wait for the first audio before a second request, or None if there should be none.

        It is a multiple of the median of the latest answers. A high percentile would not do: if eight of a hundred
        answers take two seconds, so would the wait.
        """
        return self._delays_s.get(model)

    def take(self, characters: int) -> bool:
        """Take the characters of a second request from the allowance. Returns False if it has fewer."""
        if characters > self._allowance:
            return False
        self._allowance -= characters
        return True


async def relay_first_answer(
    first: OpenRequest,
    relay_first: Relay,
    second: OpenRequest,
    relay_second: Relay,
    *,
    delay_s: float,
    may: Callable[[], bool],
) -> None:
    """Send the first request, and after `delay_s` seconds without audio the second one, if `may` allows it then.

    The audio of the request that brings some first goes to its `relay`, which also gets the first chunk. The other
    request is cancelled. Raises ProviderError if the first request fails, or the second one after it has won. A second
    request that fails before is ignored.
    """
    loop = asyncio.get_running_loop()
    runs: list[asyncio.Task[bool]] = []

    def start() -> None:
        if may():
            runs.append(asyncio.create_task(_run_second(second, relay_second, on_audio=stop_first)))

    def stop_first() -> bool:
        """Interrupt the first request. Returns False if its audio has come in the meantime."""
        if has_audio:
            return False
        scope.reschedule(loop.time())
        return True

    has_audio = False
    timer = loop.call_later(delay_s, start)
    try:
        async with asyncio.timeout(None) as scope:
            async with first() as audio:
                chunk = await anext(audio, b"")
                has_audio = True
                if scope.when() is not None:  # the second request was sooner by less than a turn of the event loop
                    await asyncio.sleep(1)
                _cancel(timer, runs)
                await relay_first(audio, chunk)
    except TimeoutError:
        if not scope.expired():
            raise
        await runs[0]
    finally:
        _cancel(timer, runs)
        if runs:
            await asyncio.wait(runs)
            metrics.HEDGES.labels("won" if scope.expired() else "lost").inc()


def _cancel(timer: asyncio.TimerHandle, runs: list[asyncio.Task[bool]]) -> None:
    timer.cancel()
    for run in runs:
        run.cancel()


async def _run_second(request: OpenRequest, relay: Relay, *, on_audio: Callable[[], bool]) -> bool:
    """Send the second request. Returns whether its audio was relayed."""
    has_won = False
    try:
        async with request() as audio:
            chunk = await anext(audio, b"")
            has_won = bool(chunk) and on_audio()
            if has_won:
                await relay(audio, chunk)
    except (ProviderError, SlotTimeout):
        if has_won:
            raise
    return has_won
