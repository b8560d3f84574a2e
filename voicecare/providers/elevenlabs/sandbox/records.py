"""What the sandbox remembers of each request: the tests' independent witness of what was asked, sent and billed."""

import secrets
import string
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Outcome = Literal["open", "completed", "cut", "cancelled", "failed"]

BASE62 = string.ascii_letters + string.digits


def new_provider_id() -> str:
    """An id as the provider makes them: 20 base62 characters."""
    return "".join(secrets.choice(BASE62) for _ in range(20))


@dataclass
class ResponseRecord:
    """How far one answer got. `status` is None until headers went out; `cut` means that we broke it off, `cancelled`
    that the client went away."""

    status: int | None = None
    outcome: Outcome = "open"
    bytes_sent: int = 0
    fault: str | None = None


@dataclass
class SpeechRecord(ResponseRecord):
    """One speech request. `at` is monotonic seconds, comparable between processes of one machine; `characters` are code
    points, `credits` what they cost; both are charged only if `billed`."""

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
    """One billed request, for history and usage figures. `unix` in seconds; `before` and `after` are the account's
    counter around it; zero-retention requests are `kept` out of history."""

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
    """Speech requests in the order of their arrival."""

    def __init__(self) -> None:
        self._records: list[SpeechRecord] = []

    def add(self, record: SpeechRecord) -> None:
        self._records.append(record)

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(record) for record in self._records]
