"""PopenSession: a session with a program over two descriptors, how it begins and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.errors import (
    ConnectionLostError,
    DeadlineError,
    RemoteError,
    RemoteProtocolError,
    SessionCrashedError,
    StartError,
)

FOLDER = str(Path(__file__).parents[2])

SERVING = """#!{python} -SE
import os, socket, sys, tempfile
sys.path.insert(0, {folder!r})
from pytest_tvmrpc.session.channel import SocketChannel
from pytest_tvmrpc.session.environment import Environment
from pytest_tvmrpc.session.local import LocalSession
from pytest_tvmrpc.session.serving import Server, StreamBrokenError

first, second = map(int, sys.argv[-2:])
os.close(second)
with tempfile.TemporaryDirectory() as folder:
    session = LocalSession(Environment(folder))
    session.environment.add("pid", os.getpid)
    session.environment.add("arguments", lambda: " ".join(sys.argv[1:-2]))
    session.environment.add("say", lambda text: print(text, flush=True))
    session.environment.add("leave", lambda status: os._exit(status))
    session.environment.add("sleeper", lambda: {spawn}.Popen(["sleep", "1000"]).pid)
    try:
        Server(SocketChannel(socket.socket(fileno=first), "the client"), session).serve()
    except (StreamBrokenError, OSError):
        pass
"""
"""A Popen server: our own answering end at the descriptors that it is given."""

Write = Callable[..., str]


@pytest.fixture(name="write")
def _write(tmp_path: Path) -> Write:
    """``write(text)`` makes a program of a script, and returns its path."""

    def write(text: str, mode: int = 0o755) -> str:
        path = tmp_path / "program"
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    return write


@pytest.fixture(name="program")
def _program(write: Write) -> str:
    """A program that serves."""
    return write(
        SERVING.format(python=sys.executable, folder=FOLDER, spawn="__import__('subprocess')")
    )


def is_there(pid: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("form", [str, Path, lambda path: Path(path).read_bytes()])
def test_a_session(program: str, form: Callable[[str], Any]) -> None:
    """By path or as bytes; the process has ended and is gone when the session is closed."""
    with rpc.PopenSession(form(program)) as session:
        assert isinstance(session, rpc.RPCSession)
        assert session.get_function("rpc.test.addone")(1) == 2
        pid = session.get_function("pid")()
        assert is_there(pid)
        tensor = runtime.tensor([1.5, 2.5], session.cpu(0))
        assert tensor.numpy().tolist() == [1.5, 2.5]
        large = bytes(range(256)) * 4096
        session.upload(large, "large.bin")
        assert session.download("large.bin") == large
        assert (session.is_ours, session.dialect, session.lost) == (True, "ffi", False)
        assert repr(session).endswith(", open>")
    assert not is_there(pid)
    session.close()
    with pytest.raises(ConnectionLostError, match="it was closed"):
        session.get_function("pid")


def test_arguments_stand_before_the_descriptors(program: str) -> None:
    """So a program can be an emulator, whose argument is the program that it runs."""
    with rpc.PopenSession(program, arguments=["-L", "/usr"]) as session:
        assert session.get_function("arguments")() == "-L /usr"
    with pytest.raises(TypeError, match="arguments is 'ab'; expected a list of str"):
        rpc.PopenSession(program, arguments="ab")


def test_what_it_prints(program: str, tmp_path: Path) -> None:
    """It is kept for `output`, also beyond the end; or goes where it was told to."""
    with rpc.PopenSession(program) as session:
        session.get_function("say")("first")
        printed = session.output()
        assert printed is not None
        assert (printed.text, printed.end, printed.dropped) == ("first\n", 6, 0)
        session.get_function("say")("second")
        more = session.output(since=printed.end)
        assert more is not None
        assert more.text == "second\n"
        with pytest.raises(ValueError, match="expected 0 or more"):
            session.output(-1)
    last = session.output(limit=4)
    assert last is not None
    assert (last.text, last.dropped) == ("ond\n", 9)
    with open(tmp_path / "log", "w") as log, rpc.PopenSession(program, log=log) as session:
        session.get_function("say")("third")
        assert session.output() is None
    assert (tmp_path / "log").read_text() == "third\n"


def test_nothing_that_it_started_is_left(program: str, wait_until: Any) -> None:
    """A process of its group ends with it."""
    with rpc.PopenSession(program) as session:
        sleeper = session.get_function("sleeper")()
        assert is_there(sleeper)
    wait_until(lambda: not is_there(sleeper), "it was killed, and reaped by whoever reaps orphans")


def test_it_crashes(program: str) -> None:
    """The error says how it ended, in which call, and what it printed last."""
    session = rpc.PopenSession(program)
    session.get_function("say")("about to leave")
    leave = session.get_function("leave")
    with pytest.raises(SessionCrashedError) as caught:
        leave(7)
    text = str(caught.value)
    assert text.startswith(f"the program {program} exited with 7 in leave")
    assert text.endswith("; it printed last:\nabout to leave")
    assert session.lost
    with pytest.raises(ConnectionLostError, match="exited with 7"):
        leave(7)
    session.close()


def test_it_is_killed(program: str) -> None:
    """By a signal, between two requests."""
    with rpc.PopenSession(program) as session:
        addone, pid = session.get_function("rpc.test.addone"), session.get_function("pid")()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(
            SessionCrashedError, match=r"was killed by SIGKILL in .*; it printed nothing$"
        ):
            all(addone(number) for number in range(100_000))


def test_a_program_that_does_not_end(write: Write, program: str) -> None:
    """One that goes on when its session is over is killed."""
    text = (
        Path(program)
        .read_text()
        .replace("except (", "finally:\n        " + ("__import__('time').sleep(1000)\n    if 0: ("))
        .replace("):\n        pass", ")")
    )
    with rpc.PopenSession(write(text)) as session:
        pid = session.get_function("pid")()
    assert not is_there(pid)


NOT_STARTED: List[Any] = [
    ("#!/bin/sh\nexit 3\n", 0o755, "exited with 3 in opening the session; it printed nothing"),
    ("#!/bin/sh\necho out; echo why >&2; exit 4", 0o755, r"exited with 4 .* last:\nout\nwhy\n"),
    ("#!/bin/sh\nkill -SEGV $$\n", 0o755, "was killed by SIGSEGV in opening the session"),
    ("#!/bin/sh\n", 0o644, r"program is not executable\.; .* chmod \+x"),
    ("no program", 0o755, "cannot be started: Exec format error; expected a program for this"),
    ("#!/no/such/interpreter\n", 0o755, "cannot be started: No such file"),
]


@pytest.mark.parametrize(("text", "mode", "message"), NOT_STARTED)
def test_a_program_that_does_not_start(write: Write, text: str, mode: int, message: str) -> None:
    """It ends at once, or cannot be executed: how, and what it printed, is in the error."""
    with pytest.raises(StartError, match="(?s)" + message):
        rpc.PopenSession(write(text, mode))


def test_bytes_that_are_no_program() -> None:
    """Nothing stays of the file that was made of them."""
    with pytest.raises(StartError, match=r"server\.minrpc cannot be started: Exec format error"):
        rpc.PopenSession(b"nonsense")
    for binary in (None, 5, ["program"]):
        with pytest.raises(TypeError, match="expected its path, or its content as bytes"):
            rpc.PopenSession(binary)


def test_no_such_file(tmp_path: Path) -> None:
    """TVM's words, and what to do; a folder is no program."""
    with pytest.raises(StartError, match=r"nothing-there does not exist\.; expected the path"):
        rpc.PopenSession(tmp_path / "nothing-there")
    with pytest.raises(StartError, match=r"is not executable\."):
        rpc.PopenSession(tmp_path)


def test_a_program_that_says_nothing(write: Write) -> None:
    """It is given up at the limit, which the error names, and ended."""
    path = write("#!/bin/sh\nexec sleep 1000\n")
    with pytest.raises(DeadlineError, match=r"program .* for 0\.2 s; set handshake_timeout"):
        rpc.PopenSession(path, handshake_timeout=0.2)


def test_a_program_that_says_nonsense(write: Write) -> None:
    """What it is, is no answer; the program is ended."""
    path = write(
        f"#!{sys.executable} -SE\nimport os, sys, time\n"
        "os.write(int(sys.argv[-1]), b'nonsense' * 9)\ntime.sleep(1000)"
    )
    with pytest.raises(RemoteProtocolError):
        rpc.PopenSession(path)


def test_a_call_that_takes_long(program: str) -> None:
    """`call_timeout` is the limit, and the program ends though it is in the call."""
    with rpc.PopenSession(program, call_timeout=0.3) as session:
        pid = session.get_function("pid")()
        with pytest.raises(DeadlineError, match="call_timeout"):
            session.get_function("testing.sleep")(1000.0)
        assert not is_there(pid)


def test_it_ends_with_this_process(program: str, wait_until: Any) -> None:
    """However that ends, the program sees its connection close."""
    script = (
        f"import os, sys, time; sys.path.insert(0, {FOLDER!r}); from pytest_tvmrpc import rpc; "
        f"session = rpc.PopenSession({program!r}); "
        "print(session.get_function('pid')(), flush=True); time.sleep(1000)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    wait_until(lambda: not is_there(pid), "the program has ended")


def test_a_fork_leaves_it_alone(program: str) -> None:
    """The session is the parent's; a child's copy ends without ending the program."""
    with rpc.PopenSession(program) as session:
        addone = session.get_function("rpc.test.addone")
        child = os.fork()
        if not child:
            try:
                addone(1)
            except ConnectionLostError:
                session.close()
                os._exit(9)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        assert addone(1) == 2


@pytest.fixture(name="constructed")
def _constructed(server: rpc.Server, program: str) -> Iterator[rpc.RPCSession]:
    """A session with a program that a server has started."""
    with rpc.connect(
        server.host, server.port, session_constructor_args=["rpc.PopenSession", program, "more"]
    ) as session:
        yield session


def test_at_a_server(constructed: rpc.RPCSession) -> None:
    """`rpc.PopenSession` as a session constructor: the program is on the server's machine."""
    assert constructed.get_function("arguments")() == "more"
    tensor = runtime.tensor([1.5, 2.5], constructed.cpu(0))
    assert tensor.numpy().tolist() == [1.5, 2.5]
    constructed.upload(b"content", "file")
    assert constructed.listdir() == "file"
    with pytest.raises(ValueError, match=r"^boom$"):
        constructed.get_function("rpc.test.except")("boom")


def test_what_it_prints_at_a_server(constructed: rpc.RPCSession) -> None:
    """The server keeps it, as that of any session."""
    constructed.get_function("say")("hello")
    printed = constructed.output()
    assert printed is not None
    assert printed.text == "hello\n"


def test_it_crashes_at_a_server(constructed: rpc.RPCSession) -> None:
    """The client gets the words that it would get for a crash of the server's own session."""
    constructed.get_function("say")("about to leave")
    with pytest.raises(
        SessionCrashedError, match=r"program exited with 7 in .*\n.*about to leave$"
    ):
        constructed.get_function("leave")(7)


def test_bytes_at_a_server(server: rpc.Server, program: str) -> None:
    """The client sends the program along."""
    content = Path(program).read_bytes()
    constructor = ["rpc.PopenSession", content]
    with rpc.connect(server.host, server.port, session_constructor_args=constructor) as session:
        assert session.get_function("rpc.test.addone")(1) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "rpc.PopenSession with 0 arguments; expected the path"),
        ([b"nonsense"], "StartError: .*Exec format error|Exec format error"),
        (["/no/such/program"], r"/no/such/program does not exist\."),
        ([5], "5 is no program; expected its path"),
        (["/bin/true", 5], "each a str"),
    ],
)
def test_not_at_a_server(server: rpc.Server, arguments: List[Any], message: str) -> None:
    """The client is told why there is no session, and the server serves on."""
    constructor = ["rpc.PopenSession", *arguments]
    with pytest.raises(RemoteError, match=message):
        rpc.connect(server.host, server.port, session_constructor_args=constructor)
    with rpc.connect(server.host, server.port) as session:
        assert session.get_function("rpc.test.addone")(1) == 2
