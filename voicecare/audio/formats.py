"""The audio formats that the provider offers, with the names that its API uses, for example `mp3_44100_128`.

A format with another rate of an existing codec needs only another name in this module. A new codec also needs an
encoder (`encoders`) and, if a truncated stream has to be padded, a rule in `framing`. `DEVICE_FORMATS` is a list of
choices in tts.models, so a change of it needs a migration.
"""

from dataclasses import dataclass
from typing import Literal, Self

Codec = Literal["mp3", "pcm", "ulaw", "alaw", "opus", "wav"]

_MIMES: dict[Codec, str] = {"mp3": "audio/mpeg", "pcm": "audio/pcm", "ulaw": "audio/basic"}
_MIMES |= {"alaw": "audio/x-alaw-basic", "opus": "audio/ogg", "wav": "audio/wav"}
SAMPLE_BYTES: dict[Codec, int] = {"pcm": 2, "wav": 2, "ulaw": 1, "alaw": 1}


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """One output format. `sample_rate` is in Hz. `bit_rate` is in bit/s, or None for uncompressed formats."""

    name: str
    codec: Codec
    sample_rate: int
    bit_rate: int | None = None

    @classmethod
    def from_name(cls, name: str) -> Self:
        """Returns the format for a name of the form `codec_rate` or `codec_rate_kbps`. The name must be valid."""
        codec, rate, *kbps = name.split("_")
        return cls(name, codec, int(rate), int(kbps[0]) * 1000 if kbps else None)  # type: ignore[arg-type]

    @property
    def bytes_per_second(self) -> float:
        """The number of bytes for one second of sound, without the overhead of a container."""
        if self.bit_rate is not None:
            return self.bit_rate / 8
        return float(self.sample_rate * SAMPLE_BYTES[self.codec])

    @property
    def mime(self) -> str:
        return _MIMES[self.codec]


_NAMES = """
    mp3_22050_32 mp3_24000_48 mp3_44100_32 mp3_44100_64 mp3_44100_96 mp3_44100_128 mp3_44100_192
    pcm_8000 pcm_16000 pcm_22050 pcm_24000 pcm_32000 pcm_44100 pcm_48000 ulaw_8000 alaw_8000
    opus_48000_32 opus_48000_64 opus_48000_96 opus_48000_128 opus_48000_192
    wav_8000 wav_16000 wav_22050 wav_24000 wav_32000 wav_44100 wav_48000
"""
FORMATS: dict[str, AudioFormat] = {name: AudioFormat.from_name(name) for name in _NAMES.split()}
DEVICE_FORMATS = (
    *("mp3_44100_128", "mp3_22050_32", "pcm_16000", "pcm_22050", "pcm_24000", "ulaw_8000"),
    "opus_48000_32",
)
"""The formats that a device may choose."""
