"""A signal handler that raises an OSError, as an alarm does: it comes out as it is, at once."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
from types import FrameType, ModuleType
from typing import Callable, ContextManager, Iterator, Optional, Type

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.client import tracker_link
from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import Device, DeviceType, TensorRecord
from pytest_tvmrpc.session import conversation, opening
from pytest_tvmrpc.session.channel import SocketChannel
from pytest_tvmrpc.session.endpoint import Endpoint

Alarm = Callable[[BaseException, ModuleType], ContextManager[None]]

VOID = struct.pack("<Qiii", 12, 4, 1, 0)

# Each is what the connection itself may raise, but for the errno.
ERRORS = pytest.mark.parametrize(
    "kind", [TimeoutError, BlockingIOError, ConnectionResetError, OSError]
)


@pytest.fixture(name="alarm")
def _alarm() -> Iterator[Alarm]:
    """``alarm(error, module)``: a block in which the error is raised soon, within this module."""
    before = signal.getsignal(signal.SIGALRM)

    @contextlib.contextmanager
    def raises(error: BaseException, module: ModuleType) -> Iterator[None]:
        def handle(_: int, frame: Optional[FrameType]) -> None:
            while frame is not None and frame.f_code.co_filename != module.__file__:
                frame = frame.f_back
            if frame is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)
                raise error

        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        with pytest.raises(type(error), match="mine") as caught:
            yield
        assert caught.value is error

    yield raises
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(name="silent")
def _silent(deadline_s: float) -> Iterator[Endpoint]:
    """A session with a server of TVM that has opened it, and answers nothing any more."""
    ours, theirs = socket.socketpair()
    with contextlib.closing(ours), contextlib.closing(theirs):
        endpoint = Endpoint(SocketChannel(ours, "a server of TVM", deadline_s, "call_timeout"))
        theirs.sendall(VOID)
        endpoint.init_server()
        yield endpoint


def _call(endpoint: Endpoint) -> None:
    endpoint.call(1, (), "sleep")


def _pipeline(endpoint: Endpoint) -> None:
    endpoint.finish(endpoint.start(1, (), "sleep"))


def _copy(endpoint: Endpoint) -> None:
    record = TensorRecord(1, Device(DeviceType.CPU, 0), (1 << 20,), DataType("int8"))
    endpoint.copy_to_remote(record, memoryview(bytes(1 << 20)))


@ERRORS
@pytest.mark.parametrize("work", [_call, _pipeline, _copy])
def test_within_a_request(
    silent: Endpoint, alarm: Alarm, kind: Type[OSError], work: Callable[[Endpoint], None]
) -> None:
    """The session is over, as its answer is still to come, and says why; it is not lost."""
    with alarm(kind("mine"), conversation):
        work(silent)
    assert "it was interrupted in" in str(silent.closed_because)
    assert not silent.is_lost


def test_within_a_goodbye(silent: Endpoint, alarm: Alarm) -> None:
    """A copy that a server of TVM still has to answer does not hold the alarm back."""
    record = TensorRecord(1, Device(DeviceType.CPU, 0), (4,), DataType("int8"))
    silent.copy_to_remote(record, memoryview(b"abcd"))
    with alarm(TimeoutError("mine"), conversation):
        silent.close("it was left")
    assert silent.closed_because == "it was left"


@ERRORS
def test_within_a_handshake(
    server: rpc.Server, alarm: Alarm, kind: Type[OSError], deadline_s: float
) -> None:
    """It is not taken for the end of the wait for a server that is in use."""
    with rpc.connect(server.host, server.port), alarm(kind("mine"), opening):
        rpc.connect(server.host, server.port, handshake_timeout=deadline_s)


@ERRORS
def test_within_a_wait_for_a_device(alarm: Alarm, kind: Type[OSError], deadline_s: float) -> None:
    """It is not taken for the end of the tracker; the request is withdrawn."""
    with rpc.Tracker(port=0) as tracker, rpc.connect_tracker("127.0.0.1", tracker.port) as devices:
        with alarm(kind("mine"), tracker_link):
            devices.request("none", wait_timeout=deadline_s, wait_for_key=True)
        assert devices.who().waiting == ()


@ERRORS
def test_within_the_first_words_of_a_tracker(
    alarm: Alarm, kind: Type[OSError], deadline_s: float
) -> None:
    """It says nothing about who listens there."""
    with socket.create_server(("127.0.0.1", 0)) as silent, alarm(kind("mine"), tracker_link):
        rpc.connect_tracker(*silent.getsockname(), timeout=deadline_s)
