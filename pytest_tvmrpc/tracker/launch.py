"""Tracker: a tracker in a process of its own, started from a test. Knows no messages."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, Optional, Union

from ..arguments import Argument, command_line, listening, seconds_or_none
from ..background import Program, RunningProgram
from ..network import LOOPBACK

if TYPE_CHECKING:
    import socket

ARGUMENTS = (
    *listening(9190),
    Argument(
        "timeout",
        "end by itself when nobody was connected for so long (default: never)",
        0.0,
        seconds_or_none,
        "SECONDS",
        is_optional=True,
    ),
)
"""What a tracker can be told."""


class Tracker(RunningProgram):
    """A running tracker; `terminate()` or leaving the ``with`` block ends it.

    Servers and clients that are connected to it see a closed connection then.

    Args:
        host: the address to listen on. Whoever reaches it can use every registered device, so
            anything but loopback is for networks in which everybody is trusted.
        port: the first port to try; 0 lets the system choose.
        port_end: the port behind the last one to try.
        silent: whether only errors are printed.
        reuse_addr: whether the port of a tracker that has just ended can be bound at once.
        timeout: seconds without any connection after which the tracker ends by itself; None or 0:
            never. (In TVM it is the timeout of the listening socket, without much effect.)
        listener: a bound and listening socket to use instead; stays the caller's.
        log: where the tracker's output goes: a file, a descriptor, or None for our own stderr.

    Raises:
        SettingError: an argument is of a wrong type.
        StartError: it did not start, for example because no port was free.

    Attributes:
        host: the address it listens on.
        port: the port it listens on.
        stop_key: the secret with which a STOP message ends it, as TVM's programs do that.
    """

    def __init__(
        self,
        host: str = LOOPBACK,
        port: int = 9190,
        port_end: int = 9199,
        silent: bool = False,
        reuse_addr: bool = True,
        timeout: Optional[float] = None,
        *,
        listener: Optional[socket.socket] = None,
        log: Union[int, IO[Any], None] = None,
    ) -> None:
        line = command_line(ARGUMENTS, dict(locals()))  # by the names that the rows have for them
        program = Program("pytest_tvmrpc.exec.rpc_tracker", line, listener=listener, log=log)
        super().__init__(program, host if listener is None else listener.getsockname()[0])
        self.stop_key: str = program.announced["stop_key"]
