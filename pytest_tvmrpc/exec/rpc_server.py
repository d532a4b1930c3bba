"""The server as a program. Options and defaults are TVM's, but it listens on loopback only.

Runs on a bare Python 3.8 and newer, from a plain copy of the package's folder.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Callable, Optional, Sequence

from .. import background, network
from ..errors import RPCError, StartError
from ..server import libraries
from ..server.config import ARGUMENTS, configure
from ..server.directory import check_directories
from ..server.supervisor import Supervisor
from ..session.copies import leave_if_copied
from .console import print_address, print_line
from .program import listening_parser, open_listener

if TYPE_CHECKING:
    import argparse

    from ..server.config import ServerConfig


def _parser() -> argparse.ArgumentParser:
    return listening_parser(
        "rpc_server",
        ARGUMENTS,
        description="Serves this machine's devices to tests that run elsewhere, one session after "
        "the other, each in a process and a directory of its own.",
        epilog="Whoever reaches the port can run code on this machine. A board that belongs to a "
        "farm: --host 0.0.0.0 --tracker FARM:9190 --key jetson",
    )


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs a server until SIGTERM, SIGINT or, when started by a parent, its end."""
    options = _parser().parse_args(arguments)
    _open_standard_streams()
    try:
        config = configure(vars(options))
    except ValueError as error:
        background.refuse(options.ready_fd, str(error))
        return 2
    report = _ignore if options.silent else _report
    try:
        _prepare(config, _ignore if options.silent else _warn)
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


def _prepare(config: ServerConfig, warn: Callable[[str], None]) -> None:
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
        warn(warning)
    if config.libraries:
        for text in libraries.check(config.libraries):
            warn(text)
    if config.callback_fd is not None and not config.no_fork:
        from ..server.callback import call

        process = os.getpid()
        try:
            call(config.callback_fd)
            leave_if_copied(process)
        except Exception as error:  # the user's; it is the reason why there is no server
            leave_if_copied(process)
            raise StartError(
                f"server_init_callback raised {type(error).__name__}: {error}"
            ) from error
        os.close(config.callback_fd)


def _report(line: str) -> None:
    _print("INFO", line)


def _warn(line: str) -> None:
    _print("WARNING", line)


def _print(level: str, line: str) -> None:
    now = time.time()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    print_line(f"{stamp}.{int(now % 1 * 1000):03} {level} {line}", sys.stderr)


def _ignore(line: str) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
