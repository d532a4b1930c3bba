"""Each packet, to buffers and back: the golden ones byte for byte, and what is refused."""

from __future__ import annotations

import struct
from typing import Any, List, Tuple

import pytest

from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import Device, TensorRecord
from pytest_tvmrpc.errors import RemoteProtocolError
from pytest_tvmrpc.protocol import packets
from pytest_tvmrpc.protocol.codes import PROTOCOL_VERSION, RPCCode
from pytest_tvmrpc.protocol.dialect import FFI, LEGACY, Dialect

DECODED_ONLY = {
    "ffi": {
        "init-constructor",  # our texts are raw strings here, too, which TVM 0.21 itself sends
        "argument-bytes",  # our bytes are as TVM 0.21 sends them, which knows no other form
        "argument-bytes-empty",
        "argument-bytes-long",
        "argument-mixture",
        "file-upload",
        "file-upload-long",
        "argument-object-0.21",  # our references have the number of today
        "result-tensor",  # our tensors are of kind 7, which clients of every version take
        "result-tensor-0.21",
        "result-map-0.21",  # an object of any kind is a handle to us, of the kind of a shape
        "result-shape-0.21",
    },
    "legacy": {
        "init-constructor-0.18",  # our booleans are integers, which peers of every version take
        "module-function-0.18",
        "argument-bool",
        "result-bool",
        "result-tensor",
        "result-tensor-no-handle",
    },
}
"""What we do not say ourselves in the same way."""

RECORD = TensorRecord(0x1000, Device(1, 0), (3,), DataType("uint8"))


def joined(buffers: Any) -> bytes:
    return buffers if type(buffers) is bytes else b"".join(buffers)


def decoded(dialect: Dialect, buffer: bytes, code: int, start: int, end: int) -> Tuple[Any, ...]:
    """Everything a body says, read with the functions for its code."""
    if code == RPCCode.INIT_SERVER:
        init = packets.decode_init_server(buffer, start, end)
        return init.version, dialect.decode_values(buffer, init.values_at, end)
    if code == RPCCode.CALL_FUNC:
        handle = packets.decode_call_handle(buffer, start, end)
        return handle, dialect.decode_values(buffer, start + 8, end)
    if code == RPCCode.COPY_FROM_REMOTE:
        return packets.decode_copy(buffer, start, end, {})
    if code == RPCCode.COPY_TO_REMOTE:
        record, nbytes, offset = packets.decode_copy(buffer, start, end, {})
        return record, nbytes, buffer[offset:end]
    if code in (RPCCode.COPY_ACK, RPCCode.SHUTDOWN):
        return (buffer[start:end],)
    return (dialect.decode_values(buffer, start, end),)


def described(vector: Any) -> Tuple[Any, ...]:
    """What the vector says of itself, in the same form."""
    value, code = vector.value, vector.value["code"]
    content = bytes.fromhex(value.get("content", ""))
    if code == RPCCode.INIT_SERVER:
        return value["version"].encode(), vector.values
    if code == RPCCode.CALL_FUNC:
        return value["handle"], vector.values
    if code == RPCCode.COPY_FROM_REMOTE:
        return vector.record, value["nbytes"], len(vector.content) - 12
    if code == RPCCode.COPY_TO_REMOTE:
        return vector.record, value["nbytes"], content
    return (content,) if code in (RPCCode.COPY_ACK, RPCCode.SHUTDOWN) else (vector.values,)


def encoded(vector: Any, dialect: Dialect) -> bytes:
    """The packet as we would send it."""
    value, values, code = vector.value, vector.values, vector.value["code"]
    content = memoryview(bytes.fromhex(value.get("content", "")))
    if code == RPCCode.SHUTDOWN:
        return packets.SHUTDOWN
    if code == RPCCode.INIT_SERVER:
        return joined(packets.init_server(dialect, values))
    if code == RPCCode.CALL_FUNC:
        return joined(dialect.encode_call(value["handle"], values))
    if code == RPCCode.EXCEPTION:
        return joined(packets.exception(dialect, *values))
    if code == RPCCode.COPY_FROM_REMOTE:
        return joined(packets.copy_from_remote(vector.record, value["nbytes"]))
    if code == RPCCode.COPY_TO_REMOTE:
        return joined(packets.copy_to_remote(vector.record, content))
    if code == RPCCode.COPY_ACK:
        return joined(packets.copy_ack(content))
    if code == RPCCode.RETURN:
        return _encoded_return(values, dialect)
    return dialect.encode_request(code, values)


def _encoded_return(values: List[Any], dialect: Dialect) -> bytes:
    if not values:
        return packets.RETURN_NOTHING
    if len(values) == 1:
        return dialect.encode_return(values[0])
    return joined(dialect.encode_result(dialect.result_of(values)))


def test_golden_packets_say_what_is_written_beside_them(spoken: Any) -> None:
    """TVM's packets decode to the described values, with the same types."""
    vector, dialect = spoken
    content = vector.content
    said = decoded(dialect, content[12:], vector.value["code"], 0, len(content) - 12)
    expected = described(vector)
    assert said == expected
    if isinstance(said[-1], list):
        assert [type(value) for value in said[-1]] == [type(value) for value in expected[-1]]


def test_golden_packets_are_encoded(spoken: Any) -> None:
    """The same values, said by us, are the same bytes; the exceptions are decoded by all peers."""
    vector, dialect = spoken
    ours = encoded(vector, dialect)
    assert (ours == vector.content) == (vector.name not in DECODED_ONLY[dialect.name])
    assert struct.unpack_from("<Q", ours)[0] + 8 == len(ours)


@pytest.mark.parametrize("dialect", [FFI, LEGACY], ids=lambda dialect: dialect.name)
def test_exceptions_to_the_rule_are_there(dialect: Dialect, every_vector: Any) -> None:
    """Every packet that is said to differ is one of the golden ones."""
    names = {vector.name for vector in every_vector[1] if vector.dialect == dialect.name}
    assert names >= DECODED_ONLY[dialect.name]


def test_encoding_twice_gives_the_same(spoken: Any) -> None:
    """Records keep their bytes; the second time they come from there."""
    vector, dialect = spoken
    if "record" not in vector.value:
        assert encoded(vector, dialect) == encoded(vector, dialect)
        return
    record, content = vector.record, memoryview(b"1234")
    for _ in range(2):
        assert joined(packets.copy_to_remote(record, content))[12:-12] == record.encoded
        assert joined(packets.copy_from_remote(record, 24))[12:-8] == record.encoded


def test_golden_bodies_cut_short_are_refused(spoken: Any) -> None:
    """A body that lacks bytes at its end is refused wherever it was cut, whatever lies around."""
    vector, dialect = spoken
    content, code = vector.content, vector.value["code"]
    if code in (RPCCode.COPY_ACK, RPCCode.SHUTDOWN):
        return  # these have no form of their own
    many = bytearray(content * 3)
    start, stop = len(content) + 12, 2 * len(content)
    if code == RPCCode.COPY_TO_REMOTE:
        stop -= vector.value["nbytes"]
    for end in range(start, stop):
        for buffer in (many, many[:end]):
            with pytest.raises(RemoteProtocolError):
                decoded(dialect, buffer, code, start, end)
    decoded(dialect, many, code, start, stop)


@pytest.mark.parametrize("length", [257, 2**31, 2**63, 2**64 - 1])
def test_long_versions_are_refused(length: int) -> None:
    """A version text is short; a long one is refused whether it is there or not."""
    for body in (struct.pack("<Q", length), struct.pack("<Q", length) + bytes(300)):
        with pytest.raises(RemoteProtocolError, match=f"version of {length} bytes"):
            packets.decode_init_server(body, 0, len(body))


def test_other_versions_are_told() -> None:
    """Which version is spoken is for the server to judge; any short text is read."""
    for version in (b"", b"0.7.0", b"\xff\0" * 128):
        body = struct.pack("<Q", len(version)) + version + bytes(4)
        assert packets.decode_init_server(body, 0, len(body)) == (version, 8 + len(version))
    assert PROTOCOL_VERSION == b"0.8.0"


def test_call_without_arguments_is_refused() -> None:
    """A call has a handle and, if only of no values, a sequence."""
    for nbytes in range(12):
        with pytest.raises(RemoteProtocolError, match="without"):
            packets.decode_call_handle(bytes(40), 0, nbytes)


@pytest.mark.parametrize("nbytes", [0, 1, 4096, 4097, 1 << 20])
def test_content_is_passed_through(nbytes: int) -> None:
    """Small contents are joined to their head, large ones are not copied."""
    content = memoryview(bytes(range(256)) * (nbytes // 256 + 1))[:nbytes]
    for buffers, code in [
        (packets.copy_to_remote(RECORD, content), RPCCode.COPY_TO_REMOTE),
        (packets.copy_ack(content), RPCCode.COPY_ACK),
    ]:
        whole = joined(buffers)
        assert struct.unpack_from("<Qi", whole) == (len(whole) - 8, code)
        assert whole[len(whole) - nbytes :] == content
        if nbytes > 4096:
            assert buffers[-1] is content


@pytest.mark.parametrize("dialect", [FFI, LEGACY], ids=lambda dialect: dialect.name)
def test_exceptions_of_any_text(dialect: Dialect) -> None:
    """Whatever an exception says, it can be said: NUL, bytes that are no text, lone surrogates."""
    for text, expected in [
        ("", ""),
        ("boom", "boom"),
        ("nul \0 here", "nul \\0 here"),
        ("file \udcff\udc80.so", "file \\udcff\\udc80.so"),
        ("half \ud800 a pair", "half \\ud800 a pair"),
        ("größer " * 20_000, "größer " * 20_000),
    ]:
        body = joined(packets.exception(dialect, text))[12:]
        assert dialect.decode_values(body, 0, len(body)) == [expected]
