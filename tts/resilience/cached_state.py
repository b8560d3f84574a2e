"""A process's copy of the one `ProviderState` row, and which readings of the row it may believe."""


class RowCopy:
    """The base of what is copied. The process changes its copy first and writes the row afterwards: until that is
    done, and for every reading that began before, the row does not know yet.
    """

    def __init__(self) -> None:
        self._writings = 0
        self._under_way = 0

    def mark(self) -> int | None:
        """Taken before the row is read, and given to `is_old` afterwards."""
        return None if self._under_way else self._writings

    def is_old(self, mark: int | None) -> bool:
        """Whether a reading that began at this mark may be older than what this process has done."""
        return mark is None or mark != self.mark()

    def _begin(self) -> None:
        """The copy is about to differ from the row; `_end` follows once the row is written, or could not be."""
        self._writings += 1
        self._under_way += 1

    def _end(self) -> None:
        self._under_way -= 1
