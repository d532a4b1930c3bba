"""A session's process, seen from within: its start, what it is bound to, its end.

Not what its supervisor knows of it: that is `worker`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import sys
from typing import TYPE_CHECKING, Callable, NamedTuple, NoReturn, Optional, Tuple

from .. import network
from ..errors import ConnectionLostError, StartError
from ..protocol import dialect, packets
from ..session.copies import leave_if_copied
from ..session.incoming import LAST_NBYTES
from ..session.interface import OUTPUT
from ..session.serving import Progress, describe
from .directory import remove_directory
from .strays import bear, kill_all

if TYPE_CHECKING:
    import socket

    from ..session.environment import Environment
    from ..session.interface import Session

_PR_SET_PDEATHSIG = 1
_STRAYS_S = 0.5
_SHUT_WR = 1
_TELL_S = 5.0
_MOST_TEXT = LAST_NBYTES // 2
_ENDED = select.POLLHUP | select.POLLERR | select.POLLNVAL

PROGRESS, DIALECT, STAGE = 0, 1, Progress.NBYTES
"""What the bytes of the memory shared with the supervisor mean; the first are `Progress`'s."""


class Stage:
    """How far a session's process has come."""

    STARTING = 0
    SERVING = 1
    WAS_IDLE = 2
    """Its client asked nothing for too long, and was told."""
    OPEN = 3
    """Its client has said InitServer."""
    ENDED = 4
    """It is over, and the process is about to end by itself."""


class Plan(NamedTuple):
    """What a session's process is told, besides its socket and its directory.

    Attributes:
        early: what the client said behind its hello.
        handshake_s: how long the client may take until it has opened the session.
        send_s: how long it may refuse to take an answer.
        idle_s: how long it may ask nothing; 0 for any time.
        libraries: to be loaded first.
        callback_fd: where the function lies that is to be called first; for fresh interpreters.
        program: what serves the session in place of this process, which then passes it on.
    """

    early: bytes = b""
    handshake_s: float = 5.0
    send_s: float = 60.0
    idle_s: float = 0.0
    libraries: Tuple[str, ...] = ()
    callback_fd: Optional[int] = None
    program: str = ""


class Start:
    """What a session's process begins with.

    Attributes:
        connection: the client's socket.
        directory: the session's own, and the working directory.
        shared: memory that the supervisor sees, too.
        shared_fd: the file of that memory if it is in one; -1 otherwise.
        lifeline: a socket whose other end is the supervisor's, and closes with it.
        parent: the supervisor's number.
        mark: by which the session's processes are known.
    """

    __slots__ = ("connection", "directory", "lifeline", "mark", "parent", "shared", "shared_fd")

    def __init__(
        self,
        connection: socket.socket,
        directory: str,
        shared: memoryview,
        shared_fd: int,
        lifeline: int,
        parent: int,
        mark: int,
    ) -> None:
        self.connection = connection
        self.directory = directory
        self.shared = shared
        self.shared_fd = shared_fd
        self.lifeline = lifeline
        self.parent = parent
        self.mark = mark


Serve = Callable[[Start], None]


def become_session(start: Start, serve: Serve, output: int = -1) -> NoReturn:
    """The child after the fork: serves, and does not return.

    Args:
        start: what it has.
        serve: what it does.
        output: where it prints; -1 for where the parent does.
    """

    def begin() -> None:
        os.setpgid(0, 0)
        _use_streams(output)
        bear(start.mark)
        bind_to_parent(start)
        os.chdir(start.directory)
        serve(start)

    run_and_exit(begin, start)


def _use_streams(output: int) -> None:
    """What it prints is the parent's to read; there is nothing for it to read."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    if nothing > 2:
        os.close(nothing)
    if output >= 0:
        for stream in (1, 2):
            os.dup2(output, stream)
        if output > 2:
            os.close(output)


def run_and_exit(serve: Callable[[], None], start: Start) -> NoReturn:
    """Serves, and ends the process without what an interpreter does at its end."""
    process, status = os.getpid(), 1
    try:
        serve()
        # Whatever was cut short, it is no exit() in a request, nor one of a thread.
        start.shared[PROGRESS] = Progress.IDLE
        if start.shared[STAGE] == Stage.OPEN:
            start.shared[STAGE] = Stage.ENDED
        status = 0
    except BaseException:  # of the child alone: it is told, and the child ends with status 1
        leave_if_copied(process)
        import traceback

        traceback.print_exc()
    finally:
        leave_if_copied(process)
        flush()
        if os.getppid() != start.parent:
            _clean_up(start)  # the thread of `_die_with` may not come so far
        os._exit(status)


def bind_to_parent(start: Start) -> None:
    """However the parent ends, this process does, too, with all that it has started."""
    _die_with(start)
    _die_later_than(start.parent)


def _die_with(start: Start) -> None:
    """Ends this process and what it has started, and removes its directory, with the parent."""
    import _thread  # `threading` takes 0.2 MB, and a session without a library needs none of it

    def watch() -> None:
        ended = select.poll()  # and no read: the parent's answers are not for this thread
        ended.register(start.lifeline, select.POLLHUP)
        while not any(events & _ENDED for _, events in ended.poll()):
            pass
        _clean_up(start)
        with contextlib.suppress(OSError):  # it may be in another group by now
            os.killpg(os.getpid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    _thread.start_new_thread(watch, ())


def _clean_up(start: Start) -> None:
    """What the supervisor would do, had it not ended first."""
    kill_all(start.mark, _STRAYS_S)
    remove_directory(start.directory)


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


def flush() -> None:
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

    from ..runtime import tensor
    from ..runtime.device import cpu
    from ..session import channel, environment, local, serving

    del ctypes, tensor, cpu, channel, environment, local, serving
    gc.collect()
    gc.freeze()  # a collection in the child would write to, and so copy, every page of ours


def serve_session(start: Start, plan: Plan) -> None:
    """What a session's process does: the runtime is loaded here, not in the parent."""
    from ..session.channel import SocketChannel
    from ..session.environment import Environment
    from ..session.local import LocalSession
    from ..session.serving import Server, StreamBrokenError

    connection, shared = start.connection, start.shared
    channel = SocketChannel(connection, "the client")
    idle_s = plan.idle_s or None
    opening_s = min(plan.handshake_s, plan.idle_s or plan.handshake_s)
    network.set_kernel_timeouts(connection, opening_s, plan.send_s)
    process = os.getpid()
    environment = Environment(start.directory)
    environment.add(OUTPUT, functools.partial(_printed, start.lifeline))
    session: Session = LocalSession(environment)
    try:
        _prepare(plan)
        leave_if_copied(process)
        if plan.program:
            session = _in_program(plan.program, environment)
    except Exception as error:  # whatever it was, the client shall know why there is no session
        leave_if_copied(process)
        tell(connection, shared, describe(error))
        raise
    shared[STAGE] = Stage.SERVING
    is_open = False

    def opened() -> None:
        nonlocal is_open
        is_open = True
        shared[STAGE] = Stage.OPEN
        network.set_kernel_timeouts(connection, idle_s, plan.send_s)

    server = Server(channel, session, shared, on_ready=opened)
    server.receive_early(plan.early)
    try:
        server.serve()
    except BlockingIOError:  # the kernel's own limit of a wait: it costs a request nothing
        if shared[PROGRESS] == Progress.IDLE:
            shared[STAGE] = Stage.WAS_IDLE
            tell(connection, shared, was_idle(plan.idle_s) if is_open else never_opened(opening_s))
    except (StreamBrokenError, ConnectionError, ConnectionLostError):
        pass  # the client is gone, or was told what it did wrong: the session is over


def _in_program(program: str, environment: Environment) -> Session:
    """A session with a program of ours; when that ends, this process ends as it did.

    Raises:
        StartError: it does not start, or is none of ours, to which clients that chose the handles
            of memory cannot be passed on.
    """
    from ..session.remote import start_onward

    session = start_onward(
        [program], environment.functions[OUTPUT], environment.directory, _end_likewise
    )
    if not session.is_ours:
        raise StartError(
            f"{program} is no server of ours; expected one of build-server --kind=popen"
        )
    return session


def _end_likewise(code: int) -> NoReturn:
    """Ends as a process did, with all that the supervisor makes of that."""
    flush()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _printed(lifeline: int, since: int = 0, limit: Optional[int] = None) -> bytes:
    from .printed import printed  # which most sessions never need

    flush()
    return printed(lifeline, since, limit)


def never_opened(limit_s: float) -> str:
    """What a client is told that said hello, and then nothing."""
    return (
        f"RPCSessionTimeoutError: Your session was not opened within {limit_s:g} s of this "
        "server's answer; InitServer has to come at once, as the device is yours from then on"
    )


def was_idle(idle_s: float) -> str:
    """What a client is told that asked nothing for so long."""
    return (
        f"RPCSessionTimeoutError: Your session was idle for {idle_s:g} s, which is this server's "
        "limit; it can be started with a longer --idle-timeout, or 0 for none"
    )


def _prepare(plan: Plan) -> None:
    if plan.callback_fd is not None:
        from .callback import call

        call(plan.callback_fd)
    if plan.libraries:
        from .libraries import load

        load(plan.libraries)


def last_packet(shared: memoryview, message: str) -> bytes:
    """What a client is told at the end of its session, in its own dialect.

    It is shorter than what is missing of an answer of which only the beginning has been sent.
    """
    told = dialect.LEGACY if shared[DIALECT] else dialect.FFI
    text = message.encode("utf-8", "backslashreplace")
    if len(text) > _MOST_TEXT:
        message = text[:_MOST_TEXT].decode("utf-8", "ignore") + "..."
    return packets.exception(told, message)


def tell(connection: socket.socket, shared: memoryview, message: str) -> None:
    """The last word to a client, unless it is gone; nobody else may write to it any more.

    What it said and nobody read is read here: a socket that is closed with it would be reset, and
    some systems then drop what the client has not read yet.
    """
    with contextlib.suppress(OSError):  # the client may be gone, or take nothing
        connection.setblocking(True)
        network.set_kernel_timeouts(connection, None, _TELL_S)
        connection.sendall(last_packet(shared, message))
        connection.shutdown(_SHUT_WR)
        connection.setblocking(False)
        for _ in range(64):
            if not connection.recv(65536):
                break
