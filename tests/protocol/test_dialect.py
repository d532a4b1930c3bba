"""Telling the dialects apart: FFI peers are recognised, legacy ones are told what to do."""

from __future__ import annotations

import struct
from typing import Any, Callable, Optional

import pytest

from pytest_tvmrpc.dlpack import DataType, Device, OpaquePointer, TensorRecord
from pytest_tvmrpc.errors import RemoteProtocolError
from pytest_tvmrpc.protocol import packets
from pytest_tvmrpc.protocol.codes import RPCCode
from pytest_tvmrpc.protocol.dialect import FFI, Dialect, of_client, of_server

CPU = Device(1, 0)
RECORD = TensorRecord(0, CPU, (4,), DataType("float32"))
NULL = OpaquePointer(0)


def of_packet(content: bytes) -> Optional[Dialect]:
    return of_client(struct.unpack_from("<i", content, 8)[0], memoryview(content)[12:])


@pytest.mark.parametrize(
    ("code", "values"),
    [
        (RPCCode.GET_GLOBAL_FUNC, ("rpc.test.addone",)),
        (RPCCode.GET_GLOBAL_FUNC, ("",)),
        (RPCCode.GET_GLOBAL_FUNC, ("with\0nul",)),
        (RPCCode.DEV_ALLOC_DATA_WITH_SCOPE, (RECORD, None)),
        (RPCCode.DEV_ALLOC_DATA_WITH_SCOPE, (RECORD, "global")),
        (RPCCode.DEV_ALLOC_DATA, (CPU, 64, 64, DataType("float32"))),
        (RPCCode.DEV_GET_ATTR, (Device(2, 0), 0)),
        (RPCCode.DEV_STREAM_SYNC, (CPU, NULL)),
        (RPCCode.DEV_SET_STREAM, (CPU, NULL)),
        (RPCCode.DEV_FREE_STREAM, (CPU, NULL)),
        (RPCCode.DEV_FREE_DATA, (CPU, OpaquePointer(0x1000))),
        (RPCCode.COPY_AMONG_REMOTE, (RECORD, RECORD, NULL)),
        (RPCCode.FREE_HANDLE, (OpaquePointer(0x1000),)),
        (RPCCode.DEV_SET_DEVICE, (CPU,)),
        (RPCCode.DEV_CREATE_STREAM, (CPU,)),
        (RPCCode.DEV_GET_CURRENT_STREAM, (CPU,)),
    ],
)
def test_ffi_clients_are_recognised(code: int, values: Any) -> None:
    """Each request that may come first; the last three are the same in both dialects."""
    assert of_packet(FFI.encode_request(code, values)) is FFI


def test_golden_requests_of_ffi_clients(ffi_vector: Any) -> None:
    """TVM's requests with a value in them tell; those without leave it open."""
    if ffi_vector.direction == "<":
        return
    decides = bool(ffi_vector.value.get("values"))
    assert of_packet(ffi_vector.content) is (FFI if decides else None)


def test_golden_requests_of_legacy_clients(legacy_vector: Any) -> None:
    """No request of TVM 0.13 that decides is taken for one of the FFI dialect."""
    if legacy_vector.direction == "<" or not legacy_vector.value.get("values"):
        return
    with pytest.raises(RemoteProtocolError):
        of_packet(legacy_vector.content)


@pytest.mark.parametrize("name", ["lookup", "init-constructor"])
def test_legacy_clients_are_told(name: str, golden: Callable[..., Any]) -> None:
    """Their usual first requests are refused with what they speak, and with what to do."""
    with pytest.raises(RemoteProtocolError, match=r"TVM 0\.8 to 0\.20.* use a client of TVM 0\.21"):
        of_packet(golden(name, "legacy").content)


@pytest.mark.parametrize("length", [1, 7, 65, 66, 200])
def test_legacy_lookups_of_any_length_are_told(length: int) -> None:
    """Code 11 is a small string of the FFI dialect, too; lengths of 65 and 66 do not deceive."""
    body = struct.pack("<iiQ", 1, 11, length) + b"n" * length
    with pytest.raises(RemoteProtocolError, match=r"TVM 0\.8 to 0\.20"):
        of_client(RPCCode.GET_GLOBAL_FUNC, body)


@pytest.mark.parametrize("index", [8, 65, 11])
def test_lookups_with_each_kind_of_text(index: int) -> None:
    """A name may come as any of the three kinds of text of the FFI dialect."""
    inner = b"" if index == 8 else struct.pack("<I", 65)
    body = struct.pack("<ii", 1, index) + inner + struct.pack("<Q", 4) + b"name"
    assert of_client(RPCCode.GET_GLOBAL_FUNC, body) is FFI


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (RPCCode.SHUTDOWN, b""),
        (RPCCode.INIT_SERVER, struct.pack("<Q", 5) + b"0.8.0" + bytes(4)),
        (RPCCode.CALL_FUNC, bytes(12)),
        (RPCCode.GET_GLOBAL_FUNC, bytes(4)),
        (RPCCode.COPY_TO_REMOTE, bytes(60)),
        (RPCCode.COPY_FROM_REMOTE, bytes(48)),
        (RPCCode.INIT_SERVER, b""),
        (RPCCode.INIT_SERVER, b"\5\0\0"),
        (RPCCode.INIT_SERVER, b"\xff" * 8 + bytes(40)),
    ],
)
def test_requests_that_tell_nothing(code: int, body: bytes) -> None:
    """Without a value in a sequence nothing can be told, and nothing is decided."""
    assert of_client(code, body) is None


def test_nonsense_is_no_dialect() -> None:
    """What parses in no dialect is refused as that."""
    with pytest.raises(RemoteProtocolError, match="no dialect"):
        of_client(RPCCode.GET_GLOBAL_FUNC, struct.pack("<iiQ", 1, 99, 0))


def test_servers(golden: Callable[..., Any]) -> None:
    """TVM's answers to InitServer tell its dialect; ours, of no values, leaves it to the client."""
    assert of_server(golden("init-answer").content[12:]) is FFI
    assert of_server(golden("init-answer-nothing").content[12:]) is FFI
    assert of_server(memoryview(packets.RETURN_NOTHING)[12:]) is FFI
    with pytest.raises(RemoteProtocolError, match=r"TVM 0\.8 to 0\.20.* use a server of TVM 0\.21"):
        of_server(bytearray(golden("init-answer", "legacy").content[12:]))
