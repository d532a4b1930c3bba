"""Tests of addresses, deadlines, dialling and binding, on the loopback."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from typing import Iterator

import pytest

from pytest_tvmrpc import network
from pytest_tvmrpc.errors import ConnectError, DeadlineError
from pytest_tvmrpc.network import (
    LOOPBACK,
    Deadline,
    dial,
    format_address,
    listen,
    parse_address,
    set_kernel_timeouts,
    set_stream_options,
)


def soon() -> Deadline:
    """Enough for anything on the loopback."""
    return Deadline(20.0, "the test", "nothing")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9190", ("127.0.0.1", 9190)),
        ("board.local:1", ("board.local", 1)),
        ("[::1]:65535", ("::1", 65535)),
        (":9190", (LOOPBACK, 9190)),
    ],
)
def test_address_with_a_port(text, address):
    """Names, v4, v6 in brackets; without a host, this machine."""
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "host"),
    [("board", "board"), ("::1", "::1"), ("[::1]", "::1"), ("fe80::1", "fe80::1"), ("a:", "a")],
)
def test_address_without_a_port(text, host):
    """The default port counts; without one, the message says what is expected."""
    assert parse_address(text, 9190) == (host, 9190)
    with pytest.raises(ValueError, match=r"expected HOST:PORT, for example 127\.0\.0\.1:9190"):
        parse_address(text)


@pytest.mark.parametrize("text", ["", "a:b", "a:0", "a:-1", "a:65536", "a:1 ", "a:²", "a:1:2"])
def test_no_address(text):
    """ValueError, whatever it is."""
    with pytest.raises(ValueError):
        parse_address(text)


def test_addresses_are_written_as_they_are_read():
    """v6 gets its brackets."""
    for host in ("127.0.0.1", "::1", "board"):
        assert parse_address(format_address(host, 9190)) == (host, 9190)


def test_deadline_counts_down():
    """What is left is never more than the limit, and never less than nothing."""
    left = Deadline(30.0, "a wait").left()
    assert left is not None
    assert 0 < left <= 30.0
    assert Deadline(None, "a wait").left() is None


def test_deadline_names_the_wait_and_its_argument():
    """So that a user knows what to set."""
    with pytest.raises(
        DeadlineError, match=r"^the hello took longer than 0 s; set timeout to wait"
    ):
        Deadline(0, "the hello", "timeout").left()
    assert Deadline(1.5, "a wait", "timeout").error().argument == "timeout"
    assert str(Deadline(1.5, "a wait").error()) == "a wait took longer than 1.5 s"
    assert Deadline(1.5, "a wait").error().argument == ""


def test_dial_reaches_a_listener():
    """By address and by name; the connection blocks and sends small packets at once."""
    with listen(LOOPBACK, 0) as listener:
        port = listener.getsockname()[1]
        for host in (LOOPBACK, "localhost"):
            with dial(host, port, soon()) as connection:
                assert connection.gettimeout() is None
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert dial_and_close(port, Deadline(None, "the test"))


def test_who_comes_early_has_the_options():
    """Small packets are sent at once, also to him who waits until somebody accepts him."""
    with listen(LOOPBACK, 0) as listener, dial(*listener.getsockname(), soon()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def dial_and_close(port: int, deadline: Deadline) -> bool:
    with dial(LOOPBACK, port, deadline):
        return True


def closed_port() -> int:
    """A port that was free a moment ago."""
    with listen(LOOPBACK, 0) as listener:
        return int(listener.getsockname()[1])


def test_refusal_names_the_address():
    """And is an OSError, too."""
    port = closed_port()
    with pytest.raises(ConnectError, match=f"cannot connect to {LOOPBACK}:{port}: tried .*refused"):
        dial(LOOPBACK, port, soon())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_wildcards_are_not_dialled(host):
    """They mean this machine when listening, and nothing when connecting."""
    with pytest.raises(ConnectError, match="an address to listen on, not to connect to"):
        dial(host, 9190, soon())


@pytest.mark.parametrize("host", ["a" * 70, "a\0b", ".."])
def test_names_that_are_none(host):
    """What does not even have the form of a name is refused as one that nobody knows."""
    with pytest.raises(ConnectError, match=r"the host name .* cannot be resolved"):
        dial(host, 9190, soon())


def test_names_that_do_not_resolve(monkeypatch):
    """The resolver's own words are passed on."""

    def getaddrinfo(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(network.socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(ConnectError, match=r"the host name 'board' cannot be .* not known"):
        dial("board", 9190, soon())


@pytest.mark.parametrize("port", [0, -1, 65536, 2**40])
def test_ports_that_are_none(port):
    """Refused before anything is looked up."""
    with pytest.raises(ValueError, match="is no port to connect to; expected 1 to 65535"):
        dial(LOOPBACK, port, soon())


@pytest.mark.parametrize("code", [errno.ETIMEDOUT, errno.ENETUNREACH, errno.EACCES])
@pytest.mark.parametrize("limit_s", [20.0, None])
def test_what_the_system_refuses(monkeypatch, code, limit_s):
    """Is a matter of the address that has it, the kernel's own timeout, too: no limit is over."""

    def connect_ex(connection: socket.socket, address: object) -> int:
        return code

    refusing = type("S", (socket.socket,), {"connect_ex": connect_ex})
    monkeypatch.setattr(network.socket, "socket", refusing)
    with pytest.raises(ConnectError, match=rf"tried 127\.0\.0\.1:9190 \({os.strerror(code)}\)"):
        dial(LOOPBACK, 9190, Deadline(limit_s, "the connection"))


@contextlib.contextmanager
def swallowing(host: str, port: int = 0) -> Iterator[int]:
    """An address that answers nothing, as the kernel ignores who comes when the queue is full."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server((host, port), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield full.getsockname()[1]


def name_of(monkeypatch, *hosts):
    """Lets the name ``board`` have these addresses, in this order."""

    def getaddrinfo(name, port, **options):
        assert name == b"board"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]

    monkeypatch.setattr(network.socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("before", [[], ["127.0.0.3"]], ids=["first", "behind one that refuses"])
def test_an_address_that_answers_nothing(monkeypatch, before):
    """The next one is tried after a moment, and its answer counts."""
    with listen(LOOPBACK, 0) as listener:
        port = listener.getsockname()[1]
        name_of(monkeypatch, *before, "127.0.0.2", LOOPBACK)
        with swallowing("127.0.0.2", port), dial("board", port, soon()) as connection:
            assert connection.getpeername() == (LOOPBACK, port)
            assert connection.getblocking()


def test_the_deadline_is_that_of_all_addresses(monkeypatch):
    """If none answers, it ends the wait; what refused before does not count."""
    with swallowing("127.0.0.2") as port, swallowing("127.0.0.4", port):
        name_of(monkeypatch, "127.0.0.3", "127.0.0.2", "127.0.0.4")
        with pytest.raises(DeadlineError, match=r"the connection took longer than 0\.4 s"):
            dial("board", port, Deadline(0.4, "the connection"))


def test_deadline_that_is_over_before_the_dialling():
    """No attempt is made, and the error is the deadline's."""
    with pytest.raises(DeadlineError, match="the connection took longer than 0 s"):
        dial(LOOPBACK, 9190, Deadline(0, "the connection"))


def test_port_zero_asks_the_system():
    """Two listeners get two ports."""
    with listen(LOOPBACK, 0) as one, listen(LOOPBACK, 0) as other:
        assert one.getsockname()[1] != other.getsockname()[1]


def test_next_port_of_the_range_is_tried():
    """The first free one of [port, port_end) is taken; the end itself is not."""
    with contextlib.ExitStack() as stack:
        for _ in range(20):  # until a listener's neighbour is free
            first = stack.enter_context(listen(LOOPBACK, 0))
            port = first.getsockname()[1]
            with contextlib.suppress(ConnectError):
                second = stack.enter_context(listen(LOOPBACK, port, port + 2))
                assert second.getsockname()[1] == port + 1
                break
        else:
            pytest.fail("no listener had a free neighbour")
        words = rf"cannot bind to any port in \[{port}, {port + 2}\) on {LOOPBACK}: .*in use"
        with pytest.raises(ConnectError, match=words):
            listen(LOOPBACK, port, port + 2)


def test_port_in_use_is_named():
    """And the way out."""
    with listen(LOOPBACK, 0) as listener:
        port = listener.getsockname()[1]
        words = f"cannot bind to port {port} on {LOOPBACK}: .*in use; give another port, or 0"
        with pytest.raises(ConnectError, match=words):
            listen(LOOPBACK, port)


@pytest.mark.parametrize(
    ("host", "port"),
    [
        (LOOPBACK, 65536),
        (LOOPBACK, -1),
        ("192.0.2.1", 0),
        ("a" * 70, 0),
        ("a\0b", 0),
    ],
)
def test_what_cannot_be_bound(host, port):
    """Ports that are none, addresses of other machines, names that are none: one error."""
    with pytest.raises(ConnectError, match="cannot bind to port"):
        listen(host, port)


def test_ipv6_loopback():
    """Where this machine has it."""
    try:
        listener = listen("::1", 0)
    except ConnectError:
        pytest.skip("there is no IPv6 here")
    with listener, dial("::1", listener.getsockname()[1], soon()) as connection:
        assert connection.family == socket.AF_INET6


def test_kernel_ends_a_wait():
    """A receive that gets nothing ends with BlockingIOError, without a poll for each call."""
    one, other = socket.socketpair()
    with one, other:
        set_kernel_timeouts(one, 0.01, None)
        with pytest.raises(BlockingIOError):
            one.recv(1)
        set_kernel_timeouts(one, None, None)
        other.send(b"x")
        assert one.recv(1) == b"x"


@pytest.mark.skipif(os.name == "nt", reason="the form of the option is another one there")
@pytest.mark.parametrize(
    ("limit_s", "least", "most"),
    [(None, 0, 0), (0, 1e-6, 0.05), (1e-9, 1e-6, 0.05), (2.5, 2.4, 2.6), (1e30, 1e5, 1e7)],
)
def test_kernel_limits(limit_s, least, most):
    """No limit is no limit; a tiny one does not become none; a huge one does not overflow."""
    one, other = socket.socketpair()
    with one, other:
        for receive_s, send_s in ((limit_s, None), (None, limit_s)):
            set_kernel_timeouts(one, receive_s, send_s)
            for option, asked_s in ((socket.SO_RCVTIMEO, receive_s), (socket.SO_SNDTIMEO, send_s)):
                set_value = one.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("@ll"))
                seconds, micros = struct.unpack("@ll", set_value)
                if asked_s is limit_s:
                    assert least <= seconds + micros / 1e6 <= most
                else:
                    assert not seconds + micros


def test_options_of_a_stream():
    """A peer that vanished is noticed within about a minute, where the system can be told."""
    with socket.socket() as connection:
        set_stream_options(connection)
        if hasattr(socket, "TCP_KEEPIDLE"):
            idle, interval, count = (
                connection.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_KEEP{name}"))
                for name in ("IDLE", "INTVL", "CNT")
            )
            assert idle + interval * count <= 60
