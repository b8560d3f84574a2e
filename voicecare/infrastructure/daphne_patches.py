"""Patches of daphne, the ASGI server. asgi.py applies them.

Each patch first checks that the installed version of daphne still has the code that the patch changes.
"""

import inspect
import re
import sys
from functools import partialmethod, wraps
from typing import Any

import structlog

OPTION = "parsePOSTFormSubmission"
SUBPROTOCOLS = "sec-websocket-protocol"

log = structlog.get_logger(__name__)


def disable_form_parsing() -> None:
    """Stops daphne's HTTP layer from parsing posted forms. Django parses them later in the thread of the request.

    Twisted, on which daphne is built, parses every posted form for `Request.args`, which daphne never reads. It does so
    on the event loop and before authentication. A form of 10 MB blocked all speech for 1.3 s, and 10 MB of line ends
    blocked it for 14 s.

    Does nothing under another server. Logs a warning if this version of Twisted has no such option. Idempotent.
    """
    protocol = sys.modules.get("daphne.http_protocol")
    if protocol is None:
        return
    if OPTION not in inspect.signature(protocol.http.Request.__init__).parameters:
        log.warning("daphne.patch_skipped", patch=disable_form_parsing.__name__)
        return
    protocol.WebRequest.__init__ = partialmethod(protocol.WebRequest.__init__, **{OPTION: False})


def escape_subprotocols() -> None:
    """Lets the application see subprotocols with characters outside of ASCII, and answer the handshake.

    daphne reads the header as percent-encoded ASCII. Any other byte made it answer HTTP 500 and log a traceback, which
    anybody could cause. Such bytes are percent-encoded now, so that daphne decodes them.

    Does nothing under another server. Idempotent.
    """
    protocol = sys.modules.get("daphne.ws_protocol")
    if protocol is None or hasattr(protocol.WebSocketProtocol.onConnect, "__wrapped__"):
        return
    on_connect = protocol.WebSocketProtocol.onConnect

    @wraps(on_connect)
    def escape_and_connect(self: Any, request: Any) -> Any:  # noqa: ANN401 - autobahn has no types
        headers = request.headers  # autobahn decodes them from Latin-1 and has the names in lower case
        if (offered := headers.get(SUBPROTOCOLS)) is not None:
            headers[SUBPROTOCOLS] = re.sub(r"[^\x00-\x7f]", lambda found: f"%{ord(found[0]):02X}", offered)
        return on_connect(self, request)

    protocol.WebSocketProtocol.onConnect = escape_and_connect
