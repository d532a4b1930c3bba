"""A session in an interpreter of its own: what it is given, and what if there is none."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.errors import SessionCrashedError
from pytest_tvmrpc.server.fresh import shared_file

FOLDER = str(Path(__file__).parents[2])


def test_the_shared_page(tmp_path: Path) -> None:
    """It has no name, and whoever maps it sees what others write."""
    descriptor = shared_file(str(tmp_path))
    try:
        assert list(tmp_path.iterdir()) == []
        with mmap.mmap(descriptor, mmap.PAGESIZE) as ours, mmap.mmap(
            descriptor, mmap.PAGESIZE
        ) as theirs:
            theirs[2] = 7
            assert ours[2] == 7
    finally:
        os.close(descriptor)


def test_no_interpreter(tmp_path: Path) -> None:
    """exec fails: the client is told, and the server goes on."""
    program = (
        "import sys\n"
        "from pytest_tvmrpc.exec import rpc_server\n"
        "sys.executable = '/none/of/ours'\n"
        "sys.exit(rpc_server.main(['--port', '0', '--no-fork']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": FOLDER},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline().rpartition(":")[2])
            for _ in range(2):
                with pytest.raises(SessionCrashedError, match=r"/none/of/ours") as caught:
                    _use(port)
                assert "exited with 1 before it served anything" in str(caught.value)
            assert process.poll() is None
        finally:
            process.terminate()
            process.wait(10)


def _use(port: int) -> Any:
    with rpc.connect("127.0.0.1", port) as remote:
        return remote.get_function("rpc.test.addone")(1)


def test_the_client_s_files_are_no_modules(start_server: Any) -> None:
    """The session's folder is where it works, not where it looks for Python's modules."""
    with start_server(no_fork=True, server_init_callback=_register).connect() as remote:
        remote.upload(b"raise SystemExit", "fractions.py")
        assert remote.get_function("own.halves")() == "1/2"


def _register() -> None:
    from pytest_tvmrpc import runtime

    def halves() -> str:
        import fractions

        return str(fractions.Fraction(1, 2))

    runtime.register_func("own.halves", halves)
