"""Files of parameters: what TVM writes and what we write, byte for byte; each reads the other's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

from pytest_tvmrpc import runtime as ours

if TYPE_CHECKING:
    from pathlib import Path

DTYPES = [
    *("float32", "float16", "float64", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "bool"),
    *(ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2),
]
SHAPES: list[tuple[int, ...]] = [(), (1,), (7,), (2, 3), (1, 2, 1, 3), (1,) * 12]

BY_DTYPE = {
    np.dtype(dtype).name: {
        f"{np.dtype(dtype).name} {shape}": np.arange(1, 1 + int(np.prod(shape)))
        .astype(dtype)
        .reshape(shape)
        for shape in SHAPES
    }
    for dtype in DTYPES
}

ONE = np.array([1, 2], "int8")

NAMED = {
    "none": {},
    "one": {"w": ONE},
    "empty name": {"": ONE},
    "unicode": {"ü": ONE, "重み": ONE, "🙂": ONE},
    "odd characters": {"a\0b": ONE, "a\nb": ONE, " ": ONE, "a/b": ONE},
    "long name": {"x" * 5000: ONE},
    "order of keys": {name: ONE * place for place, name in enumerate("zebra")},
    "many": {f"p{(number * 37) % 100}": np.int32(number) for number in range(100)},
}

PARAMS: dict[str, dict[str, Any]] = {
    **BY_DTYPE,
    **NAMED,
    "axes in another order": {"w": np.arange(12.0).reshape(3, 4).T},
    "gaps": {"w": np.arange(12.0).reshape(3, 4)[::-1, ::2]},
    "not arrays": {"list": [1, 2, 3], "int": 3, "float": 2.5, "bool": True},
}

ZERO_SIZED: dict[str, Any] = {
    "first": np.zeros((0, 4), "float32"),
    "between": np.ones(2),
    "last": np.zeros((3, 0), "uint8"),
}


@pytest.fixture(name="theirs", scope="module")
def _theirs() -> Any:
    """``tvm.runtime``."""
    return pytest.importorskip("tvm").runtime


def elements(loaded: Any) -> list[Any]:
    """What parameters are, of either side: names in their order, types, shapes, bits."""
    found = [(str(name), tensor.numpy()) for name, tensor in loaded.items()]
    return [(name, one.dtype.name, one.shape, one.tobytes()) for name, one in found]


@pytest.mark.parametrize("params", PARAMS.values(), ids=list(PARAMS))
def test_bytes_are_equal_and_are_read_by_the_other(theirs: Any, params: dict[str, Any]) -> None:
    """Of arrays and of tensors."""
    saved = ours.save_param_dict(params)
    assert bytes(theirs.save_param_dict(params)) == saved
    as_tensors = {name: ours.tensor(value) for name, value in params.items()}
    assert ours.save_param_dict(as_tensors) == saved
    expected = elements(as_tensors)
    assert elements(ours.load_param_dict(theirs.save_param_dict(params))) == expected
    assert elements(theirs.load_param_dict(bytes(saved))) == expected


@pytest.mark.parametrize("params", PARAMS.values(), ids=list(PARAMS))
def test_files_are_equal_and_are_read_by_the_other(
    theirs: Any, params: dict[str, Any], tmp_path: Path
) -> None:
    """A file is what the bytes are."""
    written, by_tvm = tmp_path / "ours.params", tmp_path / "tvms.params"
    ours.save_param_dict_to_file(params, written)
    theirs.save_param_dict_to_file(params, str(by_tvm))
    assert written.read_bytes() == by_tvm.read_bytes()
    expected = elements({name: ours.tensor(value) for name, value in params.items()})
    assert elements(ours.load_param_dict_from_file(by_tvm)) == expected
    assert elements(theirs.load_param_dict_from_file(str(written))) == expected


def test_tensors_without_elements(theirs: Any) -> None:
    """TVM writes them as we do."""
    saved = ours.save_param_dict(ZERO_SIZED)
    assert bytes(theirs.save_param_dict(ZERO_SIZED)) == saved
    loaded = ours.load_param_dict(theirs.save_param_dict(ZERO_SIZED))
    assert elements(loaded) == [
        (name, array.dtype.name, array.shape, array.tobytes()) for name, array in ZERO_SIZED.items()
    ]


def test_values_of_tvm_are_saved(theirs: Any) -> None:
    """TVM's tensors, and its map of them, are saved by us as by TVM."""
    from tvm_ffi import convert

    tensors = {name: theirs.tensor(array) for name, array in BY_DTYPE["float32"].items()}
    expected = bytes(theirs.save_param_dict(tensors))
    assert ours.save_param_dict(tensors) == expected
    mapped = convert(tensors)
    assert ours.save_param_dict(mapped) == bytes(theirs.save_param_dict(mapped))


def test_packed_integers_are_refused(theirs: Any) -> None:
    """The size that the format has for them is not the one that they have in memory."""
    params = {"v": np.array([1, 2, 3], ml_dtypes.int4)}
    for side in (theirs, ours):
        with pytest.raises((RuntimeError, ValueError)):
            side.save_param_dict(params)


@pytest.mark.parametrize("params", [None, [("a", ONE)], {1: ONE}, {"a": None}, {"a": "text"}])
def test_what_tvm_refuses_is_refused(theirs: Any, params: Any) -> None:
    """Neither makes bytes of what is no dictionary of names and arrays."""
    for side in (theirs, ours):
        with pytest.raises((TypeError, ValueError, AttributeError)):
            side.save_param_dict(params)


@pytest.mark.parametrize("end", [0, 8, 20, 30, 40, 60])
def test_cut_files_are_refused(theirs: Any, end: int) -> None:
    """Those that TVM refuses, and the others, too."""
    saved = bytes(ours.save_param_dict({"w": ONE}))
    for side in (theirs, ours):
        with pytest.raises((RuntimeError, ValueError)):
            side.load_param_dict(saved[:end])
