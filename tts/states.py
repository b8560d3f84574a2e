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
    """Why a speech has to wait before it is played.

    The row (`Utterance.queue_reason`) keeps the latest reason. It is empty if the speech did not wait for one of these.
    The log event `speech.queued` has the first reason. A delivery that waits again after `no_device` logs its own.
    Administrators see the reason in the list of messages, where it is also a filter, and on the page of a message.
    """

    BUSY = "busy"  # all slots are taken, or the provider limits requests; decided in tts.synthesis.admission
    QUOTA = "quota"  # no credits are left; tts.synthesis.pipeline decides it, tts.devices.player queues the speech
    NO_DEVICE = "no_device"  # none is connected when a clinician submits a speech; decided in tts.outbox.store


class Source(StrEnum):
    """The source of a speech's audio."""

    LIVE = "live"
    CACHE = "cache"
    BACKUP = "backup"
    OFFLINE = "offline"
