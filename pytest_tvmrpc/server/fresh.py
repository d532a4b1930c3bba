"""A session in a new interpreter, for libraries that cannot live in a fork. Not the usual way.

The fork is still there, but does nothing but exec: what is in the server's memory stays there.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import sys
from typing import Any, Dict, NoReturn

from .. import background
from .process import Plan, Start, bind_to_parent, run_and_exit, serve_session

_ENTRY = "from pytest_tvmrpc.server import fresh; fresh.main()"


def shared_file(directory: str) -> int:
    """A page that survives an exec: a file in the session's directory that has no name any more.

    Raises:
        OSError: the directory cannot be written.
    """
    path = os.path.join(directory, ".shared")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.unlink(path)
        os.ftruncate(descriptor, mmap.PAGESIZE)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def exec_session(start: Start, plan: Plan) -> None:
    """Becomes a new interpreter that serves the session.

    Raises:
        OSError: it cannot be started.
    """
    descriptors = (start.connection.fileno(), start.shared_fd, start.lifeline)
    told = {
        "descriptors": descriptors,
        "directory": start.directory,
        "parent": start.parent,
        "mark": start.mark,
        "plan": [plan.early.hex(), *plan[1:]],
    }
    for descriptor in (*descriptors, plan.callback_fd):
        if descriptor is not None:
            os.set_inheritable(descriptor, True)
    command = background.interpreter(_ENTRY, need_site=not sys.flags.no_site)
    try:
        os.execv(command[0], [*command, json.dumps(told)])
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: {command[0]}") from None


def main() -> NoReturn:
    """What the new interpreter does."""
    told: Dict[str, Any] = json.loads(sys.argv[1])
    sys.argv[:] = ["session"]
    early, *rest = told["plan"]
    plan = Plan(bytes.fromhex(early), *rest)
    client_fd, shared_fd, lifeline = told["descriptors"]
    for descriptor in (client_fd, shared_fd, lifeline, plan.callback_fd):
        if descriptor is not None:
            os.set_inheritable(descriptor, False)  # not for the programs that a kernel starts
    connection = socket.socket(fileno=client_fd)
    shared = memoryview(mmap.mmap(shared_fd, mmap.PAGESIZE))
    start = Start(
        connection, told["directory"], shared, shared_fd, lifeline, told["parent"], told["mark"]
    )

    def begin() -> None:
        bind_to_parent(start)
        serve_session(start, plan)

    run_and_exit(begin, start)
