"""A session in a process of its own: its start, its deadline, its end.

The parent keeps a copy of the client's socket. When the session's process dies of something, the
parent can tell the client what it was, unless the process stood in the middle of an answer: a
byte of shared memory says so.
"""

from __future__ import annotations

import contextlib
import enum
import mmap
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Callable, Optional, Sequence

from .. import network
from ..protocol import packets
from ..protocol.dialect import FFI
from ..session.serving import Progress
from .directory import remove_directory

if TYPE_CHECKING:
    import socket

    from .directory import SessionDirectory


_PR_SET_PDEATHSIG = 1


class WorkerState(enum.Enum):
    """Where a session's process stands."""

    SERVING = "serving"
    STOPPING = "stopping"
    EXITED = "exited"


class Worker:
    """One session, from fork to reaping.

    Args:
        connection: the client's socket, blocking, handshake done; owned.
        address: the client's, for reports.
        directory: the session's working directory.
        session_timeout: seconds until the session is ended; 0 for no limit.
        serve: what the child does with the socket, directory and progress byte.
        close: descriptors of the parent that the child must not keep.

    Raises:
        OSError: no process can be started now.
    """

    def __init__(
        self,
        connection: socket.socket,
        address: str,
        directory: SessionDirectory,
        session_timeout: float,
        serve: Callable[[socket.socket, str, memoryview], None],
        close: Sequence[int],
    ) -> None:
        self.connection = connection
        self.address = address
        self.directory = directory
        self.session_timeout = session_timeout
        self.state = WorkerState.SERVING
        self.has_expired = False
        self.kill_at: Optional[float] = None
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)
        self._lifeline = -1
        lifeline_child, self._lifeline = os.pipe()
        parent = os.getpid()
        try:
            self.pid = os.fork()
        except OSError:
            os.close(lifeline_child)
            self.dispose()
            raise
        if self.pid == 0:
            _become_session(
                self.connection,
                directory.path,
                memoryview(self._shared),
                serve,
                [*close, self._lifeline],
                lifeline_child,
                parent,
            )
        with contextlib.suppress(OSError):  # the child does it too; whoever comes first
            os.setpgid(self.pid, self.pid)
        os.close(lifeline_child)
        now = time.monotonic()
        self.expires_at = now + session_timeout if session_timeout else None

    def expect_end(self, by: float) -> None:
        """The client is gone: the process has until then to notice."""
        if self.state is WorkerState.SERVING:
            self.kill_at = by

    def stop(self, now: float, grace_s: float) -> None:
        """Asks the process to end; `tick` kills it when it does not."""
        if self.state is WorkerState.SERVING:
            self.state = WorkerState.STOPPING
            self.kill_at = now + grace_s
            self._signal(signal.SIGTERM)

    def tick(self, now: float, grace_s: float) -> None:
        """Does what is due: the end of the session's time, or of the patience with its end."""
        if self.expires_at is not None and now >= self.expires_at:
            self.expires_at = None
            self.has_expired = True
            self.stop(now, grace_s)
        if self.kill_at is not None and now >= self.kill_at:
            self.kill_at = None
            self._signal(signal.SIGKILL)

    def next_wakeup(self) -> Optional[float]:
        """When `tick` has something to do, on the monotonic clock."""
        due = [moment for moment in (self.expires_at, self.kill_at) if moment is not None]
        return min(due) if due else None

    def reap(self) -> Optional[str]:
        """Once the process has ended: how, with the client told; `dispose` is left to do.

        None while it runs.
        """
        # As long as it is not reaped, its number cannot belong to anybody else.
        if not _has_ended(self.pid):
            return None
        self._signal(signal.SIGKILL)  # what it started and left behind
        _, status = os.waitpid(self.pid, 0)
        self.state = WorkerState.EXITED
        outcome = _outcome(status)
        if not outcome and self._shared[0] == Progress.CALLING:
            outcome = "exited with 0"
        message = None
        if self.has_expired:
            message = (
                f"RPCSessionTimeoutError: Your {float(self.session_timeout)}s session has expired, "
                'try to increase the "session_timeout" value.'
            )
        elif outcome and self._shared[0] == Progress.CALLING:
            message = (
                f"SessionCrashedError: the session's process {outcome} while it served a request; "
                "what it printed is in the server's output"
            )
        if message is not None and self._shared[0] != Progress.ANSWERING:
            self._tell(message)
        self.connection.close()
        return "session expired" if self.has_expired else outcome or "session ended"

    def _tell(self, message: str) -> None:
        with contextlib.suppress(OSError):  # the client may be gone
            self.connection.setblocking(False)
            self.connection.send(packets.exception(FFI, message))

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left
            os.killpg(self.pid, number)

    def dispose(self) -> None:
        """Releases what the session had; may be called twice."""
        self.connection.close()
        self._shared.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


def _has_ended(pid: int) -> bool:
    """Whether a child has ended; it is not reaped."""
    if hasattr(os, "waitid"):
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    import subprocess  # macOS before Python 3.13: only ps can tell without reaping

    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False)
    return shown.stdout.strip()[:1] in (b"", b"Z")


def _outcome(status: int) -> str:
    """How a process ended; empty for a clean end."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"was killed by {signal.Signals(number).name}"
        except ValueError:
            return f"was killed by signal {number}"
    code = os.WEXITSTATUS(status)
    return f"exited with {code}" if code else ""


def _become_session(
    connection: socket.socket,
    directory: str,
    progress: memoryview,
    serve: Callable[[socket.socket, str, memoryview], None],
    close: Sequence[int],
    lifeline: int,
    parent: int,
) -> None:
    """The child: serves, and never returns."""
    status = 1
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for descriptor in close:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        _die_with(lifeline, directory)
        _die_later_than(parent)
        os.chdir(directory)
        serve(connection, directory, progress)
        progress[0] = Progress.IDLE  # whatever was cut short: this is no exit() within a request
        status = 0
    except BaseException:  # of the child alone: it is told, and the child ends with status 1
        import traceback

        traceback.print_exc()
    finally:
        _flush()
        os._exit(status)


def _die_with(lifeline: int, directory: str) -> None:
    """Ends this process, and removes its directory, when the parent is gone."""
    import threading

    def watch() -> None:
        os.read(lifeline, 1)  # returns when the parent's end closes, however the parent ended
        remove_directory(directory)
        os.killpg(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="tvmrpc-lifeline", daemon=True).start()


def _die_later_than(parent: int) -> None:
    """Ends this process a second after the parent, on Linux, where `_die_with` cannot.

    A library whose constructor blocks holds Python's lock, and the thread does not run. So the
    kernel sends SIGHUP when the parent is gone, and the handler is alarm() of the C library: it
    takes the number of the signal, which is 1, for the seconds until SIGALRM ends the process.
    Killed at once, it would leave its directory; now it does so only when the thread is stuck,
    and the next server removes it.
    """
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):  # a C library that goes by another name
        library = ctypes.CDLL(None)
        handler = ctypes.cast(library.alarm, ctypes.c_void_p)
        library.signal(int(signal.SIGHUP), handler)
        library.prctl(_PR_SET_PDEATHSIG, int(signal.SIGHUP))
        if os.getppid() != parent:  # it was gone before the kernel knew
            os.kill(os.getpid(), signal.SIGHUP)


def _flush() -> None:
    """Lets out what Python and C libraries have buffered; `_exit` would drop it."""
    import ctypes

    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none
            stream.flush()
    with contextlib.suppress(OSError, AttributeError):  # a C library that goes by another name
        ctypes.CDLL(None).fflush(None)


def preload() -> None:
    """Imports what every session needs, so that a fork has it (measured: 35 ms a session)."""
    import ctypes
    import gc
    import threading

    from ..runtime import tensor
    from ..runtime.device import cpu
    from ..session import channel, environment, local, serving

    del ctypes, threading, tensor, cpu, channel, environment, local, serving
    gc.collect()
    gc.freeze()  # a collection in the child would write to, and so copy, every page of ours


def serve_session(
    connection: socket.socket, directory: str, progress: memoryview, early: bytes, send_s: float
) -> None:
    """What a session's process does: the runtime is loaded here, not in the parent."""
    from ..session.channel import SocketChannel
    from ..session.environment import Environment
    from ..session.local import LocalSession
    from ..session.serving import Server, StreamBrokenError

    channel = SocketChannel(connection, "the client")
    network.set_kernel_timeouts(connection, None, send_s)
    server = Server(channel, LocalSession(Environment(directory)), progress)
    server.receive_early(early)
    with contextlib.suppress(StreamBrokenError, ConnectionError, BlockingIOError):
        server.serve()  # the client is gone, or was told what it did wrong: the session is over
