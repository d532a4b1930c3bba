"""Libraries that every session has from its start: checked when the server starts, then loaded.

Their symbols are there for what is loaded later, as in TVM; they are no modules of a session.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import List, Sequence, Tuple, Union

from ..errors import LibraryError
from ..session.copies import leave_if_copied
from .forking import fork_child

_CHECK_S = 10.0
_TEXT_NBYTES = 60000  # a pipe takes that at once
_LOADED = b"+"  # and behind it what was left out; anything else is why they cannot be loaded


def split(libraries: Union[str, Sequence[str], None]) -> Tuple[str, ...]:
    """A list, or TVM's form of one with colons, as paths that hold in every working directory.

    A name that is no file here is left to the system's loader, which has its own folders.
    """
    names: List[str] = libraries.split(":") if isinstance(libraries, str) else [*(libraries or ())]
    return tuple(
        os.path.abspath(name) if os.sep in name or os.path.exists(name) else name
        for name in map(os.fspath, names)
        if name
    )


def load(libraries: Sequence[str]) -> List[str]:
    """Loads them into this process, for all that comes later to use.

    A library of TVM itself may need what is not on this machine, such as the driver of a GPU. It
    is left out, and what is missing for want of it says so.

    Returns:
        Why each of those was left out.

    Raises:
        LibraryError: another one cannot be loaded; the message names it.
    """
    from ..runtime.library import is_part_of_tvm
    from ..runtime.registry import note_unavailable

    left_out: List[str] = []
    for name in libraries:
        try:
            _load(name)
        except LibraryError as error:
            if not (os.path.isabs(name) and is_part_of_tvm(name)):
                raise
            left_out.append(f"the server goes without a library that it was told to load: {error}")
            note_unavailable(left_out[-1])
    return left_out


def _load(name: str) -> None:
    import ctypes

    from ..runtime.library import LibraryModule

    if os.path.isabs(name):
        LibraryModule(name)  # fills in what it wants from TVM; says what is wrong with a file
    try:
        ctypes.CDLL(name, mode=os.RTLD_NOW | os.RTLD_GLOBAL)
    except OSError as error:
        raise LibraryError(
            f"the library {name} cannot be loaded: {error}; "
            "give the path of a file, or a name that the system's loader knows"
        ) from None


def check(libraries: Sequence[str]) -> List[str]:
    """Tries to load them, in a process of its own: this one shall stay free of them.

    Returns:
        Why libraries of TVM's will be left out, as `load`.

    Raises:
        LibraryError: one cannot be loaded, or its constructor crashed or did not return.
        OSError: no process can be started now.
    """
    reader, writer = os.pipe()
    try:
        pid = fork_child(lambda: _load_and_tell(libraries, writer), [reader])
    except OSError:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    try:
        said = _read(reader)
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    if said and said[:1] == _LOADED:
        return [text for text in said[1:].decode("utf-8", "replace").split("\0") if text]
    if said:
        raise LibraryError(said.decode("utf-8", "replace"))
    how = "did not return in time" if said is None else f"ended with status {status}"
    raise LibraryError(f"{', '.join(libraries)}: the process that tried to load this {how}")


def _load_and_tell(libraries: Sequence[str], writer: int) -> None:
    signal.alarm(int(_CHECK_S) + 1)  # also when nobody is left to end it
    process = os.getpid()
    try:
        left_out = load(libraries)
        leave_if_copied(process)
    except Exception as error:  # to be raised in the parent, whatever it is
        leave_if_copied(process)
        os.write(writer, str(error).encode()[:_TEXT_NBYTES] or b"?")
    else:
        os.write(writer, _LOADED + "\0".join(left_out).encode()[:_TEXT_NBYTES])


def _read(reader: int) -> "bytes | None":
    """What was said; nothing if the other end just closed, None if it did not."""
    said = b""
    end = time.monotonic() + _CHECK_S
    while True:
        left = end - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            return None
        part = os.read(reader, _TEXT_NBYTES)
        if not part:
            return said
        said += part
