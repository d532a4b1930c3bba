"""kernel.h: in C and in C++, what its functions accept, refuse and say."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, List

import pytest

from pytest_tvmrpc import runtime
from pytest_tvmrpc.errors import CompilerError
from pytest_tvmrpc.runtime.library import LibraryModule
from pytest_tvmrpc.runtime.toolchain import compile_library, find_compiler, include_dir

if TYPE_CHECKING:
    from pathlib import Path

STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic"]

BOTH = """
#include "kernel.h"

KERNEL(add_one) {
  int64_t value;
  (void)self;
  if (expect_count("add_one", num_args, 1)) return -1;
  if (expect_int("add_one", args, 0, &value)) return -1;
  return return_int(result, value + 1);
}

KERNEL(half) {
  double value;
  (void)self, (void)num_args;
  if (expect_float("half", args, 0, &value)) return -1;
  return return_float(result, value / 2);
}

KERNEL(sum) {
  const DLTensor *a, *b;
  int64_t total = 0, i;
  (void)self, (void)num_args;
  if (!(a = tensor_of("sum", args, 0, TYPE_INT, 64, 1))) return -1;
  if (!(b = float_tensor("sum", args, 1, -1))) return -1;
  if (expect_length("sum", "b", b, 0, a->shape[0])) return -1;
  for (i = 0; i < a->shape[0]; ++i) {
    total += ((const int64_t*)elements(a))[i] + (int64_t)floats(b)[i];
  }
  return return_int(result, total);
}

KERNEL(nothing) {
  (void)self, (void)args, (void)num_args, (void)result;
  return 0;
}
"""

THROWS = """
#include "kernel.h"
#include <string>
#include <vector>

namespace somewhere {
KERNEL(throws) {
  (void)self, (void)num_args, (void)result;
  switch (args[0].as.v_int64) {
    case 0: throw std::invalid_argument("an argument");
    case 1: return std::vector<int>(3).at(5);
    case 2: throw std::bad_alloc();
    case 3: throw std::string("text");
    case 4: throw std::runtime_error("something");
    default: return 0;
  }
}
}
"""


def compiler_of(language: str) -> List[str]:
    """The beginning of a command, or the test is skipped."""
    try:
        found = find_compiler(has_objects=language != "c")
    except CompilerError as error:
        pytest.skip(str(error))
    if language != "c" and "++" not in os.path.basename(found[0]):
        pytest.skip("no C++ compiler")
    return found


@pytest.mark.parametrize("standard", ["c99", "c11", "c++11", "c++17", "c++17 -fno-exceptions"])
def test_languages(tmp_path: Path, standard: str) -> None:
    """The same text is C and C++, without a warning; its functions have the names of C."""
    suffix = "cc" if "++" in standard else "c"
    source = tmp_path / f"both.{suffix}"
    source.write_text(BOTH)
    options = [*f"-std={standard}".split(), *STRICT]
    compiler = compiler_of(suffix)
    module = LibraryModule(
        compile_library(source, tmp_path / "both.so", compiler=compiler, options=options)
    )
    assert module.function_names() == ["add_one", "half", "nothing", "sum"]
    assert module["add_one"](41) == 42
    assert module["half"](3) == 1.5
    assert module["nothing"]() is None
    with pytest.raises(TypeError, match="add_one takes 1 argument, not 2"):
        module["add_one"](1, 2)


@pytest.fixture(name="both", scope="module")
def _both(tmp_path_factory: pytest.TempPathFactory) -> LibraryModule:
    folder = tmp_path_factory.mktemp("both")
    (folder / "both.c").write_text(BOTH)
    return LibraryModule(
        compile_library(folder / "both.c", folder / "both.so", compiler=compiler_of("c"))
    )


def test_arguments(both: LibraryModule) -> None:
    """Numbers of the wrong kind are refused with the place and the name."""
    assert both["add_one"](True) == 2
    with pytest.raises(TypeError, match="argument 0 of add_one must be an int"):
        both["add_one"](1.5)
    with pytest.raises(TypeError, match="argument 0 of half must be a float"):
        both["half"]("text")


def test_tensors(both: LibraryModule) -> None:
    """So are tensors of another type, number of dimensions or length, and what is none."""
    np = pytest.importorskip("numpy")

    def tensor(values: Any, dtype: str) -> runtime.Tensor:
        return runtime.tensor(np.array(values, dtype))

    whole, real = tensor([1, 2], "int64"), tensor([10, 20], "float32")
    assert both["sum"](whole, real) == 33
    for args, message in (
        ((real, real), "argument 0 of sum must be int64, not float32$"),
        ((whole, tensor([1, 2], "float64")), "argument 1 of sum must be float32, not float64$"),
        ((whole, whole), "argument 1 of sum must be float32, not int64$"),
        ((1, real), "argument 0 of sum must be a tensor"),
    ):
        with pytest.raises(TypeError, match=message):
            both["sum"](*args)
    for args, message in (
        ((tensor([[1], [2]], "int64"), real), "argument 0 of sum must have 1 dimensions, not 2"),
        ((whole, tensor([1], "float32")), "sum: axis 0 of b must be 2 long, not 1"),
    ):
        with pytest.raises(ValueError, match=message):
            both["sum"](*args)


def test_exceptions_of_cpp(tmp_path: Path) -> None:
    """What a kernel throws is the error of its call, of a like type, and the next call is fine."""
    source = tmp_path / "throws.cc"
    source.write_text(THROWS)
    library = compile_library(
        source, tmp_path / "throws.so", compiler=compiler_of("c++"), options=STRICT
    )
    throws = LibraryModule(library)["throws"]
    for number, kind, message in (
        (0, ValueError, "an argument"),
        (1, IndexError, "5"),
        (2, MemoryError, "bad_alloc"),
        (3, RuntimeError, "no std::exception"),
        (4, RuntimeError, "something"),
    ):
        with pytest.raises(kind, match=message):
            throws(number)
        assert throws(9) is None


def test_not_beside_tvms_own(tmp_path: Path) -> None:
    """Both declare the same; the compiler says so instead of a page of conflicts."""
    source = tmp_path / "two.c"
    source.write_text('#define TVM_FFI_C_API_H_\n#include "kernel.h"\n')
    with pytest.raises(CompilerError, match="include one of them"):
        compile_library(source, tmp_path / "two.so", compiler=compiler_of("c"))


def test_a_header_of_the_users_own(tmp_path: Path) -> None:
    """One that lies beside the source, or that an option names, comes first."""
    (tmp_path / "kernel.h").write_text("int __tvm_ffi_own(void) { return 0; }\n")
    source = tmp_path / "own.c"
    source.write_text('#include "kernel.h"\n')
    library = compile_library(source, tmp_path / "own.so", compiler=compiler_of("c"))
    assert LibraryModule(library).function_names() == ["own"]


def test_the_folder() -> None:
    """It is inside the package, so that it goes wherever that goes."""
    assert os.listdir(include_dir()) == ["kernel.h"]
    assert os.path.dirname(include_dir()) == os.path.dirname(os.path.abspath(runtime.__file__))
