"""PackedFunc: anything that is called with packed arguments. Knows no C; `calling` does."""

from __future__ import annotations

import functools
from typing import Any, Callable, Optional, Tuple

from .object import Object

__all__ = ["CompiledLoop", "PackedFunc"]

CompiledLoop = Callable[[int], Tuple[int, int]]
"""Makes so many calls; the times at the first one's beginning and the last one's end, in
nanoseconds of `time.perf_counter_ns`."""


class PackedFunc(Object):
    """A function of the runtime: positional arguments in, one value out.

    Args:
        function: what a call does.
        name: for messages; the name of the function by default.

    Attributes:
        function: what a call does.
        is_global: whether the function registry holds it.
        handle: under what number the server of a remote function knows it, or at which address
            the function object of compiled code is; 0 if there is no such thing.

    Raises:
        TypeError: `function` cannot be called.
    """

    __slots__ = ("__weakref__", "function", "is_global", "name")

    handle = 0

    def __init__(self, function: Callable[..., Any], name: str = "") -> None:
        if not callable(function):
            raise TypeError(f"{function!r} cannot be called; expected a function")
        self.function = function
        self.name = name or str(getattr(function, "__name__", ""))
        self.is_global = False

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def prepare(self, *args: Any) -> Callable[[], Any]:
        """The call of these arguments, to be made many times: converted once, cheap each time."""
        return functools.partial(self.function, *args)

    def prepare_loop(self, *args: Any) -> Optional[CompiledLoop]:
        """The same many times in a loop of machine code; None where that cannot be done."""
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"
