"""`tvmrpc doctor`: each hop is checked, the first that fails is named, and it never hangs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest

from pytest_tvmrpc import network, rpc
from pytest_tvmrpc.exec import doctor, probing, server_checks
from pytest_tvmrpc.exec.checks import FailedCheckError
from pytest_tvmrpc.exec.tracker_checks import TrackerChecks
from pytest_tvmrpc.protocol.codes import HandshakeReply
from pytest_tvmrpc.protocol.handshake import HelloReader, encode_server_reply

pytestmark = pytest.mark.each_kind

FOLDER = str(Path(__file__).parents[2])

TRACKER_STEPS = ["tracker name", "tracker port", "tracker", "servers", "device"]
SERVER_STEPS = [
    *("server name", "server port", "handshake", "session", "cpu", "files", "call"),
    *("round trip", "bandwidth", "clean-up"),
]


@pytest.fixture(name="tracker", scope="module")
def _tracker() -> Iterator[rpc.Tracker]:
    with rpc.Tracker(port=0, silent=True) as tracker:
        yield tracker


@pytest.fixture(name="address", scope="module")
def _address(tracker: rpc.Tracker) -> Tuple[str, int]:
    return tracker.host, tracker.port


@pytest.fixture(name="board", scope="module")
def _board(address: Tuple[str, int], launch: Callable[..., Any]) -> Iterator[rpc.Server]:
    with launch(port=0, key="board", tracker_addr=address, silent=True) as server:
        yield server


@pytest.fixture(name="lone", scope="module")
def _lone(launch: Callable[..., Any]) -> Iterator[rpc.Server]:
    """A server without tracker."""
    with launch(port=0, key="lone", silent=True) as server:
        yield server


@pytest.fixture(name="examined")
def _examined(
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Tuple[int, Dict[str, Dict[str, Any]]]]:
    """``examined(*words)``: the exit status, and the steps by name."""

    def run(*words: str) -> Tuple[int, Dict[str, Dict[str, Any]]]:
        status = doctor.main([*words, "--json"])
        told = json.loads(capsys.readouterr().out)
        assert told["ok"] is (status == 0)
        return status, {step["name"]: step for step in told["steps"]}

    return run


def failed(steps: Dict[str, Dict[str, Any]]) -> Dict[str, Any]:
    """The one step that failed; all before it went well, all after it were not made."""
    outcomes = [step["outcome"] for step in steps.values()]
    place = outcomes.index("FAILED")
    assert set(outcomes[:place]) <= {"ok"}
    assert set(outcomes[place + 1 :]) <= {"skipped"}
    step = list(steps.values())[place]
    assert step["advice"]
    return step


# --- all is well --------------------------------------------------------------------------------


def test_a_farm_that_is_well(
    examined: Any, address: Tuple[str, int], tracker: rpc.Tracker, board: rpc.Server
) -> None:
    """Every step is made, with what a script wants to know; the device is free at the end."""
    status, steps = examined("--tracker", f"localhost:{tracker.port}")
    assert status == 0
    assert list(steps) == TRACKER_STEPS + SERVER_STEPS
    assert {step["outcome"] for step in steps.values()} == {"ok"}
    assert "127.0.0.1" in steps["tracker name"]["values"]["addresses"]
    assert steps["tracker"]["values"] == {"kind": "tvmrpc"}
    assert steps["servers"]["values"]["keys"] == {"board": {"servers": 1, "free": 1}}
    assert steps["device"]["values"]["port"] == board.port
    assert steps["handshake"]["values"] == {"server": "tvmrpc", "key": "board"}
    assert steps["round trip"]["values"]["calls"] > 1
    assert steps["bandwidth"]["values"]["down_bytes_per_s"] > 1e6
    with rpc.connect_tracker(*address) as farm:
        assert [server.state for server in farm.who().servers] == ["free"]


def test_a_server_without_tracker(
    lone: rpc.Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own steps only, one line each, without colour as this is no terminal."""
    monkeypatch.setenv("COLUMNS", "100")
    assert doctor.main([f"127.0.0.1:{lone.port}", "--key", "lone"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[21:33].strip() for line in lines[:-1]] == SERVER_STEPS
    assert all(line.startswith("ok       ") for line in lines[:-1])
    assert lines[-1] == "all is well"
    assert "\033" not in "".join(lines)


def test_colours_on_a_terminal(
    lone: rpc.Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, and not where NO_COLOR is set."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    for is_wanted in (True, False):
        monkeypatch.setenv("NO_COLOR", "" if is_wanted else "1")
        assert doctor.main([f"127.0.0.1:{lone.port}"]) == 1
        assert ("\033[31;1mFAILED" in capsys.readouterr().out) is is_wanted


def test_a_server_behind_a_proxy(examined: Any) -> None:
    """The tracker gives the proxy's address, and the server answers from behind it."""
    with contextlib.ExitStack() as stack:
        start = stack.enter_context
        tracker = start(rpc.Tracker(port=0, silent=True))
        address = (tracker.host, tracker.port)
        proxy = start(rpc.Proxy("127.0.0.1", 0, tracker_addr=address, log=subprocess.DEVNULL))
        start(rpc.Server(port=proxy.port, is_proxy=True, key="phone", silent=True))
        with rpc.connect_tracker(*address) as farm:
            farm.request("phone", wait_for_key=True, wait_timeout=10).close()
        status, steps = examined(f"--tracker=127.0.0.1:{tracker.port}", "--key=phone")
    assert status == 0, steps
    assert steps["server port"]["values"]["address"] == f"127.0.0.1:{proxy.port}"
    assert steps["handshake"]["values"] == {"server": "tvmrpc", "key": "phone"}


# --- the first hop ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "fact", "advice"),
    [
        ("0.0.0.0", "an address to listen on", "127.0.0.1"),
        ("no..name", "cannot be resolved", "correct the name"),
    ],
)
def test_a_name_that_is_none(examined: Any, host: str, fact: str, advice: str) -> None:
    """A wildcard is refused with a hint, a wrong name with the resolver's words."""
    for words in ([f"--tracker={host}:9190"], [f"{host}:9090"]):
        status, steps = examined(*words)
        assert status == 1
        step = failed(steps)
        assert step["name"] == next(iter(steps))
        assert fact in step["facts"]
        assert advice in step["advice"]


def test_a_name_server_that_does_not_answer(examined: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look-up has a limit, although the system's has none."""
    answer = threading.Event()
    monkeypatch.setattr(network, "resolve", lambda host, port: answer.wait(30) and [])
    started = time.monotonic()
    _, steps = examined("board.example:9090", "--timeout=0.2")
    answer.set()
    assert time.monotonic() - started < 5
    assert "did not answer within 0.2 s" in failed(steps)["facts"]


def test_a_port_at_which_nobody_listens(examined: Any) -> None:
    """Refused: the machine is there, and the program is not, or elsewhere."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for words in ([f"--tracker=127.0.0.1:{port}"], [f"127.0.0.1:{port}"]):
        step = failed(examined(*words)[1])
        assert step["facts"] == f"127.0.0.1:{port}: refused"
        assert "nothing listens on this port" in step["advice"]
        assert [attempt["outcome"] for attempt in step["values"]["attempts"]] == ["refused"]


def test_a_machine_that_does_not_answer(examined: Any) -> None:
    """No answer within the limit: a firewall, or no such machine."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(4)]
        try:
            for connection in waiting:  # the kernel answers the first of them only
                connection.setblocking(False)
                connection.connect_ex(full.getsockname())
            step = failed(examined(f"127.0.0.1:{full.getsockname()[1]}", "--timeout=0.3")[1])
        finally:
            for connection in waiting:
                connection.close()
    assert "no answer within 0.3 s" in step["facts"]
    assert "firewall" in step["advice"]


def test_every_address_is_tried() -> None:
    """What each one said is kept; the first that answers is taken."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        places: List[probing.Place] = [
            (socket.AF_INET, ("127.0.0.2", port)),
            (socket.AF_INET, ("127.0.0.1", port)),
            (socket.AF_INET, ("127.0.0.3", port)),
        ]
        connection, attempts = probing.connect_to(places, network.Deadline(5, "it"))
        assert connection is not None
        connection.close()
    assert [attempt.outcome for attempt in attempts] == ["refused", "connected"]


# --- somebody else ------------------------------------------------------------------------------


def answering(answer: bytes, until: bytes = b"") -> Callable[[socket.socket], None]:
    """Says this to whoever says `until`, or at once, and then nothing more."""

    def talk(connection: socket.socket) -> None:
        received = b""
        while until not in received:
            part = connection.recv(4096)
            if not part:
                return
            received += part
        connection.sendall(answer)
        while connection.recv(4096):
            pass

    return talk


STRANGERS = {
    "http": (answering(b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\r\n\r\n"), "an HTTP server"),
    "http at once": (answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "an HTTP server"),
    "tls": (answering(bytes.fromhex("15030100020246")), "a TLS server"),
    "ssh": (answering(b"SSH-2.0-OpenSSH_9.6\r\n"), "an SSH server (SSH-2.0-OpenSSH_9.6)"),
    "other": (answering(b"220 mail.example ESMTP\r\n"), "(it says 220 mail.example ESMTP)"),
    "binary": (answering(bytes(range(128, 160))), "something else"),
}


@pytest.mark.parametrize("role", ["server", "tracker"])
@pytest.mark.parametrize("kind", STRANGERS)
def test_a_stranger(examined: Any, scripted: Any, kind: str, role: str) -> None:
    """Known by its first bytes, whether it speaks first or has to be asked."""
    talk, words = STRANGERS[kind]
    with scripted(talk) as peer:
        option = "--tracker=" if role == "tracker" else ""
        status, steps = examined(f"{option}127.0.0.1:{peer.port}", "--timeout=0.6")
    assert status == 1
    step = failed(steps)
    assert step["name"] == ("tracker" if role == "tracker" else "handshake")
    assert words in step["facts"]
    assert "correct the port" in step["advice"]


def test_the_one_for_the_other(examined: Any, tracker: rpc.Tracker, lone: rpc.Server) -> None:
    """Each of our two peers is known where the other was expected."""
    step = failed(examined(f"127.0.0.1:{tracker.port}")[1])
    assert "is a tracker, not a server" in step["facts"]
    assert f"tvmrpc doctor --tracker 127.0.0.1:{tracker.port}" in step["advice"]
    step = failed(examined(f"--tracker=127.0.0.1:{lone.port}")[1])
    assert "is a server or proxy, not a tracker" in step["facts"]
    assert f"tvmrpc doctor 127.0.0.1:{lone.port}" in step["advice"]


@pytest.mark.parametrize("option", ["", "--tracker="])
def test_a_peer_that_says_nothing(examined: Any, scripted: Any, option: str) -> None:
    """Every wait for it has a limit."""
    with scripted(answering(b"", b"never said")) as peer:
        started = time.monotonic()
        step = failed(examined(f"{option}127.0.0.1:{peer.port}", "--timeout=0.3")[1])
    assert time.monotonic() - started < 5
    assert "not answer" in step["facts"]


# --- the tracker --------------------------------------------------------------------------------


def test_a_tracker_without_servers(examined: Any) -> None:
    """Says how one is started."""
    with rpc.Tracker(port=0, silent=True) as tracker:
        step = failed(examined(f"--tracker=127.0.0.1:{tracker.port}")[1])
    assert (step["name"], step["facts"]) == ("servers", "no server is registered")
    assert f"--tracker 127.0.0.1:{tracker.port} --key KEY" in step["advice"]


def test_a_key_that_nobody_has(examined: Any, tracker: rpc.Tracker, board: rpc.Server) -> None:
    """Those that exist are listed."""
    step = failed(examined(f"--tracker=127.0.0.1:{tracker.port}", "--key=boat")[1])
    assert step["facts"] == "no server has the key 'boat'; there are 'board' 1 of 1 free"


def test_a_device_in_use(
    examined: Any, tracker: rpc.Tracker, address: Tuple[str, int], board: rpc.Server
) -> None:
    """The holder is named, and how to end it; the request does not stay in the line."""
    with rpc.connect_tracker(*address, user="ada") as farm, farm.request("board"):
        step = failed(examined(f"--tracker=127.0.0.1:{tracker.port}", "--wait=0.1")[1])
        assert step["name"] == "device"
        assert f"board@127.0.0.1:{board.port} is busy, ada has had it for " in step["facts"]
        assert "tvmrpc kick" in step["advice"]
        assert farm.who().waiting == ()


def test_a_tracker_of_tvm_with_nothing_free(examined: Any, tvm_tracker: Any) -> None:
    """It does not know who has the device, and the advice says so."""
    step = failed(examined(f"--tracker=127.0.0.1:{tvm_tracker.port}", "--wait=0.1")[1])
    assert step["name"] == "device"
    assert "a tracker of TVM does not know" in step["advice"]


def test_the_environment_names_the_tracker(
    examined: Any, tracker: rpc.Tracker, board: rpc.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for TVM's query."""
    monkeypatch.setenv("TVM_TRACKER_HOST", "127.0.0.1")
    monkeypatch.setenv("TVM_TRACKER_PORT", str(tracker.port))
    assert examined()[0] == 0


def test_an_address_that_is_good_for_the_tracker_only(examined: Any) -> None:
    """A server that is not reached under the address that the tracker gives: NAT."""
    with rpc.Tracker(port=0, silent=True) as tracker:
        address = (tracker.host, tracker.port)
        with rpc.Server(
            port=0, key="nat", tracker_addr=address, custom_addr="127.0.0.2", silent=True
        ) as server:
            step = failed(examined(f"--tracker=127.0.0.1:{tracker.port}")[1])
    assert step["name"] == "server port"
    assert step["facts"].startswith(f"127.0.0.2:{server.port}: refused; that is the address that")
    assert "--custom-addr" in step["advice"]
    assert "--through-proxy" in step["advice"]


def test_loopback_from_a_tracker_elsewhere() -> None:
    """The server reached its tracker by 127.0.0.1, which means another machine here."""
    tracker = TrackerChecks("farm.example", 9190, "", 1, 1, 60)
    tracker.granted = rpc_granted("127.0.0.1")
    tracker.hop.place = (socket.AF_INET, ("10.0.0.1", 9190))
    checks = server_checks.ServerChecks("", 0, "", 1, tracker)
    with pytest.raises(FailedCheckError, match="this machine's own") as caught:
        checks.checks()[0].make()
    assert "--custom-addr" in caught.value.advice


def rpc_granted(host: str) -> Any:
    """What a tracker gives."""
    from pytest_tvmrpc.protocol.tracker import Granted

    return Granted(host, 9090, "board:0.5")


# --- the server ---------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "lane"])
def test_another_key(examined: Any, lone: rpc.Server, key: str) -> None:
    """The advice names both reasons: another key, or a tracker that hands it out."""
    step = failed(examined(f"127.0.0.1:{lone.port}", f"--key={key}")[1])
    assert step["name"] == "handshake"
    assert "--key KEY" in step["advice"]
    assert "--tracker HOST:PORT" in step["advice"]


def test_a_server_that_serves_somebody_else(examined: Any, lone: rpc.Server) -> None:
    """It does not answer; the advice names that reason first, and the session there goes on."""
    with rpc.connect("127.0.0.1", lone.port, "lone") as remote:
        addone = remote.get_function("rpc.test.addone")
        step = failed(examined(f"127.0.0.1:{lone.port}", "--key=lone", "--timeout=0.3")[1])
        assert addone(1) == 2
    assert step["name"] == "handshake"
    assert step["advice"].startswith("it serves somebody else")
    assert examined(f"127.0.0.1:{lone.port}", "--key=lone")[0] == 0


def slow_server(connection: socket.socket) -> None:
    """Agrees, and then sends a long answer to InitServer byte by byte, for ever."""
    reader = HelloReader()
    while reader.feed(connection.recv(4096)) is None:
        pass
    connection.sendall(encode_server_reply(HandshakeReply.SUCCESS, "slow"))
    connection.sendall(struct.pack("<Qi", 1 << 20, 5))
    connection.settimeout(0.05)
    while True:
        connection.sendall(b"\0")
        try:
            if not connection.recv(4096):
                return
        except socket.timeout:
            continue


def test_a_server_that_goes_on_for_ever(examined: Any, scripted: Any) -> None:
    """Progress is not enough: each step ends at its limit."""
    with scripted(slow_server) as peer:
        started = time.monotonic()
        step = failed(examined(f"127.0.0.1:{peer.port}", "--timeout=0.5")[1])
    assert time.monotonic() - started < 5
    assert (step["name"], step["facts"]) == ("session", "not done within 0.5 s")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_is_interrupted(scripted: Any, number: int) -> None:
    """Ctrl-C ends it at once, without a traceback and with what was found so far."""
    there = threading.Event()

    def wait(connection: socket.socket) -> None:
        connection.recv(4096)
        there.set()
        while connection.recv(4096):
            pass

    with scripted(wait) as peer, subprocess.Popen(
        [sys.executable, "-m", "pytest_tvmrpc", "doctor", f"127.0.0.1:{peer.port}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": FOLDER},
    ) as process:
        assert there.wait(30)
        started = time.monotonic()
        process.send_signal(number)
        output, _ = process.communicate(timeout=10)
        assert time.monotonic() - started < 2
    assert "accepts connections" in output
    assert "Traceback" not in output
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGTERM)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["127.0.0.1"], "expected HOST:PORT"),
        (["127.0.0.1:1", "--tracker=127.0.0.1:2"], "not both"),
        (["--wait=0"], "no time to wait"),
        (["--timeout=x"], "--timeout"),
    ],
)
def test_options_that_cannot_be(
    words: List[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Usage errors have a status of their own."""
    with pytest.raises(SystemExit, match="2"):
        doctor.main(words)
    assert message in capsys.readouterr().err
