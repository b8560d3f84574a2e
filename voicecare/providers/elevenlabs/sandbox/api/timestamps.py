"""When each character is heard: the sound made whole first, then its real duration spread over the text."""

import base64
import json
from collections.abc import AsyncGenerator
from itertools import pairwise
from typing import Any

from voicecare.audio.encoders import Encoder
from voicecare.providers.elevenlabs.sandbox.account.synthesizer import Studio
from voicecare.providers.elevenlabs.sandbox.api.speech_request import Order

PCM = "pcm_22050"
PCM_RATE = 22_050
LINE_BYTES = PCM_RATE * 2  # a second of sound to a line


def _line(audio: bytes, alignment: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "audio_base64": base64.b64encode(audio).decode(),
        "alignment": alignment,
        "normalized_alignment": alignment,
    }


def aligned(text: str, duration_s: float, start_s: float, end_s: float) -> dict[str, Any] | None:
    """The characters that begin in [start_s, end_s), each with an equal share of the duration; None without any."""
    edges = [duration_s * place / len(text) for place in range(len(text) + 1)]
    spans = [
        (character, begin, end)
        for character, (begin, end) in zip(text, pairwise(edges), strict=True)
        if start_s <= begin < end_s
    ]
    if not spans:
        return None
    return {
        "characters": [character for character, _, _ in spans],
        "character_start_times_seconds": [round(begin, 3) for _, begin, _ in spans],
        "character_end_times_seconds": [round(end, 3) for _, _, end in spans],
    }


async def _pcm(studio: Studio, order: Order) -> bytes:
    return b"".join([chunk async for chunk in studio.speak(order.text, order.sound, PCM)])


async def whole_with_times(studio: Studio, order: Order) -> AsyncGenerator[bytes, None]:
    """One `AudioWithTimestampsResponseModel` as JSON."""
    pcm = await _pcm(studio, order)
    encoder = Encoder(order.format, PCM_RATE)
    audio = encoder.feed(pcm) + encoder.finish()
    duration = len(pcm) / LINE_BYTES
    yield json.dumps(_line(audio, aligned(order.text, duration, 0.0, float("inf")))).encode()


async def lines_with_times(studio: Studio, order: Order) -> AsyncGenerator[bytes, None]:
    """A `StreamingAudioChunkWithTimestampsResponseModel` a line: one a second of sound, one for the encoder's rest."""
    pcm = await _pcm(studio, order)
    encoder = Encoder(order.format, PCM_RATE)
    duration = len(pcm) / LINE_BYTES
    for start in range(0, len(pcm), LINE_BYTES):
        second = start / LINE_BYTES
        last = start + LINE_BYTES >= len(pcm)
        alignment = aligned(order.text, duration, second, float("inf") if last else second + 1)
        yield json.dumps(_line(encoder.feed(pcm[start : start + LINE_BYTES]), alignment)).encode() + b"\n"
    if rest := encoder.finish():
        yield json.dumps(_line(rest, None)).encode() + b"\n"
