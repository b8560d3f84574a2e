"""A device of voicecare. README.md shows its use."""

from voicecare_client.audio_files import audio_suffix, write_audio_file
from voicecare_client.client import GREETING_ID, TERMINAL_TYPES, DeviceClient, SpeechResult
from voicecare_client.connection import Frame
from voicecare_client.errors import (
    ConnectionClosed,
    DeviceError,
    HandshakeRefused,
    RequestRefused,
    ServerUnreachable,
)

__all__ = [
    "GREETING_ID",
    "TERMINAL_TYPES",
    "ConnectionClosed",
    "DeviceClient",
    "DeviceError",
    "Frame",
    "HandshakeRefused",
    "RequestRefused",
    "ServerUnreachable",
    "SpeechResult",
    "audio_suffix",
    "write_audio_file",
]
