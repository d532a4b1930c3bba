"""The end of a client's interpreter: nothing hangs, nothing is printed, the device is free."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import pytest

from pytest_tvmrpc import rpc

FOLDER = str(Path(rpc.__file__).resolve().parents[1])

SCRIPT = """
import os, sys
sys.path.append({folder!r})
from pytest_tvmrpc import rpc, runtime
server = rpc.Server(port=0, silent=True)
remote = rpc.connect(server.host, server.port)
held = [remote.get_function("rpc.test.addone"), remote.get_function("rpc.test.add_to_lhs")(1)]
held += [runtime.empty((4,), "float32", remote.cpu(0)), remote.system_lib()]
assert held[0](1) == 2
{end}
"""

ENDS = {
    "closed before": "remote.close(); server.terminate()",
    "server ended before": "server.terminate()",
    "server killed before": "os.kill(server.program.pid, 9)\nwhile server.program.alive: pass",
    "dropped in the wrong order": "remote.close(); del remote; held.clear(); server.terminate()",
    "in a circle": "held.append(held); remote.close(); server.terminate()",
}


@pytest.mark.parametrize("end", ENDS)
def test_with_things_of_a_session(end: str, deadline_s: float) -> None:
    """Functions, tensors and modules that are still held say nothing, and wait for nobody."""
    script = SCRIPT.format(folder=FOLDER, end=ENDS[end])
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "ignore::ResourceWarning", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=deadline_s,
    )
    assert done.stdout == ""
    assert done.returncode == 0
    assert time.monotonic() - started < deadline_s / 2


def test_with_an_open_session(
    server: rpc.Server, serves: Callable[[rpc.Server], bool], deadline_s: float
) -> None:
    """Whoever forgets to close it: the interpreter ends, and the next client is served."""
    script = (
        f"import sys; sys.path.append({FOLDER!r}); from pytest_tvmrpc import rpc\n"
        f"remote = rpc.connect({server.host!r}, {server.port})\n"
        "add_one = remote.get_function('rpc.test.addone'); assert add_one(1) == 2\n"
        "raise SystemExit(3)"
    )
    done = subprocess.run([sys.executable, "-c", script], timeout=deadline_s)
    assert done.returncode == 3
    assert serves(server)


KEPT = {
    "a server": "kept = [rpc.Server(port=0, silent=True)]",
    "a tracker": "kept = [rpc.Tracker(port=0, silent=True)]",
    "a proxy": "kept = [rpc.Proxy(port=0)]",
    "a farm and a session": """
tracker = rpc.Tracker(port=0, silent=True)
address = (tracker.host, tracker.port)
server = rpc.Server(port=0, tracker_addr=address, key="k", silent=True)
farm = rpc.connect_tracker(*address)
remote = farm.request("k")
kept = [tracker, server, farm, remote, remote.get_function("rpc.test.addone")]
""",
}


@pytest.mark.parametrize("owned", KEPT)
def test_an_exception_ends_the_script(
    owned: str, deadline_s: float, wait_until: Callable[..., None]
) -> None:
    """Only that is printed, although what it owns is found by the last collection; all end."""
    script = (
        f"import sys; sys.path.append({FOLDER!r}); from pytest_tvmrpc import rpc\n"
        f"{KEPT[owned]}\n"
        "kept.append(kept)\n"
        "print(*[o.program.pid for o in kept[:-1] if hasattr(o, 'program')], flush=True)\n"
        "raise ValueError('of the script')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=deadline_s,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ValueError: of the script"
    assert done.stderr.count("Traceback") == 1
    processes = [Path(f"/proc/{pid}") for pid in done.stdout.split()]
    assert processes
    wait_until(lambda: not any(map(Path.exists, processes)), "all that it started has ended")


@pytest.mark.parametrize(
    "work",
    [
        "while True: add_one(1)",
        "remote.get_function('testing.sleep')(60)",
        "while True: remote.cpu(0).sync()",
        "while True: farm.summary()",
    ],
)
def test_a_daemon_thread_that_calls(work: str, deadline_s: float) -> None:
    """It goes as daemon threads do: without a word, and nobody waits for it."""
    script = f"""
import sys, threading
sys.path.append({FOLDER!r})
from pytest_tvmrpc import rpc
tracker = rpc.Tracker(port=0, silent=True)
address = (tracker.host, tracker.port)
server = rpc.Server(port=0, tracker_addr=address, key="k", silent=True)
farm = rpc.connect_tracker(*address)
remote = farm.request("k")
add_one = remote.get_function("rpc.test.addone")
begun = threading.Barrier(5)
def run():
    begun.wait()
    {work}
for _ in range(4):
    threading.Thread(target=run, daemon=True).start()
begun.wait()
raise ValueError("of the script")
"""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=deadline_s
    )
    assert done.stderr.splitlines()[-1] == "ValueError: of the script"
    assert done.stderr.count("Traceback") == 1
    assert (done.returncode, done.stdout) == (1, "")
    assert time.monotonic() - started < deadline_s / 2
