"""Requests within a request of the same thread: from signal handlers, finalizers and answers."""

from __future__ import annotations

import gc
import signal
import weakref
from typing import Any, Callable, Dict, Iterator, List

import numpy as np
import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.errors import ConnectionLostError, LocalProtocolError, RemoteError
from pytest_tvmrpc.protocol.codes import RPCCode

Nested = Callable[[], object]


@pytest.fixture(name="requests")
def _requests(remote: rpc.RPCSession) -> Dict[str, Nested]:
    """All kinds of requests of one session that wait for something, or might."""
    addone, device = remote.get_function("rpc.test.addone"), remote.cpu(0)
    tensor = runtime.tensor(np.zeros(2, "float32"), device)
    large = runtime.tensor(np.zeros(1 << 16, "float32"), device)
    pipeline = remote.pipeline()
    return {
        "a call": lambda: addone(1),
        "a look-up": lambda: remote.get_function("rpc.test.addone"),
        "an upload": lambda: remote.upload(b"abc", "a.bin"),
        "an allocation": lambda: runtime.empty((1 << 16,), "float32", device),
        "a small copy there": lambda: tensor.copyfrom(np.ones(2, "float32")),
        "a copy there": lambda: large.copyfrom(np.ones(1 << 16, "float32")),
        "a copy back": large.numpy,
        "a copy over there": lambda: large.copyto(device),
        "a sync": device.sync,
        "a pipelined call": lambda: pipeline.call(addone, 2),
        "the end of a pipeline": pipeline.finish,
    }


@pytest.fixture(name="interrupted")
def _interrupted() -> Iterator[Callable[[Nested], List[Any]]]:
    """``interrupted(work)``: has a signal handler do it soon, and once; what came of it."""
    before = signal.getsignal(signal.SIGALRM)

    def interrupted(work: Nested) -> List[Any]:
        outcome: List[Any] = []

        def handle(*_: object) -> None:
            try:
                outcome.append(work())
            except Exception as error:  # compared by the test
                outcome.append(error)

        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        return outcome

    yield interrupted
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_every_request_in_a_signal_handler(
    remote: rpc.RPCSession,
    requests: Dict[str, Nested],
    interrupted: Callable[[Nested], List[Any]],
) -> None:
    """An error at once, that says where it came from; the call that was interrupted goes on."""
    sleep = remote.get_function("testing.sleep")
    errors: Dict[str, Any] = {}

    def attempt_all() -> None:
        for name, request in requests.items():
            try:
                request()
            except Exception as error:
                errors[name] = error

    outcome = interrupted(attempt_all)
    assert sleep(0.3) is None
    assert outcome == [None]
    assert {name: type(error) for name, error in errors.items()} == dict.fromkeys(
        requests, LocalProtocolError
    )
    assert all("within another request of this session" in str(e) for e in errors.values())
    for request in requests.values():
        request()
    assert remote.get_function("rpc.test.addone")(1) == 2


@pytest.mark.parametrize("outer", ["a long result", "a pipeline", "look-ups"])
def test_within_other_requests(
    remote: rpc.RPCSession, interrupted: Callable[[Nested], List[Any]], outer: str
) -> None:
    """Whatever the thread was within, the answer to it comes, and is the right one."""
    addone = remote.get_function("rpc.test.addone")
    sleep = remote.get_function("testing.sleep")
    outcome = interrupted(lambda: addone(1))
    if outer == "a pipeline":
        with remote.pipeline() as pipeline:
            calls = [pipeline.call(sleep, 0.2), pipeline.call(addone, 5)]
        assert [call.result() for call in calls] == [None, 6]
    elif outer == "look-ups":
        pipeline = remote.pipeline()
        call = pipeline.call(sleep, 0.2)
        assert remote._endpoint.get_functions(["none", "nothing"]) == [0, 0]
        assert call.result() is None
    else:
        remote.upload(bytes(1 << 20), "long.bin")
        pipeline = remote.pipeline()
        call = pipeline.call(sleep, 0.2)
        assert remote.download("long.bin") == bytes(1 << 20)
        assert call.result() is None
    assert [type(error) for error in outcome] == [LocalProtocolError]
    assert addone(1) == 2


def test_an_error_of_a_handler_is_no_answer(
    remote: rpc.RPCSession, interrupted: Callable[[Nested], List[Any]]
) -> None:
    """It may look like one of this session; the session is over, since its answer is not taken."""
    addone = remote.get_function("rpc.test.addone")
    sleep = remote.get_function("testing.sleep")
    interrupted(lambda: None)

    def handle(*_: object) -> None:
        raise RemoteError("of another session")

    signal.signal(signal.SIGALRM, handle)
    with pytest.raises(RemoteError, match="of another session"):
        sleep(0.3)
    with pytest.raises(ConnectionLostError, match="it was interrupted in testing"):
        addone(1)


class Finalized:
    """In a cycle with itself: the collector has its finalizer run, wherever it comes."""

    def __init__(self, work: Nested, outcome: List[Any]) -> None:
        self.work, self.outcome, self.itself = work, outcome, self

    def __del__(self) -> None:
        try:
            self.outcome.append(self.work())
        except Exception as error:  # compared by the test
            self.outcome.append(error)


def test_a_finalizer_within_a_request(remote: rpc.RPCSession) -> None:
    """As a signal handler: an error at once; both ends go on."""
    addone = remote.get_function("rpc.test.addone")
    outcome: List[Any] = []
    channel = remote._endpoint.channel
    receive = channel.recv_into

    def collecting(target: memoryview) -> int:
        gc.collect()
        return receive(target)

    Finalized(lambda: addone(1), outcome)
    remote._endpoint._conversation._recv_into = collecting
    assert addone(3) == 4
    assert [type(error) for error in outcome] == [LocalProtocolError]
    assert addone(4) == 5


@pytest.mark.parametrize("outer", ["a call", "a pipeline", "a syscall"])
def test_closing_within_a_request(
    remote: rpc.RPCSession, interrupted: Callable[[Nested], List[Any]], outer: str
) -> None:
    """It ends the session at once, and the request, as from another thread."""
    sleep = remote.get_function("testing.sleep")
    pipeline = remote.pipeline()
    outcome = interrupted(remote.close)

    def wait() -> None:
        if outer == "a call":
            sleep(20.0)
        pipeline.call(sleep, 20.0)
        if outer == "a syscall":
            remote._endpoint.syscall(RPCCode.GET_GLOBAL_FUNC, "none")
        pipeline.finish()

    with pytest.raises(ConnectionLostError):
        wait()
    assert outcome == [None]
    assert remote.closed
    assert not remote.lost
    remote.close()


def test_a_session_whose_last_request_failed_is_given_up(server: rpc.Server) -> None:
    """Without a close: its error, whose traceback leads to the session, does not keep it."""
    remote = rpc.connect("127.0.0.1", server.port)
    addone = remote.get_function("rpc.test.addone")
    with pytest.raises(RemoteError):
        addone("no number")
    reference = weakref.ref(remote)
    with pytest.warns(ResourceWarning, match="was dropped while it was open"):  # noqa: PT031
        del remote, addone
        gc.collect()
    assert reference() is None
