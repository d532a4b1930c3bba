"""What a session printed, as its server tells it: every kind of server, every kind of output."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.errors import CompilerError, RemoteError, SessionCrashedError
from pytest_tvmrpc.protocol.dialect import FFI, LEGACY
from pytest_tvmrpc.runtime.toolchain import compile_library
from pytest_tvmrpc.server import kept, output
from pytest_tvmrpc.server.kept import ANSWER, AT_THE_END, QUESTION
from pytest_tvmrpc.server.output import SessionOutput
from pytest_tvmrpc.server.printed import printed

pytestmark = pytest.mark.each_kind

MIB = 1 << 20


@pytest.fixture(name="prints", scope="session")
def _prints(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library of functions that print."""
    output = tmp_path_factory.mktemp("prints") / "prints.so"
    try:
        return compile_library(Path(__file__).parent / "prints.c", output)
    except CompilerError as error:
        pytest.skip(str(error))


def _register() -> None:
    from pytest_tvmrpc import runtime

    def say() -> None:
        print("said in Python")

    runtime.register_func("own.say", say)


@pytest.fixture(name="connect", scope="module", params=["fork", "no_fork", "proxy", "tracker"])
def _connect(request: pytest.FixtureRequest) -> Iterator[Callable[[], rpc.RPCSession]]:
    """``connect()``: a session with a server of this kind, which has ``own.say``."""
    options: Dict[str, Any] = {"silent": True, "server_init_callback": _register}
    with contextlib.ExitStack() as stack:
        if request.param == "proxy":
            proxy = stack.enter_context(rpc.Proxy(port=0, log=subprocess.DEVNULL))
            stack.enter_context(rpc.Server(port=proxy.port, is_proxy=True, key="k", **options))
            yield lambda: rpc.connect(proxy.host, proxy.port, "k")
        elif request.param == "tracker":
            tracker = stack.enter_context(rpc.Tracker(port=0, silent=True))
            address = (tracker.host, tracker.port)
            stack.enter_context(rpc.Server(port=0, tracker_addr=address, key="k", **options))
            farm = stack.enter_context(rpc.connect_tracker(*address))
            yield lambda: farm.request("k", wait_for_key=True)
        else:
            no_fork = request.param == "no_fork"
            server = stack.enter_context(rpc.Server(port=0, no_fork=no_fork, **options))
            yield lambda: rpc.connect(server.host, server.port)


def told(remote: rpc.RPCSession, since: int = 0) -> str:
    """What was printed from there on, all of which there has to be."""
    output = remote.output(since)
    assert output is not None
    assert output.dropped == 0
    assert output.end - since == len(output.content)
    return output.text


# Every kind of server


@pytest.mark.parametrize("dialect", [FFI, LEGACY], ids=["ffi", "legacy"])
def test_whoever_prints(connect: Any, prints: str, dialect: Any) -> None:
    """Python, C's buffers and its stderr, and processes that the session started; in order."""
    with connect() as remote:
        remote._endpoint.speak(dialect)
        assert told(remote) == ""
        remote.upload(prints)
        module = remote.load_module("prints.so")
        module["say"]()
        assert told(remote) == "said in C\n"
        remote.get_function("own.say")()
        module["complain"]()
        module["have_a_child_say"]()
        assert sorted(told(remote, 10).splitlines()) == [
            "said by a child",
            "said in Python",
            "wrong",
        ]
        assert told(remote).startswith("said in C\n")


def test_cut_by_what_was_there_before(connect: Any, prints: str) -> None:
    """Each part begins where the one before ended; a session has nothing of others before it."""
    with connect() as remote:
        remote.upload(prints)
        module = remote.load_module("prints.so")
        offset = 0
        for _ in range(3):
            module["say"]()
            output = remote.output(since=offset)
            assert output.text == "said in C\n"
            assert output.end == offset + 10
            offset = output.end
        assert remote.output(since=offset) == (b"", 30, 0)
        assert remote.output(limit=0) == (b"", 30, 30)
        assert remote.output(since=5, limit=12) == (b"C\nsaid in C\n", 30, 13)
        assert remote.output(since=1 << 40) == (b"", 30, 0)


def test_five_mebibytes(connect: Any, prints: str) -> None:
    """The last one is there, without a gap, and the rest is counted."""
    with connect() as remote:
        remote.upload(prints)
        remote.load_module("prints.so")["count"]()
        output = remote.output()
        assert (output.end, output.dropped) == (5 * MIB, 4 * MIB)
        assert output.text.split() == [f"{number:07d}" for number in range(524288, 655360)]
        assert remote.output(5 * MIB - 16) == (b"0655358\n0655359\n", 5 * MIB, 0)
        assert remote.output(MIB, limit=8) == (b"0655359\n", 5 * MIB, 4 * MIB - 8)


# Whatever happens to it


def test_a_crash_has_the_last_lines(start_server: Any, deaths: str) -> None:
    """The session is over and its output with it; the error has what matters."""
    module = start_server().load(deaths)
    with pytest.raises(SessionCrashedError, match="the tensor core is on fire"):
        module["say_and_segfault"]()
    with pytest.raises(SessionCrashedError.__base__, match="is over"):
        module.session.output()


def test_a_flood_meanwhile(server: Any, deaths: str) -> None:
    """Somebody in the background prints for ever: an answer comes, and it is the end of it."""
    with server.connect() as remote:
        remote.upload(deaths)
        remote.load_module("deaths.so")["flood_in_the_background"]()
        for _ in range(3):
            output = remote.output()
            assert output.end >= len(output.content)
            assert output.dropped == output.end - len(output.content)
            assert set(output.content) <= set(b"x\n")
    assert server.serves()


def test_a_server_that_stands_still(start_server: Any, prints: str) -> None:
    """The client learns it in time; later it is told what it missed, and no old answer."""
    server = start_server()
    module = server.load(prints)
    with module.session as remote:
        module["say"]()
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(RemoteError, match=r"within 2 s what was printed.*try again"):
                remote.output()
        finally:
            os.kill(server.pid, signal.SIGCONT)
        module["say"]()
        assert told(remote) == "said in C\nsaid in C\n"


def test_a_kernel_that_writes_everywhere(start_server: Any, prints: str, wait_until: Any) -> None:
    """Nonsense on the connection between session and server harms the session only."""
    server = start_server()
    module = server.load(prints)
    with contextlib.suppress(rpc.RPCError):
        module["write_everywhere"]()
    module.session.close()
    assert server.serves()
    wait_until(lambda: server.is_at_rest, "nothing is left of the session")


@pytest.mark.parametrize("arguments", [(-1,), ("0",), (0, -1), (1.5,), (True,), (0, "all")])
def test_what_is_no_number_of_bytes(
    server: Any, arguments: Tuple[Any, ...], server_kind: str
) -> None:
    """Refused, and the session goes on."""
    if server_kind == "native" and arguments == (True,):
        pytest.skip("which is 1 to functions in C, as clients up to TVM 0.17 send no other")
    with server.connect() as remote:
        function = remote.get_function("tvmrpc.server.output")
        with pytest.raises(
            (ValueError, RemoteError),
            match=r"no number of bytes|expected an? (offset|number of bytes)",
        ):
            function(*arguments)
        assert function(0) == bytes(8)


def test_sessions_in_a_row(start_server: Any, prints: str, wait_until: Any) -> None:
    """Nothing of one stays for the next, nor in the server."""
    server = start_server()
    assert server.serves()
    wait_until(lambda: server.is_at_rest, "nothing is left of the first session")
    before = server.descriptors
    for _ in range(5):
        module = server.load(prints)
        with module.session as remote:
            module["say"]()
            assert told(remote) == "said in C\n"
    wait_until(lambda: server.is_at_rest, "nothing is left of the sessions")
    assert server.descriptors == before


# The two ends without a server


class Printer:
    """A session's output, with somebody who answers questions of it in a thread."""

    def __init__(self) -> None:
        self.output = SessionOutput(0)
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.answered: List[bool] = []

    def print(self, content: bytes) -> None:
        """Writes it as the session's process does, and has it taken, or the pipe is full."""
        for start in range(0, len(content), 4096):
            os.write(self.output.writer, content[start : start + 4096])
            self.output.take()

    def ask(self, since: int, limit: Any = None) -> Tuple[int, bytes]:
        """The end, and the text."""
        over = threading.Event()

        def serve() -> None:
            while not over.wait(0.0005):
                self.answered.append(self.output.answer(self.ours.fileno()))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            answer = printed(self.theirs.fileno(), since, limit)
        finally:
            over.set()
            thread.join()
        return int.from_bytes(answer[:8], "little"), answer[8:]


@pytest.fixture(name="printer")
def _printer() -> Iterator[Printer]:
    """Both ends in this process."""
    printer = Printer()
    with printer.ours, printer.theirs:
        yield printer
        printer.output.close()
        printer.output.close()


@pytest.mark.parametrize("size", [1, 4096, 70_000, 100_003])
@pytest.mark.parametrize("room", [4096, 65536, 100_000])
def test_the_end_is_kept(
    printer: Printer, monkeypatch: pytest.MonkeyPatch, size: int, room: int
) -> None:
    """As much as there is room for, from wherever, in whatever sizes it came."""
    monkeypatch.setattr(kept, "KEPT_NBYTES", room)
    monkeypatch.setattr(output, "_PART_NBYTES", min(65536, room))
    monkeypatch.setattr(kept, "PIECE_NBYTES", 1000)
    content = b""
    for number in range(3):
        part = os.urandom(size + number)
        printer.print(part)
        content += part
        for since in (0, len(content) // 2, len(content) - 1, len(content)):
            expected = content[max(since, len(content) - room) :]
            assert printer.ask(since) == (len(content), expected)
        assert printer.ask(0, 7) == (len(content), content[-7:])
    assert all(printer.answered)


def test_silence_costs_no_memory(printer: Printer) -> None:
    """There is a mapping once something was printed, and none after the end."""
    assert printer.output._kept is None
    printer.print(b"x")
    assert printer.output._kept is not None
    assert printer.ask(0) == (1, b"x")
    printer.output.close()
    assert printer.output._kept is None
    assert not printer.output.answer(printer.ours.fileno())


def test_no_memory_to_keep_it(printer: Printer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted all the same, and what comes when there is some again is kept."""

    def refuse(*arguments: object) -> Any:
        raise OSError(12, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(mmap, "mmap", refuse)
        printer.print(b"lost")
        assert not printer.output.answer(printer.ours.fileno())
    assert printer.output.nbytes == 4
    printer.print(b"kept")
    assert printer.ask(0) == (8, b"kept")


def test_an_answer_that_nobody_takes(printer: Printer) -> None:
    """The supervisor does not wait for a process that asks and does not read."""
    printer.print(b"x" * 60_000)
    for _ in range(100):
        printer.theirs.sendall(QUESTION.pack(1, 0))
        assert printer.output.answer(printer.ours.fileno())


@pytest.mark.parametrize("words", [b"", b"x", QUESTION.pack(1, 0)[:-1]])
def test_what_is_no_question(printer: Printer, words: bytes) -> None:
    """The end of it, or a part of one: nothing is answered any more."""
    printer.theirs.sendall(words)
    printer.theirs.shutdown(socket.SHUT_WR)
    assert not printer.output.answer(printer.ours.fileno())


def test_an_old_answer_is_passed_over(printer: Printer) -> None:
    """That of a question which was given up."""
    printer.ours.sendall(ANSWER.pack(AT_THE_END, 0, 3, 3) + b"old")
    printer.print(b"new!")
    assert printer.ask(0) == (4, b"new!")


def test_a_supervisor_that_is_gone(printer: Printer) -> None:
    """An error at once, and no wait."""
    printer.ours.close()
    with pytest.raises(OSError, match=r"has ended|Broken pipe|reset"):
        printed(printer.theirs.fileno(), 0, None)
