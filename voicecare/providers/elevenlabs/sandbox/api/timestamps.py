"""Speech with the time of each character.

The audio is made completely, then its duration is divided equally among the characters of the text.
"""

import base64
import json
from collections.abc import AsyncGenerator
from itertools import pairwise
from typing import Any

from voicecare.audio.encoders import Encoder
from voicecare.providers.elevenlabs.sandbox.account.synthesizer import Synthesizer
from voicecare.providers.elevenlabs.sandbox.api.speech_request import ParsedSpeechRequest

PCM = "pcm_22050"
PCM_RATE = 22_050
LINE_BYTES = PCM_RATE * 2  # one second of audio per line


def _line(audio: bytes, alignment: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "audio_base64": base64.b64encode(audio).decode(),
        "alignment": alignment,
        "normalized_alignment": alignment,
    }


def alignment(text: str, duration_s: float, start_s: float, end_s: float) -> dict[str, Any] | None:
    """Returns the characters that start in the interval [start_s, end_s), with their start and end times in seconds.

    Each character of the text gets an equal part of the duration. Returns None if no character starts in the interval.
    """
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


async def _pcm(synthesizer: Synthesizer, speech: ParsedSpeechRequest) -> bytes:
    return b"".join([chunk async for chunk in synthesizer.speak(speech.spoken_text, speech.espeak_voice, PCM)])


async def audio_with_timestamps(synthesizer: Synthesizer, speech: ParsedSpeechRequest) -> AsyncGenerator[bytes, None]:
    """Yields the JSON that the provider's schema calls `AudioWithTimestampsResponseModel`, in one piece."""
    pcm = await _pcm(synthesizer, speech)
    encoder = Encoder(speech.audio_format, PCM_RATE)
    audio = encoder.feed(pcm) + encoder.finish()
    duration = len(pcm) / LINE_BYTES
    yield json.dumps(_line(audio, alignment(speech.text, duration, 0.0, float("inf")))).encode()


async def streamed_audio_with_timestamps(
    synthesizer: Synthesizer, speech: ParsedSpeechRequest
) -> AsyncGenerator[bytes, None]:
    """Yields lines of JSON, each with one second of audio and its characters.

    The provider's schema calls a line `StreamingAudioChunkWithTimestampsResponseModel`. The last line has the end of
    the encoder's audio, without characters.
    """
    pcm = await _pcm(synthesizer, speech)
    encoder = Encoder(speech.audio_format, PCM_RATE)
    duration = len(pcm) / LINE_BYTES
    for start in range(0, len(pcm), LINE_BYTES):
        second = start / LINE_BYTES
        last = start + LINE_BYTES >= len(pcm)
        spans = alignment(speech.text, duration, second, float("inf") if last else second + 1)
        yield json.dumps(_line(encoder.feed(pcm[start : start + LINE_BYTES]), spans)).encode() + b"\n"
    if rest := encoder.finish():
        yield json.dumps(_line(rest, None)).encode() + b"\n"
