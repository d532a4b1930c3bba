"""A session's working directory: made fresh, locked while in use, removed with all that is in it.

Not by tempfile and shutil: with their compression and hashing libraries they take a megabyte of
memory in every server, which is a tenth of it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import Iterator, List, Optional, Sequence

from .forking import fork_child

PREFIX = "tvmrpc-session-"

_TRIES = 5
"""Names that are tried in each place: others may look for what was abandoned just then."""

_FEW = 64
_LITTLE_NBYTES = 16 << 20
"""Entries and bytes that are removed in a millisecond or two, which clients can wait for."""


class SessionDirectory:
    """A directory, and the lock that says it is in use.

    The lock is a descriptor's, which a forked process shares: it ends with the last of them, and
    however they end. The number of a process in the name would not do: other containers that
    share the folder have other numbers.

    Attributes:
        path: where it is.
    """

    def __init__(self, path: str, lock: int) -> None:
        self.path = path
        self._lock = lock

    def is_small(self) -> bool:
        """Whether it is removed in no time."""
        entries = size = 0
        folders = [self.path]
        for folder in folders:  # which grows meanwhile
            with contextlib.suppress(OSError), os.scandir(folder) as found:
                for entry in found:
                    entries += 1
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        size += entry.stat(follow_symlinks=False).st_size
                    if entries > _FEW or size > _LITTLE_NBYTES:
                        return False
        return True

    def remove(self) -> None:
        """Removes and unlocks it; may be called twice."""
        remove_directory(self.path)
        self._unlock()

    def remove_elsewhere(self, close: Sequence[int]) -> int:
        """Has a new process remove it; its number, for who waits for its end.

        Args:
            close: descriptors that this process must not keep.

        Raises:
            OSError: no process can be started now.
        """
        pid = fork_child(lambda: remove_directory(self.path), close)
        self._unlock()  # here; the process has its copy
        return pid

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def make_directory() -> SessionDirectory:
    """A new directory that only this user can enter.

    Raises:
        OSError: there is no place for it; the message names the last that was tried.
    """
    failure: Optional[OSError] = None
    for place in _places():
        for _ in range(_TRIES):
            try:
                return _make(place)
            except BlockingIOError as error:
                failure = error  # a server that started just now took it for abandoned
            except OSError as error:
                failure = error
                break
    assert failure is not None
    raise failure


def _make(place: str) -> SessionDirectory:
    path = os.path.join(place, PREFIX + os.urandom(8).hex())
    lock = -1
    try:
        os.mkdir(path, 0o700)
        lock = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass  # there are no locks here: it is without one, and never taken for abandoned
        if not os.path.isdir(path):
            raise BlockingIOError(errno.EAGAIN, "it was removed as abandoned", path)
    except OSError:
        if lock >= 0:
            os.close(lock)
        with contextlib.suppress(OSError):
            os.rmdir(path)
        raise
    return SessionDirectory(path, lock)


def check_directories() -> str:
    """Makes one, and removes it; a word of warning about where it was, empty if all is well.

    Raises:
        OSError: there is no place for any.
    """
    directory = make_directory()
    try:
        if os.statvfs(directory.path).f_flag & getattr(os, "ST_NOEXEC", 0):
            return (
                f"the directories of sessions are in {os.path.dirname(directory.path)}, which is "
                "mounted noexec: libraries cannot be loaded there; set TMPDIR to another place"
            )
    finally:
        directory.remove()
    return ""


def find_abandoned() -> Iterator[SessionDirectory]:
    """This user's directories that a server left behind which was killed; locked, to be removed."""
    for place in _places():
        try:
            names = os.listdir(place)
        except OSError:
            continue
        for name in names:
            if name.startswith(PREFIX):
                path = os.path.join(place, name)
                lock = _lock_if_abandoned(path)
                if lock is not None:
                    yield SessionDirectory(path, lock)


def _lock_if_abandoned(path: str) -> Optional[int]:
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if os.fstat(lock).st_uid == os.getuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
    except OSError:  # in use, or on a file system without locks
        pass
    os.close(lock)
    return None


def _places() -> List[str]:
    """Where directories are made: the first that will do."""
    named = [os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")]
    named += ["/tmp", "/var/tmp"]
    with contextlib.suppress(OSError):  # the working directory may have been removed
        named.append(os.getcwd())
    return list(dict.fromkeys(filter(None, named)))


def remove_directory(path: str) -> None:
    """Removes it; what cannot be removed stays. Links are not followed."""
    folders = [path]
    for folder in folders:  # which grows meanwhile; however deep it goes, nothing recurs
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o700)  # who is not root needs it to remove what is in there
            with os.scandir(folder) as found:
                entries = list(found)
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)
    for folder in reversed(folders):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
