"""Forks of the server: what the child has of its parent, and what it has not."""

from __future__ import annotations

import os
import signal
import time
from typing import Iterator, Tuple

import pytest

from pytest_tvmrpc.server import directory, forking
from pytest_tvmrpc.server.dialling import Dialler
from pytest_tvmrpc.server.forking import fork_child

# Python 3.12 warns of forks in processes with threads, as pytest-xdist's are; the server has none.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@pytest.fixture(name="wakeup")
def _wakeup() -> Iterator[int]:
    """The pipe by which this process hears of its signals, as a supervisor does."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    before = {
        number: signal.signal(number, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGCHLD)
    }
    wakeup_before = signal.set_wakeup_fd(writer)
    yield reader
    signal.set_wakeup_fd(wakeup_before)
    for number, handler in before.items():
        signal.signal(number, handler)
    os.close(reader)
    os.close(writer)


def heard(wakeup: int) -> bytes:
    """The signals that this process had."""
    try:
        return os.read(wakeup, 100)
    except BlockingIOError:
        return b""


def test_a_signal_to_a_child_that_is_new(wakeup: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the child, as soon as that can be, and its parent hears of that end only."""
    real = os.fork

    def fork() -> int:
        pid = real()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGTERM)  # before it could do anything about it
        return pid

    monkeypatch.setattr(os, "fork", fork)
    pid = fork_child(lambda: os._exit(5), [])
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGTERM
    assert set(heard(wakeup)) <= {signal.SIGCHLD}


def test_a_fork_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals come through afterwards as before."""

    def fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(BlockingIOError):
        fork_child(lambda: None, [])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def said_by_a_child(reader: int, writer: int) -> str:
    """What it writes about its signals; of the mask, and of SIGCHLD."""

    def tell() -> None:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        kept = signal.getsignal(signal.SIGCHLD)
        os.write(writer, f"{sorted(blocked)} {kept == signal.SIG_DFL}".encode())

    pid = fork_child(tell, [reader])
    os.waitpid(pid, 0)
    return os.read(reader, 1000).decode()


def test_whatever_the_parent_began_with(pipe: Tuple[int, int]) -> None:
    """Signals that it was started with, blocked or ignored, are as usual in the child."""
    odd = (signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM, signal.SIGHUP)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, odd)
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        assert said_by_a_child(*pipe) == "[] True"
        assert set(odd) <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGCHLD, handler)


@pytest.fixture(name="pipe")
def _pipe() -> Iterator[Tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_a_child_that_raises(capfd: pytest.CaptureFixture[str]) -> None:
    """It says why, and does not go on as a second parent."""

    def fail() -> None:
        raise ValueError("of the child")

    pid = fork_child(fail, [])
    assert os.WEXITSTATUS(os.waitpid(pid, 0)[1]) == 1
    assert "ValueError: of the child" in capfd.readouterr().err


def test_every_fork_is_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look-ups and what removes folders have signals of their own from the start, too."""
    blocked = []

    def fork() -> int:
        blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        raise BlockingIOError(11, "Resource temporarily unavailable")

    made = directory.make_directory()
    monkeypatch.setattr(forking.os, "fork", fork)
    with pytest.raises(BlockingIOError):
        made.remove_elsewhere([])
    made.remove()

    class Loop:
        """Of which only this is asked."""

        def descriptors(self) -> "list[int]":
            """None of ours matters."""
            return []

        def forget(self, descriptor: int) -> None:
            """Nothing was watched."""

    failures: "list[str]" = []
    dialler = Dialler(("tracker.example", 1), Loop(), print, failures.append)  # type: ignore[arg-type]
    dialler.start(time.monotonic())
    assert len(failures) == 1
    assert len(blocked) == 2
    assert all({signal.SIGTERM, signal.SIGINT, signal.SIGCHLD} <= mask for mask in blocked)
