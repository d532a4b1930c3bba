"""Tracker: a tracker in a process of its own, started from a test. Knows no messages."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, Optional, Union

from ..background import Program, RunningProgram, check_supported
from ..network import LOOPBACK

if TYPE_CHECKING:
    import socket

_SUPPORTED = {
    "reuse_addr": (True, "the port of a tracker that has just ended can be bound at once"),
    "timeout": (None, "wait_timeout of request() bounds the wait for a device"),
}
"""TVM's arguments that can have one value only in this version, and what to do instead."""


class Tracker(RunningProgram):
    """A running tracker; `terminate()` or leaving the ``with`` block ends it.

    Servers and clients that are connected to it see a closed connection then.

    Args:
        host: the address to listen on. Whoever reaches it can use every registered device, so
            anything but loopback is for networks in which everybody is trusted.
        port: the first port to try; 0 lets the system choose.
        port_end: the port behind the last one to try.
        silent: whether only errors are printed.
        reuse_addr: only True, which is how ports are always bound.
        timeout: not supported.
        listener: a bound and listening socket to use instead; stays the caller's.
        log: where the tracker's output goes: a file, a descriptor, or None for our own stderr.

    Raises:
        ValueError: an argument of TVM's is not supported; the message says what to do instead.
        StartError: it did not start, for example because no port was free.

    Attributes:
        host: the address it listens on.
        port: the port it listens on.
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
        check_supported({"reuse_addr": reuse_addr, "timeout": timeout}, _SUPPORTED)
        arguments = ["--host", host, "--port", str(port), "--port-end", str(port_end)]
        arguments += ["--silent"] if silent else []
        program = Program("pytest_tvmrpc.exec.rpc_tracker", arguments, listener=listener, log=log)
        super().__init__(program, host if listener is None else listener.getsockname()[0])
