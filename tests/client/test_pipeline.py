"""Many calls at once: results and errors stay with their calls, and neither side ever blocks."""

from __future__ import annotations

import socket
import struct
import threading
from typing import Any, Iterator, List, Tuple

import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.client.session import RPCSession
from pytest_tvmrpc.errors import ConnectionLostError, LocalProtocolError
from pytest_tvmrpc.runtime.function import PackedFunc
from pytest_tvmrpc.session.channel import SocketChannel
from pytest_tvmrpc.session.endpoint import Endpoint

np = pytest.importorskip("numpy")


def test_results_belong_to_their_calls(remote: rpc.RPCSession) -> None:
    """A thousand calls in flight; each has the result of its own arguments."""
    addone = remote.get_function("rpc.test.addone")
    with remote.pipeline() as p:
        calls = [p.call(addone, number) for number in range(1000)]
    assert [call.result() for call in calls] == list(range(1, 1001))
    assert all(call.done for call in calls)


def test_errors_stay_with_their_calls(remote: rpc.RPCSession) -> None:
    """A call that raises does not disturb those before and behind it."""
    addone, fails = (remote.get_function(f"rpc.test.{name}") for name in ("addone", "except"))
    with remote.pipeline() as p:
        first, bad, last = p.call(addone, 1), p.call(fails, "boom"), p.call(addone, 2)
    assert (first.result(), last.result()) == (2, 3)
    assert isinstance(bad.exception(), ValueError)
    with pytest.raises(ValueError, match=r"^boom$"):
        bad.result()


def test_a_result_before_the_end(remote: rpc.RPCSession) -> None:
    """Asking for one result waits for that one; later calls go on."""
    addone = remote.get_function("rpc.test.addone")
    with remote.pipeline() as p:
        first = p.call(addone, 1)
        assert first.result() == 2
        second = p.call(addone, 2)
    assert second.result() == 3


def test_other_requests_in_between(remote: rpc.RPCSession) -> None:
    """Ordinary calls, look-ups and copies come behind what was asked for before them."""
    addone = remote.get_function("rpc.test.addone")
    with remote.pipeline() as p:
        calls = [p.call(addone, number) for number in range(100)]
        assert addone(41) == 42
        tensor = runtime.tensor(np.arange(8, dtype="int32"), remote.cpu(0))
        calls += [p.call(addone, number) for number in range(100)]
        assert remote.get_function("rpc.test.strcat")("a", 1) == "a:1"
        assert tensor.numpy().tolist() == list(range(8))
    assert [call.result() for call in calls] == [*range(1, 101), *range(1, 101)]


def test_more_than_any_buffer_holds_both_ways(remote: rpc.RPCSession) -> None:
    """Calls and answers of many megabytes: the client takes answers while it sends."""
    echo = remote.get_function("testing.echo")
    content = bytes(range(256)) * 4096
    with remote.pipeline() as p:
        calls = [p.call(echo, content) for _ in range(32)]
    assert all(bytes(call.result()) == content for call in calls)


def test_many_small_answers(remote: rpc.RPCSession) -> None:
    """Two hundred thousand bytes of requests whose answers are as long."""
    echo = remote.get_function("testing.echo")
    with remote.pipeline() as p:
        calls = [p.call(echo, "x" * (number % 500)) for number in range(4000)]
    assert [len(call.result()) for call in calls] == [number % 500 for number in range(4000)]


def test_what_cannot_be_sent_touches_nothing(remote: rpc.RPCSession) -> None:
    """A bad argument is refused where the call is made; the others go on."""
    addone = remote.get_function("rpc.test.addone")
    with remote.pipeline() as p:
        first = p.call(addone, 1)
        with pytest.raises(LocalProtocolError, match="list"):
            p.call(addone, [1])
        second = p.call(addone, 2)
    assert (first.result(), second.result()) == (2, 3)


def test_functions_of_others_are_refused(remote: rpc.RPCSession) -> None:
    """A local function, or one of another session, cannot be called through this one."""
    pipeline = remote.pipeline()
    with pytest.raises(ValueError, match="no function of this session"):
        pipeline.call(PackedFunc(abs))  # type: ignore[arg-type]


def test_an_error_that_nobody_asks_for_is_warned_of(remote: rpc.RPCSession) -> None:
    """It is not lost silently."""
    fails = remote.get_function("rpc.test.except")
    with remote.pipeline() as p:
        calls = [p.call(fails, "unseen")]
    with pytest.warns(RuntimeWarning, match=r"rpc\.test\.except failed.*unseen"):
        calls.clear()


@pytest.fixture(name="silent")
def _silent(deadline_s: float) -> Iterator[Tuple[RPCSession, socket.socket]]:
    """A session with a server that has opened it, and does what the test does."""
    asking, answering = socket.socketpair()
    answering.settimeout(deadline_s)
    endpoint = Endpoint(SocketChannel(asking, "the server", deadline_s, "call_timeout"))

    def agree() -> None:
        received = b""
        while len(received) < 29:
            received += answering.recv(4096)
        answering.sendall(struct.pack("<Qiii", 12, 4, 1, 0))  # the void answer of TVM's server

    thread = threading.Thread(target=agree)
    thread.start()
    endpoint.init_server()
    thread.join(deadline_s)
    with answering, RPCSession(endpoint, ("silent", 1)) as session:
        yield session, answering


def test_a_server_that_goes_in_the_middle(silent: Any) -> None:
    """An answered call has its value; each of the others says that the session ended."""
    from pytest_tvmrpc.client.functions import RemoteFunction

    session, server = silent
    function = RemoteFunction(session, 7, "gone")
    p = session.pipeline()
    calls = [p.call(function, number) for number in range(3)]
    server.sendall(struct.pack("<Qiiiqiq", 32, 4, 2, 1, 1, 1, 99))
    server.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionLostError, match="the server closed the connection"):
        p.finish()
    assert calls[0].result() == 99
    for call in calls[1:]:
        with pytest.raises(ConnectionLostError, match="gone was answered"):
            call.result()
    with pytest.raises(ConnectionLostError, match="over"):
        p.call(function, 1)


def test_calls_are_sent_together(silent: Any) -> None:
    """Short calls leave in one piece, not in one each; the answers are taken in their order."""
    from pytest_tvmrpc.client.functions import RemoteFunction

    session, server = silent
    function = RemoteFunction(session, 7, "far")
    p = session.pipeline()
    calls = [p.call(function, number) for number in range(10)]
    sizes: List[int] = []

    def answer() -> None:
        while sum(sizes) < 10 * 36:
            sizes.append(len(server.recv(65536)))
        server.sendall(
            b"".join(struct.pack("<Qiiiqiq", 32, 4, 2, 1, 1, 1, number) for number in range(10))
        )

    thread = threading.Thread(target=answer)
    thread.start()
    p.finish()
    thread.join()
    assert len(sizes) <= 2  # the first at once, as nobody else waits for an answer
    assert [call.result() for call in calls] == list(range(10))


def test_a_result_is_one_object(remote: rpc.RPCSession) -> None:
    """Asking twice gives the same function, which is freed once."""
    add_to = remote.get_function("rpc.test.add_to_lhs")
    with remote.pipeline() as p:
        call = p.call(add_to, 10)
    assert call.result() is call.result()
    assert call.result()(1) == 11
    del call
    assert remote.get_function("rpc.test.addone")(1) == 2


def test_results_that_nobody_asks_for_are_freed(inside: Any) -> None:
    """Whether the call is dropped before or after its answer has come."""
    session, answering = inside
    add_to = session.get_function("rpc.test.add_to_lhs")
    held = len(answering.handles)
    with session.pipeline() as p:
        calls = [p.call(add_to, number) for number in range(20)]
        del calls[:10]
    del calls
    session.get_function("rpc.test.addone")(1)  # with which the frees go
    session.get_function("rpc.test.addone")(1)
    assert len(answering.handles) <= held + 1


def test_arguments_are_taken_as_they_are(remote: rpc.RPCSession) -> None:
    """A buffer may be filled anew behind the call."""
    echo = remote.get_function("testing.echo")
    buffer = bytearray(b"0000")
    with remote.pipeline() as p:
        calls = []
        for number in range(4):
            buffer[:] = b"%04d" % number
            calls.append(p.call(echo, memoryview(buffer)))
    assert [bytes(call.result()) for call in calls] == [b"0000", b"0001", b"0002", b"0003"]


def test_a_large_request_behind_large_answers(remote: rpc.RPCSession) -> None:
    """Neither side waits for the other for ever: the answers are taken before."""
    echo = remote.get_function("testing.echo")
    content = b"x" * 1_000_000
    tensor = runtime.empty((16_000_000,), "uint8", remote.cpu(0))
    array = np.ones(16_000_000, "uint8")
    with remote.pipeline() as p:
        calls = [p.call(echo, content) for _ in range(20)]
        tensor.copyfrom(array)
    assert all(call.result() == content for call in calls)


def test_answers_do_not_wait_for_a_slow_call(remote: rpc.RPCSession, wait_until: Any) -> None:
    """A result is there while the server still works on the next call."""
    addone, sleep = remote.get_function("rpc.test.addone"), remote.get_function("testing.sleep")
    with remote.pipeline() as p:
        first = [p.call(addone, number) for number in range(3)]
        slow = p.call(sleep, 0.3)
        assert [call.result() for call in first] == [1, 2, 3]
        assert not slow.done
    assert slow.result() is None


def test_every_call_learns_how_the_session_ended(server: rpc.Server) -> None:
    """Not only the one that was being done."""
    with rpc.connect(server.host, server.port, session_timeout=0.3) as remote:
        sleep = remote.get_function("testing.sleep")
        p = remote.pipeline()
        calls = [p.call(sleep, 5.0) for _ in range(3)]
        with pytest.raises(rpc.RPCSessionTimeoutError):
            p.finish()
        assert all(isinstance(call.exception(), rpc.RPCSessionTimeoutError) for call in calls)


def test_closing_ends_a_call_of_another_thread(server: rpc.Server, deadline_s: float) -> None:
    """It does not wait for its answer."""
    remote = rpc.connect(server.host, server.port)
    sleep = remote.get_function("testing.sleep")
    raised = []

    def call() -> None:
        with pytest.raises(ConnectionLostError) as caught:
            sleep(60.0)
        raised.append(caught.value)

    thread = threading.Thread(target=call)
    thread.start()
    lock = remote._endpoint._conversation.turn.lock
    while lock.acquire(blocking=False):
        lock.release()
    remote.close()
    thread.join(deadline_s)
    assert raised
