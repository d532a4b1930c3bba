"""A session in the hands of a test's author: files, modules, values, and how it ends."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Tuple

import numpy as np
import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.client.functions import RemoteFunction, RemoteModule
from pytest_tvmrpc.client.tensors import RemoteDevice
from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import OpaquePointer
from pytest_tvmrpc.errors import (
    CompilerError,
    ConnectionLostError,
    LibraryError,
    LocalProtocolError,
    RemoteError,
)
from pytest_tvmrpc.runtime import elf, stubs
from pytest_tvmrpc.runtime.module import Module
from pytest_tvmrpc.runtime.profiling import Timing
from pytest_tvmrpc.runtime.toolchain import compile_library

if TYPE_CHECKING:
    from pathlib import Path


def still_works(remote: rpc.RPCSession) -> None:
    """The session serves as if nothing had been."""
    assert remote.get_function("rpc.test.addone")(10) == 11


def serves(server: rpc.Server) -> None:
    """So does the next client's session: what was sent to one does nothing to the server."""
    with rpc.connect(server.host, server.port) as remote:
        still_works(remote)


# --- life ---------------------------------------------------------------------------------------


def test_close(server: rpc.Server) -> None:
    """What came from the session says why it cannot be used; the next client is served."""
    remote = rpc.connect(server.host, server.port)
    add_one = remote.get_function("rpc.test.addone")
    tensor = runtime.tensor(np.ones(4, "float32"), remote.cpu(0))
    assert not remote.closed
    assert "open" in repr(remote)
    remote.close()
    remote.close()
    assert remote.closed
    assert "closed: it was closed" in repr(remote)
    uses: Tuple[Callable[[], object], ...] = (
        lambda: add_one(1),
        tensor.numpy,
        lambda: tensor.copyfrom(np.ones(4, "float32")),
        lambda: remote.get_function("rpc.test.addone"),
        lambda: remote.upload(b"abc", "a"),
        lambda: runtime.empty((4,), "float32", remote.cpu(0)),
        lambda: remote.cpu(0).exist,
        lambda: remote.cpu(0).sync(),
    )
    for use in uses:
        with pytest.raises(ConnectionLostError, match="is over: it was closed"):
            use()
    uses = ()
    gc.collect()  # what is dropped now has nobody to tell
    with rpc.connect(server.host, server.port) as other:
        still_works(other)


def test_a_with_block(server: rpc.Server) -> None:
    """Its end is the session's, also by an exception."""
    with pytest.raises(KeyError), rpc.connect(server.host, server.port) as remote:
        raise KeyError
    assert remote.closed


def test_dropped_things_are_freed(inside: Any) -> None:
    """Functions, modules, tensors and objects that nobody holds here are not held there."""
    remote, session = inside
    add_one = remote.get_function("rpc.test.addone")
    add_one(1)
    held = len(session.handles)
    things = [
        remote.get_function("rpc.test.strcat"),
        remote.get_function("rpc.test.add_to_lhs")(1),
        runtime.empty((1000,), "float32", remote.cpu(0)),
        remote.get_function("rpc.test.remote_return_nd")("get_arr")(),
    ]
    add_one(1)
    assert len(session.handles) > held
    things.clear()
    gc.collect()
    add_one(1)
    assert len(session.handles) == held


def test_a_dropped_session_is_noticed(server: rpc.Server) -> None:
    """It was not closed, and says so; the device is free all the same."""
    held = [rpc.connect(server.host, server.port)]
    still_works(held[0])
    with pytest.warns(ResourceWarning):
        held.clear()
    gc.collect()
    with rpc.connect(server.host, server.port) as other:
        still_works(other)


def test_the_server_is_killed_in_a_call(library: str) -> None:
    """The call is over at once, and each later one."""
    with rpc.Server(port=0, silent=True) as server:
        remote = rpc.connect(server.host, server.port)
        remote.upload(library)
        module = remote.load_module("vector_add.so")
        a = runtime.tensor(np.ones(1 << 16, "float32"), remote.cpu(0))
        kill = threading.Timer(0.05, os.kill, (server.program.pid, signal.SIGKILL))
        kill.start()
        with pytest.raises(ConnectionLostError):
            module.time_evaluator("vector_add", remote.cpu(0), number=1 << 30)(a, a, a)
        kill.join()
        started = time.monotonic()
        with pytest.raises(ConnectionLostError, match="is over"):
            module["vector_add"]
        with pytest.raises(ConnectionLostError, match="is over"):
            a.numpy()
        assert time.monotonic() - started < 1
        assert remote.closed


def test_the_meter(remote: rpc.RPCSession, vector_add: Any) -> None:
    """What went over the session, and how long the device was busy."""
    a = runtime.tensor(np.ones(1000, "float32"), remote.cpu(0))
    before = remote.meter.bytes_received
    a.numpy()
    assert 4000 < remote.meter.bytes_received - before < 4200
    assert remote.meter.device_s == 0
    result = vector_add.time_evaluator("vector_add", remote.cpu(0), number=10, repeat=3)(a, a, a)
    assert len(result.results) == 3
    assert remote.meter.device_s == pytest.approx(sum(result.results) * 10)
    assert remote.meter.call_s > 0
    assert remote.meter.calls > 0


@pytest.mark.parametrize("place", ["server", "this process"])
def test_the_meter_of_files(server: rpc.Server, place: str, tmp_path: Path) -> None:
    """Bytes that went up, and the seconds of transfers both ways, a part of those in requests."""
    (tmp_path / "local").write_bytes(bytes(2_000_000))
    open_session = {
        "server": lambda: rpc.connect(server.host, server.port),
        "this process": rpc.LocalSession,
    }[place]
    with open_session() as remote:
        meter = remote.meter
        remote.get_function("rpc.test.addone")(1)
        assert (meter.upload_s, meter.upload_nbytes) == (0.0, 0)
        steps = [
            lambda: remote.upload(tmp_path / "local"),
            lambda: remote.upload(b"12345", "small"),
            lambda: remote.upload(np.zeros(4, "float64"), "array"),
            lambda: remote.download("local"),
            lambda: remote.download("small"),
        ]
        for step, nbytes in zip(steps, (2_000_000, 2_000_005, 2_000_037, 2_000_037, 2_000_037)):
            before_s, call_s = meter.upload_s, meter.call_s
            step()
            assert meter.upload_nbytes == nbytes
            assert 0 < meter.upload_s - before_s <= meter.call_s - call_s + 1e-9
        before_s = meter.upload_s
        with pytest.raises(rpc.RemoteError, match="leads outside"):
            remote.upload(b"12345", "../small")
        with pytest.raises(rpc.RemoteError, match="Do not know how to link"):
            remote.download_linked_module("small")
        assert meter.upload_nbytes == 2_000_037
        assert meter.upload_s > before_s
        remote.get_function("rpc.test.addone")(1)
        assert meter.upload_s < meter.call_s


# --- files --------------------------------------------------------------------------------------


def test_files(remote: rpc.RPCSession, tmp_path: Path) -> None:
    """Bytes or a local file, under a name of their own or another; back as a bytearray."""
    (tmp_path / "local.bin").write_bytes(b"local")
    remote.upload(tmp_path / "local.bin")
    remote.upload(str(tmp_path / "local.bin"), "other.bin")
    remote.upload(b"bytes", "a")
    remote.upload(bytearray(b"bytearray"), "b")
    remote.upload(memoryview(b"view"), "sub/c")
    assert remote.listdir() == "a,b,local.bin,other.bin,sub"
    assert remote.listdir("sub") == "c"
    for name, content in (("a", b"bytes"), ("other.bin", b"local"), ("sub/c", b"view")):
        downloaded = remote.download(name)
        assert type(downloaded) is bytearray
        assert downloaded == content
    remote.remove("a")
    remote.remove("a")
    assert remote.listdir() == "b,local.bin,other.bin,sub"


@pytest.mark.parametrize("nbytes", [0, 1, 65536, 5_000_001])
def test_files_of_any_size(remote: rpc.RPCSession, tmp_path: Path, nbytes: int) -> None:
    """From a file and from bytes, both ways."""
    content = os.urandom(nbytes)
    (tmp_path / "local.bin").write_bytes(content)
    remote.upload(tmp_path / "local.bin")
    assert remote.download("local.bin") == content
    remote.upload(content, "local.bin")
    assert remote.download("local.bin") == content


def test_uploads_that_cannot_be(server: rpc.Server, remote: rpc.RPCSession, tmp_path: Path) -> None:
    """A missing file, bytes without a name, names that lead outside: the session goes on."""
    with pytest.raises(FileNotFoundError, match="none"):
        remote.upload(tmp_path / "none")
    with pytest.raises(ValueError, match="target must present"):
        remote.upload(b"abc")
    for name in ("../x", "/etc/x", "a\0b"):
        for size in (3, 200_000):
            with pytest.raises(ValueError, match=r"leads outside|first NUL") as caught:
                remote.upload(bytes(size), name)
            assert isinstance(caught.value, LocalProtocolError if "\0" in name else RemoteError)
    with pytest.raises(FileNotFoundError, match="Cannot open none"):
        remote.download("none")
    with pytest.raises(ValueError, match="leads outside"):
        remote.download("/etc/hostname")
    still_works(remote)
    assert remote.listdir() == ""
    remote.close()
    serves(server)


# --- functions and modules ----------------------------------------------------------------------


def test_a_compiled_function(remote: rpc.RPCSession, vector_add: Any) -> None:
    """Sent, loaded, called and timed, with the right result."""
    a, b = np.random.rand(2, 1024).astype("float32")
    device = remote.cpu(0)
    tensors = [runtime.tensor(array, device) for array in (a, b, np.zeros_like(a))]
    add = vector_add["vector_add"]
    assert isinstance(add, RemoteFunction)
    assert add(*tensors) is None
    np.testing.assert_array_equal(tensors[2].numpy(), a + b)
    timing = vector_add.time_evaluator("vector_add", device, number=10, repeat=5)(*tensors)
    assert 0 < timing.min <= timing.mean <= timing.max < 1
    assert len(timing.results) == 5
    assert timing.loop in ("compiled", "python")


def test_missing_functions(server: rpc.Server, remote: rpc.RPCSession, vector_add: Any) -> None:
    """A name that is not there is an AttributeError with the name, here as on the server."""
    with pytest.raises(AttributeError, match="has no function 'none'"):
        vector_add["none"]
    with pytest.raises(AttributeError, match="no global function"):
        remote.get_function("no.such.function")
    with pytest.raises(AttributeError, match="none"):
        vector_add.time_evaluator("none", remote.cpu(0))
    assert not vector_add.implements_function("none")
    assert vector_add.implements_function("vector_add")
    with pytest.raises(ValueError, match="Can only take string"):
        vector_add[5]
    still_works(remote)
    remote.close()
    serves(server)


def test_a_library_for_another_machine(
    server: rpc.Server, remote: rpc.RPCSession, tmp_path: Path
) -> None:
    """Both machines are named, by an error of its own type."""
    here = elf.machine()
    if here is None:
        pytest.skip("the machine's libraries are not ELF files")
    machine, name = (62, "x86-64") if here.machine != 62 else (183, "AArch64")
    path = tmp_path / "other.so"
    path.write_bytes(stubs.stub_library(["f"], elf.Architecture(machine, 64), "other.so"))
    remote.upload(path)
    with pytest.raises(LibraryError, match=f"is for {name} ") as caught:
        remote.load_module("other.so")
    assert isinstance(caught.value, RemoteError)
    assert str(here) in str(caught.value)
    still_works(remote)
    remote.close()
    serves(server)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x7fELF" + bytes(1000)], ids=len)
def test_what_is_no_library(server: rpc.Server, remote: rpc.RPCSession, content: bytes) -> None:
    """Is refused, and the session goes on."""
    remote.upload(content, "kernel.so")
    with pytest.raises(LibraryError, match=r"kernel\.so"):
        remote.load_module("kernel.so")
    with pytest.raises(FileNotFoundError, match="upload it first"):
        remote.load_module("none.so")
    still_works(remote)
    remote.close()
    serves(server)


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error says what was looked for, and what to set."""
    (tmp_path / "one.c").write_text("int one(void) { return 1; }")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(CompilerError, match="looked for gcc, clang, cc"):
        compile_library(tmp_path / "one.c", tmp_path / "one.so")
    monkeypatch.setenv("CC", "no-such-compiler -O3")
    with pytest.raises(CompilerError, match="'no-such-compiler' of the environment variable CC"):
        compile_library(tmp_path / "one.c", tmp_path / "one.so")


def test_wrong_arguments_of_a_compiled_function(
    server: rpc.Server, remote: rpc.RPCSession, vector_add: Any
) -> None:
    """Number, kind, type and size: what the kernel says is raised here, and it can go on."""
    add, device = vector_add["vector_add"], remote.cpu(0)
    a = runtime.tensor(np.ones(8, "float32"), device)
    short = runtime.tensor(np.ones(4, "float32"), device)
    double = runtime.tensor(np.ones(8, "float64"), device)
    square = runtime.tensor(np.ones((8, 8), "float32"), device)
    for arguments, message in (
        ((), "takes 3 arguments, not 0"),
        ((a, a), "takes 3 arguments, not 2"),
        ((a, a, a, a), "takes 3 arguments, not 4"),
        ((a, a, 5), "argument 2 of vector_add must be a tensor"),
        ((a, "text", a), "argument 1 of vector_add must be a tensor"),
        ((None, a, a), "argument 0 of vector_add must be a tensor"),
        ((a, a, double), "argument 2 of vector_add must be float32, not float64"),
        ((a, square, a), "argument 1 of vector_add must have 1 dimensions, not 2"),
    ):
        kind = ValueError if "dimensions" in message else TypeError
        with pytest.raises(kind, match=message) as caught:
            add(*arguments)
        assert isinstance(caught.value, RemoteError)
    with pytest.raises(ValueError, match="vector_add"):
        add(a, short, a)
    add(a, a, a)
    np.testing.assert_array_equal(a.numpy(), np.full(8, 2, "float32"))
    remote.close()
    serves(server)


@pytest.mark.parametrize(
    "settings",
    [{"number": 0}, {"number": -1}, {"repeat": 0}, {"repeats_to_cooldown": 0}, {"repeat": 1 << 40}],
    ids=repr,
)
def test_settings_that_measure_nothing(
    server: rpc.Server, remote: rpc.RPCSession, vector_add: Any, settings: Any
) -> None:
    """Are refused here, and by the server, which goes on; TVM's dies of some of them."""
    (name,) = settings
    with pytest.raises(ValueError, match=f"^{name} is .*; expected an integer") as caught:
        vector_add.time_evaluator("vector_add", remote.cpu(0), **settings)
    assert not isinstance(caught.value, RemoteError)
    with pytest.raises(RemoteError, match=f"{name} is .*; expected an integer"):
        vector_add.make_evaluator("vector_add", remote.cpu(0), Timing(**settings), "")
    still_works(remote)
    remote.close()
    serves(server)


def test_a_library_that_is_sent_again(remote: rpc.RPCSession, tmp_path: Path, library: str) -> None:
    """The same name gives the new code."""
    source = tmp_path / "number.c"
    found = []
    for number in (1, 2):
        source.write_text(
            "int __tvm_ffi_number(void *self, const void *args, int count, int *result) {"
            f" result[0] = 1; result[1] = 0; result[2] = {number}; result[3] = 0; return 0; }}\n"
        )
        remote.upload(compile_library(source, tmp_path / "number.so"))
        found.append(remote.load_module("number.so"))
    assert [module["number"]() for module in found] == [1, 2]


def test_modules_import_modules(remote: rpc.RPCSession, library: str) -> None:
    """The functions of an imported one are found on the server."""
    remote.upload(library)
    remote.upload(library, "second.so")
    first, second = remote.load_module("vector_add.so"), remote.load_module("second.so")
    first.import_module(second)
    assert first.imported_modules == [second]
    assert isinstance(first["vector_add"], RemoteFunction)
    assert "rpc" in repr(first)


# --- values -------------------------------------------------------------------------------------


class OwnInt:
    """A number of somebody's own."""

    def __index__(self) -> int:
        return 7


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(1.5), 1.5),
        (np.float64(2.5), 2.5),
        (np.int64(-3), -3),
        (np.uint8(200), 200),
        (np.bool_(True), True),
        (OwnInt(), 7),
        (np.str_("text"), "text"),
        (b"bytes", b"bytes"),
        (bytearray(b"bytes"), b"bytes"),
        (memoryview(b"bytes"), b"bytes"),
        (DataType("float32"), DataType("float32")),
        (OpaquePointer(5), OpaquePointer(5)),
        (ctypes.c_void_p(5), OpaquePointer(5)),
        (ctypes.c_void_p(None), OpaquePointer(0)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_of_other_kinds(remote: rpc.RPCSession, value: Any, expected: Any) -> None:
    """NumPy's scalars and the like travel as what they stand for."""
    assert remote.get_function("testing.echo")(value) == expected


def test_things_of_the_session_come_back(remote: rpc.RPCSession) -> None:
    """Functions, tensors and devices of the session can be passed to it."""
    echo = remote.get_function("testing.echo")
    assert isinstance(echo(remote.get_function("rpc.test.addone")), RemoteFunction)
    assert echo(remote.cpu(0)) == remote.cpu(0)
    assert isinstance(echo(remote.cpu(0)), RemoteDevice)
    tensor = runtime.tensor(np.arange(6, dtype="float32").reshape(2, 3), remote.cpu(0))
    returned = echo(tensor)
    np.testing.assert_array_equal(returned.numpy(), tensor.numpy())
    del tensor
    gc.collect()
    still_works(remote)
    assert returned.numpy()[1, 2] == 5


@pytest.mark.parametrize(
    "value", [[1], (1,), {}, object(), 1 << 64, 1j], ids=lambda value: type(value).__name__
)
def test_values_that_cannot_be_sent(remote: rpc.RPCSession, value: Any) -> None:
    """Are refused here, by their type, and nothing has happened."""
    echo = remote.get_function("testing.echo")
    with pytest.raises(LocalProtocolError):
        echo(value)
    assert echo(1) == 1


def test_things_of_other_places(remote: rpc.RPCSession, inside: Any, library: str) -> None:
    """What is local, or of another session, is refused here; the message says what to do."""
    other = inside[0]
    echo = remote.get_function("testing.echo")
    ones = np.ones(4, "float32")
    for value, message in (
        (runtime.cpu(0), "Can not pass in local device"),
        (runtime.tensor(ones), r"is not on this server.*copyto"),
        (runtime.tensor(ones, other.cpu(0)), "is not on this server"),
        (other.cpu(0), "into a different remote session"),
        (other.get_function("testing.echo"), "into a different remote session"),
        (Module(), "Cannot pass a non-RPC module"),
    ):
        with pytest.raises(ValueError, match=message):
            echo(value)
    remote.upload(library)
    module = remote.load_module("vector_add.so")
    assert isinstance(module, RemoteModule)
    for device in (runtime.cpu(0), other.cpu(0)):
        with pytest.raises(ValueError, match="is not a device of this session"):
            module.time_evaluator("vector_add", device)
    assert echo(1) == 1


def test_devices(remote: rpc.RPCSession) -> None:
    """Each has a way to it by name; whether it exists is the server's to say."""
    assert remote.cpu(0).exist
    assert not remote.cuda(7).exist
    assert remote.device("cpu", 0) == remote.cpu(0) != remote.cpu(1)
    assert remote.device(1) == remote.cpu(0)
    assert remote.cpu(0) != runtime.cpu(0)
    assert len({remote.cpu(0), remote.cpu(0), remote.cpu(1)}) == 2
    assert repr(remote.cpu(0)).endswith("]:cpu(0)")
    kinds = ("cl", "vulkan", "metal", "rocm", "ext_dev", "hexagon", "webgpu")
    assert len({getattr(remote, kind)(0).device_type for kind in kinds}) == len(kinds)
    with pytest.raises(ValueError, match="nonsense"):
        remote.device("nonsense")
    with pytest.raises(RemoteError):
        runtime.empty((4,), "float32", remote.ext_dev(3))
    still_works(remote)
