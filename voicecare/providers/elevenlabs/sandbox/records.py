"""Records of the requests. Tests compare the records with our own ledger: what was requested, sent and billed."""

import secrets
import string
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Outcome = Literal["open", "completed", "cut", "cancelled", "failed"]

BASE62 = string.ascii_letters + string.digits


def new_provider_id() -> str:
    """Returns a random id in the form that the provider uses: 20 letters and digits."""
    return "".join(secrets.choice(BASE62) for _ in range(20))


@dataclass
class ResponseRecord:
    """The state of one response. `status` is None until the headers are sent.

    The outcome `cut` means that the sandbox broke the connection, `cancelled` that the client closed it.
    """

    status: int | None = None
    outcome: Outcome = "open"
    bytes_sent: int = 0
    fault: str | None = None


@dataclass
class SpeechRecord(ResponseRecord):
    """One speech request and its response.

    `at` is the monotonic time in seconds, comparable between processes of one machine. `characters` is the number of
    code points, and `credits` their price. Both were charged only if `billed` is true.
    """

    at: float = field(default_factory=time.monotonic)
    path: str = ""
    voice_id: str = ""
    text: Any = None
    model_id: Any = None
    output_format: str = ""
    previous_text: Any = None
    next_text: Any = None
    language_code: Any = None
    voice_settings: Any = None
    enable_logging: bool = True
    request_id: str = field(default_factory=new_provider_id)
    characters: int = 0
    credits: int = 0
    billed: bool = False


@dataclass(frozen=True)
class BilledRequest:
    """One billed request, for the history and the usage statistics.

    `unix` is its time in seconds. `before` and `after` are the numbers of used credits of the account. `kept` is false
    for a zero-retention request, which is not in the history, and for one that was deleted from it.
    """

    unix: float
    history_item_id: str
    request_id: str
    voice_id: str
    voice_name: str
    voice_category: str
    model_id: str
    text: str
    characters: int
    credits: int
    before: int
    after: int
    content_type: str
    kept: bool


class RequestLog:
    """All speech requests since the start or the last reset, in order of arrival."""

    def __init__(self) -> None:
        self._records: list[SpeechRecord] = []

    def add(self, record: SpeechRecord) -> None:
        self._records.append(record)

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(record) for record in self._records]
