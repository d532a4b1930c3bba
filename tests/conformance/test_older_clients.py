"""Clients of TVM 0.8 to 0.20, on plain connections; they are strict about the answers."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from ..legacy.clients import CPU, RemoteRaisedError
from ..legacy.sequences import (
    BYTES,
    DTYPE,
    FLOAT,
    FLOAT32,
    FUNCTION,
    INT,
    MODULE,
    NDARRAY,
    NULL,
    POINTER,
    TENSOR,
    Device,
    DType,
    Value,
    integer,
    text,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ..legacy.clients import LegacyClient
    from .kinds import Kind


def test_functions(legacy: LegacyClient) -> None:
    """Looked up, called, freed; one that is not there has no handle."""
    assert legacy.call_name("rpc.test.addone", integer(41)) == integer(42)
    assert legacy.call_name("rpc.test.strcat", text("a"), integer(5)) == text("a:5")
    assert legacy.get_function("no.such") == 0


def test_values(legacy: LegacyClient) -> None:
    """Each kind comes back as it was sent."""
    values = [
        *(integer(number) for number in (0, -1, 2**63 - 1, -(2**63))),
        *(Value(FLOAT, number) for number in (0.0, -1.5, 1e300)),
        *(text(words) for words in ("", "a", "grün, 緑", "long " * 20_000)),
        *(Value(BYTES, content) for content in (b"", b"\0", b"12345678", b"\0\xff" * 50_000)),
        Value(NULL),
        Value(POINTER, 0x1234),
        Value(DTYPE, DType(2, 32, 4)),
    ]
    echo = legacy.get_function("testing.echo")
    for value in values:
        assert legacy.call(echo, value) == value
    legacy.free_handle(echo, FUNCTION)


def test_errors(legacy: LegacyClient) -> None:
    """Their text, with the kind before it; the session goes on."""
    with pytest.raises(RemoteRaisedError, match="boom"):
        legacy.call_name("rpc.test.except", text("boom"))
    with pytest.raises(RemoteRaisedError):
        legacy.call_name("rpc.test.addone", text("text"))
    with pytest.raises(RemoteRaisedError):
        legacy.call(0x7EADBEEF)
    assert legacy.call_name("rpc.test.addone", integer(1)) == integer(2)


def test_tensors(legacy: LegacyClient) -> None:
    """Made, written, read, in parts, copied, freed."""
    content = struct.pack("<6f", *range(6))
    tensor, other = (legacy.alloc((2, 3), FLOAT32) for _ in range(2))
    legacy.copy_to(tensor, content)
    assert legacy.copy_from(tensor) == content
    part = tensor._replace(shape=(2,), byte_offset=8)
    assert legacy.copy_from(part) == content[8:16]
    legacy.copy_among(tensor, other)
    legacy.sync()
    assert legacy.copy_from(other) == content
    for one in (tensor, other):
        legacy.free_data(CPU, one.data)
    with pytest.raises(RemoteRaisedError):
        legacy.copy_from(tensor)
    raw = legacy.alloc_bytes(CPU, 64, 64, FLOAT32)
    legacy.free_data(CPU, raw)
    large = legacy.alloc((1 << 20,), DType(1, 8, 1))
    legacy.copy_to(large, bytes(range(256)) * 4096)
    assert legacy.copy_from(large) == bytes(range(256)) * 4096


def test_elements_of_less_than_a_byte(legacy: LegacyClient) -> None:
    """Each has a byte of its own."""
    tensor = legacy.alloc((5,), DType(0, 4, 1))
    legacy.copy_to(tensor, bytes(range(5)))
    assert legacy.copy_from(tensor) == bytes(range(5))


def test_tensors_of_functions(legacy: LegacyClient) -> None:
    """A result has two handles, of which either may be the one that is freed."""
    make = legacy.call_name("rpc.test.remote_return_nd", text("get_arr"))
    assert make.code == FUNCTION
    result = legacy.call(make.content)
    assert result.code == NDARRAY
    record, handle = result.content
    assert (record.shape, legacy.copy_from(record)) == ((10,), bytes(40))
    element = legacy.call_name("rpc.test.remote_return_nd", text("get_arr_elem"))
    legacy.copy_to(record, struct.pack("<10f", *range(10)))
    got = legacy.call(element.content, Value(TENSOR, record), integer(7))
    assert got == Value(FLOAT, 7.0)
    legacy.free_handle(handle, NDARRAY)
    for function in (make, element):
        legacy.free_handle(function.content, FUNCTION)


def test_devices_and_streams(legacy: LegacyClient) -> None:
    """What can be asked of a device, and done with a CPU's one stream."""
    assert legacy.get_attr(CPU, 0) == integer(1)
    legacy.set_device(CPU)
    assert legacy.get_attr(Device(2, 0), 0) == integer(0)
    assert legacy.get_attr(CPU, 1).code in (NULL, INT)
    stream = legacy.create_stream()
    legacy.set_stream(CPU, stream)
    legacy.sync(CPU, stream)
    if legacy.minor >= 16:
        assert legacy.current_stream() == stream
    legacy.free_stream(CPU, stream)


def test_files(legacy: LegacyClient) -> None:
    """Sent as bytes, whole and long."""
    for content in (b"", b"short", bytes(range(256)) * 2000):
        legacy.call_name("tvm.rpc.server.upload", text("file.bin"), Value(BYTES, content))
        got = legacy.call_name("tvm.rpc.server.download", text("file.bin"))
        assert got == Value(BYTES, content)
    legacy.call_name("tvm.rpc.server.remove", text("file.bin"))
    with pytest.raises(RemoteRaisedError, match=r"file\.bin"):
        legacy.call_name("tvm.rpc.server.download", text("file.bin"))


def test_libraries(legacy: LegacyClient, old_library: Path, probe: Path) -> None:
    """Of its own age and of today's, in one session."""
    for library in (old_library, probe):
        upload = text(library.name), Value(BYTES, library.read_bytes())
        legacy.call_name("tvm.rpc.server.upload", *upload)
        module = legacy.call_name("tvm.rpc.server.load_module", text(library.name))
        assert module.code == MODULE
        lookup = text("addone"), integer(0)
        function = legacy.call_name("tvm.rpc.server.ModuleGetFunction", module, *lookup)
        assert function.code == FUNCTION
        assert legacy.call(function.content, integer(41)) == integer(42)
        with pytest.raises(RemoteRaisedError, match="one int"):
            legacy.call(function.content, text("text"))
        legacy.free_handle(function.content, FUNCTION)
        legacy.free_handle(module.content, MODULE)


def test_measuring(legacy: LegacyClient, old_library: Path) -> None:
    """With as many arguments as its TVM gives."""
    upload = text(old_library.name), Value(BYTES, old_library.read_bytes())
    legacy.call_name("tvm.rpc.server.upload", *upload)
    module = legacy.call_name("tvm.rpc.server.load_module", text(old_library.name))
    numbers = {8: (3, 2, 0), 13: (3, 2, 0, 0, 0, 1)}.get(legacy.minor, (3, 2, 0, 0, 0, 1, 0))
    settings = [integer(number) for number in (1, 0, *numbers)]
    evaluate = legacy.call_name(
        "runtime.RPCTimeEvaluator", module, text("addone"), *settings, text("")
    )
    result = legacy.call(evaluate.content, integer(1))
    assert result.code == BYTES
    assert len(result.content) == 16
    for handle, code in ((evaluate.content, FUNCTION), (module.content, MODULE)):
        legacy.free_handle(handle, code)


def test_a_client_of_today(kind: Kind, deadline_s: float) -> None:
    """The same server, in the other dialect, on a plain connection."""
    with kind.ffi(deadline_s) as client:
        handle = client.get_function("testing.echo")
        values: Any = (None, True, -5, 2.5, "text", "")
        for value in values:
            assert client.call(handle, value) == value
        client.free_handle(handle)
        client.shutdown()
