"""A device of voicecare. README.md shows its use."""

from voicecare_client.audio_files import audio_suffix, write_audio_file
from voicecare_client.client import GREETING_ID, TERMINAL_TYPES, DeviceClient, SpeechResult
from voicecare_client.connection import Frame
from voicecare_client.device import Device
from voicecare_client.errors import (
    ConnectionClosed,
    DeviceError,
    HandshakeRefused,
    PlayerFailed,
    RequestRefused,
    ServerUnreachable,
    SpeechFailed,
)
from voicecare_client.players import CommandPlayer, FilePlayer, Playback, Player, find_player
from voicecare_client.playlist import Playlist

__all__ = [
    "GREETING_ID",
    "TERMINAL_TYPES",
    "CommandPlayer",
    "ConnectionClosed",
    "Device",
    "DeviceClient",
    "DeviceError",
    "FilePlayer",
    "Frame",
    "HandshakeRefused",
    "Playback",
    "Player",
    "PlayerFailed",
    "Playlist",
    "RequestRefused",
    "ServerUnreachable",
    "SpeechFailed",
    "SpeechResult",
    "audio_suffix",
    "find_player",
    "write_audio_file",
]
