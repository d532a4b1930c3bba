"""A tracker that Python starts: which of TVM's arguments do what."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from typing import Callable

import pytest

from pytest_tvmrpc.errors import StartError
from pytest_tvmrpc.protocol import tracker as wire
from pytest_tvmrpc.tracker.launch import Tracker

WaitUntil = Callable[..., None]


def test_reuse_addr(deadline_s: float) -> None:
    """Without it, a port whose last connection the kernel remembers is not free; it is with it."""
    with Tracker(port=0, silent=True) as tracker:
        port = tracker.port
        with socket.create_connection((tracker.host, port), deadline_s) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")  # the tracker closes first
            with contextlib.suppress(ConnectionResetError):
                while stranger.recv(4096):
                    pass
        with socket.create_connection((tracker.host, port), deadline_s) as peer:
            peer.sendall(wire.MAGIC + wire.encode([2, tracker.stop_key]))
            while peer.recv(4096):
                pass
    with pytest.raises(StartError, match="cannot bind to port"):
        Tracker(port=port, port_end=port + 1, reuse_addr=False, log=subprocess.DEVNULL)
    with Tracker(port=port, port_end=port + 1, reuse_addr=True, silent=True) as tracker:
        assert tracker.port == port


def test_a_tracker_that_nobody_uses_ends(deadline_s: float, wait_until: WaitUntil) -> None:
    """By itself, after so long without any connection, and with success; not a moment before."""
    with Tracker(port=0, silent=True, timeout=0.05) as tracker:
        with socket.create_connection((tracker.host, tracker.port), deadline_s) as peer:
            peer.sendall(wire.MAGIC)
            assert peer.recv(4) == wire.MAGIC
            peer.settimeout(1.5)  # it looks once a second
            with pytest.raises(socket.timeout):
                peer.recv(1)
        wait_until(lambda: not tracker.program.alive, "the tracker ended")
        assert tracker.program.ended() == "exited with 0"


def test_a_timeout_that_is_none() -> None:
    """It is refused before anything listens."""
    with pytest.raises(StartError, match="exited with 2"):
        Tracker(port=0, timeout=-1, log=subprocess.DEVNULL)
