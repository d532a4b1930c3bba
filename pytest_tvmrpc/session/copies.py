"""Whether this process is a copy that fork() made of another one, at the price of reading a byte.

C code forks without telling Python: a kernel whose child returns, as its exec failed, would
answer the client a second time, and each later answer would belong to another request.
"""

from __future__ import annotations

import mmap
import os
from typing import NoReturn, Union

_MADV_WIPEONFORK = 18  # of Linux; `mmap` has no name for it

_STATUS = 127
"""A shell's word for a command that could not be executed."""


class _ByNumber:
    """The same where the kernel wipes nothing: a system call for each look."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __getitem__(self, index: int) -> bool:
        return os.getpid() == self._pid


Mark = Union[mmap.mmap, _ByNumber]


def make_mark() -> Mark:
    """A mark whose first byte is not 0 in this process, and 0 in each copy of it.

    The kernel wipes the page in a child, whoever forked, and however.
    """
    if not (hasattr(mmap.mmap, "madvise") and hasattr(mmap, "MAP_PRIVATE")):
        return _ByNumber()
    mark = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        mark.madvise(_MADV_WIPEONFORK)
    except (OSError, ValueError):  # not Linux, or one before 4.14
        mark.close()
        return _ByNumber()
    mark[0] = 1
    return mark


def leave() -> NoReturn:
    """The end of a copy: nothing of what it shares with the original is touched or let out."""
    os._exit(_STATUS)


def leave_if_copied(process: int) -> None:
    """Ends a process that is not the one of this number any more."""
    if os.getpid() != process:
        leave()
