"""Servers in processes of their own, started from a test. What they do is elsewhere."""

from __future__ import annotations

import os
from typing import IO, Any, Callable, List, Optional, Sequence, Tuple, Union

from ..arguments import command_line
from ..background import Program, RunningProgram
from ..errors import StartError
from ..network import LOOPBACK, format_address
from .callback import write
from .config import ARGUMENTS, ServerConfig, configure


class Server(RunningProgram):
    """A running server; `terminate()` or leaving the ``with`` block ends it.

    With a tracker it has registered by the time it is returned, unless the tracker is not there;
    then it goes on trying. The arguments are TVM's, in TVM's order.

    Args:
        host: the address to listen on. Whoever reaches it can run code on this machine, so
            anything but loopback is for networks in which everybody is trusted.
        port: the first port to try; 0 lets the system choose.
        port_end: the port behind the last one to try; ``port + 1`` means this port or none.
        is_proxy: `host` and `port` are a proxy's, at which the server waits for its clients, one
            after the other; it listens on nothing, and the tracker is the proxy's business.
        tracker_addr: host and port of the tracker to offer the device to.
        key: what kind of device this is.
        load_library: shared libraries whose symbols every session has from its start; a list, or
            one string with colons between them. That they can be loaded is seen at once.
        custom_addr: the address that the tracker gives to clients, if not the one it sees.
        silent: print errors only.
        no_fork: start a new interpreter for each session, 50 ms more, instead of a fork of the
            server. For libraries, brought by `server_init_callback`, that do not work in a fork.
        server_init_callback: called without arguments in the server's process before it listens;
            functions that it registers are there in every session. It must leave no threads and
            open no devices, as sessions are forks; with `no_fork` it is called in each session's
            own interpreter, and may. Closures travel by cloudpickle.
        reuse_addr: whether the port of a server that has just ended can be bound at once.
        timeout: seconds without any client after which the server ends by itself; None or 0:
            never. (In TVM it is the timeout of the listening socket, without much effect.)
        log: where the output goes: a file, a descriptor, or None for our own stderr. What sessions
            print goes there, too, 1 MiB of each.
        idle_timeout: how long a client may ask nothing until its session is ended, in seconds; 0
            for any time.
        session_program: the path of a Popen server of ours, ``build_server(kind="popen")``: each
            session is served by a process of it, in place of Python.

    Raises:
        SettingError: an argument is of a wrong type, or they cannot go together.
        StartError: it did not start, for example because no port was free.

    Attributes:
        host: the address it listens on, or the proxy's.
        port: the port it listens on, or the proxy's.
    """

    def __init__(
        self,
        host: str = LOOPBACK,
        port: int = 9091,
        port_end: int = 9199,
        is_proxy: bool = False,
        tracker_addr: Optional[Tuple[str, int]] = None,
        key: str = "",
        load_library: Union[str, Sequence[str], None] = None,
        custom_addr: Optional[str] = None,
        silent: bool = False,
        no_fork: bool = False,
        server_init_callback: Optional[Callable[[], object]] = None,
        reuse_addr: bool = True,
        timeout: Optional[float] = None,
        *,
        log: Union[int, IO[Any], None] = None,
        idle_timeout: float = 3600.0,
        session_program: Union[str, "os.PathLike[str]"] = "",
    ) -> None:
        session_program = os.fspath(session_program) and os.path.abspath(session_program)
        given = dict(locals())  # by the names that the rows have for them
        config = configure(given)  # what cannot work is refused here
        line = command_line(ARGUMENTS, given)
        super().__init__(_start(line, server_init_callback, log), host, _details(config))


class NativeServer(RunningProgram):
    """A running server in C; as `Server`, but for what only Python can do.

    Args:
        binary: the program, which ``tvmrpc build-server`` makes.
        options: more options of the program, as ``--work-dir=/data``.
        host, port, port_end, is_proxy, tracker_addr, key, load_library, custom_addr, silent,
            reuse_addr, timeout, log, idle_timeout: as for `Server`.

    Raises:
        SettingError: an argument is of a wrong type, or they cannot go together.
        StartError: it did not start, for example because it is no program of this machine.

    Attributes:
        host: the address it listens on, or the proxy's.
        port: the port it listens on, or the proxy's.
    """

    def __init__(
        self,
        binary: str,
        options: Sequence[str] = (),
        *,
        host: str = LOOPBACK,
        port: int = 9091,
        port_end: int = 9199,
        is_proxy: bool = False,
        tracker_addr: Optional[Tuple[str, int]] = None,
        key: str = "",
        load_library: Union[str, Sequence[str], None] = None,
        custom_addr: Optional[str] = None,
        silent: bool = False,
        reuse_addr: bool = True,
        timeout: Optional[float] = None,
        log: Union[int, IO[Any], None] = None,
        idle_timeout: float = 3600.0,
    ) -> None:
        given = dict(locals())
        config = configure(given)
        line = [*command_line(ARGUMENTS, given), *options]
        try:
            program = Program("tvmrpc-server", line, log=log, command=[binary])
        except OSError as error:
            raise StartError(f"{binary} cannot be started: {error.strerror}") from error
        super().__init__(program, host, _details(config))


def _details(config: ServerConfig) -> List[str]:
    details = [f"key {config.key!r}"] if config.key else []
    if config.tracker is not None:
        details.append(f"tracker {format_address(*config.tracker)}")
    return [*details, "at a proxy"] if config.is_proxy else details


def _start(
    arguments: List[str],
    callback: Optional[Callable[[], object]],
    log: Union[int, IO[Any], None],
) -> Program:
    module = "pytest_tvmrpc.exec.rpc_server"
    if callback is None:
        return Program(module, arguments, log=log)
    with write(callback) as file:
        arguments += ["--callback-fd", str(file.fileno())]
        return Program(module, arguments, log=log, need_site=True, inherit=[file.fileno()])
