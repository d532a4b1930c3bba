"""Functions of a server on their own: measured without their module at hand."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.errors import LibraryError, RemoteError
from pytest_tvmrpc.runtime.module import Module
from pytest_tvmrpc.runtime.profiling import Timing
from pytest_tvmrpc.runtime.tensor import tensor


def test_a_function_is_measured(remote: rpc.RPCSession, vector_add: Any) -> None:
    """As its module would measure it; the seconds count as the device's."""
    np = pytest.importorskip("numpy")
    device = remote.cpu(0)
    a = tensor(np.zeros(8, "float32"), device)
    result = vector_add["vector_add"].make_evaluator(device, Timing(5, 3))(a, a, a)
    assert len(result.results) == 3
    assert remote.meter.device_s == pytest.approx(5 * sum(result.results))


def test_a_function_outlives_its_module(remote: rpc.RPCSession, library: str) -> None:
    """The server keeps a module for its last function: it is called and measured as before."""
    np = pytest.importorskip("numpy")
    remote.upload(library)
    add = remote.load_module("vector_add.so")["vector_add"]
    device = remote.cpu(0)
    a = tensor(np.ones(8, "float32"), device)
    add(a, a, a)
    assert add.make_evaluator(device, Timing())(a, a, a).min > 0


def test_a_module_is_let_go_with_its_last_function(inside: Any) -> None:
    """Dropping module and function frees both on the server, without the garbage collector."""
    remote, session = inside
    module = remote.system_lib()
    before = len(session.handles)
    del module
    remote.get_function("rpc.test.addone")(1)
    assert len(session.handles) < before


def test_a_global_function_is_measured(remote: rpc.RPCSession) -> None:
    """The server finds it by its name."""
    echo = remote.get_function("testing.echo")
    assert echo.make_evaluator(remote.cpu(0), Timing(5))(1).min > 0


def test_a_function_without_a_name(remote: rpc.RPCSession) -> None:
    """What a function returned cannot be found again, and the message says what can."""
    add = remote.get_function("rpc.test.add_to_lhs")(1)
    with pytest.raises(ValueError, match=r"the server measures what it finds by name; take"):
        add.make_evaluator(remote.cpu(0), Timing())


def test_the_key_of_a_session(remote: rpc.RPCSession) -> None:
    """The one that was asked for; none if none was."""
    assert remote.key == ""
    with rpc.Server(port=0, key="jetson", silent=True) as jetson, rpc.connect(
        jetson.host, jetson.port, "jetson"
    ) as session:
        assert session.key == "jetson"


def test_the_functions_of_a_module(remote: rpc.RPCSession, vector_add: Any) -> None:
    """They are listed and asked for by ``in``; what is missing is an error that names them."""
    assert vector_add.function_names() == ["vector_add"]
    assert "vector_add" in vector_add
    assert "none" not in vector_add
    assert vector_add.vector_add is vector_add["vector_add"]
    assert "vector_add" in dir(vector_add)
    with pytest.raises(AttributeError, match=r"has no function 'none'; it has 'vector_add'$"):
        vector_add["none"]
    remote.upload(b"int add(int a, int b) { return a + b; }", "plain.c")
    plain = remote.load_module("plain.c")
    with pytest.raises(AttributeError, match=r"exports 'add' as a plain function of C.*KERNEL"):
        plain["add"]
    assert plain.function_names() == []


def test_a_module_for_people(server: rpc.Server, library: str) -> None:
    """It is shown with its file, its server and its functions, and never by an error."""
    with rpc.connect(server.host, server.port) as remote:
        remote.upload(library)
        module, system = remote.load_module("vector_add.so"), remote.system_lib()
        where = f"{server.host}:{server.port}"
        assert repr(module) == f"Module(rpc, vector_add.so on {where}: vector_add)"
        assert repr(system) == f"Module(rpc, no file on {where})"
        module["vector_add"]
    assert repr(module) == f"Module(rpc, vector_add.so on {where}: vector_add)"
    assert "vector_add" in dir(module)


def test_who_looks_at_a_module_does_not_wait(inside: Any, deadline_s: float) -> None:
    """While another thread waits for an answer, only what is known is shown."""
    remote, session = inside
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        leave.wait(deadline_s)

    session.environment.add("test.hold", hold)
    function, module = remote.get_function("test.hold"), remote.system_lib()
    thread = threading.Thread(target=function)
    thread.start()
    try:
        assert entered.wait(deadline_s)
        assert not remote.is_idle
        assert repr(module).startswith("Module(rpc, no file on ")
    finally:
        leave.set()
        thread.join(deadline_s)
    assert remote.is_idle


def test_what_a_remote_module_is(vector_add: Any) -> None:
    """TVM's kind and mask; it can be called, and not exported."""
    assert (vector_add.kind, vector_add.type_key, vector_add.get_property_mask()) == (
        *("rpc", "rpc"),
        2,
    )
    assert vector_add.is_runnable()
    assert not vector_add.is_dso_exportable
    with pytest.raises(LibraryError, match=r"cannot be exported, as it is of kind 'rpc'"):
        vector_add.export_library("x.so")


def test_imports_are_cleared(remote: rpc.RPCSession, library: str) -> None:
    """Here and there: what an import had is not found any more by a module loaded anew."""
    remote.upload(library)
    system, module = remote.system_lib(), remote.load_module("vector_add.so")
    system.import_module(module)
    assert system.imports == [module]
    assert "vector_add" in system
    system.clear_imports()
    assert system.imports == []
    assert "vector_add" not in remote.system_lib()


def test_the_source_of_a_module(inside: Any, vector_add: Any) -> None:
    """As far as the server has it; a library has none."""
    remote, session = inside

    class Source(Module):
        def inspect_source(self, fmt: str = "") -> str:
            return f"the source {fmt}"

    session.environment.add("test.source", Source)
    module = remote.get_function("test.source")()
    assert module.get_source("c") == module.inspect_source("c") == "the source c"
    assert vector_add.get_source() == ""


def test_a_module_comes_back_as_it_was(
    remote: rpc.RPCSession, library: str, tmp_path: Path
) -> None:
    """To the byte, though its name is another file's by now; but for what is of no file."""
    remote.upload(library)
    module = remote.load_module("vector_add.so")
    remote.upload(b"something else", "vector_add.so")
    for name, fmt in (("copy.so", ""), ("copy", "so")):
        module.save(tmp_path / name, fmt)
        assert (tmp_path / name).read_bytes() == Path(library).read_bytes()
    assert remote.listdir() == "vector_add.so"
    assert module.get_write_formats() == ["so"]
    with pytest.raises(LibraryError, match="in the format 'o'; expected 'so'"):
        module.save(tmp_path / "x.o", "o")
    with pytest.raises(LibraryError, match=r"is of no file; expected a module that load_module"):
        remote.system_lib().save(tmp_path / "x.so")
    remote.upload(b'#include "kernel.h"\nKERNEL(f) { (void)self; return num_args; }', "f.c")
    remote.load_module("f.c").save(tmp_path / "f.so")
    assert (tmp_path / "f.so").read_bytes()[:4] == b"\x7fELF"


def test_a_server_that_tells_less(inside: Any, library: str, tmp_path: Path) -> None:
    """One of TVM: names are those that were found, and the file is that of today."""
    remote, session = inside
    for name in ("function_names", "missing_function", "module_file"):
        del session.environment.functions[f"tvmrpc.server.{name}"]
    for name in ("ModuleClearImports", "ModuleInspectSource"):
        del session.environment.functions[f"ffi.{name}"]
    remote.upload(library)
    module = remote.load_module("vector_add.so")
    assert module.function_names() == []
    assert "vector_add" in module
    assert module.function_names() == ["vector_add"]
    with pytest.raises(AttributeError, match=r"^Module has no function 'none'$"):
        module["none"]
    assert module.get_source() == ""
    with pytest.raises(LibraryError, match=r"no function ffi\.ModuleClearImports"):
        module.clear_imports()
    module.save(tmp_path / "copy.so")
    assert (tmp_path / "copy.so").read_bytes() == Path(library).read_bytes()
    remote.remove("vector_add.so")
    with pytest.raises(RemoteError, match="cannot find file"):
        module.save(tmp_path / "copy.so")
