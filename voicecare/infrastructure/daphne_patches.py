"""Posted forms are read once, by Django, in the thread of their request."""

import sys
from functools import partialmethod


def leave_unread() -> None:
    """Keeps daphne's loop free of them; under another server there is nothing to do. Idempotent.

    Twisted, on which daphne stands, takes every posted form apart as well, for `Request.args`, at which daphne never
    looks: on the event loop, before anybody is asked for credentials. Ten megabytes held all speech up for 1.3 s, and
    ten megabytes of line ends for 14.
    """
    protocol = sys.modules.get("daphne.http_protocol")
    if protocol is not None:
        protocol.WebRequest.__init__ = partialmethod(protocol.WebRequest.__init__, parsePOSTFormSubmission=False)
