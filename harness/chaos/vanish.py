"""Machines that leave the network in the middle of something: a program for a network of its own.

Three processes of this module, each of which becomes or starts the next. The first moves into an
empty network, where it may do as it likes. There the second has servers and a tracker; the third,
behind a cable of its own, has clients and a server. Then its address is taken away: what is sent
to it is dropped without an answer, as by a machine without power.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from pytest_tvmrpc import rpc
from pytest_tvmrpc.errors import ConnectionLostError

from ..bench.child import end_with_parent
from ..bench.machine import descendants
from .trial import ADD_ONE

if TYPE_CHECKING:
    from collections.abc import Callable

HERE, THERE = "10.77.0.1", "10.77.0.2"
NO_NAMESPACE = "no-namespace"
LIMIT_S = 75.0
DOINGS = ("an idle client", "a client in a call", "a client that downloads")
TRACKED = "a free server"
NBYTES = 64 << 20


def outer(log: str) -> None:
    """Becomes `inner`, in a network of its own."""
    arguments = [sys.executable, "-S", "-m", __spec__.name, "inner", log]
    os.execvp("unshare", ["unshare", "-rn", *arguments])


def inner(log: str) -> None:
    """Starts servers and the other machine, cuts it off, and prints who noticed after how long."""
    end_with_parent()
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(log, "ab"))
        options: dict[str, Any] = {"host": HERE, "port": 0, "silent": True, "log": file}
        other = stack.enter_context(_machine())
        problem = _connect_cable(other.pid)
        if problem:
            print(NO_NAMESPACE, problem, flush=True)
            print("done", flush=True)
            return
        servers = {name: stack.enter_context(rpc.Server(**options)) for name in DOINGS}
        tracker = stack.enter_context(rpc.Tracker(**options))
        ports = [str(server.port) for server in servers.values()]
        _tell(other, " ".join([*ports, str(tracker.port)]))
        pids = {name: server.program.pid for name, server in servers.items()}
        farm = stack.enter_context(rpc.connect_tracker(HERE, tracker.port))
        # A server without a process of its own is one whose session is over.
        conditions: dict[str, Callable[[], bool]] = {
            name: lambda pid=pid: not descendants(pid)  # type: ignore[misc]
            for name, pid in pids.items()
        }
        conditions[TRACKED] = lambda: not farm.summary()["server_info"]
        if any(condition() for condition in conditions.values()):
            raise ValueError("a session or a registration is not there")
        _tell(other, "cut")
        _report(conditions)
    print("done", flush=True)


def _report(conditions: dict[str, Callable[[], bool]]) -> None:
    started = time.monotonic()
    waiting = dict(conditions)
    while waiting and time.monotonic() - started < LIMIT_S:
        for name in [name for name, holds in waiting.items() if holds()]:
            del waiting[name]
            print(f"{name.replace(' ', '-')} {time.monotonic() - started:.2f}", flush=True)
        time.sleep(0.1)
    for name in waiting:
        print(f"{name.replace(' ', '-')} {LIMIT_S:g}", flush=True)


@contextlib.contextmanager
def _machine() -> Any:
    process = subprocess.Popen(
        ["unshare", "-n", sys.executable, "-S", "-m", __spec__.name, "machine"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # from here on it is in its namespace
            yield process
        finally:
            process.kill()


def _connect_cable(pid: int) -> str:
    """What went wrong; empty: nothing."""
    return (
        _ip("link set lo up")
        or _ip("link add va type veth peer name vb")
        or _ip(f"link set vb netns {pid}")
        or _ip(f"addr add {HERE}/24 dev va")
        or _ip("link set va up")
    )


def _tell(process: Any, line: str) -> None:
    process.stdin.write(line + "\n")
    process.stdin.flush()
    answer = process.stdout.readline().strip()
    if not answer.startswith("ok"):
        raise ValueError(f"the other machine said {answer!r}")
    if answer != "ok":
        # Packets shall reach it and be dropped there, instead of not being sent for want of ARP.
        _ip(f"neigh replace {THERE} lladdr {answer.split()[1]} nud permanent dev va")


def machine() -> None:
    """The other machine: has three sessions and a server, and then no network."""
    end = threading.Event()
    print("up", flush=True)
    *ports, tracker = map(int, sys.stdin.readline().split())
    for words in ("link set lo up", f"addr add {THERE}/24 dev vb", "link set vb up"):
        problem = _ip(words)
        if problem:
            print(problem, flush=True)
            return
    options: dict[str, Any] = {"host": THERE, "port": 0, "silent": True, "log": -3}
    with rpc.Server(**options, key="board", tracker_addr=(HERE, tracker)):
        sessions = [rpc.connect(HERE, port) for port in ports]
        for session in sessions:
            session.get_function(ADD_ONE)(1)
        sessions[2].upload(bytes(NBYTES), "big.bin")
        _in_background(lambda: _call_long(sessions[1]))
        _in_background(lambda: _download(sessions[2]))
        words = subprocess.check_output(["ip", "-o", "link", "show", "vb"], text=True).split()
        print("ok", words[words.index("link/ether") + 1], flush=True)
        sys.stdin.readline()
        print("ok" if not _ip(f"addr del {THERE}/24 dev vb") else "no", flush=True)
        end.wait()


def _call_long(session: rpc.RPCSession) -> None:
    """A call that takes hours, and needs no compiler: it times a function that does nothing."""
    timer = session.get_function("runtime.RPCTimeEvaluator")
    with contextlib.suppress(ConnectionLostError):
        timer(None, ADD_ONE, 1, 0, 1 << 30, 1000, 0, 100, 0, 1, 0, "")(1)


def _download(session: rpc.RPCSession) -> None:
    with contextlib.suppress(ConnectionLostError):  # the kernel's word, when it is cut off
        while True:
            session.download("big.bin")


def _in_background(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()


def _ip(words: str) -> str:
    done = subprocess.run(["ip", *words.split()], capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


if __name__ == "__main__":
    {"outer": outer, "inner": inner, "machine": machine}[sys.argv[1]](*sys.argv[2:])
