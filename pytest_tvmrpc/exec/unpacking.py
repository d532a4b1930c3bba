"""The beginning of a ``.pyz`` file of the server: unpacks it, once for each content, and runs it.

Unpacked, since Python keeps what it has compiled beside the files: a board that compiles them anew
for each session spends more time on that than on the session. In the file this is ``__main__.py``;
it has nothing but the standard library of Python 3.8, and of that as little as possible, as the
server would keep it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from typing import Iterator, Optional

CONTENT = ""
"""A hash of the other files; `bundle` fills it in."""

MARK = ".whole"
"""A file that is in the folder when everything is."""


def folders() -> Iterator[str]:
    """Where it may be unpacked: in the user's cache, or where temporary files go."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if os.path.isabs(home):
        yield os.path.join(home, "pytest-tvmrpc", "server")
    temporary = os.environ.get("TMPDIR") or "/tmp"
    yield os.path.join(temporary, f"pytest-tvmrpc-{os.getuid()}", "server")


def check(folder: str) -> None:
    """See that nobody else can write there, since what is in it is run.

    Raises:
        OSError: others can, or it is not there.
    """
    status = os.stat(folder)
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError("others can write there")


def unpacked() -> Optional[str]:
    """The folder with the content, if it has been unpacked."""
    for folder in folders():
        with contextlib.suppress(OSError):
            check(folder)
            os.stat(os.path.join(folder, CONTENT, MARK))
            return os.path.join(folder, CONTENT)
    return None


def unpack(archive: str) -> None:
    """Unpack it; what is there appears whole or not at all.

    Raises:
        OSError: no folder can be written, or all belong to somebody else.
    """
    tried = []
    for folder in folders():
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            check(folder)
            _unpack_into(archive, os.path.join(folder, CONTENT))
            return
        except OSError as error:
            tried.append(f"{folder}: {error.strerror or error}")
    raise OSError(
        f"{archive} cannot be unpacked: {'; '.join(tried)}; expected a folder of your own; "
        "set TMPDIR to one that can be written"
    )


def _unpack_into(archive: str, target: str) -> None:
    import shutil
    import zipfile

    partial = f"{target}.{os.getpid()}.part"
    try:
        with zipfile.ZipFile(archive) as file:
            file.extractall(partial)
        with open(os.path.join(partial, MARK), "wb"):
            pass
        os.rename(partial, target)
    except OSError:
        if not os.path.isfile(os.path.join(target, MARK)):  # another process was faster
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def start_again() -> None:
    """Replace this process by a new interpreter, which has none of what unpacking needed."""
    import subprocess

    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    os.execv(sys.executable, [sys.executable, *flags, *sys.argv])


def main() -> int:
    """Run the server of the archive that Python was started with."""
    folder = unpacked()
    if folder is None:
        try:
            unpack(os.path.abspath(sys.argv[0]))
            start_again()
        except OSError as error:
            with contextlib.suppress(OSError):
                print(f"error: {error}", file=sys.stderr)
        return 1
    sys.path[0] = folder  # it was the archive
    from pytest_tvmrpc.exec import rpc_server

    return rpc_server.main()


if __name__ == "__main__":
    sys.exit(main())
