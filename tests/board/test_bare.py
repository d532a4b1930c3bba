"""The server on bare interpreters: a plain copy of the package's folder, and nothing else.

Each of Python 3.8 to 3.14 that is found in PATH or with pyenv serves a client of this
interpreter, which has NumPy and a compiler; the board has neither.
"""

from __future__ import annotations

import glob
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator, List, Optional, Tuple

import numpy as np
import pytest

import pytest_tvmrpc
from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.errors import CompilerError, SessionCrashedError
from pytest_tvmrpc.runtime.toolchain import compile_library

VERSIONS = ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14"]
KERNELS = Path(__file__).parents[2] / "examples" / "kernels"

NOT_FOR_BOARDS = {"numpy", "asyncio", "cloudpickle", "psutil", "logging", "tornado", "pytest"}

CRASH = "int __tvm_ffi_crash(void *s, const void *a, int n, int *r) { return *(volatile int *)8; }"


def interpreter(version: str) -> Optional[str]:
    """A Python of this version, if there is one; a shim that finds none is none."""
    candidates = [shutil.which(f"python{version}")]
    candidates += sorted(glob.glob(os.path.expanduser(f"~/.pyenv/versions/{version}.*/bin/python")))
    for path in filter(None, candidates):
        script = "import sys, ctypes; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([path, "-S", "-E", "-c", script], capture_output=True, text=True)
        if done.stdout.strip() == version:
            return path
    return None


@pytest.fixture(name="board", scope="module", params=VERSIONS)
def _board(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tuple[int, "subprocess.Popen[str]", Path]]:
    """A server on this interpreter: its port, its process, and what it has imported."""
    python = interpreter(request.param)
    if python is None:
        pytest.skip(f"there is no Python {request.param} on this machine")
    folder = tmp_path_factory.mktemp(f"board-{request.param}")
    shutil.copytree(
        os.path.dirname(pytest_tvmrpc.__file__),
        folder / "pytest_tvmrpc",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    script = (
        f"import sys; sys.path[:] = [path for path in sys.path if path] + [{str(folder)!r}]; "
        "from pytest_tvmrpc.exec.rpc_server import main; sys.exit(main())"
    )
    command = [python, "-S", "-E", "-W", "error", "-X", "importtime", "-c", script, "--port", "0"]
    log = folder / "log"
    with open(log, "w") as file, subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=file, text=True, cwd=str(folder)
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("bind to 127.0.0.1:"), log.read_text()
            yield int(line.rpartition(":")[2]), process, log
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0


@pytest.fixture(name="remote")
def _remote(board: Any) -> Iterator[rpc.RPCSession]:
    """A session with it."""
    with rpc.connect("127.0.0.1", board[0]) as remote:
        yield remote


@pytest.fixture(name="build", scope="module")
def _build(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``build(source)``: the path of a library, compiled here."""

    def build(source: Path) -> str:
        output = tmp_path_factory.mktemp("library") / f"{source.stem}.so"
        try:
            return compile_library(source, output, options=["-std=c99"])
        except CompilerError as error:
            pytest.skip(str(error))

    return build


def imported(log: Path) -> List[str]:
    """The names of the modules that the server, and its sessions, have imported."""
    lines = log.read_text().splitlines()
    assert not [line for line in lines if "Traceback" in line or "Warning" in line], lines
    return [line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")]


def test_calls(remote: rpc.RPCSession) -> None:
    """Values of all kinds, exceptions, functions that return functions."""
    echo = remote.get_function("testing.echo")
    for value in (None, True, -5, 1.5, "text", b"bytes", bytes(100_000)):
        assert echo(value) == value
    assert remote.get_function("rpc.test.add_to_lhs")(5)(6) == 11
    with pytest.raises(ValueError, match=r"^boom$"):
        remote.get_function("rpc.test.except")("boom")
    assert remote.get_function("rpc.test.addone")(1) == 2


def test_tensors(remote: rpc.RPCSession) -> None:
    """Small and large, there and back, without NumPy over there."""
    for count in (4, 1 << 20):
        array = np.random.rand(count).astype("float32")
        tensor = runtime.tensor(array, remote.cpu(0))
        np.testing.assert_array_equal(tensor.numpy(), array)
        copy = tensor.copyto(runtime.empty((count,), "float32", remote.cpu(0)))
        np.testing.assert_array_equal(copy.numpy(), array)
    made = remote.get_function("rpc.test.remote_return_nd")("get_arr")()
    np.testing.assert_array_equal(made.numpy(), np.zeros(10, "float32"))


def test_files(remote: rpc.RPCSession) -> None:
    """Up and down, listed and removed."""
    content = os.urandom(300_000)
    remote.upload(content, "a.bin")
    assert remote.download("a.bin") == content
    assert remote.listdir() == "a.bin"
    remote.remove("a.bin")
    with pytest.raises(ValueError, match="leads outside"):
        remote.upload(content, "../a.bin")


def test_a_compiled_kernel(remote: rpc.RPCSession, build: Any) -> None:
    """Sent, loaded, run and timed; wrong arguments are an error."""
    remote.upload(build(KERNELS / "vector_add.c"))
    module = remote.load_module("vector_add.so")
    a, b = np.random.rand(2, 1024).astype("float32")
    tensors = [runtime.tensor(array, remote.cpu(0)) for array in (a, b, np.zeros_like(a))]
    module["vector_add"](*tensors)
    np.testing.assert_array_equal(tensors[2].numpy(), a + b)
    timing = module.time_evaluator("vector_add", remote.cpu(0), number=5, repeat=3)(*tensors)
    assert len(timing.results) == 3
    assert timing.min > 0
    with pytest.raises(TypeError, match="takes 3 arguments"):
        module["vector_add"]()
    with pytest.raises(AttributeError, match="has no function 'none'"):
        module["none"]


def test_what_was_printed(remote: rpc.RPCSession, build: Any) -> None:
    """By C, into its own buffer; the last of it, and how much there was."""
    remote.upload(build(Path(__file__).parents[1] / "server" / "prints.c"))
    module = remote.load_module("prints.so")
    module["complain"]()
    assert "\nwrong\n" in remote.output().text  # among the times of all imports
    before = remote.output(limit=0).end
    module["say"]()
    assert remote.output(since=before) == (b"said in C\n", before + 10, 0)
    module["count"]()
    end = before + 10 + (5 << 20)
    assert remote.output(since=before, limit=8) == (b"0655359\n", end, end - before - 8)


def test_a_kernel_that_crashes(board: Any, build: Any, tmp_path: Path) -> None:
    """The next client is served."""
    (tmp_path / "crash.c").write_text(CRASH)
    library = build(tmp_path / "crash.c")
    for _ in range(2):
        with rpc.connect("127.0.0.1", board[0]) as remote:
            remote.upload(library)
            with pytest.raises(SessionCrashedError, match="SIGSEGV"):
                remote.load_module("crash.so")["crash"]()


def test_a_session_with_a_limit(board: Any) -> None:
    """Its end comes in time."""
    remote = rpc.connect("127.0.0.1", board[0], session_timeout=0.1)
    with rpc.connect("127.0.0.1", board[0]) as other:
        assert other.get_function("rpc.test.addone")(1) == 2
    with pytest.raises(rpc.RPCSessionTimeoutError):
        remote.get_function("rpc.test.addone")


def test_nothing_is_imported_that_a_board_lacks(remote: rpc.RPCSession, board: Any) -> None:
    """Not by the server, nor by any session that the tests before have had."""
    assert remote.get_function("rpc.test.addone")(1) == 2
    names = imported(board[2])
    assert "pytest_tvmrpc.server.supervisor" in names
    assert "pytest_tvmrpc.session.serving" in names
    assert not [name for name in names if name.partition(".")[0] in NOT_FOR_BOARDS]
    if sys.platform == "linux":
        maps = Path(f"/proc/{board[1].pid}/maps").read_text()
        assert "numpy" not in maps
        assert "site-packages" not in maps
