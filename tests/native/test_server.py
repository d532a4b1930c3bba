"""tvmrpc-server as a program: its options, and trackers that say anything.

What its clients see of it is tested with both kinds of server, in tests/server.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator, List

import pytest

from pytest_tvmrpc import network, rpc
from pytest_tvmrpc.errors import RPCSessionTimeoutError, SessionKickedError, StartError
from pytest_tvmrpc.server.launch import NativeServer

if TYPE_CHECKING:
    import socket

MAGIC = struct.pack("<i", 0x2F271)


def said(program: str, *options: str, status: int = 2) -> str:
    """What it prints, and that it ends with this status."""
    done = subprocess.run([program, *options], capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def test_help_and_version(native_server: str) -> None:
    """The help has each option, and an example of a board in a farm."""
    text = said(native_server, "--help", status=0)
    for option in ("--host", "--port-end", "--tracker", "--key", "--work-dir", "--through-proxy"):
        assert f"\n  {option} " in text
    assert "--tracker FARM:9190 --key jetson" in text
    assert said(native_server, "--version", status=0).startswith("tvmrpc-server ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--por=1"], "there is no option --por=1; see --help"),
        (["port"], "port is no option"),
        (["--port"], "--port expects a value"),
        (["--port=x"], "--port x: expected a number"),
        (["--port=-1"], "--port -1: expected a number"),
        (["--port", "65536"], "port 65536 is none"),
        (["--idle-timeout=nan"], "--idle-timeout nan: expected seconds"),
        (["--timeout", "inf"], "--timeout inf: expected seconds"),
        (["--silent=1"], "there is no option --silent=1"),
        (["--tracker=127.0.0.1:9190"], "Need key to present type of resource"),
        (["--key=k", "--tracker=nowhere"], "nowhere is no address; expected HOST:PORT"),
        (["--key=k", "--tracker=::1"], "is no address"),
        (["--key=k", "--tracker=h:70000"], "is no address"),
        (["--key=a b"], "has a blank in it"),
        (["--key=" + "k" * 257], "longer than the 256 bytes"),
        (["--through-proxy", "--key=k", "--port=0"], "needs the proxy's port and a key"),
    ],
)
def test_options_that_cannot_be(native_server: str, options: List[str], message: str) -> None:
    """One line says what is wrong, and the status is 2."""
    text = said(native_server, *options)
    assert text.startswith("error: ")
    assert message in text
    assert text.count("\n") == 1


def test_both_forms_of_an_option(native_server: str, tmp_path: Path) -> None:
    """With a blank or with an equals sign; sessions are where --work-dir says, and end there."""
    folder = tmp_path / "work"
    folder.mkdir()
    options = ["--work-dir", str(folder), "--idle-timeout=5"]
    server = NativeServer(native_server, options, port=0, key="k", silent=True)
    with server, rpc.connect(server.host, server.port, "k") as remote:
        remote.upload(b"abc", "a.bin")
        (session,) = folder.iterdir()
        assert (session / "a.bin").read_bytes() == b"abc"
    assert not list(folder.iterdir())


def test_a_folder_that_is_not_there(native_server: str, tmp_path: Path) -> None:
    """It is known at the start, and named."""
    with pytest.raises(StartError, match=r"no place for the directories of sessions.*nowhere"):
        NativeServer(native_server, [f"--work-dir={tmp_path}/nowhere"], port=0, log=-3)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals(native_server: str, number: int, wait_until: Callable[..., None]) -> None:
    """Each ends it, and the session with it."""
    with NativeServer(native_server, port=0, silent=True) as server:
        remote = rpc.connect(server.host, server.port)
        os.kill(server.program.pid, number)
        wait_until(lambda: server.program.ended(), "the server ends")
        assert server.program.ended() == "exited with 0"
        with pytest.raises(rpc.RPCError):
            remote.get_function("rpc.test.addone")(1)
        remote.close()


def test_it_is_small(native_server: str) -> None:
    """One that waits for clients, and has had one, has less than 2 MiB of its own."""
    with NativeServer(native_server, port=0, silent=True) as server:
        with rpc.connect(server.host, server.port) as remote:
            assert remote.get_function("rpc.test.addone")(1) == 2
        usage = Path(f"/proc/{server.program.pid}/smaps_rollup").read_text()
        (line,) = [line for line in usage.splitlines() if line.startswith("Pss:")]
        assert int(line.split()[1]) < 2048


# --- trackers -----------------------------------------------------------------------------------


class Script:
    """A tracker that says what a test wants: the server's connection to it."""

    def __init__(self, listener: socket.socket, deadline_s: float) -> None:
        self.socket, _ = listener.accept()
        self.socket.settimeout(deadline_s)
        assert self.exactly(4) == MAGIC

    def exactly(self, nbytes: int) -> bytes:
        """So many bytes."""
        received = b""
        while len(received) < nbytes:
            part = self.socket.recv(nbytes - len(received))
            assert part, f"closed after {received!r}"
            received += part
        return received

    def hear(self) -> Any:
        """The next message."""
        (length,) = struct.unpack("<i", self.exactly(4))
        return json.loads(self.exactly(length))

    def say(self, text: bytes) -> None:
        """A frame."""
        self.socket.sendall(struct.pack("<i", len(text)) + text)

    def register(self) -> str:
        """Answers as a tracker does until the server is registered; its match key."""
        self.socket.sendall(MAGIC)
        assert self.hear()[1]["key"].startswith("server:")
        match_key: str = self.hear()[2][1]
        assert self.hear()[1]["orders"] is True
        for _ in range(3):
            self.say(b"0")
        return match_key


# --- what only its way to do things can get wrong -----------------------------------------------


def test_a_function_of_its_own_that_is_removed(native_server: str) -> None:
    """It is not looked at any more, by what is told from others by it, either."""
    with NativeServer(native_server, port=0, silent=True) as server, rpc.connect(
        server.host, server.port
    ) as remote:
        assert remote.get_function("ffi.FunctionRemoveGlobal")("tvm.rpc.server.upload")
        evaluator = remote.get_function("runtime.RPCTimeEvaluator")
        measured = evaluator(None, "testing.nop", 1, 0, 2, 2, 0, 1, 0, 1, 0, "")()
        assert len(measured) == 16
        assert remote.get_function("testing.echo")(b"x" * 100_000) == b"x" * 100_000


def test_a_way_through_it(
    native_server: str, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """Neither side waits for the other in it, and its limit for idle clients holds."""
    log = tmp_path / "log"
    with log.open("w") as output, NativeServer(
        native_server, port=0, silent=True
    ) as inner, NativeServer(native_server, port=0, log=output, idle_timeout=1.5) as outer:
        way = ["rpc.Connect", inner.host, inner.port, "", False]
        with rpc.connect(outer.host, outer.port, session_constructor_args=way) as remote:
            echo = remote.get_function("testing.echo")
            content = bytes(range(256)) * 200
            with remote.pipeline() as pipeline:
                answers = [pipeline.call(echo, content) for _ in range(400)]
            assert all(answer.result() == content for answer in answers)
            remote.get_function("testing.sleep")(2.0)
            wait_until(lambda: "asked nothing for too long" in log.read_text(), "it is over")
            with pytest.raises(RPCSessionTimeoutError, match=r"idle for 1\.5 s"):
                echo(1)


@pytest.fixture(name="listener")
def _listener(deadline_s: float) -> Iterator[socket.socket]:
    """Where the server expects its tracker."""
    with network.listen("127.0.0.1", 0) as listener:
        listener.settimeout(deadline_s)
        yield listener


@pytest.fixture(name="start")
def _start(native_server: str, listener: socket.socket) -> Callable[[], "subprocess.Popen[bytes]"]:
    """``start()``: a server of that tracker, whose output is to be read."""
    options = ["--port=0", f"--tracker=127.0.0.1:{listener.getsockname()[1]}", '--key=b"o\\ard']
    return lambda: subprocess.Popen(
        [native_server, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


GARBAGE = {
    "no magic": b"HTTP/1.1 400 Bad Request\r\n",
    "length 0": MAGIC + struct.pack("<i", 0),
    "length -1": MAGIC + struct.pack("<i", -1),
    "length 2^20+1": MAGIC + struct.pack("<i", (1 << 20) + 1),
    **{
        name: MAGIC + struct.pack("<i", len(text)) + text
        for name, text in {
            "no json": b"hello",
            "half an array": b"[0",
            "half a text": b'["\\',
            "half an escape": b'["\\u12',
            "nested": b"[" * 100_000,
            "nan": b"NaN",
            "number": b"1e",
            "refused": b"-1",
            "two values": b"0 0",
            "a broken order": b'{"kick": 5}',
            "an order without a key": b'{"kick": "x", "match_key": [1]}',
        }.items()
    },
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_what_is_no_tracker(
    start: Any, listener: socket.socket, garbage: bytes, deadline_s: float
) -> None:
    """It is left with a line, and tried again."""
    process = start()
    try:
        first = Script(listener, deadline_s)
        first.socket.sendall(garbage)
        again = Script(listener, deadline_s)
        again.register()
        again.socket.close()
        first.socket.close()
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=deadline_s)
    assert b"is not there: " in errors
    assert b"registered again with the tracker" in errors


def _call_for_ever(remote: rpc.RPCSession) -> None:
    while True:
        remote.get_function("rpc.test.addone")(1)


def test_a_tracker_that_says_a_lot(start: Any, listener: socket.socket, deadline_s: float) -> None:
    """A key with quotes arrives; answers in parts, with blanks and unknown orders, are understood;
    and the reason of a kick is shown to the client whatever its escapes.
    """
    process = start()
    try:
        tracker = Script(listener, deadline_s)
        match_key = tracker.register()
        assert match_key.startswith('b"o\\ard:0.')
        port = int(process.stdout.readline().rpartition(b":")[2])
        tracker.say(b' {"later": [1, {"a": null}]} ')
        assert tracker.hear() == [7]
        frame = json.dumps(["other", match_key]).encode()
        for byte in struct.pack("<i", len(frame)) + frame:
            tracker.socket.sendall(bytes([byte]))
            time.sleep(0)
        remote = rpc.connect("127.0.0.1", port, match_key)
        order = {"kick": 'tea\n"\u00e9\U0001f375', "match_key": match_key}
        tracker.say(json.dumps(order).encode())
        with pytest.raises(SessionKickedError, match=r"tea.\"\u00e9\U0001f375"):
            _call_for_ever(remote)
        remote.close()
        tracker.socket.close()
    finally:
        process.terminate()
        process.communicate(timeout=deadline_s)
