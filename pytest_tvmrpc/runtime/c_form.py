"""Python functions in the form in which C calls them: the description of one, and its making."""

from __future__ import annotations

import ctypes
from typing import Any, Callable, Dict, NamedTuple, Tuple

from .abi import record_error

__all__ = ["INT", "POINTER", "TEXT", "U64", "VOID", "Functions", "Offer", "guarded", "offer"]

INT, POINTER, TEXT, U64 = ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64
VOID: Any = None


class Offer(NamedTuple):
    """A function for C and its types; its C form takes executable memory, so `made` makes it."""

    result: Any
    function: Callable[..., Any]
    arguments: Tuple[Any, ...]

    def made(self) -> Any:
        """The function as an object of ctypes, which has to be kept."""
        return ctypes.CFUNCTYPE(self.result, *self.arguments)(self.function)


Functions = Dict[str, Offer]


def offer(result: Any, function: Callable[..., Any], *arguments: Any) -> Offer:
    """Describe a function by the types of its result and its arguments."""
    return Offer(result, function, arguments)


def guarded(function: Callable[..., int]) -> Callable[..., int]:
    """`function`, with what it raises recorded and -1 returned: C cannot carry an exception."""

    def run(*args: Any) -> int:
        try:
            return function(*args)
        except BaseException as error:  # raised by the call from Python that is above
            record_error(error)
            return -1

    return run
