"""`tvmrpc bundle`: what is in the file, where it goes, and the server that comes out of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.errors import CompilerError
from pytest_tvmrpc.exec import bundle
from pytest_tvmrpc.runtime.toolchain import find_compiler

SOURCE = b'#include "kernel.h"\nKERNEL(f) { (void)self; return return_int(result, num_args); }\n'


@pytest.fixture(name="archive", scope="module")
def _archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file."""
    path = tmp_path_factory.mktemp("bundle") / "board.pyz"
    assert bundle.main(["--output", str(path)]) == 0
    return path


@pytest.fixture(name="environment")
def _environment(tmp_path: Path) -> Dict[str, str]:
    """A home of its own."""
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}
    environment.pop("XDG_CACHE_HOME", None)
    environment.pop("PYTHONPATH", None)
    return environment


def command(archive: Path, *words: str) -> List[str]:
    """It, started by a Python that has no packages."""
    return [sys.executable, "-S", "-E", "-W", "error", str(archive), *words]


def unpacked(environment: Dict[str, str]) -> List[Path]:
    """What is in the cache."""
    return list((Path(environment["HOME"]) / ".cache" / "pytest-tvmrpc" / "server").iterdir())


@pytest.fixture(name="server")
def _server(archive: Path, environment: Dict[str, str]) -> Iterator[int]:
    """The port of its server; each session has an interpreter of its own."""
    words = command(archive, "--port=0", "--no-fork")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline().rpartition(":")[2])
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def test_the_file(archive: Path, tmp_path: Path) -> None:
    """It can be run as a program, has what a server needs and no plugin, and is always the same."""
    assert archive.stat().st_mode & 0o777 == 0o755
    assert archive.read_bytes().startswith(b"#!/usr/bin/env python3\n")
    bundle.bundle(str(tmp_path / "again.pyz"))
    assert (tmp_path / "again.pyz").read_bytes() == archive.read_bytes()
    names = set(zipfile.ZipFile(archive).namelist())
    wanted = ("errors.py", "server/supervisor.py", "runtime/include/kernel.h", "exec/rpc_server.py")
    assert {"__main__.py", *(f"pytest_tvmrpc/{name}" for name in wanted)} <= names
    assert not [name for name in names if "plugin" in name or "client/" in name or ".pyc" in name]
    assert os.listdir(tmp_path) == ["again.pyz"]


def test_an_output_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on stderr."""
    assert bundle.main(["-o", str(tmp_path / "nowhere" / "a.pyz")]) == 1
    assert "nowhere" in capsys.readouterr().err


def test_a_server(server: int, environment: Dict[str, str]) -> None:
    """It serves, also sessions in new interpreters, and compiles sources that include kernel.h."""
    with rpc.connect("127.0.0.1", server) as remote:
        assert remote.get_function("rpc.test.addone")(1) == 2
        try:
            find_compiler()
        except CompilerError:
            return
        remote.upload(SOURCE, "f.c")
        module: Any = remote.load_module("f.c")
        assert module["f"](1, runtime.empty((1,), "float32", remote.cpu(0))) == 2
    (folder,) = unpacked(environment)
    assert (folder / "pytest_tvmrpc" / "server" / "__pycache__").is_dir()  # not in the archive


def test_help_and_unpacking_once(archive: Path, environment: Dict[str, str]) -> None:
    """Several that start at the same time unpack one folder; help has the name of the file."""
    started = [
        subprocess.Popen(
            command(archive, "--help"), stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(3)
    ]
    for process in started:
        assert process.communicate(timeout=120)[0].startswith("usage: board.pyz [")
        assert process.returncode == 0
    assert len(unpacked(environment)) == 1
    folder = Path(environment["HOME"]) / ".cache" / "pytest-tvmrpc" / "server"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_cache_of_others(archive: Path, environment: Dict[str, str], tmp_path: Path) -> None:
    """A folder in which others can write is not used: then that for temporary files is, or none."""
    folder = Path(environment["HOME"]) / ".cache" / "pytest-tvmrpc" / "server"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    words = command(archive, "--help")
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    other = tmp_path / f"pytest-tvmrpc-{os.getuid()}" / "server"
    assert len(list(other.iterdir())) == 1
    other.chmod(0o777)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "board.pyz cannot be unpacked: " in done.stderr
    assert "others can write there; expected a folder of your own; set TMPDIR" in done.stderr
