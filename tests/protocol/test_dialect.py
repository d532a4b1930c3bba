"""Telling the dialects apart: each first request of each dialect, each answer, and nonsense."""

from __future__ import annotations

import struct
from typing import Any, Callable, List, Optional, Tuple

import pytest

from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import Device, OpaquePointer, TensorRecord
from pytest_tvmrpc.errors import RemoteProtocolError
from pytest_tvmrpc.protocol import packets
from pytest_tvmrpc.protocol.codes import RPCCode
from pytest_tvmrpc.protocol.dialect import FFI, LEGACY, Dialect, of_client, of_server
from pytest_tvmrpc.protocol.values import (
    FunctionHandle,
    ModuleHandle,
    ObjectHandle,
    TensorResult,
)

CPU = Device(1, 0)
RECORD = TensorRecord(0, CPU, (4,), DataType("float32"))
MATRIX = TensorRecord(0x7FFA10010080, Device(2, 1), (2, 3), DataType("float16"), 64)
SCALAR = TensorRecord(0, Device(12, 0), (), DataType("int8x4"))
NULL = OpaquePointer(0)
POINTER = OpaquePointer(0x7FFA10010080)

REQUESTS: List[Tuple[int, Tuple[Any, ...]]] = [
    (RPCCode.GET_GLOBAL_FUNC, ("rpc.test.addone",)),
    (RPCCode.GET_GLOBAL_FUNC, ("",)),
    (RPCCode.GET_GLOBAL_FUNC, ("größer",)),
    *((RPCCode.GET_GLOBAL_FUNC, ("n" * length,)) for length in (1, 4, 7, 9, 65, 66, 115, 200)),
    *(
        (RPCCode.DEV_ALLOC_DATA_WITH_SCOPE, (record, scope))
        for record in (RECORD, MATRIX, SCALAR)
        for scope in (None, "global", "")
    ),
    *(
        (RPCCode.DEV_ALLOC_DATA, (device, nbytes, alignment, DataType("float32")))
        for device in (CPU, Device(2, 0), Device(3, 1), Device(5, 5), Device(15, 0))
        for nbytes in (0, 1, 5, 64, 1 << 33)
        for alignment in (1, 64)
    ),
    *(
        (RPCCode.DEV_GET_ATTR, (Device(kind, number), attribute))
        for kind in range(1, 19)
        for number in (0, 1, 4)
        for attribute in (0, 1, 13)
    ),
    *(
        (code, (Device(kind, number), pointer))
        for code in (
            *(RPCCode.DEV_STREAM_SYNC, RPCCode.DEV_SET_STREAM),
            *(RPCCode.DEV_FREE_STREAM, RPCCode.DEV_FREE_DATA),
        )
        for kind in range(1, 19)
        for number in (0, 1, 2, 3)
        for pointer in (NULL, POINTER)
        if (kind, number) not in ((3, 1), (3, 2), (3, 3))
    ),
    *(
        (RPCCode.COPY_AMONG_REMOTE, (first, second, NULL))
        for first in (RECORD, MATRIX, SCALAR)
        for second in (RECORD, MATRIX, SCALAR)
    ),
]
"""Every request with which a client may begin, but for those that are the same in both dialects."""


def of_packet(content: bytes) -> Optional[Dialect]:
    return of_client(struct.unpack_from("<i", content, 8)[0], memoryview(content)[12:])


@pytest.mark.parametrize("dialect", [FFI, LEGACY], ids=lambda dialect: dialect.name)
def test_first_requests(dialect: Dialect) -> None:
    """Each request that may come first tells, whatever its arguments are."""
    for code, values in REQUESTS:
        assert of_packet(dialect.encode_request(code, values)) is dialect, (code, values)


@pytest.mark.parametrize("dialect", [FFI, LEGACY], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("handle", [0, 1, 5, 1 << 32, (1 << 32) + 4, 0x7FFA10010080, 2**64 - 1])
@pytest.mark.parametrize("kind", [FunctionHandle, ModuleHandle, ObjectHandle, TensorResult])
def test_first_requests_that_free(dialect: Dialect, handle: int, kind: type) -> None:
    """The legacy dialect has a second argument there."""
    assert of_packet(dialect.encode_free(handle, kind)) is dialect


@pytest.mark.parametrize("dialect", [FFI, LEGACY], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(
    "constructor",
    [
        ("rpc.LocalSession",),
        ("rpc.Connect", "127.0.0.1", 9090, "key", False),
        ("rpc.Nope", "x", 5, True),
        ("n" * 65, "x"),
        ("rpc.PopenSession", b"\x7fELF\2\1\1\0"),
        ("rpc.PopenSession", b"\x7fELF" * 1000),
        ("rpc.Connect", "", 0, "", None),
    ],
)
def test_session_constructors(dialect: Dialect, constructor: Tuple[Any, ...]) -> None:
    """The very first request tells, if it has a session constructor."""
    assert of_packet(b"".join(packets.init_server(dialect, constructor))) is dialect


@pytest.mark.parametrize("dialect", [FFI, LEGACY], ids=lambda dialect: dialect.name)
def test_session_constructors_that_are_still_coming(dialect: Dialect) -> None:
    """A program of any size may be given to a constructor: the request's head is enough."""
    values = ("rpc.PopenSession", b"\x7fELF" * 50_000)
    content = b"".join(packets.init_server(dialect, values))
    for there in (200, 4096, 65536):
        missing = len(content) - there
        assert of_client(RPCCode.INIT_SERVER, content[12:there], missing) is dialect
    assert of_client(RPCCode.INIT_SERVER, content[12:60], len(content) - 60) is None
    other = b"".join(packets.init_server(dialect, (*values, 5)))
    assert of_client(RPCCode.INIT_SERVER, other[12:4096], len(other) - 4096) is None


@pytest.mark.parametrize("dialect", [FFI, LEGACY], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(
    "code",
    [RPCCode.DEV_SET_DEVICE, RPCCode.DEV_CREATE_STREAM, RPCCode.DEV_GET_CURRENT_STREAM],
)
def test_requests_that_are_the_same(dialect: Dialect, code: int) -> None:
    """A device alone is the same bytes in both dialects: nothing is decided yet."""
    for kind in range(1, 19):
        assert of_packet(dialect.encode_request(code, (Device(kind, 0),))) is None


@pytest.mark.parametrize("code", [RPCCode.DEV_STREAM_SYNC, RPCCode.DEV_FREE_DATA])
def test_requests_that_may_be_either(code: int) -> None:
    """A stream of cuda_host 2 in one dialect is one of cuda 4 in the other; that of 0 is not."""
    content = FFI.encode_request(code, (Device(3, 2), POINTER))
    assert content == LEGACY.encode_request(code, (Device(2, 4), POINTER))
    assert of_packet(content) is None
    assert of_packet(FFI.encode_request(code, (Device(3, 0), POINTER))) is FFI


def test_golden_requests(spoken: Any) -> None:
    """TVM's requests with a value in them tell; those without leave it open.

    So do some calls of one value, which come after the look-up of their function.
    """
    vector, dialect = spoken
    if vector.direction == "<":
        return
    if vector.value["code"] == RPCCode.CALL_FUNC:
        assert of_packet(vector.content) in (dialect, None)
        return
    decides = bool(vector.value.get("values")) and vector.dialect != "both"
    assert of_packet(vector.content) is (dialect if decides else None)


@pytest.mark.parametrize("length", [1, 7, 65, 66, 200])
def test_legacy_lookups_of_any_length(length: int) -> None:
    """Code 11 is a small string of the FFI dialect, too; lengths of 65 and 66 do not deceive."""
    body = struct.pack("<iiQ", 1, 11, length) + b"n" * length
    assert of_client(RPCCode.GET_GLOBAL_FUNC, body) is LEGACY


@pytest.mark.parametrize("index", [8, 65, 11])
def test_lookups_with_each_kind_of_text(index: int) -> None:
    """A name may come as any of the three kinds of text of the FFI dialect."""
    inner = b"" if index == 8 else struct.pack("<I", 65)
    body = struct.pack("<ii", 1, index) + inner + struct.pack("<Q", 4) + b"name"
    assert of_client(RPCCode.GET_GLOBAL_FUNC, body) is FFI


def test_unusual_arguments() -> None:
    """Clients that are not TVM's are recognised by what can be read: an int as a stream."""
    for dialect in (FFI, LEGACY):
        content = dialect.encode_request(RPCCode.DEV_STREAM_SYNC, (CPU, 0))
        assert of_packet(content) is dialect


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


def test_arguments_that_may_be_either() -> None:
    """A call of a function that nobody looked up: 0.0 in one dialect is False in the other."""
    assert of_packet(LEGACY.encode_call(7, [0.0])) is None
    assert of_packet(LEGACY.encode_call(7, [1, 2])) is LEGACY


@pytest.mark.parametrize(
    ("code", "body", "dialect"),
    [
        (RPCCode.GET_GLOBAL_FUNC, struct.pack("<iiQ", 1, 99, 0), FFI),
        (RPCCode.GET_GLOBAL_FUNC, struct.pack("<iiQ", 1, 8, 1000), FFI),
        (RPCCode.GET_GLOBAL_FUNC, struct.pack("<iiQ", 1, 11, 1000), LEGACY),
        (RPCCode.GET_GLOBAL_FUNC, struct.pack("<iiIQ", 1, 11, 65, 1000), FFI),
        (RPCCode.GET_GLOBAL_FUNC, struct.pack("<ii", 1, 11), LEGACY),
        (RPCCode.INIT_SERVER, struct.pack("<QiiiQ", 0, 2, 11, 14, 9), LEGACY),
        (RPCCode.CALL_FUNC, struct.pack("<QiiiQ", 0, 2, 11, 14, 9), LEGACY),
        (RPCCode.CALL_FUNC, struct.pack("<QiiQ", 0, 2, 1, 9), FFI),
        (RPCCode.DEV_GET_ATTR, struct.pack("<iiiii", 2, 6, 0, 2, 1), LEGACY),
        (RPCCode.DEV_GET_ATTR, struct.pack("<iiiii", 2, 6, 2, 0, 1), FFI),
        (RPCCode.DEV_SET_DEVICE, struct.pack("<iii", 1, 6, 2), FFI),
        (RPCCode.DEV_ALLOC_DATA_WITH_SCOPE, struct.pack("<iiiQ", 2, 7, 11, 0), LEGACY),
        (RPCCode.DEV_ALLOC_DATA_WITH_SCOPE, struct.pack("<iiQQ", 2, 7, 0, 1), FFI),
    ],
)
def test_nonsense_is_no_dialect(code: int, body: bytes, dialect: Dialect) -> None:
    """What parses in no dialect is refused as that, and says in which the client may be told."""
    with pytest.raises(RemoteProtocolError, match="makes sense in no dialect") as caught:
        of_client(code, body)
    assert caught.value.dialect is dialect
    assert RPCCode(code).name in str(caught.value)


def test_other_errors_have_no_dialect() -> None:
    """Errors of a session whose dialect is known say nothing of one."""
    assert RemoteProtocolError("x").dialect is None


def test_servers(golden: Callable[..., Any]) -> None:
    """TVM's answers to InitServer tell its dialect; ours, of no values, leaves it to the client."""
    assert of_server(golden("init-answer").content[12:]) is FFI
    assert of_server(bytearray(golden("init-answer", "legacy").content[12:])) is LEGACY
    assert of_server(golden("init-answer-nothing").content[12:]) is FFI
    assert of_server(memoryview(packets.RETURN_NOTHING)[12:]) is FFI


def test_servers_that_refuse(golden: Callable[..., Any]) -> None:
    """An exception in answer to InitServer tells as well, so that its text can be read."""
    for text in ("", "boom", "x" * 65, "x" * 5000):
        for dialect in (FFI, LEGACY):
            assert of_server(packets.exception(dialect, text)[12:]) is dialect


def test_other_answers() -> None:
    """What a server answers besides is ignored; what cannot be read is left to the FFI dialect."""
    assert of_server(FFI.encode_return(5)[12:]) is FFI
    assert of_server(LEGACY.encode_return(5)[12:]) is LEGACY
    for nonsense in (b"", b"\1", bytes(7), b"\xff" * 40):
        assert of_server(nonsense) is FFI


def test_dialects_have_names() -> None:
    """Messages and logs call them by these."""
    assert [FFI.name, LEGACY.name] == ["ffi", "legacy"]
