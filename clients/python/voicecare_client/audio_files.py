"""Files that all players can open."""

import struct
import wave
from pathlib import Path

_SUFFIXES = {"pcm": ".wav", "ulaw": ".au", "opus": ".ogg"}


def audio_suffix(format: str) -> str:
    """Return the suffix of a file with audio of this format, for example ".wav"."""
    codec = format.split("_", maxsplit=1)[0]
    return _SUFFIXES.get(codec, f".{codec}")


def write_audio_file(audio: bytes, format: str, path: Path) -> None:
    """Write PCM as a WAV file, µ-law as an AU file, and everything else unchanged."""
    codec, rate = format.split("_")[:2]
    if codec == "pcm":
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(int(rate))
            file.writeframes(audio)
    elif codec == "ulaw":
        path.write_bytes(struct.pack(">4s5I", b".snd", 24, len(audio), 1, int(rate), 1) + audio)
    else:
        path.write_bytes(audio)
