"""Numbers with a data type."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.data_type import DataType


@pytest.mark.parametrize(
    ("given", "dtype", "text"),
    [
        ((3,), "int32", "3"),
        ((2**31,), "int64", "T.int64(2147483648)"),
        ((-(2**31),), "int32", "-2147483648"),
        ((True,), "bool", "T.bool(True)"),
        ((3.5,), "float32", "T.float32(3.5)"),
        ((1e39,), "float64", "T.float64(1e+39)"),
        ((math.inf,), "float64", 'T.float64("inf")'),
        ((math.nan, "float16"), "float16", 'T.float16("nan")'),
        ((3, "float32"), "float32", "T.float32(3.0)"),
        ((3.0, "int32"), "int32", "3"),
        ((np.float64(2), "uint8"), "uint8", "T.uint8(2)"),
        ((7, "int4"), "int4", "T.int4(7)"),
        ((2**64 - 1, "uint64"), "uint64", "T.uint64(18446744073709551615)"),
        ((448, "float8_e4m3fn"), "float8_e4m3fn", "T.float8_e4m3fn(448.0)"),
        ((1, DataType("int8")), "int8", "T.int8(1)"),
        ((np.float32(1.5),), "float32", "T.float32(1.5)"),
        ((np.int64(4),), "int64", "T.int64(4)"),
        ((np.bool_(True),), "bool", "T.bool(True)"),
        ((np.array(2, "uint8"),), "uint8", "T.uint8(2)"),
        ((np.int8(2), "float16"), "float16", "T.float16(2.0)"),
    ],
)
def test_the_type_of_a_constant(given: Any, dtype: str, text: str) -> None:
    """It is the one that is given, the value's own, or the smallest usual one."""
    made = runtime.const(*given)
    assert made.dtype == dtype
    assert repr(made) == str(made) == made.script() == text
    assert isinstance(made, (runtime.IntImm, runtime.FloatImm))
    assert repr(runtime.const(made)) == text
    for protocol in range(2, 6):
        copy = pickle.loads(pickle.dumps(made, protocol))
        assert (type(copy), repr(copy)) == (type(made), text)


def test_a_constant_is_its_number() -> None:
    """For arithmetic, comparison, as a key, and for whoever wants the plain one."""
    three, half = runtime.const(3, "int8"), runtime.const(0.5)
    assert (three + 1, three == 3, {3: "x"}[three], [0, 1, 2, 3][three]) == (4, True, "x", 3)
    assert half * 2 == 1.0
    assert type(three.value) is int
    assert type(half.value) is float
    assert (three.value, half.value) == (3, 0.5)


def test_a_constant_as_an_argument() -> None:
    """It is sent as its number, or as the truth value that it is."""
    with rpc.LocalSession() as session:
        echo = session.get_function("testing.echo")
        for value in (runtime.const(3, "int8"), runtime.const(2.5), runtime.const(True)):
            result = echo(value)
            assert result == value
            assert type(result) is (bool if value.dtype == "bool" else type(value.value))


@pytest.mark.parametrize(
    "given",
    [
        (128, "int8"),
        (-1, "uint8"),
        (256, "uint8"),
        (2, "bool"),
        (8, "int4"),
        (2**63,),
        (-(2**63) - 1,),
        (70000.0, "float16"),
        (-1e39, "float32"),
        (500, "float8_e4m3fn"),
        (7, "float4_e2m1fn"),
        (10**400, "float64"),
        (10**400,),
        (10**5000, "float32"),
        (-(10**5000), "uint8"),
        (3.7, "int32"),
        (np.float32(0.5), "bool"),
        (-1e-9, "uint8"),
        (math.nan, "int32"),
        (math.inf, "int64"),
        (1, "handle"),
        (1, "int32x4"),
        (1.0, "float32x4"),
        (1, "nonsense"),
    ],
)
def test_numbers_that_do_not_fit(given: Any) -> None:
    """They are refused, and so are types that hold no number."""
    with pytest.raises(ValueError, match=r"fit into|holds no|is no data type") as caught:
        runtime.const(*given)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("kind", "dtype", "value", "error", "message"),
    [
        (runtime.IntImm, "int8", 1.7, ValueError, r"1\.7 does not fit into int8; .* round it"),
        (runtime.IntImm, "int8", math.inf, ValueError, "expected an integer"),
        (runtime.IntImm, "int8", "5", TypeError, r"'5' is a str; a constant is an int"),
        (runtime.IntImm, "int8", None, TypeError, "None is a NoneType"),
        (runtime.FloatImm, "float32", "5", TypeError, r"'5' is a str; a constant is an int"),
        (runtime.FloatImm, "float32", 1j, TypeError, "1j is a complex"),
        (runtime.FloatImm, "float64", 10**400, ValueError, "does not fit into float64"),
    ],
)
def test_numbers_that_become_no_others(
    kind: Any, dtype: str, value: Any, error: Any, message: str
) -> None:
    """A fraction is not cut off, and a text is not read."""
    with pytest.raises(error, match=message):
        kind(dtype, value)


@pytest.mark.parametrize("value", ["3", None, [1], b"a", 3j, np.arange(2), object(), np.str_("x")])
def test_what_is_no_number(value: Any) -> None:
    """It is refused, with what is taken."""
    with pytest.raises(TypeError, match="a constant is an int, a float or a bool"):
        runtime.const(value)


def test_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    """`show` writes what `script` returns; what has no text says so."""
    made = runtime.const(3, "int8")
    assert isinstance(made, runtime.Scriptable)
    made.show()
    assert capsys.readouterr().out == "T.int8(3)\n"
    with pytest.raises(TypeError, match="Scriptable has no form"):
        runtime.Scriptable().script()
