"""Libraries: of C, of older compilers, of nothing, broken ones; modules, imports, extras."""

from __future__ import annotations

import gc
import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.errors import CompilerError, LibraryError, RemoteError

if TYPE_CHECKING:
    from .kinds import Kind

np = pytest.importorskip("numpy")

ROOT = Path(__file__).parents[2]
NUMBER = (
    "int __tvm_ffi_{0}(void *self, const void *args, int count, long long *result)"
    " {{ ((int *)result)[0] = 1; ((int *)result)[1] = 0; result[1] = {1}; return 0; }}\n"
)


def loaded(remote: rpc.RPCSession, library: Path, name: str = "") -> Any:
    """The library, sent and loaded."""
    remote.upload(library, name or library.name)
    return remote.load_module(name or library.name)


def test_a_library_of_c(module: Any) -> None:
    """Its functions, its main function, its context, its workspace."""
    assert module["addone"](41) == 42
    assert module["has_context"]() is True
    assert module["workspace"]() == 0
    assert module["count"]() is None
    assert module["calls"]() == 1


def test_kernels_of_kernel_h(remote: rpc.RPCSession, compiled: Any) -> None:
    """The example, with its checks of the arguments."""
    module = loaded(remote, compiled(ROOT / "examples" / "kernels" / "vector_add.c", "-std=c99"))
    a, b, c = (runtime.tensor(np.full(1000, n, "float32"), remote.cpu(0)) for n in (1, 2, 0))
    module["vector_add"](a, b, c)
    assert set(c.numpy().tolist()) == {3.0}
    with pytest.raises(TypeError, match="vector_add takes 3 arguments, not 2"):
        module["vector_add"](a, b)
    wrong = runtime.tensor(np.zeros(1000, "int32"), remote.cpu(0))
    with pytest.raises(TypeError, match="int32"):
        module["vector_add"](a, b, wrong)


def test_a_library_of_an_older_compiler(remote: rpc.RPCSession, old_library: Path) -> None:
    """Its functions take their arguments in another way; so do its errors."""
    module = loaded(remote, old_library)
    assert module["addone"](41) == 42
    assert module["count"]() == 1
    tensor = runtime.tensor(np.zeros((2, 3), "float32"), remote.cpu(0))
    module["fill"](tensor, 2.5)
    assert set(tensor.numpy().ravel().tolist()) == {2.5}
    view = tensor._create_view((2,), relative_byte_offset=8)
    module["fill"](view, 1.0)
    assert tensor.numpy().ravel().tolist() == [2.5, 2.5, 1.0, 1.0, 2.5, 2.5]
    assert module["dtype"](tensor) == 23201
    assert module["codes"](1, 2.0, "text", tensor, None) == 2110704 or module["codes"](1, 2.0) == 2
    with pytest.raises(RemoteError, match="addone wants one int"):
        module["addone"]("text")


def test_libraries_without_functions(remote: rpc.RPCSession, compiled: Any) -> None:
    """They load, as other libraries may need them; asking them for a function is the error."""
    library = compiled("int plain(void) { return 5; }\n")
    module = loaded(remote, library)
    with pytest.raises(AttributeError, match="addone"):
        module["addone"]


def test_libraries_that_are_none(remote: rpc.RPCSession, probe: Path) -> None:
    """Text, nothing, the first half, another machine's: errors, and the session goes on."""
    whole = probe.read_bytes()
    cases = {
        "text.so": b"not a library",
        "nothing.so": b"",
        "half.so": whole[: len(whole) // 2],
        "header.so": whole[:64],
        "foreign.so": whole[:18] + b"\x02\x02" + whole[20:],
    }
    for name, content in cases.items():
        remote.upload(content, name)
        with pytest.raises(LibraryError) as caught:
            remote.load_module(name)
        assert isinstance(caught.value, RemoteError)
    assert loaded(remote, probe)["addone"](1) == 2


def test_a_library_with_something_missing(remote: rpc.RPCSession, compiled: Any) -> None:
    """The symbol is named."""
    library = compiled(
        "extern int nobody_has_this(void); " + NUMBER.format("number", "nobody_has_this()"),
        "-Wl,-z,now",
    )
    remote.upload(library)
    with pytest.raises(LibraryError, match="nobody_has_this"):
        remote.load_module(library.name)


def test_kinds_of_files(remote: rpc.RPCSession) -> None:
    """What cannot be loaded is refused by its name."""
    remote.upload(b"content", "file.xyz")
    with pytest.raises(RemoteError, match=r"xyz"):
        remote.load_module("file.xyz")
    with pytest.raises(RemoteError, match=r"Do not know how to link .*file\.xyz"):
        remote.download_linked_module("file.xyz")


def test_two_libraries(remote: rpc.RPCSession, compiled: Any) -> None:
    """Functions of one name keep apart, also under one file name, and when a file is replaced."""
    one, two = (compiled(NUMBER.format("number", n)) for n in (1, 2))
    first = loaded(remote, one, "same.so")
    second = loaded(remote, two, "same.so")
    third = loaded(remote, one, "other.so")
    assert [module["number"]() for module in (first, second, third)] == [1, 2, 1]
    remote.remove("same.so")
    assert second["number"]() == 2
    function = second["number"]
    del second
    gc.collect()
    assert function() == 2


def test_imports(remote: rpc.RPCSession, compiled: Any) -> None:
    """A function is found in what a module imports, if it is asked to look there."""
    parent, child = (loaded(remote, compiled(NUMBER.format(f"f{n}", n))) for n in (1, 2))
    with pytest.raises(AttributeError, match="f2"):
        parent["f2"]
    parent.import_module(child)
    assert parent.get_function("f2", query_imports=True)() == 2
    lookup = remote.get_function("tvm.rpc.server.ModuleGetFunction")
    assert lookup(parent, "f2", True)() == 2
    assert lookup(parent, "f2", False) is None
    del child
    gc.collect()
    assert parent.get_function("f2", query_imports=True)() == 2
    parent.clear_imports()
    with pytest.raises(AttributeError):
        parent.get_function("f2", query_imports=True)


def test_linked_there(kind: Kind, remote: rpc.RPCSession, compiled: Any) -> None:
    """Objects and archives of them, where the server's machine has a compiler."""
    if not kind.links:
        pytest.skip("its machine may have no compiler")
    part = compiled(NUMBER.format("number", 7), "-c").read_bytes()
    for name, mode in (("number.o", ""), ("number.tar", "w"), ("packed.tar", "w:gz")):
        content = packed(part, mode) if mode else part
        remote.upload(content, name)
        assert remote.load_module(name)["number"]() == 7
        linked = remote.download_linked_module(name)
        assert linked[:4] == b"\x7fELF"
        assert loaded_bytes(remote, bytes(linked), f"back-{name}.so")["number"]() == 7
    for name in ("broken.o", "broken.tar"):
        remote.upload(b"neither", name)
        with pytest.raises(LibraryError):
            remote.load_module(name)


def packed(content: bytes, mode: Any) -> bytes:
    """An archive of one object file."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode=mode) as archive:
        entry = tarfile.TarInfo("lib0.o")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return whole.getvalue()


def loaded_bytes(remote: rpc.RPCSession, content: bytes, name: str) -> Any:
    """A library, sent and loaded."""
    remote.upload(content, name)
    return remote.load_module(name)


def test_sources(kind: Kind, remote: rpc.RPCSession) -> None:
    """They are compiled there, or the error says what is loaded."""
    remote.upload(NUMBER.format("number", 7).encode(), "number.c")
    remote.upload(b"int f( {", "broken.c")
    if kind.compiles_sources:
        assert remote.load_module("number.c")["number"]() == 7
        with pytest.raises(CompilerError, match=r"broken\.c"):
            remote.load_module("broken.c")
    else:
        with pytest.raises(LibraryError, match=r"number\.c; expected \.so"):
            remote.load_module("number.c")


def test_a_library_is_linked_already(remote: rpc.RPCSession, probe: Path) -> None:
    """``download_linked_module`` of a library is its download."""
    remote.upload(probe)
    assert remote.download_linked_module(probe.name) == probe.read_bytes()


def test_the_system_library(remote: rpc.RPCSession) -> None:
    """It is there, and has nothing of what nobody linked in."""
    library = remote.system_lib()
    with pytest.raises(AttributeError, match="no_such_function"):
        library["no_such_function"]


def test_a_library_that_registers(remote: rpc.RPCSession, compiled: Any) -> None:
    """What it registers with the system library as it is loaded is found there."""
    library = compiled(
        "extern int TVMFFIEnvModRegisterSystemLibSymbol(const char *, void *);\n"
        + NUMBER.format("own", 11)
        + "static void __attribute__((constructor)) start(void) {\n"
        '  TVMFFIEnvModRegisterSystemLibSymbol("__tvm_ffi_registered", (void *)__tvm_ffi_own); }\n'
    )
    loaded(remote, library)
    assert remote.system_lib()["registered"]() == 11


def test_what_only_our_servers_have(
    kind: Kind, remote: rpc.RPCSession, module: Any, probe: Path, tmp_path: Path
) -> None:
    """The names of a module's functions, its file, types of objects, the machine's model."""
    names = module.function_names()
    assert {"addone", "calls", "fill"} <= set(names)
    assert names == sorted(names)
    remote.remove(probe.name)
    module.write_to_file(tmp_path / "saved.so")
    assert (tmp_path / "saved.so").read_bytes() == probe.read_bytes()
    assert isinstance(remote.get_function("tvmrpc.server.model")(), str)
    type_key = remote.get_function("tvmrpc.server.type_key")
    assert type_key(remote.get_function("ffi.Array")(1)) == "ffi.Array"
    assert type_key(remote.get_function("ffi.Map")("a", 1)) == "ffi.Map"
    assert type_key(remote.get_function("ffi.Shape")(1)) == "ffi.Shape"
    with pytest.raises(AttributeError, match=r"addone"):  # and what there is
        module["addtwo"]
