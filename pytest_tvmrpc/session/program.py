"""A session with a program that was started for it: two descriptors, no address, no handshake.

The program is one of TVM's Popen servers, or ours: its last two arguments are the numbers of the
descriptors that it reads from and writes to. It is given one end of a pair of sockets twice. Such
programs only read and write, so they see two pipes, and here the connection is like any other:
the kernel limits each wait, and a program that has ended is noticed at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from typing import Callable, NamedTuple, Optional, Sequence, Union

from ..errors import ConnectionLostError, LibraryError, SessionCrashedError, StartError
from ..processes import has_ended, how_ended
from ..runtime import elf
from .channel import SocketChannel
from .endpoint import Endpoint

Binary = Union[str, "os.PathLike[str]", bytes, bytearray, memoryview]

ENDING_S = 1.0
"""How long a program may take to end by itself once its connection is closed."""

_BUSY_S = 2.0
"""How long another process, forked while a file was written, may keep it open."""

_PAUSE_S = 0.002


class Output(NamedTuple):
    """Where a program prints.

    Attributes:
        descriptor: for its stdout and stderr; None: to those of this process.
        last_lines: what it printed last, as the end of a message; empty if that is not known.
        ended: is told the exit status of a program that ended before its open session did, or the
            number of the signal, negated.
        folder: where it has its temporary files; None: where all have them.
    """

    descriptor: Optional[int]
    last_lines: Callable[[], str]
    ended: Optional[Callable[[int], object]] = None
    folder: Optional[str] = None


class Limits(NamedTuple):
    """How long a program may take.

    Attributes:
        handshake_s: until the session is open; None: for ever.
        call_s: any later call without an answer; None: for ever.
    """

    handshake_s: Optional[float] = 10.0
    call_s: Optional[float] = 600.0


def open_program(
    binary: Binary, arguments: Sequence[str], output: Output, limits: Limits
) -> Endpoint:
    """Starts a program and opens a session with it; both end together.

    Args:
        binary: its path, or the program itself, which then is a file for a moment.
        arguments: what stands before the two descriptors in its command line.

    Raises:
        TypeError: the program is neither a path nor bytes.
        StartError: there is no such program, it cannot be started here, or it ended at once.
        DeadlineError: it did not open the session in time.
        RPCError: it did something else than to open a session.
    """
    if isinstance(binary, (str, os.PathLike)):
        return _open(os.path.abspath(binary), arguments, output, limits)
    if not isinstance(binary, (bytes, bytearray, memoryview)):
        raise TypeError(f"{binary!r} is no program; expected its path, or its content as bytes")
    folder = tempfile.mkdtemp(prefix="tvmrpc-popen-")
    try:
        path = os.path.join(folder, "server.minrpc")
        with open(path, "wb") as file:
            file.write(binary)
        os.chmod(path, 0o500)
        return _open(path, arguments, output, limits)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _open(path: str, arguments: Sequence[str], output: Output, limits: Limits) -> Endpoint:
    _check(path)
    ours, its = socket.socketpair()
    try:
        with its, contextlib.ExitStack() as stack:
            second = os.dup(its.fileno())
            stack.callback(os.close, second)
            descriptors = (its.fileno(), second)
            process = _start([path, *arguments, *map(str, descriptors)], descriptors, output)
    except BaseException:
        ours.close()
        raise
    channel = ProgramChannel(ours, _Process(process, path), output, limits.handshake_s)
    endpoint = Endpoint(channel)
    try:
        endpoint.init_server()
    except SessionCrashedError as error:
        raise StartError(
            f"{error}\nexpected a program that serves the descriptors in its last two arguments, "
            "such as one that with_minrpc makes"
        ) from None
    except BaseException:
        endpoint.close("it was not opened")
        raise
    endpoint.takes_handles = endpoint.is_ours
    channel.opened(limits.call_s)
    return endpoint


def _check(path: str) -> None:
    """Sees that a file can be executed, with TVM's words where it cannot.

    Raises:
        StartError: it is not there, or no program.
    """
    if not os.path.exists(path):
        raise StartError(
            f"{path} does not exist.; expected the path of a program, such as one that "
            "with_minrpc makes, or its bytes; check the path"
        )
    if os.path.isdir(path) or not os.access(path, os.X_OK):
        raise StartError(
            f"{path} is not executable.; expected a program; if it is one, allow it: chmod +x "
            f"{path}"
        )


def _start(
    command: Sequence[str], descriptors: Sequence[int], output: Output
) -> "subprocess.Popen[bytes]":
    """The process.

    Raises:
        StartError: the system cannot execute the file.
    """
    give_up = time.monotonic() + _BUSY_S
    environment = {**os.environ, "TMPDIR": output.folder} if output.folder else None
    while True:
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output.descriptor,
                stderr=output.descriptor,
                pass_fds=descriptors,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            if error.errno != errno.ETXTBSY or time.monotonic() > give_up:
                raise StartError(_unstartable(command[0], error)) from error
        time.sleep(_PAUSE_S)


def _unstartable(path: str, error: OSError) -> str:
    advice = "expected a program for this machine"
    with contextlib.suppress(LibraryError, OSError):  # no ELF file: there is no more to say
        here = elf.machine()
        there = elf.architecture(path)
        if here is not None and not there.fits(here):
            advice = (
                f"it was made for {there}, and this machine is {here}; build it for this machine, "
                "or give an emulator as the program and this one among its arguments"
            )
    if error.errno in (errno.EACCES, errno.EPERM):
        advice = (
            f"expected a place from which programs may be executed, and {os.path.dirname(path)} "
            "may be none; set TMPDIR to another one, or give the path of a program elsewhere"
        )
    return f"{path} cannot be started: {error.strerror}; {advice}"


class _Process:
    """The process of a session.

    Args:
        process: as it was started, in a process group of its own.
        path: of the program.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", path: str) -> None:
        self.path = path
        self._process = process
        self._owner = os.getpid()

    def ended(self, limit_s: float) -> Optional[int]:
        """How it ended; None if it runs, for so long at least."""
        return self._process.returncode if self._wait(limit_s) else None

    def _wait(self, limit_s: float) -> bool:
        if self._process.returncode is not None:
            return True
        give_up = time.monotonic() + limit_s
        pause_s = _PAUSE_S / 8
        while not has_ended(self._process.pid):
            if time.monotonic() > give_up:
                return False
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 20 * _PAUSE_S)
        # As long as it is not reaped, its number cannot belong to anybody else.
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        return True

    def end(self) -> None:
        """Lets it end, or ends it, with all that it started in its group, and waits for that."""
        if self._owner != os.getpid():  # a fork: the program is the parent's
            self._process.returncode = 0
            return
        if not self._wait(ENDING_S):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class ProgramChannel(SocketChannel):
    """The connection with a program, which ends with it.

    Args:
        connection: the socket; the channel owns it from here on.
        process: the program's.
        output: where that prints.
        timeout_s: how long it may take to open the session.
    """

    def __init__(
        self,
        connection: socket.socket,
        process: _Process,
        output: Output,
        timeout_s: Optional[float],
    ) -> None:
        super().__init__(connection, f"the program {process.path}", timeout_s, "handshake_timeout")
        self._process = process
        self._output = output
        self._is_open = False
        self._is_closed = False

    def opened(self, call_s: Optional[float]) -> None:
        """The session is open; any call may take so long."""
        self._is_open = True
        self.limit(call_s, "call_timeout")

    def lost(self, error: OSError, doing: str) -> Exception:
        """The error of the connection, or how the program ended if that is why."""
        failure = super().lost(error, doing)
        if self._is_closed or type(failure) is not ConnectionLostError:
            return failure
        code = self._process.ended(ENDING_S)
        if code is None:
            return failure
        if self._output.ended is not None and self._is_open:
            self._output.ended(code)
        how = how_ended(code)
        return SessionCrashedError(f"{self.peer} {how} in {doing}{self._output.last_lines()}")

    def close(self) -> None:
        """Ends the connection and the program; may be called twice."""
        self._is_closed = True
        super().close()
        self._process.end()
