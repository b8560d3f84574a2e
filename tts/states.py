"""Values that the database rows, the device protocol and the pipeline share. They need no Django."""

from enum import StrEnum

SERVER_PREFIX = "srv-"
"""The ids of speech that the server starts have this prefix. A device may not use it for its own ids."""


class Origin(StrEnum):
    """Where an utterance comes from."""

    DEVICE = "device"
    GREETING = "greeting"
    SERVER = "server"
    HOLD_MESSAGE = "holding"


class UtteranceState(StrEnum):
    """The state of an utterance. `tts.outbox.store` shows the transitions."""

    WAITING = "waiting"
    QUEUED = "queued"
    SPEAKING = "speaking"
    SPOKEN = "spoken"
    HEARD = "heard"
    FAILED = "failed"
    EXPIRED = "expired"
    INTERRUPTED = "interrupted"


class QueueReason(StrEnum):
    """Why a speech has to wait before it is played."""

    BUSY = "busy"
    QUOTA = "quota"
    NO_DEVICE = "no_device"


class Source(StrEnum):
    """The source of a speech's audio."""

    LIVE = "live"
    CACHE = "cache"
    BACKUP = "backup"
    OFFLINE = "offline"
