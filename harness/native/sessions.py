"""Whole sessions with which the fuzzer of the C server begins: every function, every request.

An input of fuzz_session.c is a byte that says what follows, then packets without their lengths, or
a stream as it is.
"""

from __future__ import annotations

import itertools
import re
import struct
from typing import TYPE_CHECKING, Any

from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import Device, OpaquePointer, TensorRecord
from pytest_tvmrpc.errors import LocalProtocolError
from pytest_tvmrpc.protocol import packets
from pytest_tvmrpc.protocol.codes import RPCCode
from pytest_tvmrpc.protocol.dialect import FFI, LEGACY
from pytest_tvmrpc.protocol.values import FunctionHandle, ModuleHandle, ObjectHandle

from ..chaos.mutation import golden
from .corpus import SOURCES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_tvmrpc.protocol.dialect import Dialect

PACKETS, STREAM, PACKETS_OPENED, STREAM_OPENED = range(4)
"""The first byte. An opened session begins with an InitServer that is not in the input."""

_NAME = re.compile(r'"((?:rpc|ffi|tvm|tvmrpc|runtime|testing|script)\.[A-Za-z_.]+)"')


def names() -> list[str]:
    """The global functions that the sources name."""
    texts = [path.read_text("utf-8") for path in sorted(SOURCES.glob("*.c"))]
    return sorted({name for text in texts for name in _NAME.findall(text)})


def seeds() -> Iterator[bytes]:
    """The inputs."""
    for packet in golden(direction=">"):
        yield bytes([STREAM]) + packet
        yield bytes([STREAM_OPENED]) + packet
    for dialect in (FFI, LEGACY):
        for session in _sessions(dialect):
            content = b"".join(map(_short, session))
            yield bytes([PACKETS_OPENED]) + content
        yield bytes([STREAM_OPENED]) + b"".join(_files(dialect))
        for constructor in _constructors():
            opening = b"".join(packets.init_server(dialect, constructor))
            yield bytes([STREAM]) + opening + _call(dialect, 1, [])


def _short(packet: bytes) -> bytes:
    (code,) = struct.unpack_from("<i", packet, 8)
    return struct.pack("<BH", code, len(packet) - 12) + packet[12:]


def _call(dialect: Dialect, handle: int, values: Sequence[Any]) -> bytes:
    packet = dialect.encode_call(handle, values)
    return packet if isinstance(packet, bytes) else b"".join(packet)


def _look_up(dialect: Dialect, name: str) -> bytes:
    return dialect.encode_request(RPCCode.GET_GLOBAL_FUNC, (name,))


_CPU = Device(1, 0)


def _tensor(handle: int, dtype: str = "float32") -> TensorRecord:
    return TensorRecord(handle, _CPU, (2, 2), DataType(dtype))


def _sessions(dialect: Dialect) -> Iterator[list[bytes]]:
    yield from _calls(dialect)
    yield _memory(dialect)
    yield _files(dialect)
    yield _devices(dialect)
    for module in (b"", b"\x7fELF\2\1\1" + bytes(60), b"!<arch>\n", b"x" * 600):
        for name in ("a.so", "a.o", "a.tar"):
            load = [_look_up(dialect, "tvm.rpc.server.load_module"), _call(dialect, 2, [name])]
            yield [*_upload(dialect, name, module), *load]


def _calls(dialect: Dialect) -> Iterator[list[bytes]]:
    """Each function with arguments of several forms, and what it returns called or freed."""
    forms: list[list[Any]] = [
        *([], [1], ["a"], ["a", 5], [1.5, True, None], [b"abc", "abc"], ["x", b"yy"]),
        *([FunctionHandle(1)], [FunctionHandle(1), 3, 2], [ModuleHandle(1), "main", True]),
        *([OpaquePointer(0), DataType("int8"), _CPU], [ObjectHandle(1), 0]),
        [None, "testing.nop", 1, 0, 3, 2, 0, 0, 0, 1, 0, ""],
    ]
    for name in names():
        after = [
            *(_call(dialect, 2, []), _call(dialect, 2, [1]), _call(dialect, 2, [1, 1])),
            dialect.encode_free(2, FunctionHandle),
            dialect.encode_free(1, FunctionHandle),
        ]
        yield [_look_up(dialect, name), *(_call(dialect, 1, form) for form in forms), *after]
    for name in ("rpc.test.remote_tensor_func", "testing.echo", "tvm.contrib.random.random_fill"):
        record = _tensor(1)
        yield [
            dialect.encode_request(RPCCode.DEV_ALLOC_DATA_WITH_SCOPE, (_tensor(0), None)),
            *(_look_up(dialect, name), _call(dialect, 2, [record]), _call(dialect, 2, [1, record])),
            dialect.encode_request(RPCCode.DEV_FREE_DATA, (_CPU, OpaquePointer(1))),
            dialect.encode_free(3, ObjectHandle),
        ]


def _memory(dialect: Dialect) -> list[bytes]:
    found = []
    chosen = OpaquePointer(0x7476 << 48)
    dtypes = ("float32", "int8", "bool", "float64x2", "int4", "uint1")
    for handle, dtype in enumerate(dtypes, 1):
        try:
            record = _tensor(handle, dtype)
            scope = "global" if handle % 2 else None
            values = (_tensor(0, dtype), scope)
            found.append(dialect.encode_request(RPCCode.DEV_ALLOC_DATA_WITH_SCOPE, values))
            dialect.encode_record(record)
        except LocalProtocolError:
            continue
        content = memoryview(bytes(range(record.nbytes)))
        found.append(b"".join(packets.copy_to_remote(record, content)))
        found.append(packets.copy_from_remote(record, record.nbytes))
        among = (record, _tensor(handle, dtype), OpaquePointer(0))
        found.append(dialect.encode_request(RPCCode.COPY_AMONG_REMOTE, among))
    values = (_tensor(0), None, chosen)
    found.append(dialect.encode_request(RPCCode.DEV_ALLOC_DATA_WITH_SCOPE, values))
    values = (_CPU, 64, 64, DataType("float32"))
    found.append(dialect.encode_request(RPCCode.DEV_ALLOC_DATA, values))
    found += [dialect.encode_free(handle, ObjectHandle) for handle in (1, 2, int(chosen))]
    return found


def _devices(dialect: Dialect) -> list[bytes]:
    found = [
        dialect.encode_request(RPCCode.DEV_GET_ATTR, (Device(kind, 0), attribute))
        for kind, attribute in itertools.product((1, 2), range(18))
    ]
    for code in (RPCCode.DEV_SET_DEVICE, RPCCode.DEV_CREATE_STREAM):
        found.append(dialect.encode_request(code, (_CPU,)))
    for code in (RPCCode.DEV_STREAM_SYNC, RPCCode.DEV_SET_STREAM, RPCCode.DEV_FREE_STREAM):
        found.append(dialect.encode_request(code, (_CPU, OpaquePointer(0))))
    found.append(dialect.encode_request(RPCCode.DEV_GET_CURRENT_STREAM, (_CPU,)))
    return [*found, packets.SHUTDOWN]


def _upload(dialect: Dialect, name: str, content: bytes) -> list[bytes]:
    upload = _look_up(dialect, "tvm.rpc.server.upload")
    return [upload, _call(dialect, 1, [name, content])]


def _files(dialect: Dialect) -> list[bytes]:
    found = _upload(dialect, "x.bin", b"content")
    calls = ("download", ["x.bin"]), ("listdir", ["."]), ("workpath", [""]), ("remove", ["x.bin"])
    for handle, (name, values) in enumerate(calls, 2):
        found.append(_look_up(dialect, f"tvm.rpc.server.{name}"))
        found += [_call(dialect, handle, values), _call(dialect, handle, ["../x"])]
    return found


def _constructors() -> list[list[Any]]:
    return [
        *(["rpc.LocalSession"], ["rpc.Connect", "127.0.0.1", 9090, "key", False]),
        *(["rpc.PopenSession", b"\x7fELF" + bytes(60)], ["rpc.Nothing", 1], [5], ["rpc.Connect"]),
    ]


def dictionary() -> str:
    """What libFuzzer may put anywhere."""
    words = [name.encode() for name in names()]
    words += [struct.pack("<i", number) for number in (65, 66, 68, 73, 115)]
    return "".join(f'"{"".join(f"{chr(92)}x{byte:02x}" for byte in word)}"\n' for word in words)
