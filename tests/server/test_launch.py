"""A server with a tracker: it is there as long as it lives, and free as soon as it can be."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List, Tuple

import pytest

import pytest_tvmrpc
from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.errors import (
    CompilerError,
    ConnectionLostError,
    DeviceError,
    KeyMismatchError,
    LibraryError,
    RPCSessionTimeoutError,
    SessionCrashedError,
    SessionKickedError,
    StartError,
    TrackerError,
)
from pytest_tvmrpc.protocol import tracker as wire
from pytest_tvmrpc.runtime.toolchain import compile_library

pytestmark = pytest.mark.each_kind

WaitUntil = Callable[..., None]

FOLDER = str(Path(__file__).parents[2])


@pytest.fixture(name="tracker", scope="module")
def _tracker() -> Iterator[rpc.Tracker]:
    """One tracker for the module; each test uses keys of its own."""
    with rpc.Tracker(port=0, silent=True) as tracker:
        yield tracker


@pytest.fixture(name="farm")
def _farm(tracker: rpc.Tracker) -> Iterator[rpc.TrackerSession]:
    """A client of the tracker."""
    with rpc.connect_tracker(tracker.host, tracker.port) as farm:
        yield farm


@pytest.fixture(name="board")
def _board(start_server: Any, tracker: rpc.Tracker) -> Callable[[str], Any]:
    """``board(key)``: a server that has registered when it is returned."""
    return lambda key: start_server(tracker_addr=(tracker.host, tracker.port), key=key)


def free(farm: rpc.TrackerSession, key: str) -> int:
    """How many devices with this key are to be had."""
    queue = farm.summary()["queue_info"].get(key)
    return queue["free"] if queue else 0


def granted(tracker: rpc.Tracker, key: str) -> wire.Granted:
    """A device, taken from the tracker without a connection to it."""
    with socket.create_connection((tracker.host, tracker.port), 10) as connection:
        connection.sendall(wire.MAGIC)
        assert connection.recv(4) == wire.MAGIC
        connection.sendall(wire.request(key))
        reader = wire.FrameReader()
        while True:
            frame = reader.next_frame()
            if frame is not None:
                return wire.parse_granted(wire.parse_json(frame))
            reader.feed(connection.recv(4096))


def test_it_has_registered_when_it_is_there(board: Any, farm: rpc.TrackerSession) -> None:
    """The first request needs no second try."""
    server = board("there")
    assert free(farm, "there") == 1
    with farm.request("there") as remote:
        assert remote.peer == ("127.0.0.1", server.port)
        assert remote.get_function("rpc.test.addone")(1) == 2
        assert remote.connect_s > 0


def test_it_is_free_again_after_each_session(board: Any, farm: rpc.TrackerSession) -> None:
    """However the session ended."""
    board("again")
    for _ in range(5):
        with farm.request("again", wait_timeout=5) as remote:
            assert remote.get_function("rpc.test.addone")(1) == 2
    remote = farm.request("again", session_timeout=0.05)
    with farm.request("again", wait_timeout=5) as other:
        assert other.get_function("rpc.test.addone")(1) == 2
    with pytest.raises(RPCSessionTimeoutError):
        remote.get_function("rpc.test.addone")


def test_it_is_not_offered_while_it_is_in_use(
    board: Any, farm: rpc.TrackerSession, wait_until: WaitUntil
) -> None:
    """One session at a time."""
    board("busy")
    with farm.request("busy"):
        assert free(farm, "busy") == 0
    wait_until(lambda: free(farm, "busy") == 1, "it is offered again")


def test_a_match_key_is_good_for_one_session(board: Any, tracker: rpc.Tracker) -> None:
    """Neither another client nor the same one gets in with it again."""
    server = board("once")
    resource = granted(tracker, "once")
    with server.connect(key=resource.match_key) as remote:
        assert remote.get_function("rpc.test.addone")(1) == 2
        with pytest.raises(KeyMismatchError, match="ask the tracker for a new match key"):
            server.connect(key=resource.match_key)
    with pytest.raises(KeyMismatchError):
        server.connect(key=resource.match_key)
    with pytest.raises(KeyMismatchError):
        server.connect(key="once")
    with server.connect(key=granted(tracker, "once").match_key) as remote:
        assert remote.get_function("rpc.test.addone")(1) == 2


def test_a_grant_that_nobody_uses(
    board: Any, tracker: rpc.Tracker, farm: rpc.TrackerSession
) -> None:
    """The device is offered anew within seconds, under its own key; the old grant is void."""
    server = board("unused")
    resource = granted(tracker, "unused")
    started = time.monotonic()
    with farm.request("unused", wait_timeout=10) as remote:
        assert time.monotonic() - started < 6
        assert remote.get_function("rpc.test.addone")(1) == 2
        with pytest.raises(KeyMismatchError):
            server.connect(key=resource.match_key)


def test_the_tracker_is_killed_and_started_again(start_server: Any, wait_until: WaitUntil) -> None:
    """The server finds it again; a session that runs meanwhile notices nothing."""
    with contextlib.ExitStack() as stack:
        tracker = stack.enter_context(rpc.Tracker(port=0, silent=True))
        address = (tracker.host, tracker.port)
        server = start_server(tracker_addr=address, key="board")
        with rpc.connect_tracker(*address) as farm, farm.request("board") as remote:
            os.kill(tracker.program.pid, signal.SIGKILL)
            wait_until(lambda: "is not there" in server.reports, "the server has noticed")
            assert remote.get_function("rpc.test.addone")(1) == 2
            stack.enter_context(rpc.Tracker(port=address[1], port_end=address[1] + 1, silent=True))
            wait_until(lambda: "registered again" in server.reports, "it is registered again")
            assert remote.get_function("rpc.test.addone")(1) == 2
            assert free(farm, "board") == 0
        with rpc.connect_tracker(*address) as farm:
            wait_until(lambda: free(farm, "board") == 1, "it is offered again")
            with farm.request("board") as remote:
                assert remote.get_function("rpc.test.addone")(1) == 2


def test_a_tracker_that_is_not_there_yet(
    start_server: Any, wait_until: WaitUntil, dial: Any, hello: Any
) -> None:
    """The server starts all the same, and registers when the tracker comes."""
    with rpc.Tracker(port=0, silent=True) as tracker:
        port = tracker.port
    server = start_server(tracker_addr=("127.0.0.1", port), key="early")
    assert "is not there" in server.reports
    with rpc.Tracker(port=port, port_end=port + 1, silent=True), rpc.connect_tracker(
        "127.0.0.1", port
    ) as farm:
        wait_until(lambda: free(farm, "early") == 1, "it has registered")


def test_a_tracker_by_a_name_with_several_addresses(
    start_server: Any, tracker: rpc.Tracker, farm: rpc.TrackerSession, wait_until: WaitUntil
) -> None:
    """localhost may be ::1 first, and the tracker on 127.0.0.1: all addresses get their turn."""
    start_server(tracker_addr=("localhost", tracker.port), key="named")
    wait_until(lambda: free(farm, "named") == 1, "it has registered")


def test_a_server_that_ends_is_gone_from_the_tracker(
    board: Any, farm: rpc.TrackerSession, wait_until: WaitUntil
) -> None:
    """Killed or ended, its offer goes with it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        server = board("gone")
        assert free(farm, "gone") == 1
        os.kill(server.pid, number)
        wait_until(lambda: free(farm, "gone") == 0, "its offer is gone")


def test_a_device_that_drops_out_in_a_call(
    board: Any, farm: rpc.TrackerSession, deaths: str
) -> None:
    """request_and_run runs the function again, on another device."""
    servers = {server.port: server for server in (board("pair"), board("pair"))}
    seen: List[int] = []

    def run(remote: rpc.RPCSession) -> int:
        seen.append(remote.peer[1])
        remote.upload(deaths)
        module = remote.load_module("deaths.so")
        if len(seen) == 1:
            server = servers[remote.peer[1]]
            thread = threading.Thread(target=_kill_when_started, args=(server,))
            thread.start()
            try:
                module["spin"]()
            finally:
                thread.join()
        return int(module["one"]())

    assert farm.request_and_run("pair", run, max_retry=3, wait_timeout=10) == 1
    assert sorted(seen) == sorted(servers)


def _kill_when_started(server: Any, number: int = signal.SIGKILL) -> None:
    end = time.monotonic() + 10
    while not server.started() and time.monotonic() < end:
        time.sleep(0.002)
    os.kill(server.pid, number)


def test_a_kernel_that_crashes_each_device(
    board: Any, farm: rpc.TrackerSession, deaths: str, wait_until: WaitUntil
) -> None:
    """It is tried as often as was asked for, then the crash is told; the devices are free."""
    board("fragile")
    runs: List[int] = []

    def run(remote: rpc.RPCSession) -> None:
        runs.append(1)
        remote.upload(deaths)
        remote.load_module("deaths.so")["segfault"]()

    with pytest.raises(TrackerError, match=r"max_retry=2.*SIGSEGV") as caught:
        farm.request_and_run("fragile", run, max_retry=2, wait_timeout=10)
    assert isinstance(caught.value.__cause__, SessionCrashedError)
    assert len(runs) == 2
    wait_until(lambda: free(farm, "fragile") == 1, "the device is free")


def test_an_error_that_would_come_again(board: Any, farm: rpc.TrackerSession) -> None:
    """What the remote function raises is raised, after one run."""
    board("strict")
    runs: List[int] = []

    def run(remote: rpc.RPCSession) -> None:
        runs.append(1)
        remote.get_function("rpc.test.except")("wrong")

    with pytest.raises(ValueError, match=r"^wrong$"):
        farm.request_and_run("strict", run, max_retry=3)
    assert len(runs) == 1


def test_a_tracked_server_that_is_killed_in_a_call(
    board: Any, farm: rpc.TrackerSession, deaths: str
) -> None:
    """The call is over within a second, with an error that says so."""
    server = board("killed")
    with farm.request("killed") as remote:
        remote.upload(deaths)
        module = remote.load_module("deaths.so")
        thread = threading.Thread(target=_kill_when_started, args=(server,))
        thread.start()
        with pytest.raises(ConnectionLostError):
            module["spin"]()
        thread.join()


# --- arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tracker_addr": ("127.0.0.1", 9190)}, "Need key"),
        ({"key": "two words"}, "has a blank in it"),
        ({"key": "nul\0"}, "has a blank in it"),
        ({"port": 65536}, "port 65536 is none"),
        ({"port": -1}, "port -1 is none"),
        ({"is_proxy": True}, "needs the proxy's port and a key"),
        ({"is_proxy": True, "port": 9090}, "needs the proxy's port and a key"),
        ({"timeout": -1.0}, "the timeout -1.0 is no time"),
        ({"idle_timeout": float("nan")}, "the idle timeout nan is no time"),
    ],
)
def test_arguments_that_cannot_go_together(options: Any, message: str) -> None:
    """Are refused before anything is started."""
    with pytest.raises(ValueError, match=message):
        rpc.Server(**{"port": 0, **options})


LIBRARY = """
#include <stdint.h>
int base_value(void) { return 41; }
"""

USER = """
#include <stdint.h>
extern int base_value(void);
int __tvm_ffi_answer(void* self, const void* args, int32_t count, int64_t* result) {
  result[0] = 1;
  result[1] = base_value() + 1;
  return 0;
}
"""


@pytest.fixture(name="libraries", scope="module")
def _libraries(tmp_path_factory: pytest.TempPathFactory) -> Tuple[str, str]:
    """A library, and one that wants a function of the first and does not say so."""
    folder = tmp_path_factory.mktemp("libraries")
    made = []
    for name, source in (("known", LIBRARY), ("user", USER)):
        (folder / f"{name}.c").write_text(source)
        try:
            made.append(compile_library(folder / f"{name}.c", folder / f"{name}.so"))
        except CompilerError as error:
            pytest.skip(str(error))
    return made[0], made[1]


@pytest.mark.parametrize("no_fork", [False, True], ids=["fork", "no fork"])
def test_load_library(
    start_server: Any, libraries: Tuple[str, str], no_fork: bool, server_kind: str
) -> None:
    """What it exports is there for whatever a session loads; a relative path is from here."""
    if no_fork and server_kind == "native":
        pytest.skip("each session is a fork of the server in C")
    known, user = libraries
    with start_server().connect() as remote:
        remote.upload(user)
        with pytest.raises(LibraryError, match="base_value"):
            remote.load_module("user.so")
    given = os.path.relpath(known)
    server = start_server(
        load_library=f"{given}:libc.so.6", **({"no_fork": True} if no_fork else {})
    )
    for _ in range(2):
        with server.connect() as remote:
            remote.upload(user)
            assert remote.load_module("user.so")["answer"]() == 42
    for maps in (f"/proc/{server.pid}/maps",):
        assert "known.so" not in Path(maps).read_text(), "the server itself opens no library"


@pytest.mark.parametrize(
    "content",
    [None, b"not a library", b"\x7fELF"],
    ids=["no file", "no library", "truncated"],
)
@pytest.mark.parametrize("name", ["missing.so", "libtvm_missing.so"])
def test_a_library_that_cannot_be_loaded(
    tmp_path: Path, libraries: Tuple[str, str], content: Any, name: str
) -> None:
    """That is seen when the server starts, not when its first client comes."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StartError, match=name):
        rpc.Server(port=0, load_library=[libraries[0], str(path)], silent=True, log=-3)


@pytest.fixture(name="refused", scope="module")
def _refused(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """``refused(name)``: a library that looks as one of TVM's, and needs one that is gone."""

    def build(name: str) -> str:
        folder = tmp_path_factory.mktemp("refused")
        (folder / "driver.c").write_text("int driver(void) { return 0; }\n")
        (folder / "part.c").write_text(
            "int driver(void);\nint TVMFFIFunctionGlobal(void) { return driver(); }\n"
        )
        try:
            driver = compile_library(folder / "driver.c", folder / "libdriver-of-a-gpu.so")
            linked = [f"-L{folder}", "-l:libdriver-of-a-gpu.so"]
            path = compile_library(folder / "part.c", folder / name, options=linked)
        except CompilerError as error:
            pytest.skip(str(error))
        os.unlink(driver)
        return path

    return build


@pytest.mark.python_only(reason="that in C refuses it, as any library")
@pytest.mark.parametrize("no_fork", [False, True], ids=["fork", "no fork"])
def test_a_library_of_tvm_that_lacks_something(
    start_server: Any, libraries: Tuple[str, str], refused: Callable[[str], str], no_fork: bool
) -> None:
    """The server starts without it and says so, and so does whatever is not there for it."""
    path = refused("libtvm_runtime_cuda.so")
    server = start_server(load_library=f"{path}:{libraries[0]}", no_fork=no_fork)
    reason = rf"{path} cannot be loaded: .*libdriver-of-a-gpu"
    assert re.search(rf"WARNING the server goes without .*{reason}", server.reports)
    for _ in range(2):
        with server.connect() as remote:
            assert remote.get_function("rpc.test.addone")(1) == 2
            remote.upload(libraries[1])
            assert remote.load_module(os.path.basename(libraries[1]))["answer"]() == 42
            with pytest.raises(DeviceError, match=rf"cuda is not enabled.*{reason}"):
                runtime.empty((4,), "float32", remote.cuda(0))
    with start_server(no_fork=no_fork).connect() as remote:
        with pytest.raises(DeviceError, match="cuda is not enabled") as caught:
            runtime.empty((4,), "float32", remote.cuda(0))
        assert "driver-of-a-gpu" not in str(caught.value)


def test_another_library_that_lacks_something(refused: Callable[[str], str]) -> None:
    """One that is none of TVM's is the reason why there is no server."""
    with pytest.raises(StartError, match=r"kernels\.so cannot be loaded: .*libdriver-of-a-gpu"):
        rpc.Server(port=0, load_library=refused("kernels.so"), silent=True, log=-3)


def test_a_library_that_is_gone_later(
    start_server: Any, libraries: Tuple[str, str], tmp_path: Path
) -> None:
    """Each client is told which; the server goes on."""
    path = tmp_path / "later.so"
    path.write_bytes(Path(libraries[0]).read_bytes())
    server = start_server(load_library=str(path))
    assert server.serves()
    path.rename(tmp_path / "elsewhere.so")
    for _ in range(2):
        with pytest.raises(LibraryError, match=r"later\.so"), server.connect() as remote:
            remote.get_function("rpc.test.addone")(1)
    (tmp_path / "elsewhere.so").rename(path)
    assert server.serves()


@pytest.mark.python_only(reason="Python's own")
@pytest.mark.parametrize("no_fork", [False, True], ids=["fork", "no fork"])
def test_server_init_callback(start_server: Any, tmp_path: Path, no_fork: bool) -> None:
    """A closure; what it registers is there in each session. It runs once, or once in each."""
    calls = tmp_path / "calls"
    factor = 21

    def register() -> None:
        from pytest_tvmrpc import runtime

        runtime.register_func("own.times", lambda value: factor * value)
        with open(calls, "a") as file:
            file.write("called\n")

    server = start_server(server_init_callback=register, no_fork=no_fork)
    if not no_fork:
        assert calls.read_text() == "called\n"
    for _ in range(2):
        with server.connect() as remote:
            assert remote.get_function("own.times")(2) == 42
    assert calls.read_text() == "called\n" * (2 if no_fork else 1)


@pytest.mark.python_only(reason="Python's own")
@pytest.mark.parametrize("no_fork", [False, True], ids=["fork", "no fork"])
def test_what_shadows_a_module_of_the_callback(
    tmp_path: Path, deadline_s: float, no_fork: bool
) -> None:
    """A name means to the server what it means to the caller, whatever lies where it was started.

    That holds for the caller's modules and Python's own.
    """
    scripts, folder = tmp_path / "scripts", tmp_path / "folder"
    for place, word in ((scripts, "the caller's"), (folder, "another")):
        place.mkdir()
        (place / "boards.py").write_text(f"WORD = {word!r}")
    (folder / "tempfile.py").write_text("raise RuntimeError('this is not the tempfile of Python')")
    (folder / "shutil.py").write_text("raise RuntimeError('this is not the shutil of Python')")
    script = (
        f"import sys; sys.path[:] = [p for p in sys.path if p] + [{FOLDER!r}]\n"
        "import cloudpickle, shutil, tempfile\n"
        "from pytest_tvmrpc import rpc, runtime\n"
        f"sys.path.insert(0, '../scripts')\n"
        "def register():\n"
        "    import boards, tempfile\n"
        "    runtime.register_func('own.word', lambda: boards.WORD)\n"
        f"with rpc.Server(port=0, silent=True, server_init_callback=register, no_fork={no_fork})"
        " as server:\n"
        "    with rpc.connect('127.0.0.1', server.port) as remote:\n"
        "        print(remote.get_function('own.word')())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=deadline_s,
    )
    assert done.stdout == "the caller's\n"


@pytest.mark.python_only(reason="Python's own")
@pytest.mark.parametrize("no_fork", [False, True], ids=["fork", "no fork"])
@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
def test_a_callback_of_which_two_processes_return(
    start_server: Any, tmp_path: Path, wait_until: WaitUntil, no_fork: bool, fails: bool
) -> None:
    """There is one server, and one session, all the same."""
    child = tmp_path / "child"

    def fork() -> None:
        pid = os.fork()
        if pid:
            child.write_text(str(pid))
        elif fails:
            raise OSError("exec failed")

    server = start_server(server_init_callback=fork, no_fork=no_fork)
    for _ in range(2):
        with server.connect() as remote:
            assert remote.get_function("rpc.test.addone")(1) == 2
    stat = Path(f"/proc/{child.read_text()}/stat")
    wait_until(lambda: not stat.exists() or " Z " in stat.read_text(), "the child has ended")
    assert server.serves()


@pytest.mark.python_only(reason="Python's own")
def test_a_library_of_which_two_processes_return(
    start_server: Any, tmp_path: Path, deaths: str
) -> None:
    """Its constructor forks as the server tries it, and in each session."""
    source = str(Path(__file__).parent / "deaths.c")
    options = ["-Wno-unused", "-pthread", "-DWITH_A_CONSTRUCTOR_THAT_FORKS"]
    path = compile_library(source, tmp_path / "forks.so", options=options)
    server = start_server(load_library=[path])
    for _ in range(2):
        with server.load(deaths).session as remote:
            assert remote.get_function("rpc.test.addone")(1) == 2


@pytest.mark.python_only(reason="Python's own")
def test_a_callback_that_raises(start_server: Any) -> None:
    """Its text is why there is no server; with an interpreter for each session, each is told."""

    def refuse() -> None:
        raise ValueError("the accelerator is in use")

    with pytest.raises(StartError, match="callback raised ValueError: the accelerator is in use"):
        rpc.Server(port=0, server_init_callback=refuse, silent=True, log=-3)
    server = start_server(server_init_callback=refuse, no_fork=True)
    with pytest.raises(ValueError, match="the accelerator is in use"), server.connect() as remote:
        remote.get_function("rpc.test.addone")(1)


def test_a_callback_that_cannot_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it holds on to stays here, or cloudpickle is not there: the message says what to do."""
    lock = threading.Lock()
    with pytest.raises(StartError, match="let it refer to what it makes itself"):
        rpc.Server(port=0, server_init_callback=lambda: lock.acquire(), silent=True)
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(StartError, match=r"pip install cloudpickle"):
        rpc.Server(port=0, server_init_callback=print, silent=True)


@pytest.mark.python_only(reason="Python's own")
def test_no_fork(start_server: Any, deaths: str, wait_until: WaitUntil, deadline_s: float) -> None:
    """A session is an interpreter of its own, and ends as one that was forked."""
    server = start_server(no_fork=True)
    with server.connect() as remote:
        remote.upload(deaths)
        process = remote.load_module("deaths.so")["process"]()
        command = Path(f"/proc/{process}/cmdline").read_bytes()
        assert b"fresh.main()" in command
        assert os.readlink(f"/proc/{process}/cwd") == str(server.directories[0])
        assert remote.listdir() == "deaths.so"
    module = server.load(deaths)
    with pytest.raises(SessionCrashedError, match="was killed by SIGSEGV while it served"):
        module["segfault"]()
    module = server.load(deaths, session_timeout=deadline_s / 20)  # in which the session begins
    with pytest.raises(RPCSessionTimeoutError):
        module["sleep_through_sigterm"]()
    assert server.serves()
    wait_until(lambda: server.is_at_rest, "nothing is left of the sessions")


@pytest.mark.python_only(reason="Python's own")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_does_not_fork_ends(
    start_server: Any,
    deaths: str,
    number: int,
    wait_until: WaitUntil,
    ended_at_once: Callable[[int], None],
) -> None:
    """With its session, in the middle of a call, and the directory."""
    server = start_server(no_fork=True)
    module = server.load(deaths)
    process = module["process"]()
    thread = threading.Thread(target=_kill_when_started, args=(server, number))
    thread.start()
    with pytest.raises(ConnectionLostError):
        module["spin"]()
    thread.join()
    ended_at_once(process)
    wait_until(lambda: not server.directories, "the directory is gone")


def test_a_server_that_nobody_uses(start_server: Any, wait_until: WaitUntil) -> None:
    """It ends by itself; time in which it is used does not count."""
    server = start_server(timeout=0.6)
    with server.connect() as remote:
        end = time.monotonic() + 0.9
        while time.monotonic() < end:
            assert remote.get_function("rpc.test.addone")(1) == 2
    started = time.monotonic()
    wait_until(lambda: not server.server.program.alive, "it has ended")
    assert time.monotonic() - started > 0.4
    assert server.server.program.ended() == "exited with 0"
    assert "no client came for 0.6 s" in server.reports


def test_reuse_addr(dial: Any, hello: Any) -> None:
    """Without it, a port whose last connection the kernel remembers is not free; it is with it."""
    with rpc.Server(port=0, silent=True, log=-3) as server:
        exactly = {"port": server.port, "port_end": server.port + 1, "silent": True, "log": -3}
        client = dial(server.port)
        client.sendall(hello(b"client: -timeout=0.1"))
        while client.recv(4096):  # the server closes first, and so its port is remembered
            pass
        client.close()
    with pytest.raises(StartError, match="cannot bind to port"):
        rpc.Server(reuse_addr=False, **exactly)
    with rpc.Server(reuse_addr=True, **exactly) as server:
        assert server.port == exactly["port"]


def test_two_servers_on_one_port(start_server: Any) -> None:
    """Never both, also if they start together; within a range, each gets its own."""
    port = start_server().port
    outcomes: List[Any] = []

    def start() -> None:
        try:
            outcomes.append(rpc.Server(port=port + 1, port_end=port + 2, silent=True, log=-3))
        except StartError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    servers = [outcome for outcome in outcomes if isinstance(outcome, rpc.Server)]
    for server in servers:
        server.terminate()
    assert len(servers) <= 1


def test_a_session_is_kicked(
    board: Any,
    tracker: rpc.Tracker,
    farm: rpc.TrackerSession,
    deaths: str,
    wait_until: WaitUntil,
) -> None:
    """The client is told why, in its call; the device is free at once."""
    server = board("kicked")
    with farm.request("kicked") as remote:
        remote.upload(deaths)
        module = remote.load_module("deaths.so")

        def kick() -> None:
            wait_until(server.started, "the kernel runs")
            with rpc.connect_tracker(tracker.host, tracker.port) as other:
                other.kick("kicked", "the board is needed")

        thread = threading.Thread(target=kick)
        thread.start()
        with pytest.raises(SessionKickedError, match="the board is needed"):
            module["spin"]()
        thread.join()
    with farm.request("kicked", wait_timeout=5) as remote:
        assert remote.get_function("rpc.test.addone")(1) == 2
    assert "kicked: " in server.reports


PIPED = """
import sys
sys.path.append({folder!r})
from pytest_tvmrpc import rpc, runtime
server = rpc.Server(port=0)
remote = rpc.connect("127.0.0.1", server.port)
remote.upload({deaths!r})
print(remote.load_module("deaths.so")["leave_a_daemon"](), flush=True)
{end}
"""


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(0)"])
def test_whoever_reads_the_output_of_a_script(deaths: str, end: str) -> None:
    """`script | cat` returns when the script is gone: nobody keeps its pipe open."""
    script = PIPED.format(folder=FOLDER, deaths=deaths, end=f"import os; {end}")
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        process.wait(10)
        started = time.monotonic()
        assert process.stdout is not None
        assert process.stdout.read()
        assert time.monotonic() - started < 2


def test_the_order_of_the_arguments(tmp_path: Path, tracker: rpc.Tracker) -> None:
    """It is TVM's, so that a call of tvm.rpc.Server or Tracker means the same here."""
    address = (tracker.host, tracker.port)
    with open(tmp_path / "log", "w") as log, rpc.Server(
        "127.0.0.1", 0, 9199, False, address, "order", None, None, True, False, None, True, log=log
    ) as server, rpc.connect_tracker(*address) as farm, farm.request("order") as remote:
        assert remote.peer == (server.host, server.port)
    with rpc.Tracker("127.0.0.1", 0, 9199, True, True, None) as other:
        assert other.program.alive
    names = list(inspect.signature(rpc.Server).parameters)
    assert names[:5] == ["host", "port", "port_end", "is_proxy", "tracker_addr"]
    assert names[5:9] == ["key", "load_library", "custom_addr", "silent"]
    assert names[9:13] == ["no_fork", "server_init_callback", "reuse_addr", "timeout"]
    names = list(inspect.signature(rpc.Tracker).parameters)
    assert names[:6] == ["host", "port", "port_end", "silent", "reuse_addr", "timeout"]


def test_a_program_with_functions_of_its_own() -> None:
    """What it registered before it became a server, each session has."""
    script = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "from pytest_tvmrpc import runtime\n"
        "from pytest_tvmrpc.exec import rpc_server\n"
        "runtime.register_func('own.double', lambda x: 2 * x)\n"
        "sys.exit(rpc_server.main(['--port', '0']))\n"
    )
    folder = Path(pytest_tvmrpc.__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline().rpartition(":")[2])
            with rpc.connect("127.0.0.1", port) as remote:
                assert remote.get_function("own.double")(21) == 42
        finally:
            process.terminate()


def test_a_server_with_a_key(start_server: Any) -> None:
    """Without a tracker, the key itself opens a session."""
    server = start_server(key="jetson")
    with server.connect(key="jetson") as remote:
        assert remote.get_function("rpc.test.addone")(1) == 2
    with pytest.raises(KeyMismatchError):
        server.connect()


def test_a_server_that_cannot_start(tmp_path: Path) -> None:
    """What it printed is part of the error."""
    with open(tmp_path / "log", "w+") as log, pytest.raises(
        StartError, match=r"did not start, it exited with 1: cannot bind"
    ):
        rpc.Server(host="192.0.2.1", port=0, log=log)


def test_terminate_twice(start_server: Any) -> None:
    """The second does nothing."""
    server = start_server().server
    server.terminate()
    server.terminate()
    assert server.program.ended() == "exited with 0"
