"""Requests of a client that checks nothing: each is answered with an error, and is no other's."""

from __future__ import annotations

import struct
from typing import Any, Dict, List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import Device, OpaquePointer
from pytest_tvmrpc.errors import ProtocolError
from pytest_tvmrpc.protocol.codes import RPCCode
from pytest_tvmrpc.protocol.dialect import FFI, LEGACY, Dialect
from pytest_tvmrpc.protocol.requests import REQUESTS, ROWS, Body, fitted

RETURN, EXCEPTION = 4, 5
CPU = Device(1, 0)
FLOAT = (2, 32, 1)
NAME = b"rpc.test.addone"


def record(
    shape: Tuple[int, ...],
    dtype: Tuple[int, int, int] = FLOAT,
    data: int = 0,
    ndim: Any = None,
    offset: int = 0,
) -> bytes:
    """The description of a tensor on the CPU, whatever the numbers say."""
    head = struct.pack("<QiiiBBH", data, 1, 0, len(shape) if ndim is None else ndim, *dtype)
    return head + struct.pack(f"<{len(shape)}qQ", *shape, offset)


def sequence(dialect: Dialect, *values: Any) -> bytes:
    """A packed sequence; bytes stand for a tensor's record."""
    codes, pieces = [], []
    for value in values:
        if isinstance(value, bytes):
            codes.append(struct.pack("<i", 7))
            pieces.append(value)
        else:
            whole = dialect.encode_request(0, (value,))[12:]
            codes.append(whole[4:8])
            pieces.append(whole[8:])
    count = struct.pack("<i", len(values))
    if dialect is LEGACY:
        return count + b"".join(codes + pieces)
    return count + b"".join(code + piece for code, piece in zip(codes, pieces))


class Client:
    """A client of one dialect, which the server knows already."""

    def __init__(self, conversation: Any, dialect: Dialect) -> None:
        self.dialect = dialect
        self._conversation = conversation
        conversation.socket.sendall(struct.pack("<QiQ5si", 21, 2, 5, b"0.8.0", 0))
        assert conversation.answer()[0] == RETURN
        self.addone = self.asked(RPCCode.GET_GLOBAL_FUNC, NAME.decode())

    def send(self, code: int, body: bytes) -> Tuple[int, bytes]:
        """A packet, and its answer."""
        self._conversation.socket.sendall(struct.pack("<Qi", 4 + len(body), code) + body)
        return self._conversation.answer()  # type: ignore[no-any-return]

    def asked(self, code: int, *values: Any) -> Any:
        """The one value of the answer to a good request."""
        answer, body = self.send(code, sequence(self.dialect, *values))
        assert answer == RETURN, body
        return self.dialect.decode_values(body, 0, len(body))[0]

    def refused(self, code: int, body: bytes) -> str:
        """What the answer to a bad request says; the next request is answered rightly."""
        answer, said = self.send(code, body)
        assert answer == EXCEPTION, (answer, said)
        call = struct.pack("<Q", self.addone) + sequence(self.dialect, 41)
        answer, result = self.send(RPCCode.CALL_FUNC, call)
        assert (answer, self.dialect.decode_result(result, 0, len(result))) == (RETURN, 42)
        (text,) = self.dialect.decode_values(said, 0, len(said))
        return str(text)


@pytest.fixture(name="client", params=[FFI, LEGACY], ids=lambda dialect: dialect.name)
def _client(request: pytest.FixtureRequest, conversation: Any) -> Client:
    """An opened session."""
    return Client(conversation, request.param)


SHAPES: Dict[str, bytes] = {
    "negative": record((-1,)),
    "negative among others": record((4, -1, 4)),
    "two negatives": record((-2, -3)),
    "negative beside zero": record((0, -1)),
    "beyond any memory": record((1 << 40, 1 << 40)),
    "overflow to something small": record((1 << 32, 1 << 32, 4)),
    "overflow behind a zero": record((0, 1 << 62, 1 << 62)),
    "the largest length": record(((1 << 63) - 1,)),
    "the smallest length": record((-(1 << 63),)),
    "more than there is": record((1 << 46,)),
    "no bits": record((4,), (2, 0, 1)),
    "no lanes": record((4,), (2, 32, 0)),
    "a handle for an element": record((4,), (3, 0, 0)),
    "negative dimensions": record((), ndim=-1),
    "more dimensions than there are": record((4,), ndim=2),
    "too many dimensions": record((1,) * 65),
    "the most dimensions that a number says": record((), ndim=(1 << 31) - 1),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_shapes_of_new_tensors(client: Client, shape: bytes) -> None:
    """No memory is taken for what no tensor is, and nothing is rounded to one."""
    body = sequence(client.dialect, shape, None)
    assert client.refused(RPCCode.DEV_ALLOC_DATA_WITH_SCOPE, body)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_shapes_of_arguments(client: Client, shape: bytes) -> None:
    """A call with such a tensor is not made, whatever memory it names."""
    data = int(client.asked(RPCCode.DEV_ALLOC_DATA, CPU, 64, 64, DataType("float32")))
    named = struct.pack("<Q", data) + shape[8:]
    body = struct.pack("<Q", client.addone) + sequence(client.dialect, named)
    assert client.refused(RPCCode.CALL_FUNC, body)


@pytest.mark.parametrize("nbytes", [-1, -(1 << 63), 1 << 60, (1 << 63) - 1])
def test_sizes_of_new_memory(client: Client, nbytes: int) -> None:
    """By the number of bytes as well."""
    body = sequence(client.dialect, CPU, nbytes, 64, DataType("float32"))
    assert client.refused(RPCCode.DEV_ALLOC_DATA, body)


COPIES: List[Tuple[int, int, int, int]] = [
    # bytes that are asked for, those that are there, the offset, the length of the axis
    (65, 65, 0, 16),
    (64, 64, 1, 16),
    (8, 4, 0, 16),
    (4, 8, 0, 16),
    (4, 4, (1 << 64) - 4, 16),
    (4, 4, (1 << 64) - 1, 1),
    ((1 << 64) - 1, 4, 0, 16),
    (1 << 62, 0, 0, 16),
    (4, 4, 0, -1),
]


@pytest.mark.parametrize("copy", COPIES, ids=str)
def test_copies_to_the_server(client: Client, copy: Tuple[int, int, int, int]) -> None:
    """Of more or fewer bytes than come, or than the memory has from there on."""
    nbytes, here, offset, length = copy
    data = int(client.asked(RPCCode.DEV_ALLOC_DATA, CPU, 64, 64, DataType("float32")))
    where = record((length,), data=data, offset=offset)
    body = where + struct.pack("<Q", nbytes) + bytes(here)
    assert client.refused(RPCCode.COPY_TO_REMOTE, body)


READS = [(65, 0, 16), (64, 1, 16), (4, (1 << 64) - 4, 16), (4, (1 << 64) - 1, 1), (4, 0, -1)]
READS += [((1 << 64) - 1, 0, 16), (1 << 62, 0, 16), (1 << 40, 0, 16)]


@pytest.mark.parametrize("copy", READS, ids=str)
def test_copies_from_the_server(client: Client, copy: Tuple[int, int, int]) -> None:
    """Nothing beyond the memory is read, and nothing is allocated for the answer."""
    nbytes, offset, length = copy
    data = int(client.asked(RPCCode.DEV_ALLOC_DATA, CPU, 64, 64, DataType("float32")))
    where = record((length,), data=data, offset=offset)
    assert client.refused(RPCCode.COPY_FROM_REMOTE, where + struct.pack("<Q", nbytes))


@pytest.mark.parametrize("cut", [0, 7, 31, 39, 47])
@pytest.mark.parametrize("code", [RPCCode.COPY_TO_REMOTE, RPCCode.COPY_FROM_REMOTE])
def test_copies_cut_short(client: Client, code: int, cut: int) -> None:
    """A packet that ends early is an error of its own request."""
    whole = record((16,)) + struct.pack("<Q", 64)
    assert client.refused(code, whole[:cut])


def test_copies_that_are_too_long(client: Client) -> None:
    """What is behind a copy's request is passed over, and not read as the next request."""
    data = int(client.asked(RPCCode.DEV_ALLOC_DATA, CPU, 64, 64, DataType("float32")))
    whole = record((16,), data=data) + struct.pack("<Q", 64)
    assert "bytes behind" in client.refused(RPCCode.COPY_FROM_REMOTE, whole + bytes(1 << 20))


WRONG = {
    "a text": "x",
    "a float": 1.5,
    "nothing": None,
    "a type": DataType("int8"),
    "a device": CPU,
}


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if row.arguments and row.body is Body.VALUES],
    ids=lambda row: row.code.name,
)
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_values_of_the_wrong_type(client: Client, row: Any, wrong: Any) -> None:
    """The answer names the request, the value, what it is and what is expected."""
    samples = {
        "name": "f",
        "device": CPU,
        "handle": OpaquePointer(99),
        "stream": OpaquePointer(0),
        "attribute": 0,
        "nbytes": 8,
        "alignment": 8,
        "dtype": DataType("int8"),
        "source": record((1,)),
        "target": record((1,)),
        "record": record((1,)),
        "scope": None,
    }
    for place, argument in enumerate(row.arguments[: row.required]):
        is_pointer = argument.types == (OpaquePointer,)
        if isinstance(wrong, argument.types) or (wrong is None and is_pointer):
            continue
        values = [samples[each.name] for each in row.arguments]
        values[place] = wrong
        text = client.refused(row.code, sequence(client.dialect, *values))
        assert f"{row.code.name} with {wrong!r} as {argument.name}; expected" in text


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.builds(OpaquePointer, st.integers(0, 1 << 63)),
    st.just(CPU),
    st.just(DataType("int8")),
    st.floats(),
)


@given(st.sampled_from(sorted(REQUESTS)), st.lists(VALUES, max_size=6))
def test_any_values_are_fitted_or_refused(code: int, values: List[Any]) -> None:
    """What a session's method gets is of the types that its row says, or the client is told."""
    row = REQUESTS[code]
    try:
        arguments = fitted(row, list(values))
    except ProtocolError:
        return
    known = row.arguments + row.more
    assert len(arguments) == len(known)
    for place, (value, argument) in enumerate(zip(arguments, known)):
        if OpaquePointer in argument.types:
            assert isinstance(value, int)
        else:
            assert isinstance(value, argument.types) or (value is None and place >= row.required)


NONSENSE = {
    "a text that is too long": struct.pack("<iiQ", 1, 8, 1 << 40) + b"abc",
    "an unknown kind": struct.pack("<iiq", 1, 55, 0),
    "a count that is none": struct.pack("<iiq", -5, 8, 0),
    "what is left over": struct.pack("<iiq", 1, 0, 0) + bytes(7),
    "a legacy text that is too long": struct.pack("<iiQ", 1, 11, 1 << 40) + b"abc",
}


@pytest.mark.parametrize("opened", [True, False], ids=["open", "not open"])
@pytest.mark.parametrize("body", NONSENSE.values(), ids=NONSENSE)
@pytest.mark.parametrize("dialect", [FFI, LEGACY], ids=lambda dialect: dialect.name)
def test_nonsense_before_the_dialect_is_known(
    conversation: Any, dialect: Dialect, body: bytes, opened: bool
) -> None:
    """Is answered with an error, and the session goes on in the dialect that comes then."""
    if opened:
        conversation.socket.sendall(struct.pack("<QiQ5si", 21, 2, 5, b"0.8.0", 0))
        assert conversation.answer()[0] == RETURN
        code, first = int(RPCCode.GET_GLOBAL_FUNC), body
    else:
        code, first = int(RPCCode.INIT_SERVER), struct.pack("<Q5s", 5, b"0.8.0") + body
    for _ in range(2):
        conversation.socket.sendall(struct.pack("<Qi", 4 + len(first), code) + first)
        answer, said = conversation.answer()
        assert answer == EXCEPTION
        assert b"makes sense in no dialect" in said
    if opened:
        name = sequence(dialect, NAME.decode())
        conversation.socket.sendall(struct.pack("<Qi", 4 + len(name), code) + name)
        answer, found = conversation.answer()
        assert answer == RETURN
        assert dialect.decode_values(found, 0, len(found))[0]
    else:
        Client(conversation, dialect)
