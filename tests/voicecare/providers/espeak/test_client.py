"""The client with a real worker and real audio. No test depends on the speed of the machine."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing

import numpy as np
import pytest

from tests.processes import child_processes
from tests.voicecare.audio.test_encoders import decode, loudness
from tests.waiting import eventually
from voicecare.audio.formats import DEVICE_FORMATS, FORMATS
from voicecare.providers.espeak import messages
from voicecare.providers.espeak.client import EspeakVoice, OfflineSynthesizer, SynthesizerUnavailable

VOICE = EspeakVoice("en", "f2", 50, 175)
SENTENCE = "Good morning, it is time for your medicine."
STORY = "It was a bright cold day in April, and the clocks were striking thirteen. " * 60

# The tests share a worker, so they also share its event loop.
in_one_loop = pytest.mark.asyncio(loop_scope="module")


async def speak_all(
    espeak: OfflineSynthesizer, text: str, voice: EspeakVoice = VOICE, name: str = "pcm_22050", **how
) -> bytes:
    return await read_all(espeak.speak(text, voice, name, **how))


async def read_all(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([sound async for sound in stream])


def seconds(pcm_22050: bytes) -> float:
    return len(pcm_22050) / 44100


def median_pitch_hz(pcm_22050: bytes) -> float:
    """The median pitch of the voiced parts, in Hz."""
    samples = np.frombuffer(pcm_22050, "<i2").astype(float)
    windows = [samples[at : at + 1024] for at in range(0, len(samples) - 1024, 1024)]
    echoes = [np.correlate(w, w, "full")[1024 + 55 : 1024 + 275] for w in windows if loudness(w) > 1000]
    return float(np.median([22050 / (56 + echo.argmax()) for echo in echoes]))


async def wait_for_exit(pid: int) -> None:
    await eventually(lambda: os.path.exists(f"/proc/{pid}"), wanted=lambda there: not there)


@pytest.mark.parametrize("name", [*DEVICE_FORMATS, "opus_48000_64", "wav_16000"])
@in_one_loop
async def test_speech_in_every_format(espeak, name):
    samples = decode(FORMATS[name], await speak_all(espeak, SENTENCE, name=name))
    assert 1.5 < len(samples) / FORMATS[name].sample_rate < 5
    assert loudness(samples) > 500


@in_one_loop
async def test_pitch_rate_and_variant_change_the_audio(espeak):
    plain = await speak_all(espeak, SENTENCE)
    fast = await speak_all(espeak, SENTENCE, EspeakVoice("en", "f2", 50, 350))
    assert seconds(fast) < 0.7 * seconds(plain)
    high, low = [await speak_all(espeak, SENTENCE, EspeakVoice("en", "f2", pitch, 175)) for pitch in (99, 0)]
    assert median_pitch_hz(low) < 0.8 * median_pitch_hz(plain) < 0.8 * median_pitch_hz(high)
    assert median_pitch_hz(await speak_all(espeak, SENTENCE, EspeakVoice("en", "m3", 50, 175))) < 0.8 * median_pitch_hz(
        plain
    )


@in_one_loop
async def test_each_language_sounds_different_and_unknown_ones_are_english(espeak):
    async def said(language: str, variant: str = "") -> int:
        # The breath noise of espeak is random, so the same words differ by some samples.
        return round(seconds(await speak_all(espeak, "1234567 hello", EspeakVoice(language, variant))), 1)

    made = {language: await said(language) for language in ("en", "de", "fr", "zh", "ar")}
    assert len(set(made.values())) == len(made)
    assert await said("de-AT") == made["de"]
    for language, variant in [("xx", ""), ("", ""), ("../etc", ""), ("fo", ""), ("en-US", "nope"), ("en", "../f2")]:
        assert await said(language, variant) == made["en"]


@in_one_loop
async def test_concurrent_streams_are_complete_and_not_mixed(espeak):
    texts = ["Yes. " * (2 + 2 * number) for number in range(20)]
    alone = [seconds(await speak_all(espeak, text)) for text in texts]
    together = [seconds(made) for made in await asyncio.gather(*(speak_all(espeak, text) for text in texts))]
    assert together == pytest.approx(alone, rel=0.02)


@in_one_loop
async def test_a_short_stream_does_not_wait_for_a_long_one(espeak):
    async with aclosing(espeak.speak(STORY, VOICE, "mp3_44100_128")) as story:
        await anext(story)
        assert await speak_all(espeak, SENTENCE)
        assert await anext(story)


@in_one_loop
async def test_a_slow_reader_only_stops_its_own_stream(espeak):
    async with aclosing(espeak.speak(STORY, VOICE, "pcm_48000")) as story:
        got = len(await anext(story))
        for _ in range(20):
            await speak_all(espeak, SENTENCE)
        waiting = len(await anext(story))
        assert got + waiting < messages.WINDOW_BYTES + 100_000
        assert await read_all(story)


@in_one_loop
async def test_paced_audio_keeps_its_maximum_lead(espeak):
    clock = asyncio.get_running_loop()
    size, began = 0, clock.time()
    async with aclosing(espeak.speak(STORY, VOICE, "pcm_22050", max_lead_s=0.5)) as story:
        async for sound in story:
            size += len(sound)
            assert size / 44100 <= clock.time() - began + 0.5
            if size > 44100:
                break


@in_one_loop
async def test_closing_a_stream_does_not_affect_others(espeak):
    for _ in range(5):
        async with aclosing(espeak.speak(STORY, VOICE, "mp3_44100_128")) as story:
            await anext(story)
    task = asyncio.create_task(speak_all(espeak, STORY, max_lead_s=0.2))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await speak_all(espeak, SENTENCE)


UNREADABLE = {
    "empty": "",
    "spaces": " \n\t",
    "dots": "...",
    "controls": "\x00\x01\x02",
    "surrogates": "\ud800\udfff",
    "format signs": "\u200b\u202e",
    "brackets": "[[]]",
    "private": "\ue001",
}
HOSTILE = {
    "controls": "a\x00b\x01+50Pc\x1b[0m\x07",
    "lone surrogate": "hello \ud83d world",
    "emoji": "😀🇩🇪👨‍👩‍👧" * 50,
    "marks": "a" + "\u0301" * 3000,
    "one word": "a" * 4000,
    "dotted": "a." * 1000,
    "right to left": "שלום עולם, مرحبا \u202eabc",
    "signs": "?!-$*_" * 300,
    "private": "\ue000\uf8ff" * 500 + "x",
    "spaceless": "今天天气很好我们去公园" * 20,
    "phonemes": "[[" * 500 + "h@l'oU]]",
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
@in_one_loop
async def test_unreadable_text_is_a_short_silence(espeak, text):
    samples = decode(FORMATS["mp3_44100_128"], await speak_all(espeak, text, name="mp3_44100_128"))
    assert 0.15 < len(samples) / 44100 < 0.6
    assert loudness(samples) < 200


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@in_one_loop
async def test_hostile_text_is_spoken_and_does_not_affect_other_streams(espeak, text):
    async with aclosing(espeak.speak(STORY, VOICE, "ulaw_8000", max_lead_s=0.1)) as bystander:
        await anext(bystander)
        assert loudness(np.frombuffer(await speak_all(espeak, text), "<i2")) > 100
        assert await anext(bystander)


@in_one_loop
async def test_commands_in_a_text_are_not_executed(espeak):
    assert 0.3 < seconds(await speak_all(espeak, "<break time='9s'/> hello")) < 4
    assert seconds(await speak_all(espeak, "[[h@l'oU]]")) > 1.5 * seconds(await speak_all(espeak, "hello"))
    assert seconds(await speak_all(espeak, "\x01+99Shello")) > 1.5 * seconds(await speak_all(espeak, "hello"))


@in_one_loop
async def test_an_unknown_format_raises(espeak):
    with pytest.raises(KeyError):
        await speak_all(espeak, SENTENCE, name="mp3_1_1")


async def test_a_killed_worker_fails_its_streams_and_is_restarted():
    service, before = OfflineSynthesizer(), child_processes()
    await service.start()
    (pid,) = child_processes() - before
    async with aclosing(service.speak(STORY, VOICE, "mp3_44100_128", max_lead_s=0.5)) as story:
        await anext(story)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(SynthesizerUnavailable):
            await read_all(story)
    assert await speak_all(service, SENTENCE)
    assert child_processes() - before not in ({pid}, set())
    await service.close()
    assert child_processes() == before


async def test_speech_fails_during_and_after_close():
    service = OfflineSynthesizer()
    await service.start()
    speaking = asyncio.create_task(speak_all(service, STORY, max_lead_s=0.2))
    await asyncio.sleep(0.05)
    await service.close()
    await service.close()
    with pytest.raises(SynthesizerUnavailable):
        await speaking
    with pytest.raises(SynthesizerUnavailable):
        await speak_all(service, SENTENCE)


async def test_the_worker_ignores_sigint_and_ends_on_sigterm():
    service, before = OfflineSynthesizer(), child_processes()
    await service.start()
    (pid,) = child_processes() - before
    assert os.getsid(pid) != os.getsid(0)
    os.kill(pid, signal.SIGINT)
    assert await speak_all(service, SENTENCE)
    os.kill(pid, signal.SIGTERM)
    await wait_for_exit(pid)
    await service.close()


PARENT = """
import asyncio, os
from voicecare.providers.espeak.client import OfflineSynthesizer, EspeakVoice
async def main():
    espeak = OfflineSynthesizer()
    await espeak.start()
    speech = espeak.speak("One two three. " * 200, EspeakVoice(), "mp3_44100_128")
    await anext(speech)
    print(open("/proc/self/task/%d/children" % os.getpid()).read(), flush=True)
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""


async def test_the_worker_ends_when_its_parent_is_killed():
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE)
    output, _ = await parent.communicate()
    assert parent.returncode == -signal.SIGKILL
    await wait_for_exit(int(output))
