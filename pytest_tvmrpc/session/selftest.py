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


class _NamedError(RuntimeError):
    """An error that has any name at the client.

    Args:
        name: of its type.
        text: its message.
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.remote_type = name


def _raise_kind(kind: str, text: str) -> None:
    raise _NamedError(kind, text)


def _raiser(text: str) -> Callable[[], None]:
    """A function that raises what the text says: ``TypeError: text``, or only a text."""
    kind, colon, message = text.partition(": ")
    if not (colon and kind.isidentifier()):
        kind, message = "RuntimeError", text
    return lambda: _raise_kind(kind, message)


def _comparer(text: str) -> Callable[[int, int], None]:
    """A function that raises, with this text in it, where two integers are not the same."""

    def compare(x: int, y: int) -> None:
        if x != y:
            raise _NamedError("InternalError", f"{x} is not {y}: {text}")

    return compare


def _add_to_lhs(x: int) -> Callable[[int], int]:
    return lambda y: x + y


def _return_tensor(name: str) -> Callable[..., Any]:
    """Functions around one tensor of ten zeros, for what a test wants to see of it."""
    from ..runtime.device.names import cpu
    from ..runtime.tensor import empty

    made = empty((10,), "float32", cpu(0))
    made.device.api.copy_from_host(memoryview(bytes(40)), made)
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
    content = memoryview(bytearray(tensor.nbytes))
    if content:
        tensor.device.api.copy_to_host(tensor, content)
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
    "testing.nop": lambda *values: values[0] if values else None,
    "testing.test_raise_error": _raise_kind,
    "testing.test_raise_error_callback": _raiser,  # up to TVM 0.20
    "testing.test_check_eq_callback": _comparer,
    "testing.sleep_in_ffi": time.sleep,
    "testing.sleep": lambda seconds, *_: time.sleep(seconds),
}
