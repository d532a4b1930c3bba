"""A session's process: how it ends, what its client hears, what is left of it."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest

from pytest_tvmrpc.errors import RPCError, SessionKickedError, remote_error
from pytest_tvmrpc.protocol.dialect import FFI, LEGACY
from pytest_tvmrpc.server.directory import make_directory
from pytest_tvmrpc.server.fresh import shared_file
from pytest_tvmrpc.server.output import SessionOutput
from pytest_tvmrpc.server.process import DIALECT, PROGRESS, STAGE, Stage, Start
from pytest_tvmrpc.server.worker import Worker, WorkerState, kicked
from pytest_tvmrpc.session.serving import Progress

Begin = Callable[..., Worker]

# Python 3.12 warns of forks in processes with threads, as pytest-xdist's are; the server has none.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


class Client:
    """The other end of a session's socket."""

    def __init__(self, deadline_s: float) -> None:
        self.socket, self.served = socket.socketpair()
        self.socket.settimeout(deadline_s)

    def told(self) -> List[RPCError]:
        """The errors that it was told before the socket was closed."""
        content = b"".join(iter(lambda: self.socket.recv(4096), b""))
        return [
            remote_error(str(FFI.decode_values(content, 12, len(content))[0])) for _ in content[:1]
        ]


@pytest.fixture(name="client")
def _client(deadline_s: float) -> Iterator[Client]:
    """A client that has been admitted."""
    client = Client(deadline_s)
    with client.socket, client.served:
        yield client


@pytest.fixture(name="begin")
def _begin(client: Client) -> Iterator[Begin]:
    """``begin(serve, session_timeout=0)``: a session that does just that."""
    workers: List[Worker] = []

    def begin(serve: Callable[..., Any], session_timeout: float = 0.0) -> Worker:
        workers.append(
            Worker(
                client.served,
                "somewhere",
                make_directory(),
                session_timeout,
                serve,
                [client.socket.fileno()],
            )
        )
        return workers[-1]

    yield begin
    for worker in workers:
        if worker.state is not WorkerState.EXITED:
            worker.stop(time.monotonic(), 0)
            worker.tick(time.monotonic(), 0)
            ended(worker)
        worker.directory.remove()


def ended(worker: Worker) -> str:
    """Waits for the end of the process; how it ended. What it had is released."""
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    outcome = worker.reap()
    assert outcome is not None
    assert worker.connection.fileno() == -1
    worker.dispose()
    worker.dispose()
    return outcome


def calling(then: Callable[[], object]) -> Callable[..., None]:
    """A session that is in a call when it does this."""

    def serve(start: Start) -> None:
        start.shared[STAGE] = Stage.SERVING
        start.shared[PROGRESS] = Progress.CALLING
        then()

    return serve


def opened(then: Callable[[], object]) -> Callable[..., None]:
    """A session that waits for requests when it does this."""

    def serve(start: Start) -> None:
        start.shared[STAGE] = Stage.OPEN
        then()

    return serve


def die(number: int) -> Callable[[], None]:
    """Ends the process by a signal, without the report of pytest's faulthandler."""

    def act() -> None:
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    return act


def wait_for_ever() -> None:
    """Does nothing, until it is killed."""
    while True:
        signal.pause()


def test_no_connection_to_a_session(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The descriptor that it was given is closed all the same, and no other stays open."""
    directory = make_directory()

    def socketpair() -> Any:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socketpair", socketpair)
        before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="Too many"):
            Worker(
                client.served, "", directory, 0, print, [], None, None, shared_file(directory.path)
            )
        assert set(os.listdir("/proc/self/fd")) == before
    directory.remove()


def test_a_clean_end(begin: Begin, client: Client) -> None:
    """The client just sees the end; what the session wrote is in its directory."""

    def serve(start: Start) -> None:
        assert os.getcwd() == os.path.realpath(start.directory)
        os.makedirs("a/b")
        Path("a/b/c").write_text("abc")
        start.connection.sendall(b"served")

    worker = begin(serve)
    assert client.socket.recv(6) == b"served"
    assert ended(worker) == "session ended"
    assert client.told() == []
    assert Path(worker.directory.path, "a/b/c").read_text() == "abc"
    assert worker.state is WorkerState.EXITED


@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        (die(signal.SIGSEGV), "was killed by SIGSEGV"),
        (die(signal.SIGKILL), "was killed by SIGKILL"),
        (die(signal.SIGRTMIN + 5), "was killed by signal"),
        (lambda: os._exit(3), "exited with 3"),
        (lambda: os._exit(0), "exited with 0"),
    ],
    ids=["SIGSEGV", "SIGKILL", "a signal without a name", "exit", "clean exit"],
)
def test_a_crash_in_a_call(begin: Begin, client: Client, how: Any, outcome: str) -> None:
    """The client is told how the process ended, and that it was in its call."""
    worker = begin(calling(how))
    assert outcome in ended(worker)
    (error,) = client.told()
    assert type(error).__name__ == "SessionCrashedError"
    assert outcome in str(error)


@pytest.mark.parametrize(("status", "outcome"), [(3, "exited with 3"), (0, "exited with 0")])
def test_a_crash_between_two_requests(
    begin: Begin, client: Client, status: int, outcome: str
) -> None:
    """The client is told all the same: its next request is answered by it."""

    def serve(start: Start) -> None:
        start.shared[STAGE] = Stage.OPEN
        os._exit(status)

    assert ended(begin(serve)) == outcome
    (error,) = client.told()
    assert type(error).__name__ == "SessionCrashedError"
    assert f"{outcome} between two requests" in str(error)


def test_a_crash_within_an_answer(begin: Begin, client: Client) -> None:
    """Where a word would be read as part of an answer, none is said."""

    def serve(start: Start) -> None:
        start.shared[STAGE] = Stage.OPEN
        start.shared[PROGRESS] = Progress.ANSWERING
        os._exit(3)

    assert ended(begin(serve)) == "exited with 3"
    assert client.told() == []


def test_a_crash_after_the_client_has_left(begin: Begin, client: Client) -> None:
    """It is reported, and nobody is told."""

    def serve() -> None:
        client.served.sendall(b"!")
        wait_for_ever()

    worker = begin(opened(serve))
    assert client.socket.recv(1) == b"!"
    worker.expect_end(time.monotonic() - 1)
    worker.tick(time.monotonic(), 0.5)
    assert ended(worker) == "was killed by SIGKILL"
    assert client.told() == []


def test_an_open_session_that_ends_by_itself(begin: Begin, client: Client) -> None:
    """As its client said Shutdown, or was told enough: that is no crash."""
    assert ended(begin(opened(lambda: None))) == "session ended"
    assert client.told() == []


def test_a_session_that_ends_within_a_request(begin: Begin, client: Client) -> None:
    """By itself, as the client left or was told enough: that is no crash."""
    assert ended(begin(calling(lambda: None))) == "session ended"
    assert client.told() == []


def test_an_expired_session(begin: Begin, client: Client) -> None:
    """It is ended when its time is up, by a number of seconds in the words of TVM."""
    worker = begin(calling(wait_for_ever), session_timeout=2)
    now = time.monotonic()
    worker.tick(now, 0.5)
    assert worker.state is WorkerState.SERVING
    due = worker.next_wakeup()
    assert due is not None
    assert now < due <= now + 2
    worker.tick(due, 0.5)
    assert worker.state is WorkerState.STOPPING
    assert ended(worker) == "session expired"
    (error,) = client.told()
    assert type(error).__name__ == "RPCSessionTimeoutError"
    assert str(error) == (
        'Your 2.0s session has expired, try to increase the "session_timeout" value.'
    )


def test_the_time_to_open_a_session_is_cut(client: Client) -> None:
    """To exactly what is said, from its start; what is longer or said again changes nothing."""
    directory = make_directory()
    before = time.monotonic()
    worker = Worker(
        client.served, "somewhere", directory, 0.0, opened(wait_for_ever), [], opening_s=50.0
    )
    after = time.monotonic()
    try:
        for limit_s in (30.0, 30.0, 40.0):
            worker.limit_opening(limit_s)
            due = worker.next_wakeup()
            assert due is not None
            assert before + 30 - 1e-6 <= due <= after + 30 + 1e-6
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        ended(worker)
        directory.remove()


def test_who_does_not_listen_is_killed(begin: Begin, client: Client) -> None:
    """SIGTERM first, SIGKILL when the grace is over."""

    def stubborn() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        client.served.sendall(b"!")
        wait_for_ever()

    worker = begin(calling(stubborn))
    assert client.socket.recv(1) == b"!"
    now = time.monotonic()
    worker.stop(now, 0.5)
    worker.stop(now + 0.2, 0.5)
    assert worker.next_wakeup() == now + 0.5
    worker.tick(now + 0.4, 0.5)
    assert worker.reap() is None
    worker.tick(now + 0.5, 0.5)
    assert ended(worker) == "was killed by SIGKILL"


def test_a_client_that_left(begin: Begin) -> None:
    """The process has its grace to notice, then it is killed."""
    worker = begin(calling(wait_for_ever))
    now = time.monotonic()
    worker.expect_end(now + 1)
    assert worker.next_wakeup() == now + 1
    worker.tick(now + 1, 0.5)
    assert ended(worker) == "was killed by SIGKILL"


def test_descriptors_of_the_parent(begin: Begin, client: Client) -> None:
    """A session's process has closed those that it was told to: it holds nobody else's ends."""
    theirs = client.socket.fileno()

    def serve(start: Start) -> None:
        try:
            os.fstat(theirs)
        except OSError:
            start.connection.sendall(b"closed")

    worker = begin(serve)
    assert client.socket.recv(6) == b"closed"
    ended(worker)


def test_a_kick(begin: Begin, client: Client) -> None:
    """The client is told who ended its session, by an error of its own."""
    worker = begin(calling(wait_for_ever))
    worker.stop(time.monotonic(), 0.5, kicked("ended by ann@farm: maintenance"))
    assert ended(worker) == "kicked: ended by ann@farm: maintenance"
    (error,) = client.told()
    assert isinstance(error, SessionKickedError)
    assert str(error) == "ended by ann@farm: maintenance"


def test_the_dialect_of_the_client(begin: Begin, client: Client) -> None:
    """The supervisor's word is in the dialect that the session has found its client to speak."""

    def serve(start: Start) -> None:
        start.shared[DIALECT] = 1
        start.shared[PROGRESS] = Progress.CALLING
        os._exit(3)

    ended(begin(serve))
    content = b"".join(iter(lambda: client.socket.recv(4096), b""))
    (text,) = LEGACY.decode_values(content, 12, len(content))
    assert str(text).startswith("SessionCrashedError: ")


def test_a_process_that_cannot_even_start(begin: Begin, client: Client) -> None:
    """The client is told that it was before the first request."""

    def serve(start: Start) -> None:
        raise OSError("no such interpreter")

    assert ended(begin(serve)) == "exited with 1"
    (error,) = client.told()
    assert "exited with 1 before it served anything" in str(error)


@pytest.mark.parametrize("limit", [100, 1 << 20])
def test_what_a_session_printed_last(
    client: Client, capfd: pytest.CaptureFixture[str], limit: int
) -> None:
    """It is passed on up to a limit, and its end is in the message of a crash."""

    def serve(start: Start) -> None:
        start.shared[PROGRESS] = Progress.CALLING
        os.write(1, b"." * 5000 + b"\n")
        os.write(2, b"on fire\n")
        os._exit(3)

    output = SessionOutput(limit)
    close = [client.socket.fileno(), output.fileno()]
    worker = Worker(client.served, "somewhere", make_directory(), 0.0, serve, close, output)
    try:
        ended(worker)
    finally:
        worker.directory.remove()
    (error,) = client.told()
    assert str(error).endswith(".\non fire")
    passed = capfd.readouterr().err
    assert passed == ("." * 5000 + "\non fire\n")[:limit]
    assert output.dropped_nbytes == 5009 - len(passed)
