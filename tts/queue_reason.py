"""The reasons why a speech has to wait, and the module that decides each."""

from enum import StrEnum


class QueueReason(StrEnum):
    """Why a speech has to wait before it is played.

    The row (`Utterance.queue_reason`) keeps the latest reason. It is empty if the speech did not wait for any of them.
    The log event `speech.queued` (level debug) has the first reason. A delivery that first waited because of
    `no_device` and then waits again logs its new reason, too. Administrators see the reason in the list of messages,
    where it is also a filter, and on the page of a message.
    """

    BUSY = "busy"  # all slots are taken, or the provider limits requests; decided in tts.synthesis.admission
    QUOTA = "quota"  # no credits are left; tts.synthesis.pipeline decides it, tts.devices.player queues the speech
    NO_DEVICE = "no_device"  # none is connected when a clinician submits a speech; decided in tts.outbox.store
