"""For every test of this repository: pytester, the unit of its waits, and a guard.

The guard lets no process, thread, socket or file of ours outlive a test. Nothing here concerns
examples/, which is a project of its own.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Callable, Dict, Iterator, Set, Tuple

import hypothesis
import pytest

pytest_plugins = ["pytester"]

# Last, so that an installed package, the built wheel in CI, is tested rather than the sources.
sys.path.append(str(Path(__file__).parent))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A run that was started in the background; tests interrupt, and so does whoever runs them.
    signal.signal(signal.SIGINT, signal.default_int_handler)

TAG = "PYTEST_TVMRPC_GUARD"
"""Set in the environment of every program that a test starts, so that orphans are found, too."""

hypothesis.settings.register_profile("here", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("here")
"""The same examples each time, in whatever time they take; nothing is written."""

FACTOR = float(os.environ.get("PYTEST_TVMRPC_TEST_TIMEOUT_FACTOR", "1"))
"""How much longer than here a wait may take; set it where machines are slow or crowded."""


@pytest.fixture(name="deadline_s", scope="session")
def _deadline_s() -> float:
    """The longest that any wait of a test may take, in seconds; CI can stretch it."""
    return 10.0 * FACTOR


@pytest.fixture(name="wait_until", scope="session")
def _wait_until(deadline_s: float) -> Callable[..., None]:
    """``wait_until(condition, "what it means")`` returns when it holds, or fails the test."""

    def wait_until(condition: Callable[[], object], what: str) -> None:
        end = time.monotonic() + deadline_s
        while not condition():
            if time.monotonic() > end:
                pytest.fail(f"waited {deadline_s:g} s in vain: {what}")
            time.sleep(0.002)

    return wait_until


@pytest.fixture(name="_own_temp", scope="session", autouse=True)
def _own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A temporary folder for this process alone: what appears in it is ours, also under -n."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", None)
        patch.setenv(TAG, str(os.getpid()))
        yield folder


@pytest.fixture(autouse=True)
def _nothing_outlives_a_test(_own_temp: Path) -> Iterator[None]:
    """Fail a test that leaves a process, a thread, a socket or a file behind, and say which.

    Set up after the fixtures of wider scope and before all others of the test's own: servers that
    a module shares are none of its business.
    """
    processes = set(_pids())
    threads = set(threading.enumerate())
    sockets = set(_sockets())
    files = set(_files(_own_temp))
    yield
    if set(_sockets()) - sockets:
        gc.collect()  # a socket in a cycle is closed by the collector, not by the test's end
    grace_s = 5.0 * FACTOR
    end = time.monotonic() + grace_s
    while left := [
        *_new_processes(processes),
        *(f"thread {thread.name}" for thread in set(threading.enumerate()) - threads),
        *(f"socket {text}" for name, text in _sockets().items() if name not in sockets),
        *(f"file {path}" for path in _files(_own_temp) if path not in files),
    ]:
        if time.monotonic() > end:
            pytest.fail(
                f"still there {grace_s:g} s after the test: {'; '.join(left)}", pytrace=False
            )
        time.sleep(0.01)


def _pids() -> Iterator[int]:
    """Every process of this machine; none where there is no /proc."""
    proc = Path("/proc")
    return (
        int(entry.name)
        for entry in (proc.iterdir() if proc.is_dir() else ())
        if entry.name.isdigit()
    )


def _new_processes(before: Set[int]) -> Iterator[str]:
    """What came into being since, and is a child of this process or was started under its tag."""
    tag = f"{TAG}={os.getpid()}".encode()
    for pid in set(_pids()) - before:
        try:
            state, parent = _state(pid)
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended while we looked, or is none of ours
        if parent != os.getpid() and tag not in environment:
            continue
        if "multiprocessing.resource_tracker" in command:
            continue  # Python's own; lives as long as the process that uses multiprocessing
        yield f"process {pid}, state {state}: {command.strip() or '(not waited for)'}"


def _state(pid: int) -> Tuple[str, int]:
    """State and parent of a process; its name, which stands before them, may hold anything."""
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return fields[0], int(fields[1])


def _sockets() -> Dict[str, str]:
    """The open sockets of this process: what the kernel calls them, and their descriptors."""
    found = {}
    folder = Path("/proc/self/fd")
    for entry in folder.iterdir() if folder.is_dir() else ():
        try:
            name = os.readlink(entry)
        except OSError:
            continue  # the descriptor that iterdir() itself had open
        if name.startswith("socket:"):
            found[name] = f"{name} (descriptor {entry.name})"
    return found


def _files(folder: Path) -> Iterator[Path]:
    return folder.glob("tvmrpc-*")
