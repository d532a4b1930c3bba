"""with_minrpc: kernels and the Popen server in one program, which a session starts."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, Callable, List

import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.errors import CompilerError
from pytest_tvmrpc.runtime import elf
from pytest_tvmrpc.runtime.sources import module_from_source
from pytest_tvmrpc.runtime.toolchain import (
    compile_library,
    create_executable,
    create_shared,
    cross_compiler,
    find_compiler,
)

np = pytest.importorskip("numpy")

KERNEL = Path(__file__).parents[2] / "examples" / "kernels" / "vector_add.c"
OWN = """
#include "kernel.h"
KERNEL(second) { return return_int(result, 2); }
"""
REGISTERS = """
#include <stdio.h>
extern int TVMFFIEnvModRegisterSystemLibSymbol(const char *, void *);
static int third(void *s, const void *a, int n, long long *out) {
  out[0] = 1; out[1] = 3; return 0; }
static void __attribute__((constructor)) start(void) {
  TVMFFIEnvModRegisterSystemLibSymbol("__tvm_ffi_mine_third", (void *)third); }
"""


@pytest.fixture(autouse=True)
def _compiler() -> None:
    """A compiler is what it is about."""
    try:
        find_compiler()
    except CompilerError as error:
        pytest.skip(str(error))


def add(session: rpc.RPCSession, function: Any) -> List[float]:
    """What the kernel makes of 1 and 2, four times."""
    a, b, c = (runtime.tensor(np.full(4, n, "float32"), session.cpu(0)) for n in (1, 2, 0))
    function(a, b, c)
    values: List[float] = c.numpy().tolist()
    return values


FORMS: List[Callable[[], Any]] = [
    lambda: create_executable,
    lambda: create_shared,
    lambda: find_compiler()[0],
    lambda: "native",
    lambda: cross_compiler(create_executable, options=["-O1"]),
]


@pytest.mark.parametrize("form", FORMS, ids=["program", "library", "name", "target", "cross"])
def test_a_kernel(tmp_path: Path, form: Callable[[], Any]) -> None:
    """Exported, started, called: whatever says how it is linked."""
    path = tmp_path / "kernels.minrpc"
    module_from_source(KERNEL).export_library(path, fcompile=rpc.with_minrpc(form()))
    assert os.access(path, os.X_OK)
    with rpc.PopenSession(path) as session:
        library = session.system_lib()
        assert library.function_names() == ["vector_add"]
        assert add(session, library["vector_add"]) == [3.0] * 4
        with pytest.raises(TypeError, match="vector_add takes 3 arguments, not 1"):
            library["vector_add"](1)
        assert library.time_evaluator("vector_add", session.cpu(0), number=3)(
            *(runtime.empty((4,), "float32", session.cpu(0)) for _ in range(3))
        ).mean
        with pytest.raises(AttributeError, match="no_such"):
            library["no_such"]
        assert session.get_function("rpc.test.addone")(1) == 2


def test_several_modules(tmp_path: Path) -> None:
    """Objects, sources, and code that registers by itself, some under a prefix."""
    (tmp_path / "own.c").write_text(OWN)
    (tmp_path / "registers.c").write_text(REGISTERS)
    first = tmp_path / "first.o"
    compile_library(KERNEL, first, options=["-c"])
    path = tmp_path / "kernels.minrpc"
    rpc.with_minrpc(create_executable)(
        str(path),
        [str(first), str(tmp_path / "registers.c"), str(tmp_path / "own.c")],
        options=["-I", runtime.toolchain.include_dir()],
    )
    with rpc.PopenSession(path.read_bytes()) as session:
        library = session.system_lib()
        assert library.function_names() == ["mine_third", "second", "vector_add"]
        assert (library["second"](), library["mine_third"]()) == (2, 3)
        assert session.get_function("ffi.SystemLib")("mine_")["third"]() == 3


def test_no_such_server() -> None:
    """TVM's words, and what there is."""
    with pytest.raises(RuntimeError, match="Cannot find minserver other; expected 'posix_popen"):
        rpc.with_minrpc("gcc", server="other")
    rpc.with_minrpc(create_executable, "posix_popen_server", "libtvm_runtime")


def test_no_such_compiler() -> None:
    """It is said at once."""
    with pytest.raises(CompilerError, match="no-such-compiler"):
        rpc.with_minrpc("no-such-compiler")


def test_a_function_that_links_libraries(tmp_path: Path) -> None:
    """The error says what it should link."""

    def links(output: str, objects: List[str], options: List[str]) -> None:
        compile_library(KERNEL, output)

    with pytest.raises(CompilerError, match=r"became a library.*cc\.create_executable"):
        module_from_source(KERNEL).export_library(
            tmp_path / "kernels.minrpc", fcompile=rpc.with_minrpc(links)
        )


def test_attributes() -> None:
    """What TVM's export_library looks for."""
    made: Any = rpc.with_minrpc(cross_compiler("native"))
    assert (made.__name__, made.need_system_lib) == ("with_minrpc", True)
    assert made.output_format == "so"
    assert made.get_target_triple()
    assert not hasattr(rpc.with_minrpc("native"), "get_target_triple")


def test_programs_and_libraries(tmp_path: Path) -> None:
    """Which of the two a file is."""
    assert elf.is_program(os.path.realpath("/proc/self/exe"))
    (tmp_path / "main.c").write_text("int main(void) { return 0; }")
    for options, expected in (([], True), (["-no-pie"], True)):
        create_executable(str(tmp_path / "main"), ["main.c"], options, cwd=tmp_path)
        assert elf.is_program(str(tmp_path / "main")) is expected
        subprocess.run([str(tmp_path / "main")], check=True)
    compile_library(KERNEL, tmp_path / "library.so")
    assert not elf.is_program(str(tmp_path / "library.so"))


def test_at_a_server(tmp_path: Path) -> None:
    """The program is sent along with the session."""
    path = tmp_path / "kernels.minrpc"
    module_from_source(KERNEL).export_library(path, fcompile=rpc.with_minrpc(create_executable))
    constructor = ["rpc.PopenSession", path.read_bytes()]
    with rpc.Server(port=0, silent=True) as server, rpc.connect(
        server.host, server.port, session_constructor_args=constructor
    ) as session:
        assert add(session, session.system_lib()["vector_add"]) == [3.0] * 4
