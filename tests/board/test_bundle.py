"""The server as one file on bare interpreters: it serves and measures, and then is gone."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.errors import CompilerError
from pytest_tvmrpc.exec.bundle import bundle
from pytest_tvmrpc.runtime.toolchain import compile_library

from .test_bare import KERNELS, VERSIONS, interpreter

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_a_bundle(which: str, tmp_path: Path) -> None:
    """With each of these interpreters of this machine; no package is beside the file."""
    versions = VERSIONS if which == "oldest" else VERSIONS[::-1]
    python = next(filter(None, map(interpreter, versions)), None)
    if python is None:
        pytest.skip(f"there is none of Python {', '.join(VERSIONS)} in PATH")
    bundle(str(tmp_path / "server.pyz"))
    environment = {**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    environment.pop("XDG_CACHE_HOME", None)
    with subprocess.Popen(
        [python, "-S", "-E", "-W", "error", "server.pyz", "--port=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment,
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().rpartition(":")[2])
            with rpc.connect("127.0.0.1", port) as remote:
                assert remote.get_function("rpc.test.addone")(1) == 2
                measure_kernel(remote, tmp_path / "vector_add.so")
        finally:
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=60)[1]
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert "Warning" not in said


def measure_kernel(remote: rpc.RPCSession, output: Path) -> None:
    """A kernel that is compiled here is called in the compiled loop over there."""
    try:
        compile_library(KERNELS / "vector_add.c", output, options=["-std=c99"])
    except CompilerError:
        return
    remote.upload(output)
    module = remote.load_module("vector_add.so")
    tensors = [runtime.empty((64,), "float32", remote.cpu(0)) for _ in range(3)]
    measured = module.time_evaluator("vector_add", remote.cpu(0), number=5)(*tensors)
    assert measured.mean > 0
    assert measured.loop == "compiled"
