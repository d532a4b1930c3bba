from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any, Callable, Iterator

import numpy as np
import pytest

from pytest_tvmrpc import runtime
from pytest_tvmrpc.errors import CompilerError, LibraryError
from pytest_tvmrpc.runtime import abi, c_ffi, context, elf, stubs, type_table
from pytest_tvmrpc.runtime.library import LibraryModule
from pytest_tvmrpc.runtime.toolchain import compile_library, find_compiler

SOURCE = Path(__file__).parent / "ffi.c"


def compiled(folder: Path, name: str, *options: str) -> Path:
    """``ffi.c`` as a library that needs libtvm_ffi.so, as all that C++ compilers make do."""
    architecture = elf.machine()
    if architecture is None:
        pytest.skip("stubs are made for ELF")
    try:
        find_compiler()
    except CompilerError as error:
        pytest.skip(str(error))
    bound = folder / "link" / "libtvm_ffi.so"
    bound.parent.mkdir(exist_ok=True)
    bound.write_bytes(stubs.stub_library(sorted(context.FUNCTIONS), architecture, bound.name))
    output = folder / f"{name}.so"
    linking = ["-Wl,--no-as-needed", f"-L{bound.parent}", "-ltvm_ffi"]
    compile_library(SOURCE, output, options=[*options, *linking])
    bound.unlink()
    assert "libtvm_ffi.so" in elf.read(str(output)).needed
    return output


@pytest.fixture(name="library", scope="module")
def _library(tmp_path_factory: pytest.TempPathFactory) -> LibraryModule:
    return LibraryModule(compiled(tmp_path_factory.mktemp("c"), "ffi"))


@pytest.fixture(name="ended")
def _ended(library: LibraryModule) -> Callable[[], int]:
    """How much of what the library gave away has come back since the test began."""
    before = library["ended"]()

    def ended() -> int:
        gc.collect()
        return int(library["ended"]() - before)

    return ended


@pytest.fixture(name="name")
def _name() -> Iterator[str]:
    """The name of a global function, which is removed after the test."""
    yield "test.c_ffi.function"
    runtime.remove_global_func("test.c_ffi.function")


def test_version(library: LibraryModule) -> None:
    """The version of the C API is that which is documented."""
    major, minor, patch = c_ffi.VERSION
    assert library["version"]() == major * 10000 + minor * 100 + patch


def test_functions_of_c(library: LibraryModule, ended: Callable[[], int]) -> None:
    """A C function with a resource is called with it, and gives it back at its end."""
    add = library["adder"](3)
    assert add(4) == 7
    with pytest.raises(AssertionError, match="one argument"):
        add()
    assert ended() == 0
    del add
    assert ended() == 3


def test_global_functions(library: LibraryModule, ended: Callable[[], int], name: str) -> None:
    """They are registered from C, found here and there, and replaced as the caller wants."""
    assert library["register_adder"](name, 10, 0) == 11
    found = runtime.get_global_func(name)
    assert found is not None
    assert found(5) == 15
    assert library["register_adder"](name, 20, 1) == 21
    assert found(5) == 15  # whoever has it can go on calling it
    runtime.register_func(name, lambda n: n * 2, override=True)
    with pytest.raises(ValueError, match="already registered"):
        library["register_adder"](name, 30, 0)
    assert runtime.get_global_func(name)(4) == 8  # type: ignore[misc]
    del found
    assert ended() == 60


def test_errors_made_in_c(library: LibraryModule) -> None:
    """An error has its kind and message, and its note says where it was thrown, oldest first."""
    with pytest.raises(ValueError, match=r"^made in C") as caught:
        library["raise"]()
    (note,) = getattr(caught.value, "__notes__", [])
    place, caller = note.index('File "kernel.cc", line 7, in int f()'), note.index("caller.cc")
    assert caller < place


def test_errors_that_c_catches(library: LibraryModule) -> None:
    """What Python raises in a call from C can be read and forgotten there."""

    def fail() -> None:
        raise KeyError("no such thing")

    assert library["caught"](fail) == "KeyError|'no such thing'"
    assert library["caught"](library["raise"]) == "ValueError|made in C"


def test_errors_that_pass_through_c(library: LibraryModule) -> None:
    """What Python raised comes out as the same exception, with its own attributes."""

    class OwnError(Exception):
        """An error that C knows by its name only."""

    raised = OwnError("through C")

    def fail() -> None:
        raise raised

    with pytest.raises(OwnError) as caught:
        library["passed_on"](fail)
    assert caught.value is raised
    with pytest.raises(ValueError, match="made in C") as caught_of_c:
        library["passed_on"](library["raise"])
    assert "kernel.cc" in getattr(caught_of_c.value, "__notes__", [""])[0]


@pytest.mark.parametrize(
    "value", [None, 7, 2.5, True, "short", "text of more than seven", b"\0", b"bytes, nine"]
)
def test_values_that_are_owned(library: LibraryModule, value: Any) -> None:
    """A borrowed value becomes one of its own."""
    result = library["owned"](value)
    assert result == value
    assert type(result) is type(value)


def test_objects_that_are_owned(library: LibraryModule, ended: Callable[[], int]) -> None:
    """An object gets one more reference, no more and no less."""
    add = library["adder"](2)
    for _ in range(3):
        assert library["owned"](add)(1) == 3
    del add
    assert ended() == 2


def test_bytes(library: LibraryModule) -> None:
    """Bytes are copied, short and long."""
    for content in (b"", b"1234567", b"12345678", bytes(1000)):
        assert library["copied_bytes"](content) == content


@pytest.mark.parametrize("text", ["float32", "int8x4", "bool", "bfloat16", "float4_e2m1fn"])
def test_data_types(library: LibraryModule, text: str) -> None:
    """Data types are read from text and written as text."""
    dtype = library["dtype"](text)
    assert dtype == runtime.DataType(text)
    assert library["dtype_name"](dtype) == text


def test_wrong_data_types(library: LibraryModule) -> None:
    """Text that names none is an error."""
    with pytest.raises(ValueError, match="'nonsense' is no data type"):
        library["dtype"]("nonsense")


def test_opaque_objects(library: LibraryModule) -> None:
    """They give back what they hold with their last reference."""
    assert library["opaque"]() == 100


def test_references_on_several_threads(library: LibraryModule) -> None:
    """No reference is lost when C++ counts on one thread and Python on another."""
    add = library["adder"](0)
    before = library["churn"](add, 1)
    done = threading.Event()

    def churn() -> None:
        library["churn"](add, 3_000_000)
        done.set()

    thread = threading.Thread(target=churn)
    thread.start()
    while not done.is_set():
        abi.retain(add.handle)
        abi.release(add.handle)
    thread.join()
    assert library["churn"](add, 1) == before


def test_types(library: LibraryModule) -> None:
    """Indices, keys and ancestors are as C++ reads them; an unknown key is an error."""
    with pytest.raises(ValueError, match=r"test\.Nobody"):
        library["types"]()
    base, derived = type_table.find_key("test.Base"), type_table.find_key("test.Derived2")
    assert base is not None
    assert derived is not None
    assert derived.parent is base
    assert derived.is_a(base.index)
    assert not base.is_a(derived.index)


def test_types_without_an_index(library: LibraryModule) -> None:
    """C++ tells the classes of some types by their indices alone: one too many gets none."""
    with pytest.raises(LibraryError, match=r"test\.Second.*test\.Closed has no index left"):
        library["closed_type"]()
    assert type_table.find_key("test.Second") is None


def test_a_library_with_one_type_too_many(tmp_path: Path) -> None:
    """It cannot be loaded; what C++ does not look at is said afterwards."""
    with pytest.raises(LibraryError, match=r"test\.Extra.*test\.Full has no index left"):
        LibraryModule(compiled(tmp_path, "types", "-DTYPES"))


def test_classes(library: LibraryModule) -> None:
    """Fields and methods are known here and there; a class may be registered again."""
    index = library["register_counter"]()
    assert library["register_counter"]() == index
    one = type_table.find(index)
    assert one is not None
    assert one.key == "test.Counter"
    (field,) = one.all_fields()
    assert (field.name, field.doc, field.is_writable) == ("value", "how far it is", True)
    assert field.getter
    assert list(one.all_methods()) == ["increase"]


def test_attributes_of_types(library: LibraryModule) -> None:
    """A column is there before its values; a type that is not there is an error."""
    with pytest.raises(LibraryError, match="type index 88888"):
        library["attributes"]()


def test_tensors_that_are_kept(library: LibraryModule) -> None:
    """C++ code may keep a tensor of its caller, whose memory stays until it lets go."""
    memory = []
    for number in range(3):
        tensor = runtime.tensor(np.array([number, 7]))
        memory.append(weakref.ref(tensor))
        assert library["swapped"](tensor) == number - 1
        del tensor
        gc.collect()
    assert [each() is None for each in memory] == [True, True, False]
    assert library["swapped"](None) == 2
    gc.collect()
    assert memory[-1]() is None


def test_tensors_that_come_back(library: LibraryModule) -> None:
    """A tensor that a function returns is the one that it was given; a measured one is, too."""
    tensor = runtime.tensor(np.arange(3))
    assert library["owned"](tensor) is tensor
    library["swapped"].prepare(tensor)()
    assert library["swapped"](None) == 0


def test_tensors_of_the_environment(library: LibraryModule) -> None:
    """They are made here, with shape and strides, and come out as they were filled."""
    tensor = library["allocated"]()
    assert (tensor.shape, tensor.dtype) == ((2, 3), "float32")
    assert tensor.numpy().reshape(-1).tolist() == [0, 1, 2, 3, 4, 5]


def test_tensors_of_an_allocator(library: LibraryModule, ended: Callable[[], int]) -> None:
    """A library's own allocator gives the memory and takes it back, or says why it does not."""
    tensor = library["by_allocator"](2)
    assert tensor.numpy()[1, 2] == 55
    with pytest.raises(MemoryError, match="only two rows"):
        library["by_allocator"](3)
    assert ended() == 0
    del tensor
    assert ended() == 7


def test_dlpack(library: LibraryModule) -> None:
    """Memory is freed when the last of tensor, exported tensor and view is gone."""
    assert library["exchanged"]() == 7
    assert library["exchanged_plain"]() == 9


def test_streams(library: LibraryModule) -> None:
    """A device has the stream that was set for it."""
    assert library["streams"]() == 0


def test_surroundings(library: LibraryModule, tmp_path: Path) -> None:
    """Libraries that are loaded later find the symbols that were registered."""
    assert library["surroundings"]() is None
    assert library["test_symbol"]() == 0
    assert LibraryModule(compiled(tmp_path, "later"))["test_symbol"]() == 77


def test_handles_are_ended_once(library: LibraryModule) -> None:
    """The function that ends a handle is called once."""
    assert library["deinit"]() == 0


def test_registers_of_relax(library: LibraryModule) -> None:
    """A register owns its value; an argument borrows it."""
    assert library["registers"]() == 10000


def test_registered_as_it_is_loaded(tmp_path: Path, name: str) -> None:
    """A library may register functions in its constructors, and be loaded again from elsewhere."""
    for number in (1, 2):
        option = f'-DREGISTERS="{name}"'
        LibraryModule(compiled(tmp_path, f"r{number}", option, f"-DADDS={number}"))
        assert runtime.get_global_func(name)(40) == 40 + number  # type: ignore[misc]


def test_a_name_that_is_taken(tmp_path: Path, name: str) -> None:
    """A constructor cannot fail, so the loading does, afterwards; the function stays."""
    runtime.register_func(name, lambda: "mine")
    option = f'-DREGISTERS="{name}"'
    with pytest.raises(LibraryError, match=f"{name} is already registered"):
        LibraryModule(compiled(tmp_path, "taken", option, "-DADDS=1"))
    assert runtime.get_global_func(name)() == "mine"  # type: ignore[misc]


def test_objects_that_outlive_python(library: LibraryModule) -> None:
    """What C++ keeps to the end of the process is given back when there is no Python any more."""
    root = str(Path(runtime.__file__).parent.parent.parent)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pytest_tvmrpc.runtime import load_module\n"
        "keep = load_module(sys.argv[2])['keep']\n"
        "print(keep(lambda: 1), keep(lambda: 2))\n"
    )
    command = [sys.executable, "-S", "-E", "-W", "error", "-c", program, root, library.path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 2\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_no_tvm(library: LibraryModule) -> None:
    """All that was without a libtvm_ffi.so."""
    with open("/proc/self/maps") as maps:
        assert not [line for line in maps if "/libtvm_ffi" in line]
