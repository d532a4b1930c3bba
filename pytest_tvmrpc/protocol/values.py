"""What travels in a packed sequence besides Python's own values: handles, and some limits.

A handle is a number that the serving side chose for something of its own. The asking side never
looks into it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ..dlpack import TensorRecord

MAX_VALUES = 4096
"""Values in one packed sequence. TVM's largest real calls have a few hundred arguments."""

LARGE = 64 * 1024
"""Bytes from which a byte string is sent and received apart, without being copied."""


CHOSEN_HANDLES = 0x7476 << 48
"""Where the handles begin that our client chooses for memory: a third value of the request for it,
which other clients do not send, and other servers do not read."""


class FunctionHandle(int):
    """A function of the serving side."""

    __slots__ = ()


class ModuleHandle(int):
    """A module of the serving side."""

    __slots__ = ()


class ObjectHandle(int):
    """Any other object of the serving side."""

    __slots__ = ()


class TensorResult(NamedTuple):
    """A tensor that a function returned: where it lies, and the handle that keeps it alive."""

    record: TensorRecord
    handle: int


class PendingBytes(NamedTuple):
    """The last value of a sequence whose packet has not arrived in full: a long byte string.

    ``offset`` is where its bytes begin in the buffer, ``nbytes`` how many there will be.
    """

    offset: int
    nbytes: int


class ByteSource(NamedTuple):
    """A long byte string that is a part of a file on the serving side."""

    file: Any
    nbytes: int
