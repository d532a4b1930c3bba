"""Libraries that every session has: how they are named, and what the check finds out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable

import pytest

from pytest_tvmrpc.errors import CompilerError, LibraryError
from pytest_tvmrpc.runtime.toolchain import compile_library
from pytest_tvmrpc.server import libraries as module
from pytest_tvmrpc.server.libraries import check, split

# Python 3.12 warns of forks in processes with threads, as pytest-xdist's are; the server has none.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@pytest.fixture(name="build")
def _build(tmp_path: Path) -> Callable[[str], str]:
    """``build(statement)``: a library that does that when it is loaded."""

    def build(statement: str) -> str:
        source = tmp_path / "made.c"
        source.write_text(
            "#include <stdlib.h>\n#include <signal.h>\n#include <unistd.h>\n"
            f"__attribute__((constructor)) static void loaded(void) {{ {statement} }}\n"
        )
        try:
            return compile_library(source, tmp_path / "made.so")
        except CompilerError as error:
            pytest.skip(str(error))

    return build


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's path is made absolute; what is no file is the loader's; TVM's form has colons."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.so").write_bytes(b"")
    here = str(tmp_path / "here.so")
    assert split(None) == split("") == ()
    assert split("here.so:libm.so.6") == (here, "libm.so.6")
    assert split(["./here.so", "sub/none.so"]) == (here, str(tmp_path / "sub" / "none.so"))


def test_one_that_loads(build: Callable[[str], str]) -> None:
    """It is not loaded here, only in the process that tried."""
    path = build(";")
    check([path, "libm.so.6"])
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert path not in maps.read_text()


@pytest.mark.parametrize(
    ("statement", "message"),
    [("raise(SIGKILL);", "ended with status 9"), ("_exit(0);", "ended with status 0")],
)
def test_one_that_ends_its_process(
    build: Callable[[str], str], statement: str, message: str
) -> None:
    """A constructor that crashes or exits is found out."""
    path = build(statement)
    with pytest.raises(LibraryError, match=message) as caught:
        check([path])
    assert path in str(caught.value)


def test_one_that_does_not_return(
    build: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is a limit, and the process is gone."""
    monkeypatch.setattr(module, "_CHECK_S", 0.5)
    with pytest.raises(LibraryError, match="did not return in time"):
        check([build("for (;;) pause();")])
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize("name", ["libnone-of-ours.so.1", "/none/of/ours.so"])
def test_one_that_is_not_there(name: str, caplog: Any) -> None:
    """The message names it."""
    with pytest.raises(LibraryError, match=name):
        check([name])
