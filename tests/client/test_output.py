"""Asking for a session's output: what is sent, what is believed, and who cannot tell."""

from __future__ import annotations

from typing import Any, List

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.client.output import OUTPUT, RemoteOutput
from pytest_tvmrpc.errors import (
    ConnectionLostError,
    DeadlineError,
    RemoteError,
    RemoteProtocolError,
)

pytestmark = pytest.mark.each_kind


def test_a_real_server(remote: rpc.RPCSession) -> None:
    """It has printed nothing; the function is looked up once."""
    assert remote.output() == RemoteOutput(b"", 0, 0)
    calls = remote.meter.calls
    assert remote.output(limit=0) == RemoteOutput(b"", 0, 0)
    assert remote.meter.calls == calls + 1


def test_who_cannot_tell(inside: Any) -> None:
    """A server without the function, such as TVM's, and a session in this very process."""
    remote, _ = inside
    assert remote.output() is None
    assert remote.output(5, 5) is None
    with rpc.LocalSession() as local:
        assert local.output() is None


def test_what_is_sent(inside: Any) -> None:
    """Both numbers as they are given; NumPy's are numbers, too."""
    remote, session = inside
    sent: List[Any] = []

    def tell(*arguments: Any) -> bytes:
        sent.append(arguments)
        return (20).to_bytes(8, "little") + "grün\n".encode()

    session.environment.add(OUTPUT, tell)
    output = remote.output()
    assert output == (b"gr\xc3\xbcn\n", 20, 14)
    assert output.text == "grün\n"
    np = pytest.importorskip("numpy")
    assert remote.output(np.int64(14), limit=100).dropped == 0
    assert remote.output(50) == (b"gr\xc3\xbcn\n", 20, 0)
    assert sent == [(0, None), (14, 100), (50, None)]


def test_bytes_that_are_no_text() -> None:
    """They are replaced in the text, and kept in the content."""
    assert RemoteOutput(b"a\xffb", 3).text == "a�b"


@pytest.mark.parametrize("arguments", [(-1,), (0, -1)])
def test_what_is_no_number_of_bytes(remote: rpc.RPCSession, arguments: Any) -> None:
    """Refused here, before anything is sent."""
    calls = remote.meter.calls
    with pytest.raises(ValueError, match="expected 0 or more"):
        remote.output(*arguments)
    with pytest.raises(TypeError):
        remote.output("0")  # type: ignore[arg-type]
    assert remote.meter.calls == calls


@pytest.mark.parametrize("answer", [None, 7, "text", b"", b"1234567"], ids=repr)
def test_an_answer_that_is_none(inside: Any, answer: Any) -> None:
    """A server that returns something else is told apart; the session goes on."""
    remote, session = inside
    session.environment.add(OUTPUT, lambda *_: answer)
    with pytest.raises(RemoteProtocolError, match="expected bytes that begin with a length"):
        remote.output()
    assert remote.get_function("rpc.test.addone")(1) == 2


def test_a_server_that_fails(inside: Any) -> None:
    """Its error is the caller's."""
    remote, session = inside

    def fail(*_: Any) -> None:
        raise OSError("no output today")

    session.environment.add(OUTPUT, fail)
    with pytest.raises(RemoteError, match="no output today"):
        remote.output()


def test_a_session_that_is_over(server: rpc.Server) -> None:
    """It cannot be asked any more."""
    remote = rpc.connect(server.host, server.port)
    remote.close()
    with pytest.raises(ConnectionLostError, match="is over"):
        remote.output()


@pytest.mark.parametrize("hops", [1, 2])
def test_behind_a_hop(server: rpc.Server, hops: int, server_kind: str) -> None:
    """It is the last server that is asked, as it is that one which works."""
    if hops > 1 and server_kind == "native":
        pytest.skip("a hop of the server in C opens no other one behind the next")

    def register() -> None:
        from pytest_tvmrpc import runtime

        runtime.register_func("own.say", lambda: print("here"))

    with rpc.Server(port=0, key="last", silent=True, server_init_callback=register) as last:
        constructor: List[Any] = ["rpc.Connect", last.host, last.port, "last", False]
        if hops == 2:
            with rpc.Server(port=0, key="middle", silent=True) as middle:
                address = ["rpc.Connect", middle.host, middle.port, "middle", False]
                _say(server, [*address, *constructor])
        else:
            _say(server, constructor)


def _say(server: rpc.Server, constructor: List[Any]) -> None:
    with rpc.connect(server.host, server.port, session_constructor_args=constructor) as remote:
        remote.get_function("own.say")()
        assert remote.output() == (b"here\n", 5, 0)


def test_a_limit_for_some_requests(server: rpc.Server) -> None:
    """It holds within the block alone, and its end is the session's, as that of any call."""
    with rpc.connect(server.host, server.port, call_timeout=500) as remote:
        with remote.limited(5):
            assert remote.output() == RemoteOutput(b"", 0, 0)
        assert remote._endpoint.channel.timeout_s == 500
        with pytest.raises(DeadlineError, match=r"for 0\.05 s$"), remote.limited(0.05):
            remote.get_function("testing.sleep")(20.0)
        assert remote.closed
        assert not remote.lost
        with pytest.raises(ConnectionLostError), remote.limited(5):
            remote.output()
    with rpc.LocalSession() as local, local.limited(5):
        assert local.output() is None
