"""Reads processes from /proc, so Linux only. A thread or process that ends during the reading causes no error."""

from contextlib import suppress
from pathlib import Path


def child_processes(parent: int | None = None) -> set[int]:
    """The ids of the children of a process, by default of this one. Includes zombies."""
    children = set[int]()
    for task in Path(f"/proc/{parent or 'self'}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            children.update(map(int, (task / "children").read_text().split()))
    return children


def command_line(pid: int) -> bytes:
    """The command line of a process, its arguments separated by zero bytes. Empty if the process has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
