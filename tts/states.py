"""Values that the database rows, the device protocol and the speech pipeline share. This module needs no Django."""

from enum import StrEnum

SERVER_PREFIX = "srv-"
"""The ids of speech that the server starts have this prefix. A device may not use it for its own ids."""


class Origin(StrEnum):
    """The origin of an utterance: a request of the device, or the kind of speech that the server adds."""

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


UNFINISHED_STATES = (UtteranceState.WAITING, UtteranceState.QUEUED, UtteranceState.SPEAKING)
"""The states in which a speech of the device has not ended."""


class Source(StrEnum):
    """The source of a speech's audio: the provider, the phrase cache, the backup voice or the offline voice."""

    LIVE = "live"
    CACHE = "cache"
    BACKUP = "backup"
    OFFLINE = "offline"
