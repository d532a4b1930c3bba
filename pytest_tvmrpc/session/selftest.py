"""Functions every server has so that any client can try it: TVM's ``rpc.test.*`` and its kin."""

from __future__ import annotations

import sys
import time
from typing import Any, Callable, Dict, Sequence


def _add_one(x: int) -> int:
    return x + 1


def _concatenate(name: str, x: int) -> str:
    return f"{name}:{x}"


def _raise(name: str) -> None:
    raise ValueError(name)


def _add_to_lhs(x: int) -> Callable[[int], int]:
    return lambda y: x + y


def _return_tensor(name: str) -> Callable[..., Any]:
    """Functions around one tensor of ten zeros, for what a test wants to see of it."""
    from ..runtime.device.names import cpu
    from ..runtime.tensor import empty

    made = empty((10,), "float32", cpu(0))
    memory: Any = made.memory
    memory.view[:] = bytes(40)
    functions: Dict[str, Callable[..., Any]] = {
        "get_arr": lambda: made,
        "ref_count": lambda: sys.getrefcount(made) - 1,
        "get_elem": lambda index: _elements(made)[index],
        "get_arr_elem": lambda tensor, index: _elements(tensor)[index],
    }
    if name not in functions:
        raise RuntimeError(f"unknown name {name!r}; expected one of {', '.join(functions)}")
    return functions[name]


def _elements(tensor: Any) -> Sequence[float]:
    """The elements of a tensor of float32 or float64, flat."""
    content: memoryview = tensor.memory.view[tensor.byte_offset :][: tensor.nbytes]
    return content.cast("f") if tensor.dtype == "float32" else content.cast("d")


def _check_ones(tensor: Any) -> None:
    """Takes a floating-point tensor of shape (3, 4) that holds ones."""
    if tensor.shape != (3, 4) or any(element != 1 for element in _elements(tensor)):
        raise AssertionError(f"expected ones of shape (3, 4), got {tensor!r}")


FUNCTIONS: Dict[str, Callable[..., Any]] = {
    "rpc.test.addone": _add_one,
    "rpc.test.strcat": _concatenate,
    "rpc.test.except": _raise,
    "rpc.test.runtime_str_concat": lambda x, y: x + y,
    "rpc.test.add_to_lhs": _add_to_lhs,
    "rpc.test.remote_return_nd": _return_tensor,
    "rpc.test.remote_tensor_func": _check_ones,
    "rpc.test.remote_array_func": _check_ones,  # its name up to TVM 0.20
    "testing.echo": lambda *values: values[0],
    "testing.sleep": lambda seconds, *_: time.sleep(seconds),
}
