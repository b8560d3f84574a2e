"""Texts, and the audio of the upstream for each text. Both sides compute the bytes, so they need not exchange them."""

import hashlib
import itertools

BYTES_PER_SECOND = 16_000  # mp3_44100_128
CHUNK_BYTES = 4096
MP3_HEADER = bytes((0xFF, 0xFB, 0x90, 0xC4))  # 128 kbit/s, 44.1 kHz, mono: a frame of 417 bytes
MP3_FRAME_BYTES = 417
BODY_BYTES = 157 * MP3_FRAME_BYTES  # 64 KB; whole frames, because a cut frame would be padded

_numbers = itertools.count(1)


def fresh_text() -> str:
    """Return a new sentence of 60 characters that is not a phrase."""
    return f"Good morning, it is day {next(_numbers):07d} of this year and it is sunny."


def payload(text: str, size: int = BODY_BYTES) -> bytes:
    """Return MP3 frames computed from the text, so that audio at the wrong device is detected."""
    digest = hashlib.sha256(text.encode()).digest()
    sound = (digest * (MP3_FRAME_BYTES // len(digest) + 1))[: MP3_FRAME_BYTES - len(MP3_HEADER)]
    frames = (MP3_HEADER + sound) * (size // MP3_FRAME_BYTES + 1)
    return frames[:size]
