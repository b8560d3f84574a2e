"""A Celery broker that needs no server: kombu's filesystem transport with two corrections.

`make run` uses it if there is no Redis. The URL is `folder://localhost`. settings.py has the names of the folders.
"""

import uuid
from pathlib import Path
from time import monotonic

from kombu.exceptions import ChannelError
from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps

MAX_POLL_S = 0.5


class FolderChannel(filesystem.Channel):
    """Adds each message to the folder atomically.

    kombu writes directly to the file of the message, and a worker that reads a half-written message stops for good.
    """

    def _put(self, queue: str, payload: object, **_options: object) -> None:  # type: ignore[override]
        """Writes the message to a temporary file and renames it. The name has the form that kombu expects.

        Raises ChannelError if the file cannot be written.
        """
        path = Path(self.data_folder_out, f"{round(monotonic() * 1000)}_{uuid.uuid4()}.{queue}.msg")
        temporary = path.with_suffix(".part")
        try:
            temporary.write_text(dumps(payload))
            temporary.replace(path)
        except OSError as error:
            raise ChannelError(f"Cannot add a message to {path.parent}") from error


class FolderTransport(filesystem.Transport):
    """Returns from each poll of the folder after at most MAX_POLL_S.

    By default Celery polls for 2 s, and twice more after SIGTERM. This is too long, because `make run` kills a worker
    that has not ended after 5 s.
    """

    Channel = FolderChannel

    def drain_events(self, connection: object, timeout: float | None = None) -> None:  # type: ignore[override]
        """Waits for messages. Raises TimeoutError after MAX_POLL_S, so that Celery checks whether it should stop."""
        super().drain_events(connection, timeout=timeout and min(timeout, MAX_POLL_S))


TRANSPORT_ALIASES["folder"] = f"{__name__}:{FolderTransport.__name__}"
