"""Kernels that TVM compiles for another machine, on our server in C, which an emulator runs.

TVM's client has the session; the tracker between the two is TVM's or ours.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any, Iterator

import numpy as np
import pytest

from pytest_tvmrpc.runtime.native_programs import build_server
from pytest_tvmrpc.runtime.toolchain import cross_compiler

from ..boards.machines import BOARDS
from .clients import CLIENTS, Client
from .libraries import LENGTH, build_tvm_library
from .servers import wait_for_queue

if TYPE_CHECKING:
    from pathlib import Path

    from .servers import Launcher, Program

BOARD = BOARDS["aarch64"]
LINKERS = ("ours", "tvm")

pytestmark = [
    pytest.mark.skipif(
        not all(map(shutil.which, BOARD.programs)),
        reason="needs the packages " + " ".join(BOARD.programs.values()),
    ),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # TVM's client leaves them
]


@pytest.fixture(scope="module", params=LINKERS)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TVM's kernels for AArch64, linked by our `cross_compiler`, or by TVM's."""
    from tvm.support import cc

    compiler = f"{BOARD.triple}-g++"
    link = cross_compiler(BOARD.triple) if request.param == "ours" else cc.cross_compiler(compiler)
    folder = tmp_path_factory.mktemp("cross")
    return build_tvm_library(folder, target=BOARD.target, fcompile=link)


@pytest.fixture(scope="module", params=["tvm", "ours"])
def tracker(request: pytest.FixtureRequest, launcher: Launcher) -> Iterator[Program]:
    """A tracker of either kind."""
    tracker = launcher.tracker(request.param)
    yield tracker
    launcher.stop(tracker)


@pytest.fixture(scope="module")
def board(
    tracker: Program, launcher: Launcher, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    """The emulated board, registered at the tracker."""
    program = tmp_path_factory.mktemp("board") / "tvmrpc-server"
    build_server(BOARD.triple, program)
    board = launcher.server("native", BOARD.name, tracker, binary=os.fspath(BOARD.wrapped(program)))
    yield board
    launcher.stop(board)


@pytest.fixture(params=["tvm", "ours"])
def client(request: pytest.FixtureRequest) -> Client:
    """A client of either kind."""
    return CLIENTS[request.param]()


@pytest.fixture
def remote(client: Client, tracker: Program, board: Program) -> Iterator[Any]:
    """A session on the board, which the tracker gives."""
    with client.connect_tracker(tracker) as link:
        wait_for_queue(link, BOARD.name, free=1)
        session = link.request(BOARD.name, session_timeout=60)
    try:
        yield session
    finally:
        client.end(session)


def test_kernels(client: Client, remote: Any, library: Path) -> None:
    """Plain and parallel loops, a workspace and a product of matrices give what NumPy gives."""
    remote.upload(str(library))
    module = remote.load_module(library.name)
    device = remote.cpu(0)
    numbers = np.random.default_rng(0)

    def result(name: str, shape: tuple[int, ...], *inputs: Any) -> Any:
        output = client.runtime.empty(shape, "float32", device)
        module[name](*(client.runtime.tensor(values, device) for values in inputs), output)
        return output.numpy()

    a, b = numbers.standard_normal((2, LENGTH)).astype("float32")
    for name in ("elementwise", "parallel"):
        np.testing.assert_allclose(
            result(name, (LENGTH,), a, b), np.exp(a) * b + 1, rtol=1e-4, atol=1e-5
        )
    np.testing.assert_allclose(result("workspace", (LENGTH,), a, b), a[::-1] * 2 + b, rtol=1e-5)
    x = numbers.standard_normal((64, 48)).astype("float32")
    y = numbers.standard_normal((48, 32)).astype("float32")
    np.testing.assert_allclose(result("matmul", (64, 32), x, y), x @ y, rtol=1e-3, atol=1e-4)


def test_a_kernel_is_timed(client: Client, remote: Any, library: Path) -> None:
    """The board measures it."""
    remote.upload(str(library))
    module = remote.load_module(library.name)
    device = remote.cpu(0)
    tensors = [client.runtime.tensor(np.ones(LENGTH, "float32"), device) for _ in range(3)]
    timing = module.time_evaluator("elementwise", device, number=3, repeat=2)(*tensors)
    assert len(timing.results) == 2
    assert 0 < timing.mean < 10
