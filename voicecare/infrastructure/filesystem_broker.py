"""A Celery broker that needs no server: kombu's filesystem transport with two corrections.

`make run` without Redis uses it. The URL is `folder://localhost`; settings.py names the folders.
"""

import uuid
from pathlib import Path
from time import monotonic

from kombu.exceptions import ChannelError
from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps

MAX_POLL_S = 0.5


class FolderChannel(filesystem.Channel):
    """kombu writes a message in place. A worker that reads a half-written message stops for good."""

    def _put(self, queue: str, payload: object, **_options: object) -> None:  # type: ignore[override]
        """Write a temporary file and rename it. The name has the form that kombu expects."""
        path = Path(self.data_folder_out, f"{round(monotonic() * 1000)}_{uuid.uuid4()}.{queue}.msg")
        temporary = path.with_suffix(".part")
        try:
            temporary.write_text(dumps(payload))
            temporary.replace(path)
        except OSError as error:
            raise ChannelError(f"Cannot add a message to {path.parent}") from error


class FolderTransport(filesystem.Transport):
    """Shorter polls. Celery polls for 2 s, and twice more after SIGTERM, but `make run` kills a worker after 5 s."""

    Channel = FolderChannel

    def drain_events(self, connection: object, timeout: float | None = None) -> None:  # type: ignore[override]
        """Raises TimeoutError after MAX_POLL_S. Celery then checks whether it should stop."""
        super().drain_events(connection, timeout=timeout and min(timeout, MAX_POLL_S))


TRANSPORT_ALIASES["folder"] = f"{__name__}:{FolderTransport.__name__}"
