"""The base class of a process's local copies of the one `ProviderState` row."""


class CachedRow:
    """Base class of local copies of a database row. A copy is changed before the row is written.

    A read of the row that started before the write finished is outdated, and must not be applied to the copy.
    """

    def __init__(self) -> None:
        self._write_count = 0
        self._pending_writes = 0

    def version(self) -> int | None:
        """Return the version of the copy. Take it before reading the row, and pass it to `is_stale` afterwards.

        None means that a change of the copy is not yet written to the row.
        """
        return None if self._pending_writes else self._write_count

    def is_stale(self, version: int | None) -> bool:
        """Whether a read of the row may be older than the copy. `version` was taken before the read."""
        return version is None or version != self.version()

    def _begin_write(self) -> None:
        """Call this before changing the copy. Call `_end_write` when the row is written or the write has failed."""
        self._write_count += 1
        self._pending_writes += 1

    def _end_write(self) -> None:
        self._pending_writes -= 1
