"""Whether a reply can still be the speech of its text: one without end is cut, and so is a trickle. Pure."""

from voicecare.providers.errors import BadRequest, Stalled

# No text is so long when spoken: a stream beyond this will never end, and the patient is spared the rest of it.
LONGEST_S = 30.0
LONGEST_S_A_CHARACTER = 1.0
ENDLESS = "The speech provider sends more sound than the text can be."

DEAD_S = 10.0  # of silence in one segment, in sum; no single gap of it needs to be a stall
TRICKLE = "The speech provider sends its sound far more slowly than it plays."


class Plausible:
    """One reply, read by read."""

    def __init__(self, characters: int, bytes_per_second: float, *, dead_s: float = DEAD_S) -> None:
        self._may_be_dead_s = dead_s
        self._rate = bytes_per_second
        self._left = bytes_per_second * (LONGEST_S + characters * LONGEST_S_A_CHARACTER)
        self._ahead_s = 0.0  # what was sent and not played yet
        self._dead_s = 0.0

    def came(self, size: int, waited_s: float) -> None:
        """So many bytes came after so many seconds of waiting for them, in which the device could play what it had.

        Raises Stalled for a trickle, BadRequest for a stream without end.
        """
        self._dead_s += max(waited_s - self._ahead_s, 0.0)
        self._ahead_s = max(self._ahead_s - waited_s, 0.0) + size / self._rate
        self._left -= size
        if self._left < 0:
            raise BadRequest(ENDLESS, code="endless_audio", status=200)
        if self._dead_s > self._may_be_dead_s:
            raise Stalled(TRICKLE, code="trickle", status=200)
