"""The base of a process's local copies of the one `ProviderState` row."""


class CachedRow:
    """Base for local copies of a database row that are updated before the row is written.

    Reads that started before the write finished are stale and must be ignored.
    """

    def __init__(self) -> None:
        self._write_count = 0
        self._pending_writes = 0

    def version(self) -> int | None:
        """The version of the copy. Take it before the row is read and pass it to `is_stale`.

        None means that a write is pending.
        """
        return None if self._pending_writes else self._write_count

    def is_stale(self, version: int | None) -> bool:
        """Whether a read that started at this version may be older than the copy."""
        return version is None or version != self.version()

    def _begin_write(self) -> None:
        """Call it before the copy changes. Call `_end_write` when the row is written or the write has failed."""
        self._write_count += 1
        self._pending_writes += 1

    def _end_write(self) -> None:
        self._pending_writes -= 1
