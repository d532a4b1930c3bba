"""The server in Python, as the one file of ``tvmrpc bundle``, under the board's own Python."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator

import numpy as np
import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.errors import SessionCrashedError
from pytest_tvmrpc.exec.bundle import bundle
from pytest_tvmrpc.runtime import empty, tensor

from .conftest import load_library
from .foreign_python import UnavailableError, unpacked

if TYPE_CHECKING:
    from .machines import Board

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def python(board: Board, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A script that is the board's Python."""
    try:
        root = unpacked(board.debian, tmp_path_factory.mktemp("python"))
    except UnavailableError as error:
        pytest.skip(f"{board.name} has no Python: {error}")
    binary = next(path for path in (root / "usr/bin").glob("python3.*") if path.is_file())
    script = binary.with_name("emulated-python")
    # Under this name Python knows itself, too, and so starts anew what it executes.
    command = [board.emulator, "-L", str(root), "-0", str(script), str(binary)]
    script.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    script.chmod(0o755)
    return str(script)


@pytest.fixture(scope="module")
def port(
    python: str, tmp_path_factory: pytest.TempPathFactory, wait_until: Callable[..., None]
) -> Iterator[int]:
    """Where the server listens that was started from the one file, as a user starts it."""
    folder = tmp_path_factory.mktemp("bundle")
    bundle(str(folder / "tvmrpc-server.pyz"))
    log = folder / "log"
    command = [python, str(folder / "tvmrpc-server.pyz"), "--port=0"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "TMPDIR": str(folder)}
    with log.open("w") as output, subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
    ) as process:
        try:
            wait_until(
                lambda: "bind to" in log.read_text() or process.poll() is not None,
                f"{shlex.join(command)} listens",
            )
            bound = re.search(r"bind to 127\.0\.0\.1:(\d+)", log.read_text())
            assert bound is not None, log.read_text()
            yield int(bound[1])
            assert process.poll() is None, log.read_text()[-4000:]
        finally:
            process.terminate()


@pytest.fixture
def compiled_code(board: Board, request: pytest.FixtureRequest) -> None:
    """Says where calls of compiled code are known to fail."""
    if board.byte_order == "big":
        reason = "values for compiled code are laid out as on little-endian machines"
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))


@pytest.fixture
def remote(port: int) -> Iterator[rpc.RPCSession]:
    """A session with it."""
    with rpc.connect("127.0.0.1", port, session_timeout=600) as remote:
        yield remote


@pytest.mark.usefixtures("compiled_code")
def test_a_kernel(board: Board, remote: rpc.RPCSession, tmp_path: Path) -> None:
    """One that was made here is sent, run, compared and timed."""
    source = ROOT / "examples" / "kernels" / "vector_add.c"
    module = load_library(board, remote, source, tmp_path, "-O2", "-std=c99")
    device = remote.cpu(0)
    a, b = (np.random.default_rng(seed).random(1000).astype("float32") for seed in (1, 2))
    c = empty((1000,), "float32", device)
    arguments = (tensor(a, device), tensor(b, device), c)
    module["vector_add"](*arguments)
    np.testing.assert_array_equal(c.numpy(), a + b)
    timing: Any = module.time_evaluator("vector_add", device, number=5, repeat=3)(*arguments)
    assert len(timing.results) == 3
    assert timing.min > 0


@pytest.mark.usefixtures("compiled_code")
def test_numbers(board: Board, remote: rpc.RPCSession, tmp_path: Path) -> None:
    """They are right in the board's byte order, as arguments, results and elements."""
    source = Path(__file__).with_name("values.c")
    module = load_library(board, remote, source, tmp_path, "-std=c99")
    assert module["pointer_bits"]() == board.bits
    assert bool(module["is_big_endian"]()) is (board.byte_order == "big")
    assert module["not_of"](0x0102030405060708) == ~0x0102030405060708
    assert module["half_of"](2.0**-1021) == 2.0**-1022
    for dtype, values in (("int16", [1, -2, 32767]), ("float64", [0.5, -1e300])):
        there = tensor(np.array(values, dtype), remote.cpu(0))
        read = module[f"read_{dtype}"]
        assert [read(there, index) for index in range(len(values))] == values
        np.testing.assert_array_equal(there.numpy(), np.array(values, dtype))


def test_a_crash(board: Board, port: int, remote: rpc.RPCSession, tmp_path: Path) -> None:
    """It ends its own session; the client learns the signal."""
    source = ROOT / "tests" / "server" / "deaths.c"
    module = load_library(board, remote, source, tmp_path, "-std=gnu11", "-w")
    with pytest.raises(SessionCrashedError, match="was killed by SIGSEGV"):
        module["say_and_segfault"]()
    with rpc.connect("127.0.0.1", port) as another:
        assert another.get_function("rpc.test.addone")(1) == 2
