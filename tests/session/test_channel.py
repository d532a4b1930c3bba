"""Bytes over a socket: all of them, as they are, or an error that says why not."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import threading
from typing import Any, Callable, Iterator, List, Tuple

import pytest

from pytest_tvmrpc.errors import ConnectionLostError, DeadlineError
from pytest_tvmrpc.session.channel import SocketChannel

LARGE = 4 << 20


@pytest.fixture(name="pair")
def _pair(deadline_s: float) -> Iterator[Tuple[SocketChannel, socket.socket]]:
    """A channel, and the socket at its other end."""
    ours, peers = socket.socketpair()
    peers.settimeout(deadline_s)
    with ours, peers:
        yield SocketChannel(ours, "the peer", deadline_s, "call_timeout"), peers


def drained(peer: socket.socket, act: Callable[[], object]) -> bytes:
    """What arrives at the peer while `act` runs in this thread."""
    parts: List[bytes] = []

    def drain() -> None:
        while part := peer.recv(1 << 20):
            parts.append(part)

    thread = threading.Thread(target=drain)
    thread.start()
    act()
    thread.join()
    return b"".join(parts)


@pytest.mark.parametrize(
    "sizes",
    [[0], [1], [5, 0, 7], [4096], [4097], [10, 5000, 10], [LARGE], [100, LARGE, 3], [7] * 100],
    ids=str,
)
def test_buffers_arrive_in_order(pair: Any, sizes: List[int]) -> None:
    """Few or many, small or larger than the kernel takes at once."""
    channel, peer = pair
    buffers = [os.urandom(size) for size in sizes]

    def send() -> None:
        assert channel.send([*buffers[:1], *map(memoryview, buffers[1:])]) == sum(sizes)
        channel.connection.shutdown(socket.SHUT_WR)

    assert drained(peer, send) == b"".join(buffers)


def test_files_are_sent_from_their_start(pair: Any) -> None:
    """By the kernel, whatever was read of them before."""
    channel, peer = pair
    content = os.urandom(1024) * 2048
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()

        def send() -> None:
            channel.send_file(file, len(content))
            channel.connection.shutdown(socket.SHUT_WR)

        assert drained(peer, send) == content
        file.truncate(100)
        with pytest.raises((ConnectionLostError, BrokenPipeError)):
            channel.send_file(file, len(content))


def test_a_file_that_shrinks(pair: Any) -> None:
    """Says so, since the peer was promised more."""
    channel, _ = pair
    with tempfile.TemporaryFile() as file:
        file.write(b"abc")
        file.flush()
        with pytest.raises(ConnectionLostError, match="shrank"):
            channel.send_file(file, 4)


def test_a_peer_that_says_nothing() -> None:
    """A receive ends after the time that was set, in words that name the setting."""
    ours, peer = socket.socketpair()
    with ours, peer:
        channel = SocketChannel(ours, "the peer", 0.05, "call_timeout")
        with pytest.raises(BlockingIOError) as caught:
            channel.recv_into(bytearray(1))
        error = channel.lost(caught.value, "a call")
        assert isinstance(error, DeadlineError)
        assert str(error) == (
            "the peer made no progress with a call for 0.05 s; set call_timeout to wait longer"
        )


def test_a_peer_that_takes_nothing() -> None:
    """A send that gets stuck ends after that time, too."""
    ours, peer = socket.socketpair()
    with ours, peer:
        channel = SocketChannel(ours, "the peer", 0.05, "call_timeout")
        with pytest.raises(BlockingIOError):
            channel.send([bytes(LARGE), bytes(LARGE)])


def test_what_a_socket_error_becomes(pair: Any) -> None:
    """Errors of ours stay as they are; the kernel's become a lost connection."""
    channel, _ = pair
    ours = ConnectionLostError("x")
    assert channel.lost(ours, "a call") is ours
    error = channel.lost(OSError(errno.ECONNRESET, "Connection reset by peer"), "a call")
    assert isinstance(error, ConnectionLostError)
    assert str(error) == "the connection to the peer was lost in a call: Connection reset by peer"


def test_close_twice(pair: Any) -> None:
    """The second does nothing."""
    channel, peer = pair
    channel.close()
    channel.close()
    assert peer.recv(1) == b""
