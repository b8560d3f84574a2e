"""The child process that sends messages through Apprise: `python -m usage.alerts.notifications.worker`.

It reads JSON lines and answers each with one. The first one has the address, so that no list of processes shows it:
`{"url"}`. The answer is `{"problem"}`, which is "" if the address can be used. All others are messages,
`{"title", "body", "type"}`, and their answer is `{"error"}`, which is "" if the message was sent. Neither has any part
of the address: what Apprise logs can have it, so only its number of an HTTP error is used.
"""

import json
import logging
import re
import sys
from typing import Any

from apprise import Apprise, AppriseAsset, NotificationManager, NotifyBase, NotifyFormat

MALFORMED = "Parts of the address are missing or wrong. Compare it with the examples in docs/operation.md."
UNKNOWN_SCHEME = "Apprise knows no service with this scheme. An address begins like slack:// or mailto://."
_HTTP_ERROR = re.compile(r"\berror=([1-5]\d\d)\b")


class _LastRecords(logging.Handler):
    """Keeps what Apprise says about one message."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # no library may write among the answers
    records, logger = _LastRecords(), logging.getLogger("apprise")
    logger.addHandler(records)
    logger.propagate = False
    service: NotifyBase | None = None
    for line in sys.stdin:
        request: dict[str, str] = json.loads(line)
        if "url" in request:
            service = _service_of(request["url"])
            answer = {"problem": "" if service else _problem(request["url"])}
        else:
            records.texts.clear()
            answer = {"error": _send(service, request, records)}
        print(json.dumps(answer), file=answers, flush=True)


def _service_of(url: str) -> Any:  # noqa: ANN401 - Apprise's classes are made at run time
    # An alert goes to the service of the address only, wherever that redirects to.
    return Apprise.instantiate(url, asset=AppriseAsset(app_id="voicecare", http_redirects=False))


def _problem(url: str) -> str:
    scheme = url.partition("://")[0].strip().lower()
    return MALFORMED if scheme in NotificationManager() else UNKNOWN_SCHEME


def _send(service: Any, message: dict[str, str], records: _LastRecords) -> str:  # noqa: ANN401
    title, body, kind = message["title"], message["body"], message["type"]
    try:
        if service.notify(title=title, body=body, notify_type=kind, body_format=NotifyFormat.TEXT):
            return ""
    except Exception as error:  # a plugin can raise anything
        return f"The message could not be sent ({type(error).__name__})."
    said = " ".join(records.texts)
    if found := _HTTP_ERROR.search(said):
        return f"The service refused the message (HTTP {found[1]})."
    if "onnection error" in said:
        return "The service could not be reached."
    return "The service refused the message."


if __name__ == "__main__":
    main()
