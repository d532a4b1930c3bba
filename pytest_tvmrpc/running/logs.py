"""The folder with the logs of a run's own tracker and servers, and what they say. Writes no log.

A run that is killed leaves its folder behind; the next run removes it. That nobody uses a folder is
seen by its lock, which the kernel takes from a process that has ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import uuid

_OURS = re.compile(r"tvmrpc-[0-9a-f]{32}")

_END = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} INFO finish serving .*\n?")
"""The server's last line about a session, behind all that this has printed."""

_MOST_NBYTES = 2 << 20
"""A server passes on 1 MiB of what a session prints, and says little more about it."""


def new_name() -> str:
    """The path of a folder that is not there yet."""
    return os.path.join(tempfile.gettempdir(), f"tvmrpc-{uuid.uuid4().hex}")


def log_of(folder: str, port: int) -> str:
    """Where the output of the server with this port is, in any process of the run."""
    return os.path.join(folder, f"port-{port}.log")


class SessionLog:
    """What a server's log says of one session, which has just begun; nothing if there is no log.

    The next session may be somebody else's, and may begin before this one's part is read.

    Args:
        path: of the log; empty if the server is not the run's.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._at = os.path.getsize(path) if self._exists() else 0
        self._is_read = False

    def read(self) -> bytes:
        """What was not read yet."""
        if self._is_read or not self._exists():
            return b""
        with open(self._path, "rb") as log:
            log.seek(self._at)
            content = log.read(_MOST_NBYTES)
        end = _END.search(content)
        if end is not None:
            self._is_read = True
            content = content[: end.end()]
        self._at += len(content)
        return content

    def _exists(self) -> bool:
        return bool(self._path) and os.path.exists(self._path)


class LogFolder:
    """The folder of this run, made now; what runs that were killed have left is removed.

    Args:
        path: its path, by `new_name`.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        _sweep(os.path.dirname(path))
        unnamed = f"{path}.new"  # nobody looks at it before it is locked
        os.mkdir(unnamed, 0o700)
        self._lock = os.open(unnamed, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.rename(unnamed, path)

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self._path, ignore_errors=True)
        os.close(self._lock)


def _sweep(parent: str) -> None:
    """Remove folders of ours that nobody has locked."""
    with os.scandir(parent) as entries:
        found = [entry.path for entry in entries if _OURS.fullmatch(entry.name)]
    for path in found:
        with contextlib.suppress(OSError):  # it is in use, somebody else's, or just removed
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock).st_uid == os.getuid():
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
