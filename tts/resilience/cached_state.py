"""A process's copy of the one `ProviderState` row, and which readings of the row it may believe."""


class CachedRow:
    """The base of what is copied. The process changes its copy first and writes the row afterwards: until that is
    done, and for every reading that began before, the row does not know yet.
    """

    def __init__(self) -> None:
        self._write_count = 0
        self._pending_writes = 0

    def version(self) -> int | None:
        """Taken before the row is read, and given to `is_old` afterwards."""
        return None if self._pending_writes else self._write_count

    def is_stale(self, mark: int | None) -> bool:
        """Whether a reading that began at this mark may be older than what this process has done."""
        return mark is None or mark != self.version()

    def _begin_write(self) -> None:
        """The copy is about to differ from the row; `_end` follows once the row is written, or could not be."""
        self._write_count += 1
        self._pending_writes += 1

    def _end_write(self) -> None:
        self._pending_writes -= 1
