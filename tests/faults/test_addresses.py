"""Addresses of all kinds: one that swallows what comes, names with several, other loopbacks."""

from __future__ import annotations

import socket
import time
from typing import Any, Callable, List

import pytest

from pytest_tvmrpc import network, rpc
from pytest_tvmrpc.errors import ConnectError, DeadlineError


def test_an_address_that_swallows_everything() -> None:
    """A machine behind a firewall: the error names stage, argument and address, in time."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting: List[socket.socket] = []
        try:
            for _ in range(4):  # from then on the kernel drops what comes
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(address)
            started = time.monotonic()
            with pytest.raises((DeadlineError, ConnectError), match="connect_timeout") as caught:
                rpc.connect(*address, connect_timeout=0.3)
            assert time.monotonic() - started < 2
            assert str(address[1]) in str(caught.value)
        finally:
            for connection in waiting:
                connection.close()


@pytest.mark.parametrize("listening", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("first", ["127.0.0.1", "::1"])
def test_a_name_with_two_addresses(
    monkeypatch: pytest.MonkeyPatch, listening: str, first: str
) -> None:
    """A server on one of them is found, whichever comes first."""
    try:
        listener = network.listen(listening, 0)
    except ConnectError:
        pytest.skip(f"there is no {listening} here")
    port = listener.getsockname()[1]
    both = {
        "127.0.0.1": (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        "::1": (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
    }
    answers = sorted(both.items(), key=lambda item: item[0] != first)

    def getaddrinfo(host: object, *arguments: Any, **options: Any) -> List[Any]:
        assert host in ("board.test", b"board.test")
        return [answer for _, answer in answers]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with listener, network.dial(
        "board.test", port, network.Deadline(5.0, "connecting", "connect_timeout")
    ) as connection:
        assert connection.getpeername()[0] == listening


@pytest.mark.parametrize("host", ["127.0.0.2", "::1"])
@pytest.mark.parametrize("make", [rpc.Server, rpc.Tracker, rpc.Proxy], ids=lambda m: m.__name__)
def test_programs_on_other_addresses(make: Callable[..., Any], host: str) -> None:
    """They listen there and not elsewhere, say which port it is, and end when they are told."""
    try:
        network.listen(host, 0).close()
    except ConnectError:
        pytest.skip(f"there is no {host} here")
    program = make(host=host, port=0, log=-3)
    try:
        with network.dial(host, program.port, network.Deadline(5.0, "connecting")):
            pass
        with pytest.raises(ConnectError):
            network.dial("127.0.0.1", program.port, network.Deadline(5.0, "connecting"))
    finally:
        program.terminate()
    assert program.program.ended() == "exited with 0"
