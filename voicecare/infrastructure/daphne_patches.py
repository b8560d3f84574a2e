"""Patches of daphne, the ASGI server. asgi.py applies them.

Each patch first checks that the installed version of daphne still has the code that the patch changes.
"""

import inspect
import sys
from functools import partialmethod

import structlog

OPTION = "parsePOSTFormSubmission"

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
