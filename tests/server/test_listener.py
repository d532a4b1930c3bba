"""A client's greeting, over a socket pair: what is said in which order, and when it is over."""

from __future__ import annotations

import contextlib
import socket
from typing import Callable, Iterator, Tuple

import pytest

from pytest_tvmrpc.errors import RemoteProtocolError
from pytest_tvmrpc.protocol.codes import HandshakeReply
from pytest_tvmrpc.protocol.handshake import ClientHello, encode_server_reply
from pytest_tvmrpc.server.listener import REFUSAL, Greeting

Pair = Tuple[Greeting, socket.socket]


@pytest.fixture(name="pair")
def _pair() -> Iterator[Pair]:
    """A greeting, and its client's socket."""
    ours, client = socket.socketpair()
    with ours, client:
        yield Greeting(ours, "somewhere", 0.0), client


@pytest.mark.parametrize("cut", ["whole", "byte by byte", "with trailing bytes"])
def test_any_segmentation(pair: Pair, hello: Callable[..., bytes], cut: str) -> None:
    """Key and options are there when the last byte is, and what follows is kept."""
    greeting, client = pair
    words = hello(b"client:board:0.5 -timeout=1.5")
    if cut == "byte by byte":
        for index in range(len(words)):
            assert greeting.hello is None
            client.sendall(words[index : index + 1])
            assert greeting.listen()
    else:
        client.sendall(words + (b"early" if cut == "with trailing bytes" else b""))
        assert greeting.listen()
    assert greeting.hello == ClientHello("board:0.5", 1.5)
    assert greeting.early == (b"early" if cut == "with trailing bytes" else b"")


def test_nothing_to_hear(pair: Pair) -> None:
    """Listening never blocks."""
    assert pair[0].listen()
    assert pair[0].hello is None


def test_a_client_that_leaves(pair: Pair) -> None:
    """Is not there any more."""
    greeting, client = pair
    client.close()
    assert not greeting.listen()


def test_a_client_that_cannot_wait(pair: Pair, hello: Callable[..., bytes]) -> None:
    """What it says early is kept up to a limit."""
    greeting, client = pair
    client.sendall(hello() + bytes(1000))
    assert greeting.listen()
    client.sendall(bytes(3096))
    assert greeting.listen()
    client.sendall(b"!")
    with pytest.raises(RemoteProtocolError, match="before it was answered"):
        greeting.listen()


def test_admission(pair: Pair) -> None:
    """The answer has the server's key; the socket blocks from then on."""
    greeting, client = pair
    assert greeting.admit("board")
    assert client.recv(100) == encode_server_reply(HandshakeReply.SUCCESS, "board")
    assert greeting.connection.gettimeout() is None


def test_admission_of_nobody(pair: Pair) -> None:
    """A client that is gone is not admitted."""
    greeting, client = pair
    client.close()
    assert not greeting.admit("board")
    assert greeting.connection.fileno() == -1


def test_admission_by_a_word_that_does_not_fit(pair: Pair) -> None:
    """Nobody is served who has heard a part of it only."""
    greeting, _ = pair
    greeting.connection.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while greeting.connection.send(bytes(1 << 16)):
            pass
    assert not greeting.admit("board")
    assert greeting.connection.fileno() == -1


def test_refusal() -> None:
    """One word."""
    assert REFUSAL == b"\x73\xf2\x0f\0"
