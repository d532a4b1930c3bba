"""How sessions on the boards end: crashes, limits, kicks; the board serves on after each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.errors import (
    RPCSessionTimeoutError,
    SessionCrashedError,
    SessionKickedError,
)

from .conftest import load_library

if TYPE_CHECKING:
    from .machines import Board

TESTS = Path(__file__).parents[2] / "tests"

Request = Callable[..., rpc.RPCSession]


@pytest.fixture
def deaths(board: Board, request_board: Request, tmp_path: Path) -> Callable[..., Any]:
    """``deaths(remote)``: the module of functions that end badly, loaded in a session."""
    return lambda remote: load_library(
        board, remote, TESTS / "server" / "deaths.c", tmp_path, "-std=gnu11", "-w"
    )


def _lives(process: int) -> bool:
    """Whether it runs; a zombie waits for the system's first process, which adopted it."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def _call_often(remote: rpc.RPCSession) -> None:
    for _ in range(100_000):
        remote.get_function("rpc.test.addone")(1)


def _serves(request_board: Request) -> None:
    with request_board(session_timeout=60) as remote:
        assert remote.get_function("rpc.test.addone")(1) == 2
        assert not list(remote.listdir("."))


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("say_and_segfault", "was killed by SIGSEGV"),
        ("abort", "was killed by SIGABRT"),
        ("exit_three", "exited with 3"),
    ],
)
def test_crashes(request_board: Request, deaths: Callable[..., Any], name: str, how: str) -> None:
    """The client learns the signal and what was printed last."""
    with request_board(session_timeout=600) as remote:
        function = deaths(remote)[name]
        with pytest.raises(SessionCrashedError) as caught:
            function()
    assert how in str(caught.value)
    if name == "say_and_segfault":
        assert "the tensor core is on fire" in str(caught.value)
    _serves(request_board)


def test_a_crash_of_the_machines_own(board: Board, request_board: Request, tmp_path: Path) -> None:
    """An instruction that reads where nothing is: the same as a signal that is raised."""
    source = tmp_path / "wild.c"
    source.write_text(
        '#include "kernel.h"\n'
        "KERNEL(read_from) { return return_int(result, *(volatile char *)args[0].as.v_int64); }\n"
    )
    with request_board(session_timeout=600) as remote:
        module = load_library(board, remote, source, tmp_path, "-w")
        with pytest.raises(SessionCrashedError, match="was killed by SIGSEGV"):
            module["read_from"](8)
    _serves(request_board)


def test_the_limit_of_a_session(request_board: Request, deaths: Callable[..., Any]) -> None:
    """A kernel that spins is ended at the limit, and the client told which it was."""
    with request_board(session_timeout=4) as remote:
        spin = deaths(remote)["spin"]
        with pytest.raises(RPCSessionTimeoutError, match=r"Your 4\.0s session has expired"):
            spin()
    _serves(request_board)


def test_a_kick(
    board: Board, tracker: rpc.Tracker, request_board: Request, deadline_s: float
) -> None:
    """Who has the board is known, and somebody else can end it."""
    with request_board(session_timeout=600) as remote, rpc.connect_tracker(
        "127.0.0.1", tracker.port
    ) as other:
        assert remote.get_function("rpc.test.addone")(1) == 2
        assert [each.key for each in other.who().servers if each.holder] == [board.name]
        assert other.kick(board.name, "lunch is over")
        with pytest.raises(SessionKickedError, match="lunch is over"):
            _call_often(remote)  # until the board, which is slow, has heard of it
    _serves(request_board)


def test_what_is_left_behind(request_board: Request, deaths: Callable[..., Any]) -> None:
    """Children and daemons of a session are gone before the board is somebody else's."""
    with request_board(session_timeout=600) as remote:
        module = deaths(remote)
        left = [module["leave_a_child"](), module["leave_a_daemon"]()]
        assert all(map(_lives, left))
    _serves(request_board)
    assert not any(map(_lives, left))


def test_output(request_board: Request, deaths: Callable[..., Any]) -> None:
    """What a kernel prints can be asked for, however much it is."""
    with request_board(session_timeout=600) as remote:
        module = deaths(remote)
        module["print_much"]()
        printed = remote.output(limit=2048)
        assert printed is not None
        assert printed.end == 64 << 20
        assert printed.text.endswith("x" * 1000 + "\n")
