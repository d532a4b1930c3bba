from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_tvmrpc.errors import CompilerError
from pytest_tvmrpc.runtime import toolchain
from pytest_tvmrpc.runtime.library import LibraryModule

if TYPE_CHECKING:
    from pathlib import Path


def program(folder: Path, name: str, text: str = "") -> str:
    """The path of a program that Python runs."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture(name="source")
def _source(tmp_path: Path) -> Path:
    path = tmp_path / "one.c"
    path.write_text(
        "int __tvm_ffi_one(void *self, const void *args, int n, int *out)"
        "{ out[0] = 1; out[1] = 0; out[2] = ONE; out[3] = 0; return 0; }\n"
    )
    return path


def test_order_of_compilers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CC decides; then gcc, clang and cc are looked for in PATH."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("cc", "clang", "gcc"):
        path = program(tmp_path, name)
        assert toolchain.find_compiler() == [path]
    other = program(tmp_path, "other")
    monkeypatch.setenv("CC", "other -m64 '-Done=a b'")
    assert toolchain.find_compiler() == [other, "-m64", "-Done=a b"]
    monkeypatch.setenv("CC", " ")
    assert toolchain.find_compiler() == [str(tmp_path / "gcc")]


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what was looked for and what to set."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(CompilerError, match=r"looked for gcc, clang, cc in PATH.*variable CC"):
        toolchain.find_compiler()
    monkeypatch.setenv("CC", "nowhere")
    with pytest.raises(CompilerError, match=r"'nowhere' of the environment variable CC"):
        toolchain.find_compiler()


def test_a_compiler_that_cannot_be_run(source: Path, tmp_path: Path) -> None:
    """The one that was passed is named."""
    with pytest.raises(CompilerError, match="nowhere' cannot be run: No such file"):
        toolchain.compile_library(source, tmp_path / "one.so", compiler="/nowhere")


def test_compile(source: Path, tmp_path: Path) -> None:
    """Sources become a library; options are passed on; nothing else is left in the folder."""
    try:
        compiler = toolchain.find_compiler()
    except CompilerError as error:
        pytest.skip(str(error))
    folder = tmp_path / "a folder; with $odd names"
    folder.mkdir()
    for value in (5, 6):  # the second one replaces the first, which is in use
        options = [f"-DONE={value}"]
        path = toolchain.compile_library([source], folder / "one.so", options=options)
        assert path == str(folder / "one.so")
        assert LibraryModule(path)["one"]() == value
        assert os.listdir(folder) == ["one.so"]
    toolchain.compile_library(
        str(source), str(folder / "one.so"), options=["-DONE=7"], compiler=compiler
    )
    assert LibraryModule(folder / "one.so")["one"]() == 7


def test_refused_source(tmp_path: Path) -> None:
    """The compiler's own first lines and the command are in the message; no file is left."""
    try:
        toolchain.find_compiler()
    except CompilerError as error:
        pytest.skip(str(error))
    source = tmp_path / "bad.c"
    source.write_text("int f( {\n")
    with pytest.raises(CompilerError, match="error:") as caught:
        toolchain.compile_library(source, tmp_path / "bad.so")
    assert "-shared -fPIC -O2" in str(caught.value)
    assert str(source) in str(caught.value)
    assert os.listdir(tmp_path) == ["bad.c"]


def test_long_and_silent_refusals(source: Path, tmp_path: Path) -> None:
    """Only the first lines are told, and that there is nothing to tell."""
    loud = program(tmp_path, "loud", "print('line\\n' * 100); raise SystemExit(3)")
    with pytest.raises(CompilerError, match=r"ended with 3;(.|\n)*\(80 more lines\)"):
        toolchain.compile_library(source, tmp_path / "one.so", compiler=loud)
    silent = program(tmp_path, "silent")
    with pytest.raises(CompilerError, match=r"ended with 0(.|\n)*it printed nothing"):
        toolchain.compile_library(source, tmp_path / "one.so", compiler=[silent, "-x"])
