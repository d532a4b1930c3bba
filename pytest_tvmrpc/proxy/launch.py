"""Proxy: a proxy in a process of its own, started from a test. Pairs nobody itself."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, Mapping, Optional, Sequence, Tuple, Union

from ..arguments import Argument, command_line, listening, seconds, tracker_to
from ..background import Program, RunningProgram
from ..errors import SettingError
from ..network import LOOPBACK, format_address

if TYPE_CHECKING:
    import socket

_NO_WEB = "there are no web sockets: connect over TCP, or put a web-socket gateway in front of it"

_SUPPORTED = {
    "web_port": (0, _NO_WEB),
    "index_page": (None, _NO_WEB),
    "resource_files": (None, _NO_WEB),
}
"""TVM's arguments that can have one value only, and what to do instead."""

ARGUMENTS = (
    *listening(9090),
    Argument("web_port", "only 0: there are no web sockets", 0, int, is_optional=True),
    Argument("example_rpc", "not supported: it needs web sockets", "", metavar=""),
    tracker_to("the tracker to offer the servers to"),
    *(
        Argument(
            f"timeout_{side}",
            f"how long a {side} waits for its {partner} (default: %(default)g)",
            600.0,
            seconds,
            "SECONDS",
        )
        for side, partner in (("client", "server"), ("server", "client"))
    ),
)
"""What a proxy can be told."""


class Proxy(RunningProgram):
    """A running proxy; `terminate()` or leaving the ``with`` block ends it.

    Servers that nobody can connect to connect to it, ``Server(host, port, is_proxy=True)``, and
    clients connect to it as if it were the server. Each server is paired with the client that comes
    with its key. What they say to one another is not looked at, so any TVM will do on either side.

    Args:
        host: the address to listen on. Whoever reaches it can use every server behind it, so
            anything but loopback is for networks in which everybody is trusted.
        port: the first port to try; 0 lets the system choose.
        port_end: the port behind the last one to try.
        web_port: not supported.
        timeout_client: seconds that a client waits for a server with its key.
        timeout_server: seconds that a server waits for a client; then it has to connect again.
        tracker_addr: host and port of the tracker to offer the servers to. Clients then ask the
            tracker, and none waits here: one without a match key of the tracker is refused.
        index_page: not supported.
        resource_files: not supported.
        listener: a bound and listening socket to use instead; stays the caller's.
        log: where the proxy's output goes: a file, a descriptor, or None for our own stderr.

    Raises:
        SettingError: an argument is of a wrong type, or is one of TVM's that is not supported; the
            message says what to do instead.
        StartError: it did not start, for example because no port was free.

    Attributes:
        host: the address it listens on.
        port: the port it listens on.
    """

    def __init__(
        self,
        host: str = LOOPBACK,
        port: int = 9091,
        port_end: int = 9199,
        web_port: int = 0,
        timeout_client: float = 600,
        timeout_server: float = 600,
        tracker_addr: Optional[Tuple[str, int]] = None,
        index_page: Optional[str] = None,
        resource_files: Optional[Sequence[Tuple[str, str]]] = None,
        *,
        listener: Optional[socket.socket] = None,
        log: Union[int, IO[Any], None] = None,
    ) -> None:
        given = dict(locals())  # by the names that the rows have for them
        _check_supported(given)
        line = command_line(ARGUMENTS, given)
        program = Program("pytest_tvmrpc.exec.rpc_proxy", line, listener=listener, log=log)
        address = host if listener is None else listener.getsockname()[0]
        details = [] if tracker_addr is None else [f"tracker {format_address(*tracker_addr)}"]
        super().__init__(program, address, details)


def _check_supported(given: Mapping[str, object]) -> None:
    """Refuses what TVM has and this version has not.

    Args:
        given: the arguments by name.

    Raises:
        SettingError: one has another value than the one that is supported.
    """
    for argument, (supported, advice) in _SUPPORTED.items():
        value = given[argument]
        if bool(value) != bool(supported):
            raise SettingError(
                f"{argument}={value!r} is not supported in this version, only {supported}; {advice}"
            )
