"""Objects: what TVM counts references to, and values that can become one. Knows no C."""

from __future__ import annotations

from typing import Any

from ..data_type import integer_of, number_text

__all__ = ["Object", "ObjectConvertible", "ObjectGeneric", "ShapeTuple", "String"]


class Object:
    """What tensors, functions, modules and the objects of compiled code have in common.

    Two of them are equal if they are one object, unless a class says otherwise.
    """

    __slots__ = ()

    def same_as(self, other: object) -> bool:
        """Whether the other is this very object."""
        return other is self

    def is_(self, other: object) -> bool:
        """Whether the other is this very object."""
        return self.same_as(other)

    @property
    def id_(self) -> int:
        """A number that no other object has as long as this one is there."""
        return id(self)


class ObjectConvertible:
    """Something that stands for an object where one is expected, for example as an argument."""

    def asobject(self) -> Any:
        """The object, or another value that a function can take.

        Raises:
            NotImplementedError: the class does not say.
        """
        raise NotImplementedError(f"{type(self).__qualname__} has no method asobject()")


ObjectGeneric = ObjectConvertible
"""What TVM called `ObjectConvertible` up to 0.20."""


class String(str):
    """Text that `convert` made; a str in every way.

    Args:
        content: the text.

    Raises:
        TypeError: it is no str.
    """

    __slots__ = ()

    def __new__(cls, content: str) -> String:
        if not isinstance(content, str):
            raise TypeError(f"a String is made of a str, not of a {type(content).__name__}")
        return super().__new__(cls, str.__str__(content))  # of an enum's member, not its name

    def same_as(self, other: object) -> bool:
        """Whether the other is this very string."""
        return other is self


class ShapeTuple(tuple):  # type: ignore[type-arg]  # tuple[int, ...] is for Python 3.9
    """The lengths of axes as an object; a tuple in every way.

    Args:
        shape: integers of 64 bits, which may be negative, as a result of compiled code may.

    Raises:
        TypeError: this is no sequence, or an element is no integer.
        ValueError: an integer is beyond 64 bits.
    """

    __slots__ = ()

    def __new__(cls, shape: Any) -> ShapeTuple:
        if isinstance(shape, (str, bytes, bytearray)):
            raise TypeError(f"a shape is a sequence of integers, not {shape!r}")
        lengths = []
        for length in shape:
            number = integer_of(length)
            if number is None:
                raise TypeError(f"a shape is a sequence of integers; {length!r} is none")
            lengths.append(number)
            if not -(1 << 63) <= lengths[-1] < 1 << 63:
                raise ValueError(f"{number_text(number)} in a shape is no 64-bit integer")
        return super().__new__(cls, lengths)

    def __getnewargs__(self) -> Any:
        return (tuple(self),)

    def same_as(self, other: object) -> bool:
        """Whether the other is this very shape."""
        return other is self
