"""Calling C functions many times in a loop of machine code: native/timing_loop.c.

On machines for which `timing_code` has none, a compiler makes it, if there is one.
"""

from __future__ import annotations

import ctypes
import functools
import os
import time
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, Sequence, Tuple

from ..errors import LibraryError
from . import elf, stubs, timing_code

if TYPE_CHECKING:
    from .function import CompiledLoop

__all__ = ["SOURCES", "Loops", "loops", "prepared"]


class _Time(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _Clock(ctypes.Structure):
    """mrpc_clock: the clock, and what takes results back."""

    _fields_ = [
        ("read", ctypes.c_void_p),
        ("drop", ctypes.c_void_p),
        ("start", ctypes.c_void_p),
        ("end", ctypes.c_void_p),
        ("clock", ctypes.c_int),
    ]


_DROP = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_POINTER, _INT = ctypes.c_void_p, ctypes.c_int


class Loops(NamedTuple):
    """The functions of timing_loop.c, and the address of ``clock_gettime``."""

    time_calls: Any
    time_legacy_calls: Any
    read_clock: int


@functools.lru_cache(maxsize=None)
def loops() -> Optional[Loops]:
    """The loops; None on other systems than Linux, and where no file of ours can be loaded."""
    machine = elf.machine()
    if machine is None or not hasattr(time, "CLOCK_MONOTONIC"):
        return None
    try:
        library = stubs.load_code(timing_code.CODE, "timing", machine) or _compiled()
        read = ctypes.cast(ctypes.CDLL(None).clock_gettime, ctypes.c_void_p).value
    except (OSError, AttributeError, LibraryError):  # no compiler, or a folder that is not for code
        return None
    number = ctypes.c_int64
    arguments = (_POINTER, _POINTER, _POINTER, _INT, number, _POINTER)
    kind = ctypes.CFUNCTYPE(_INT, *arguments)
    return Loops(
        kind(("mrpc_time_calls", library)), kind(("mrpc_time_legacy_calls", library)), read or 0
    )


def _compiled() -> ctypes.CDLL:
    """
    Raises:
        CompilerError: there is no compiler.
        OSError: there is no source, as in a ``.pyz`` file; or no place for the library.
    """
    from . import compile_cache, toolchain

    native = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "native")
    paths = [os.path.join(native, name) for name in SOURCES]
    content = b""
    for path in paths:
        with open(path, "rb") as file:
            content += file.read()
    command, flags = toolchain.find_compiler(), ["-std=c99", f"-I{native}"]

    def make(path: str, scratch: str) -> None:
        toolchain.compile_library(paths[0], path, options=flags, compiler=command, scratch=scratch)

    return ctypes.CDLL(compile_cache.made_once(".bin", content, flags, command, make))


SOURCES = ("timing_loop.c", "timing_loop.h", "ffi.h", "wire.h", "numbers.h")
"""Of native/: what a compiler needs to make the loops."""


def prepared(
    function: Any, loop: Any, first: Sequence[Any], drop: Callable[[int], None], alive: Any
) -> CompiledLoop:
    """A loop that takes the number of calls; it raises what a call raises.

    Args:
        function: that is called; its method `error` makes an exception of a status.
        loop: one of `Loops`.
        first: its first four arguments.
        drop: gives back the object that a call returned; called with the address of the result.
        alive: what must stay alive as long as the loop.
    """
    start, end = _Time(), _Time()
    dropping = _DROP(drop)
    found = loops()
    assert found is not None  # which `loop` is from
    clock = _Clock(
        found.read_clock,
        ctypes.cast(dropping, ctypes.c_void_p).value,
        ctypes.addressof(start),
        ctypes.addressof(end),
        time.CLOCK_MONOTONIC,
    )
    place = ctypes.addressof(clock)

    def run(number: int, _alive: Any = (alive, dropping, clock)) -> Tuple[int, int]:
        status = loop(*first, number, place)
        if status:
            raise function.error(status)
        return _nanoseconds(start), _nanoseconds(end)

    return run


def _nanoseconds(time: _Time) -> int:
    return int(time.seconds) * 1_000_000_000 + int(time.nanoseconds)
