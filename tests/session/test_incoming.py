"""The rest of a large packet, wherever it belongs."""

from __future__ import annotations

import os
import socket
import struct
from typing import Any, Iterator

import pytest

from pytest_tvmrpc.errors import ConnectionLostError
from pytest_tvmrpc.protocol.framing import CAPACITY
from pytest_tvmrpc.session.channel import SocketChannel
from pytest_tvmrpc.session.incoming import Incoming

CONTENT = os.urandom(CAPACITY + 20_000)


@pytest.fixture
def large() -> Iterator[tuple[Incoming, socket.socket, int, int]]:
    """A large packet whose head has arrived: the peer, and the head's bounds; 4,096 are to come."""
    ours, peer = socket.socketpair()
    with ours, peer:
        incoming = Incoming(SocketChannel(ours, "the peer"))
        packet = struct.pack("<Qi", 4 + len(CONTENT), 7) + CONTENT
        peer.sendall(packet[:-4096])
        reader = incoming.reader
        bounds = None
        while bounds is None:
            reader.received(ours.recv_into(reader.room()))
            bounds = reader.next_packet()
        yield incoming, peer, bounds[1], bounds[2]


@pytest.mark.parametrize("how", ["into place", "in parts", "as a body"])
def test_the_rest_arrives(large: Any, how: str) -> None:
    """All of it, and nothing of the packet behind it; each part is told of."""
    incoming, peer, start, end = large
    steps: list[tuple[int, int]] = []
    incoming.channel.progress = lambda done, total: steps.append((done, total))
    missing = incoming.reader.missing
    peer.sendall(CONTENT[-4096:] + b"the next packet")
    if how == "into place":
        content: Any = bytearray(len(CONTENT))
        incoming.fill(memoryview(content), start, end)
    elif how == "in parts":
        content = bytearray(incoming.reader.buffer[start:end])
        incoming.rest_to(content.extend)
    else:
        content = incoming.body(start, end)
    assert content == CONTENT
    assert incoming.reader.missing == 0
    assert not incoming.is_broken
    assert steps[-1] == (missing, missing)
    assert peer.send(b"x") == 1
    assert incoming.channel.connection.recv(100).startswith(b"the next packet")


WAYS = {
    "into place": lambda incoming, *bounds: incoming.fill(
        memoryview(bytearray(len(CONTENT))), *bounds
    ),
    "in parts": lambda incoming, *_: incoming.rest_to(len),
    "as a body": lambda incoming, *bounds: incoming.body(*bounds),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_close_within_a_packet(large: Any, way: Any) -> None:
    """The connection is lost, the message names the peer, and nothing more can be read."""
    incoming, peer, start, end = large
    peer.sendall(CONTENT[-4096:-1])
    peer.close()
    with pytest.raises(ConnectionLostError, match="the peer closed the connection within"):
        way(incoming, start, end)
    assert incoming.is_broken


def test_an_error_of_the_taker_breaks_nothing(large: Any) -> None:
    """What is still missing is known, and can be passed over."""
    incoming, peer, *_ = large
    peer.sendall(CONTENT[-4096:])

    def refuse(part: memoryview) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        incoming.rest_to(refuse)
    assert not incoming.is_broken
    incoming.rest_to(len)
    assert incoming.reader.missing == 0


def test_small_packets_have_no_rest() -> None:
    """Nothing is received for them."""
    ours, peer = socket.socketpair()
    with ours, peer:
        incoming = Incoming(SocketChannel(ours, "the peer"))
        incoming.reader.buffer[:3] = b"abc"
        assert incoming.body(1, 3) == b"bc"
        target = bytearray(2)
        incoming.fill(memoryview(target), 0, 2)
        incoming.rest_to(len)
        assert target == b"ab"


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_what_came_to_its_end_explains_nothing(large: Any, way: Any) -> None:
    """The last bytes are those of a packet that has no end, not of one that is over."""
    incoming, peer, start, end = large
    peer.sendall(CONTENT[-4096:])
    way(incoming, start, end)
    assert incoming.last_bytes == b""
