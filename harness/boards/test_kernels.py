"""What compiled code asks of the server on the boards: loops, workspaces, functions; C++."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import pytest

from ..interop import test_cpp as cpp
from ..interop.clients import our_client

if TYPE_CHECKING:
    from pytest_tvmrpc import rpc

    from .machines import Board

TESTS = Path(__file__).parents[2] / "tests"
OPTIONS = {"variables": [], "symbols": ["-DLINKED"]}
LIBRARIES = ("arrays", "bytes", "classes", "closures", "errors", "maps", "strings", "tensors")
"""Of those of ``harness/interop/cpp``; each takes a while to compile."""


@pytest.fixture(params=list(OPTIONS))
def context(request: pytest.FixtureRequest, loaded: Callable[..., Any]) -> Any:
    """Code that calls its runtime by pointer variables, and by symbols, as TVM's C target does."""
    return loaded(TESTS / "runtime" / "context.c", *OPTIONS[request.param])


def test_parallel_loops(context: Any) -> None:
    """Each task runs once, all meet at each barrier, and the error of one is that of the loop."""
    for tasks, barriers in ((1, 0), (4, 0), (4, 5), (16, 2)):
        assert context["parallel"](tasks, barriers, 0) == tasks
    with pytest.raises(RuntimeError, match="of a task"):
        context["parallel"](4, 0, 2)
    assert context["nested"]() == 111
    assert context["parallel"](0, 1, 0) >= 1


def test_workspaces(context: Any) -> None:
    """They are as large as asked for, and aligned; what cannot be had is an error."""
    for nbytes in (1, 64, 1 << 20):
        assert context["workspace"](nbytes, 1) == 0
    for wrong in ((64, 2), (2**62, 1)):
        with pytest.raises(RuntimeError):
            context["workspace"](*wrong)
    with pytest.raises(RuntimeError):
        context["free_wrongly"]()


def test_functions_and_errors(remote: rpc.RPCSession, context: Any) -> None:
    """Code finds a function by name, calls one that it is given, and raises in parts or at once."""
    assert context["has_context"]() == 1
    assert context["call_from_env"]("rpc.test.addone", 41) == 42
    assert context["call"](remote.get_function("rpc.test.addone"), 1) == 2
    assert context["init_once"]() == 1
    with pytest.raises(RuntimeError, match="one two three"):
        context["fail_in_parts"]()
    with pytest.raises(RuntimeError, match="whole"):
        context["fail"]()


@pytest.fixture(scope="session")
def stand_in(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an empty libtvm_ffi.so of the board, to link with."""
    folder = tmp_path_factory.mktemp("ffi")
    command = [f"{board.triple}-gcc", "-shared", "-Wl,-soname,libtvm_ffi.so", "-x", "c"]
    subprocess.run([*command, "/dev/null", "-o", str(folder / "libtvm_ffi.so")], check=True)
    return folder


@pytest.mark.parametrize("name", LIBRARIES)
def test_libraries_of_cpp(
    board: Board,
    remote: rpc.RPCSession,
    stand_in: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """A library that needs libtvm_ffi.so loads on a board that has none, and works."""
    from tvm_ffi import cpp as build

    # In front of the folder with the host's own library, which some linkers do not pass over.
    monkeypatch.setenv("CXX", f"{board.triple}-g++ -L{stand_in}")
    path = build.build_inline(
        name,
        cpp_sources=cpp.SOURCES[name].read_text(),
        extra_cflags=["-O0"],
        extra_ldflags=["-Wl,--no-as-needed", "-ltvm_ffi"],
        build_directory=str(tmp_path),
    )
    needed = subprocess.run(
        [f"{board.triple}-readelf", "-d", path], capture_output=True, text=True, check=True
    )
    assert "libtvm_ffi.so" in needed.stdout
    remote.upload(path)
    cpp.CHECKS[name](our_client(), remote, remote.load_module(Path(path).name))
