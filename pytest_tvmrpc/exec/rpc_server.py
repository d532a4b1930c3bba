"""The server as a program. Options and defaults are TVM's, but it listens on loopback only.

Runs on a bare Python 3.8 and newer, from a plain copy of the package's folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Callable, Optional, Sequence

from .. import background, network
from ..errors import RPCError, StartError
from ..server import libraries
from ..server.config import ServerConfig
from ..server.directory import check_directories
from ..server.supervisor import Supervisor
from .console import print_address, print_line
from .program import listening_parser, open_listener


def _parser() -> argparse.ArgumentParser:
    parser = listening_parser(
        "rpc_server",
        9090,
        description="Serves this machine's devices to tests that run elsewhere, one session after "
        "the other, each in a process and a directory of its own.",
        epilog="Whoever reaches the port can run code on this machine. A board that belongs to a "
        "farm: --host 0.0.0.0 --tracker FARM:9190 --key jetson",
    )
    parser.add_argument("--tracker", metavar="HOST:PORT", help="the tracker to offer the device to")
    parser.add_argument("--key", default="", help="what kind of device this is, e.g. jetson")
    parser.add_argument(
        "--custom-addr",
        metavar="HOST",
        help="the address that the tracker gives to clients, if not the one it sees",
    )
    _add_more(parser)
    parser.add_argument("--callback-fd", type=int, default=None, help=argparse.SUPPRESS)
    return parser


def _add_more(parser: argparse.ArgumentParser) -> None:
    """How clients come, what a session is made of, and how long things may last."""
    parser.add_argument(
        "--through-proxy",
        action="store_true",
        help="--host and --port are a proxy's: wait there for clients, and listen on nothing; "
        "the tracker is the proxy's business then",
    )
    parser.add_argument(
        "--load-library",
        metavar="PATHS",
        help="shared libraries that every session has from its start; with colons between them",
    )
    parser.add_argument(
        "--no-fork",
        action="store_true",
        help="a new interpreter for each session, for libraries that do not work in a fork",
    )
    parser.add_argument(
        "--idle-timeout",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="how long a client may ask nothing until its session is ended; 0: for ever "
        "(default: %(default)g)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="end by itself when no client has come for so long (default: never)",
    )


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs a server until SIGTERM, SIGINT or, when started by a parent, its end."""
    options = _parser().parse_args(arguments)
    _open_standard_streams()
    try:
        config = _config(options)
    except ValueError as error:
        background.refuse(options.ready_fd, str(error))
        return 2
    report = _ignore if options.silent else _report
    try:
        _prepare(config, options.callback_fd, report)
        listener = None if config.is_proxy else open_listener(options)
    except (RPCError, OSError) as error:
        background.refuse(options.ready_fd, str(error))
        return 1
    if listener is None:
        report(f"waiting at the proxy {network.format_address(config.host, config.port)}")
    else:
        print_address(listener, "run code on this machine", silent=options.silent)
    port = config.port if listener is None else listener.getsockname()[1]
    Supervisor(
        config,
        listener,
        report,
        lambda: background.announce(options.ready_fd, port),
        options.parent_fd,
    ).run()
    return 0


def _open_standard_streams() -> None:
    """Where a daemon has none: a session's output shall not go to a socket with their number."""
    for stream in range(3):
        try:
            os.fstat(stream)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _config(options: argparse.Namespace) -> ServerConfig:
    config = ServerConfig(
        host=options.host,
        port=options.port,
        port_end=options.port_end,
        key=options.key,
        tracker=network.parse_address(options.tracker) if options.tracker else None,
        custom_addr=options.custom_addr,
        is_proxy=options.through_proxy,
        libraries=libraries.split(options.load_library),
        no_fork=options.no_fork,
        callback_fd=options.callback_fd if options.no_fork else None,
        idle_s=options.idle_timeout,
        unused_s=options.timeout,
    )
    config.check()
    return config


def _prepare(
    config: ServerConfig, callback_fd: Optional[int], report: Callable[[str], None]
) -> None:
    """What can be known before the first client comes, is found out now.

    Raises:
        StartError: the callback raised.
        LibraryError: a library cannot be loaded.
        OSError: there is no place for the directories of sessions.
    """
    try:
        warning = check_directories()
    except OSError as error:
        raise StartError(
            f"there is no place for the directories of sessions: {error}; "
            "set TMPDIR to a folder that can be written"
        ) from error
    if warning:
        report(warning)
    if config.libraries:
        libraries.check(config.libraries)
    if callback_fd is not None and not config.no_fork:
        from ..server.callback import call

        try:
            call(callback_fd)
        except Exception as error:  # the user's; it is the reason why there is no server
            raise StartError(
                f"server_init_callback raised {type(error).__name__}: {error}"
            ) from error
        os.close(callback_fd)


def _report(line: str) -> None:
    now = time.time()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    print_line(f"{stamp}.{int(now % 1 * 1000):03} INFO {line}", sys.stderr)


def _ignore(line: str) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
