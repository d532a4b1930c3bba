"""Values of all kinds: what goes out arrives exactly, anything else is refused at the call."""

from __future__ import annotations

import array
import contextlib
import ctypes
import decimal
import enum
import fractions
import math
import struct
from typing import TYPE_CHECKING, Any, Dict, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.errors import LocalProtocolError
from pytest_tvmrpc.protocol.dialect import FFI, LEGACY
from pytest_tvmrpc.runtime.words import number_of
from pytest_tvmrpc.session.environment import Environment
from pytest_tvmrpc.session.local import LocalSession

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(name="echo", params=["ffi", "legacy", "here"])
def _echo(request: pytest.FixtureRequest, server: rpc.Server) -> Iterator[Any]:
    """A function that returns what it gets: of a server in both dialects, and of no server."""
    if request.param == "here":
        with rpc.LocalSession() as inside:
            yield inside.get_function("testing.echo")
        return
    with rpc.connect(server.host, server.port) as remote:
        remote._endpoint.speak(FFI if request.param == "ffi" else LEGACY)
        yield remote.get_function("testing.echo")


class Whole(enum.IntEnum):
    ONE = 1


class Name(str, enum.Enum):
    A = "a"


class Text(str):
    def __str__(self) -> str:
        return "another"


class Number(int):
    def __int__(self) -> int:
        return 99

    __index__ = __int__


class Real(float):
    def __float__(self) -> float:
        return 99.0

    def __repr__(self) -> str:
        return "another"


class Content(bytes):
    def __bytes__(self) -> bytes:
        return b"another"


class Bytes(bytearray):
    def __bytes__(self) -> bytes:
        return b"another"


OF_SUBCLASSES: Dict[str, Any] = {
    "Name": (Name.A, "a"),
    "Text": (Text("a"), "a"),
    "Whole": (Whole.ONE, 1),
    "Number": (Number(3), 3),
    "Real": (Real(1.5), 1.5),
    "Content": (Content(b"a"), b"a"),
    "Bytes": (Bytes(b"a"), b"a"),
}


EXACT: Dict[str, Any] = {
    **{f"{np.dtype(kind)}": (np.dtype(kind).type(3), 3) for kind in "bhilqBHILQ"},
    **{
        f"{np.dtype(kind)}": (np.dtype(kind).type(0.1), float(np.dtype(kind).type(0.1)))
        for kind in "efd"
    },
    "int64 at its end": (np.int64(-(2**63)), -(2**63)),
    "uint64 below 2**63": (np.uint64(2**63 - 1), 2**63 - 1),
    "longdouble that fits": (np.longdouble(0.5), 0.5),
    "str_": (np.str_("x"), "x"),
    "bytes_": (np.bytes_(b"a\0b"), b"a\0b"),
    "no axes": (np.array(-7, ">i2"), -7),
    "no axes, float": (np.array(0.5, "float16"), 0.5),
    "no axes, not masked": (np.ma.array(7), 7),
    "IntEnum": (Whole.ONE, 1),
    "text of an Enum": (Name.A, "a"),
    "Fraction": (fractions.Fraction(1, 4), 0.25),
    "Decimal": (decimal.Decimal("0.5"), 0.5),
    "memoryview": (memoryview(b"abcd")[1:3], b"bc"),
    "bytearray": (bytearray(b"abc"), b"abc"),
    "infinity": (np.float32("-inf"), -math.inf),
}


@pytest.mark.parametrize(("value", "expected"), EXACT.values(), ids=EXACT)
def test_what_arrives(echo: Any, value: Any, expected: Any) -> None:
    """The same value as one of Python's own types."""
    answer = echo(value)
    assert answer == expected
    assert type(answer) is type(expected)


@pytest.mark.parametrize(("value", "expected"), OF_SUBCLASSES.values(), ids=OF_SUBCLASSES)
def test_subclasses(echo: Any, value: Any, expected: Any, tmp_path: Path) -> None:
    """What they hold counts, not what they say of themselves: in arguments, containers, results."""
    made = runtime.convert([value, (value,)])
    plain = [echo(value), runtime.Array([value])[0], made[0], made[1][0]]
    if not isinstance(value, bytearray):
        plain += [*runtime.Map({value: 1}), *runtime.convert({value: 1})]
    serving = LocalSession(Environment(str(tmp_path)))
    plain.append(serving.call(serving.handles.put(runtime.PackedFunc(lambda: value)), []))
    assert [(type(each), each) for each in plain] == [(type(expected), expected)] * len(plain)


@pytest.mark.parametrize("value", [True, False, np.bool_(True), np.array(False)])
def test_truth(echo: Any, value: Any) -> None:
    """A bool stays one where the dialect has any; up to TVM 0.20 it was an integer."""
    assert echo(value) == bool(value)
    assert isinstance(number_of(value), (bool, int))


def test_what_is_no_number() -> None:
    """NaN is the one number that is not what it was, and it is still NaN."""
    assert math.isnan(number_of(np.float16("nan")) or 0)
    assert math.isnan(number_of(decimal.Decimal("nan")) or 0)


REFUSED: Dict[str, Any] = {
    "uint64 of 2**63": np.uint64(2**63),
    "int of 65 bits": 2**64,
    "int beyond floats": 10**400,
    "int of too many digits to write": 10**5000,
    "Fraction beyond floats": fractions.Fraction(10**400),
    "longdouble": np.longdouble("0.1"),
    "Fraction": fractions.Fraction(1, 3),
    "Decimal": decimal.Decimal("0.1"),
    "Decimal that signals": decimal.Decimal("snan"),
    "complex": 1j,
    "complex64": np.complex64(1),
    "complex, no axes": np.array(1j),
    "datetime64": np.datetime64("2020-01-01"),
    "timedelta64": np.timedelta64(5, "s"),
    "timedelta64, no axes": np.array(5, "m8[s]"),
    "void": np.void(b"1"),
    "record": np.zeros((), [("a", "i4"), ("b", "f4")])[()],
    "object, no axes": np.array(5, dtype=object),
    "text, no axes": np.array("5"),
    "masked": np.ma.masked,
    "masked, no axes": np.ma.array(5, mask=True),
    "an array": np.arange(1),
    "a matrix": np.zeros((1, 1)).view(np.matrix),
    "a list": [1],
    "a dict": {},
    "an Enum": enum.Enum("Colour", "RED").RED,
    "array.array": array.array("d", [1.0]),
    "doubles": memoryview(array.array("d", [1.0])),
    "every other byte": memoryview(b"abcd")[::2],
    "rows of bytes": memoryview(bytes(6)).cast("B", (2, 3)),
    "c_int": ctypes.c_int(5),
    "a type": np.float32,
    "a surrogate": "\ud800",
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
def test_what_is_refused(echo: Any, value: Any) -> None:
    """At the call, with an error of ours and no warning; the session goes on."""
    with pytest.raises(LocalProtocolError):
        echo(value)
    assert echo(1) == 1


def exactly(value: float) -> bytes:
    """A float's bits; all NaNs are one."""
    return b"nan" if math.isnan(value) else struct.pack("<d", value)


NUMBERS = arrays.arrays(
    st.one_of(
        arrays.boolean_dtypes(),
        arrays.integer_dtypes(endianness="?"),
        arrays.unsigned_integer_dtypes(endianness="?"),
        arrays.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    ),
    (),
)


@given(NUMBERS)
def test_every_scalar_is_itself_or_refused(number: Any) -> None:
    """Of every type of NumPy's and of either byte order, with axes or none."""
    for form in (number, number[()]):
        plain = number_of(form)
        if number.dtype.kind == "f":
            assert isinstance(plain, float)
            assert exactly(plain) == exactly(float(number[()]))
        else:
            assert plain == number[()].item()
            assert type(plain) is type(number[()].item())


@given(st.one_of(st.fractions(), st.decimals(), st.floats(), st.integers()))
def test_a_float_stands_only_for_what_it_is(number: Any) -> None:
    """Whatever is not exactly a number of Python's own is refused."""
    try:
        plain = number_of(number)
    except ValueError:
        with contextlib.suppress(OverflowError):  # which is as far from it as can be
            assert float(number) != number
        return
    assert plain is None or plain == number or number != number
