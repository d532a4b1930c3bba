"""Packed sequences of TVM 0.8 to 0.20, written a second time. Shares no code with the package.

All type codes stand first, then the values. Whoever reads is strict: what a real peer would not
send, or would not survive, is a `RuleBrokenError` with the bytes in it.
"""

from __future__ import annotations

import struct
from typing import Any, Iterable, List, NamedTuple, Sequence, Tuple

INT, UNSIGNED, FLOAT, POINTER, NULL, DTYPE, DEVICE, TENSOR, OBJECT, MODULE, FUNCTION = range(11)
STR, BYTES, NDARRAY, RVALUE, BOOL = range(11, 16)

OBJECTS_SINCE = 16
"""TVM 0.16: references to objects can be sent; the device's current stream can be asked for."""
BOOL_SINCE = 18
"""TVM 0.18: booleans have a code of their own, which older ones do not know."""


class RuleBrokenError(AssertionError):
    """The peer sent what the protocol forbids."""


class Value(NamedTuple):
    """One value of a sequence, or the result of a call.

    Attributes:
        code: its type code; of a result, its kind.
        content: int, float, str, bytes, None, a `Device`, `DType` or `Record`; of a returned
            tensor, its `Record` and the handle of its object.
    """

    code: int
    content: Any = None


class Device(NamedTuple):
    """Type and number."""

    kind: int = 1
    number: int = 0


class DType(NamedTuple):
    """As four bytes in tensors, as eight in sequences."""

    code: int
    bits: int
    lanes: int = 1


class Record(NamedTuple):
    """A tensor, as it is described on the wire."""

    data: int
    device: Device
    dtype: DType
    shape: Tuple[int, ...]
    byte_offset: int = 0

    @property
    def nbytes(self) -> int:
        """Of its elements, each in whole bytes."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count * ((self.dtype.bits * self.dtype.lanes + 7) // 8)


FLOAT32 = DType(2, 32)
BOOLEAN = DType(1, 1)
"""Up to TVM 0.22; what is called bool today, 6, is one of the float8 here."""
NONE = Value(NULL)


def integer(value: int) -> Value:
    """Code 0."""
    return Value(INT, value)


def text(value: str) -> Value:
    """Code 11."""
    return Value(STR, value)


def hexdump(content: bytes, most: int = 256) -> str:
    """Lines of 16 bytes, with their positions."""
    places = range(0, min(len(content), most), 16)
    lines = [f"{at:06x}  {content[at : at + 16].hex(' ')}" for at in places]
    rest = [f"... {len(content)} bytes in all"] if len(content) > most else []
    return "\n".join(lines + rest) or "(no bytes)"


# Writing


def packet(code: int, body: bytes = b"") -> bytes:
    """Length, code and body."""
    return struct.pack("<Qi", 4 + len(body), code) + body


def sequence(values: Iterable[Value]) -> bytes:
    """Count, all codes, all values."""
    values = list(values)
    codes = [value.code for value in values]
    head = struct.pack(f"<i{len(codes)}i", len(codes), *codes)
    return head + b"".join(_value(value) for value in values)


def record(tensor: Record) -> bytes:
    """A tensor's description, without a code in front of it."""
    ndim = len(tensor.shape)
    return (
        struct.pack("<Q3iBBH", tensor.data, *tensor.device, ndim, *tensor.dtype)
        + struct.pack(f"<{ndim}q", *tensor.shape)
        + struct.pack("<Q", tensor.byte_offset)
    )


def _value(value: Value) -> bytes:
    code, content = value
    if code in (INT, UNSIGNED, BOOL):
        return struct.pack("<q", content)
    if code == FLOAT:
        return struct.pack("<d", content)
    if code in (POINTER, MODULE, FUNCTION):
        return struct.pack("<Q", content)
    if code == OBJECT:  # the index of "remote object" among the objects that can be sent: 9
        return struct.pack("<IQ", 9, content)
    if code in (STR, BYTES):
        raw = content.encode() if code == STR else bytes(content)
        return struct.pack("<Q", len(raw)) + raw
    if code == TENSOR:
        return record(content)
    if code == DTYPE:
        return struct.pack("<BBHi", *content, 0)
    if code == DEVICE:
        return struct.pack("<2i", *content)
    assert code == NULL, f"code {code} has no layout"
    return b""


# Reading


class Reader:
    """Reads one packet's body to its very end.

    Args:
        body: what follows the packet's code.
        codes: of values that may occur.
        what: which packet it is, for errors.
    """

    def __init__(self, body: bytes, codes: Sequence[int], what: str) -> None:
        self._body = body
        self._codes = codes
        self._at = 0
        self._what = what

    def broken(self, rule: str) -> RuleBrokenError:
        """The error that says so."""
        return RuleBrokenError(f"{self._what}: {rule}, at {self._at}\n{hexdump(self._body)}")

    def take(self, nbytes: int) -> bytes:
        """The next bytes."""
        found = self._body[self._at : self._at + nbytes]
        if len(found) < nbytes:
            raise self.broken(f"{nbytes} bytes expected, {len(found)} left")
        self._at += nbytes
        return found

    def unpack(self, layout: str) -> Tuple[Any, ...]:
        """The next fields."""
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))

    def end(self) -> None:
        """Nothing may be left."""
        left = len(self._body) - self._at
        if left:
            raise self.broken(f"{left} bytes too many")

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._body) - self._at)

    def sequence(self) -> List[Value]:
        """A packed sequence, and the end."""
        (count,) = self.unpack("i")
        if not 0 <= count <= len(self._body) // 4:
            raise self.broken(f"a sequence of {count} values")
        codes = self.unpack(f"{count}i")
        for code in codes:
            if code not in self._codes:
                raise self.broken(f"kUnknownTypeCode {code}, legal are {list(self._codes)}")
        values = [Value(code, self._content(code)) for code in codes]
        self.end()
        return values

    def record(self) -> Record:
        """A tensor's description."""
        data, kind, number, ndim = self.unpack("Q3i")
        if not 0 <= ndim <= 64:
            raise self.broken(f"a tensor of {ndim} dimensions")
        dtype = DType(*self.unpack("BBH"))
        if 7 < dtype.code < 129:
            raise self.broken(f"{dtype} is no data type of those days")
        shape = self.unpack(f"{ndim}q")
        if any(extent < 0 for extent in shape):
            raise self.broken(f"shape {shape}")
        return Record(data, self._checked(kind, number), dtype, shape, *self.unpack("Q"))

    def _checked(self, kind: int, number: int) -> Device:
        if not 1 <= kind < 128:
            raise self.broken(f"device type {kind}; masked ones do not travel")
        return Device(kind, number)

    def _content(self, code: int) -> Any:
        if code in (INT, UNSIGNED):
            return self.unpack("q")[0]
        if code == BOOL:
            (number,) = self.unpack("q")
            if number not in (0, 1):
                raise self.broken(f"a bool of {number}")
            return bool(number)
        if code == FLOAT:
            return self.unpack("d")[0]
        if code in (POINTER, MODULE, FUNCTION):
            return self.unpack("Q")[0]
        if code == OBJECT:
            kind, handle = self.unpack("IQ")
            if kind != 9:
                raise self.broken(f"an object of kind {kind} instead of 9")
            return handle
        if code == BYTES:
            return self.take(*self.unpack("Q"))
        if code == STR:
            return self._text()
        if code == TENSOR:
            return self.record()
        if code == DEVICE:
            return self._checked(*self.unpack("2i"))
        if code == DTYPE:
            *fields, padding = self.unpack("BBHi")
            if padding:
                raise self.broken(f"padding {padding} behind a data type")
            return DType(*fields)
        return None

    def _text(self) -> str:
        raw = self.take(*self.unpack("Q"))
        if b"\0" in raw:
            raise self.broken(f"a NUL within the text {raw!r}")
        return raw.decode()
