"""The broker that needs no server: a folder, asked in steps that let a worker end in time."""

from kombu.transport import TRANSPORT_ALIASES, filesystem

ASK_S = 0.5


class FolderTransport(filesystem.Transport):
    """kombu's own. Celery asks it for 2 s at a time, and twice more after SIGTERM; `make run` kills after 5 s."""

    def drain_events(self, connection: object, timeout: float | None = None) -> None:  # type: ignore[override]
        """Raises TimeoutError earlier than asked, which is Celery's cue to look whether it should stop."""
        super().drain_events(connection, timeout=timeout and min(timeout, ASK_S))


TRANSPORT_ALIASES["folder"] = f"{__name__}:{FolderTransport.__name__}"
