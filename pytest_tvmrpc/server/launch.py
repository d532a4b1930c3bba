"""Server: a server in a process of its own, started from a test. What it does is elsewhere."""

from __future__ import annotations

from typing import IO, Any, Callable, Optional, Tuple, Union

from ..background import Program, RunningProgram, check_supported
from ..network import LOOPBACK, format_address
from .config import ServerConfig

_SUPPORTED = {
    "is_proxy": (
        False,
        "servers listen at an address of their own: give that as host and port, and custom_addr "
        "if clients reach it under another one",
    ),
    "load_library": (
        None,
        "send the library, remote.upload(path), and remote.load_module(name) it in the session",
    ),
    "no_fork": (False, "a server opens no device before it forks, so that it is safe to fork"),
    "server_init_callback": (
        None,
        "register the functions in a program of your own that then calls "
        "pytest_tvmrpc.exec.rpc_server.main(): each session is a fork of it",
    ),
    "reuse_addr": (True, "the port of a server that has just ended can be bound at once"),
    "timeout": (
        None,
        "session_timeout of connect() or request() bounds a session, call_timeout a wait in it",
    ),
}
"""TVM's arguments that can have one value only in this version, and what to do instead."""


class Server(RunningProgram):
    """A running server; `terminate()` or leaving the ``with`` block ends it.

    With a tracker it has registered by the time it is returned, unless the tracker is not there;
    then it goes on trying.

    The arguments are TVM's, in TVM's order. Those that this version does not support are there to
    be refused with a word on what to do instead; TVM's defaults are accepted.

    Args:
        host: the address to listen on. Whoever reaches it can run code on this machine, so
            anything but loopback is for networks in which everybody is trusted.
        port: the first port to try; 0 lets the system choose.
        port_end: the port behind the last one to try.
        is_proxy: not supported.
        tracker_addr: host and port of the tracker to offer the device to.
        key: what kind of device this is.
        load_library: not supported.
        custom_addr: the address that the tracker gives to clients, if not the one it sees.
        silent: print errors only.
        no_fork: not supported.
        server_init_callback: not supported.
        reuse_addr: only True, which is how ports are always bound.
        timeout: not supported.
        log: where the output goes: a file, a descriptor, or None for our own stderr.

    Raises:
        ValueError: the arguments cannot go together, or one is not supported.
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
        is_proxy: bool = False,
        tracker_addr: Optional[Tuple[str, int]] = None,
        key: str = "",
        load_library: Optional[str] = None,
        custom_addr: Optional[str] = None,
        silent: bool = False,
        no_fork: bool = False,
        server_init_callback: Optional[Callable[[], object]] = None,
        reuse_addr: bool = True,
        timeout: Optional[float] = None,
        *,
        log: Union[int, IO[Any], None] = None,
    ) -> None:
        given = {
            "is_proxy": is_proxy,
            "load_library": load_library,
            "no_fork": no_fork,
            "server_init_callback": server_init_callback,
            "reuse_addr": reuse_addr,
            "timeout": timeout,
        }
        check_supported(given, _SUPPORTED)
        ServerConfig(host, port, port_end, key, tracker_addr, custom_addr).check()
        arguments = ["--host", host, "--port", str(port), "--port-end", str(port_end)]
        arguments += [f"--key={key}"] if key else []
        arguments += ["--tracker", format_address(*tracker_addr)] if tracker_addr else []
        arguments += ["--custom-addr", custom_addr] if custom_addr else []
        arguments += ["--silent"] if silent else []
        super().__init__(Program("pytest_tvmrpc.exec.rpc_server", arguments, log=log), host)
