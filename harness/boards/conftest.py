"""Fixtures: each test here runs on each board. ``pytest harness/boards -k s390x`` chooses one."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.runtime.native_programs import build_server
from pytest_tvmrpc.runtime.toolchain import compile_library
from pytest_tvmrpc.server.launch import NativeServer

from .machines import BOARDS, Board, prepare

if TYPE_CHECKING:
    from pytest_tvmrpc.client.tracker import TrackerSession

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """One worker of pytest-xdist has all tests of a board, and so its one server."""
    for item in items:
        board = item.callspec.params.get("board") if hasattr(item, "callspec") else None
        if board is not None:
            item.add_marker(pytest.mark.xdist_group(board))


@pytest.fixture(scope="session", params=list(BOARDS))
def board(request: pytest.FixtureRequest) -> Board:
    """A board whose programs can be made and run here."""
    board = BOARDS[request.param]
    reason = prepare(board)
    if reason:
        pytest.skip(reason)
    return board


@pytest.fixture(scope="session")
def tracker() -> Iterator[rpc.Tracker]:
    """The tracker at which the boards wait, each under its name."""
    with rpc.Tracker(silent=True) as tracker:
        yield tracker


@pytest.fixture(scope="session")
def server_log(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the board's server prints."""
    return tmp_path_factory.mktemp(board.name) / "server.log"


@pytest.fixture(scope="session")
def program(board: Board, server_log: Path) -> str:
    """The board's server in C, as a script that emulates it."""
    program = server_log.with_name("tvmrpc-server")
    build_server(board.triple, program)
    return str(board.wrapped(program))


@pytest.fixture(scope="session")
def server(
    board: Board,
    program: str,
    tracker: rpc.Tracker,
    server_log: Path,
    wait_until: Callable[..., None],
) -> Iterator[NativeServer]:
    """The board's server, registered at the tracker; it has to outlive all that is done to it."""
    with server_log.open("w") as log, NativeServer(
        program,
        port=0,
        key=board.name,
        tracker_addr=("127.0.0.1", tracker.port),
        log=log,
    ) as server:
        with rpc.connect_tracker("127.0.0.1", tracker.port) as link:
            wait_until(lambda: board.name in link.summary()["queue_info"], "it is registered")
        yield server
        assert server.program.alive, server_log.read_text()[-4000:]


@pytest.fixture
def request_board(
    board: Board, tracker: rpc.Tracker, server: NativeServer, deadline_s: float
) -> Iterator[Callable[..., rpc.RPCSession]]:
    """``request_board(session_timeout=60)``: a session on the board, which the tracker gives."""
    link: TrackerSession
    with rpc.connect_tracker("127.0.0.1", tracker.port) as link:

        def request(**options: Any) -> rpc.RPCSession:
            return link.request(board.name, max_retry=1, **options)

        yield request


@pytest.fixture
def remote(
    request_board: Callable[..., rpc.RPCSession], deadline_s: float
) -> Iterator[rpc.RPCSession]:
    """A session on the board, in which functions can be called at the end."""
    with request_board(session_timeout=60 * deadline_s) as remote:
        yield remote
        assert remote.get_function("rpc.test.addone")(1) == 2


@pytest.fixture
def loaded(board: Board, remote: rpc.RPCSession, tmp_path: Path) -> Callable[..., Any]:
    """``loaded(source, *options)``: a module on the board, made here of a file of C."""

    def load(source: Path, *options: str) -> Any:
        return load_library(board, remote, source, tmp_path, *options)

    return load


def load_library(
    board: Board, remote: rpc.RPCSession, source: Path, folder: Path, *options: str
) -> Any:
    """Compile a file of C for the board, send it, and load it there."""
    library = compile_library(
        source, folder / f"{source.stem}.so", options=options, target=board.triple
    )
    remote.upload(library)
    return remote.load_module(f"{source.stem}.so")


@pytest.fixture
def run_as_user(board: Board) -> Callable[..., str]:
    """``run_as_user(*command)``: runs it where the compilers are the board's; what it printed."""

    def run(*command: str, timeout_s: float) -> str:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=timeout_s,
            cwd=ROOT,
            env=board.environment(),
        )
        print(done.stdout)
        assert done.returncode == 0, done.stdout[-6000:]
        return done.stdout

    return run
