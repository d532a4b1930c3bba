"""Where a value is within another one: ``<root>["weights"][2].shape``. Looks at no value."""

from __future__ import annotations

import enum
from typing import Any, Iterator, List, Optional, Tuple

from ..data_type import integer_of

__all__ = ["ObjectPath", "ObjectPathPair"]


class _Step(enum.IntEnum):
    ROOT = 0
    ATTRIBUTE = 1
    UNKNOWN_ATTRIBUTE = 2
    ITEM = 3
    MISSING_ITEM = 4
    VALUE = 5
    MISSING_ENTRY = 6


_TEXTS = {
    _Step.ATTRIBUTE: ".{}",
    _Step.UNKNOWN_ATTRIBUTE: ".<unknown attribute>",
    _Step.ITEM: "[{}]",
    _Step.MISSING_ITEM: "[<missing element #{}>]",
    _Step.VALUE: "[{}]",
    _Step.MISSING_ENTRY: "[<missing entry>]",
}


class ObjectPath:
    """A path from a root to something within it; it cannot be changed, and is usable as a key.

    Made by `root` and the methods that go on from there; a step costs the same however long the
    path is. Two paths are equal if their steps are, and the names of their roots. The text is that
    of TVM 0.13.

    Raises:
        ValueError: it is made directly.
    """

    __slots__ = ("_hash", "_key", "_length", "_parent", "_step")

    _parent: Optional[ObjectPath]
    _step: _Step
    _key: Any
    _length: int
    _hash: int

    def __init__(self) -> None:
        raise ValueError(
            "an ObjectPath is made by ObjectPath.root() and the paths that go on there"
        )

    @staticmethod
    def root(root_name: Optional[str] = None) -> ObjectPath:
        """The path to the root itself.

        Args:
            root_name: how texts begin; ``<root>`` by default.

        Raises:
            TypeError: the name is no text.
        """
        if root_name is not None and not isinstance(root_name, str):
            raise TypeError(f"{root_name!r} is no name of a root; expected a str or None")
        return _new_path(None, _Step.ROOT, root_name)

    @property
    def parent(self) -> Optional[ObjectPath]:
        """The path without its last step; None of a root."""
        return self._parent

    @property
    def length(self) -> int:
        """The number of steps, the root included."""
        return self._length

    def __len__(self) -> int:
        return self._length

    def get_prefix(self, length: int) -> ObjectPath:
        """The first steps of this path.

        Args:
            length: how many, the root included.

        Raises:
            TypeError: this is no integer.
            IndexError: less than 1, or more than this path has.
        """
        wanted = _integer("length", length)
        if not 1 <= wanted <= self._length:
            raise IndexError(f"a prefix of {wanted} steps; expected 1 to {self._length}")
        path = self
        while path._length > wanted:
            path = _parent_of(path)
        return path

    def is_prefix_of(self, other: ObjectPath) -> bool:
        """Whether the other path begins with this one, or is equal to it.

        Raises:
            TypeError: the other is no path.
        """
        if not isinstance(other, ObjectPath):
            raise TypeError(f"{other!r} is no ObjectPath")
        return self._length <= other._length and self == other.get_prefix(self._length)

    def attr(self, attr_key: Optional[str]) -> ObjectPath:
        """The path to an attribute.

        Args:
            attr_key: its name; None for one that has none, or is not there.

        Raises:
            TypeError: the name is neither a text nor None.
        """
        if attr_key is None:
            return _new_path(self, _Step.UNKNOWN_ATTRIBUTE, None)
        if not isinstance(attr_key, str):
            raise TypeError(f"{attr_key!r} is no name of an attribute; expected a str or None")
        return _new_path(self, _Step.ATTRIBUTE, attr_key)

    def array_index(self, index: int) -> ObjectPath:
        """The path to an element of a sequence.

        Raises:
            TypeError: the index is no integer.
            ValueError: it is negative.
        """
        return _new_path(self, _Step.ITEM, _integer("index", index))

    def missing_array_element(self, index: int) -> ObjectPath:
        """The path to where an element would be that this sequence lacks, and the other one has.

        Raises:
            TypeError: the index is no integer.
            ValueError: it is negative.
        """
        return _new_path(self, _Step.MISSING_ITEM, _integer("index", index))

    def map_value(self, key: Any) -> ObjectPath:
        """The path to the value under a key of a mapping.

        Raises:
            TypeError: the key cannot be the key of a mapping.
        """
        try:
            hash(key)
        except TypeError as error:
            raise TypeError(
                f"a {type(key).__name__} cannot be the key of a mapping: {error}; "
                "expected e.g. a str or an int"
            ) from None
        return _new_path(self, _Step.VALUE, key)

    def missing_map_entry(self) -> ObjectPath:
        """The path to an entry that this mapping lacks, and the other one has."""
        return _new_path(self, _Step.MISSING_ENTRY, None)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ObjectPath):
            return NotImplemented
        if self._hash != other._hash or self._length != other._length:
            return False
        for mine, its in zip(_upwards(self), _upwards(other)):
            if mine is its:
                return True
            if mine._step != its._step or type(mine._key) is not type(its._key):
                return False
            if mine._key != its._key:
                return False
        return True

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> Tuple[Any, ...]:
        return _from_steps, (self._steps(),)

    def __str__(self) -> str:
        (_, name), *steps = self._steps()
        parts = ["<root>" if name is None else str(name)]
        for number, key in steps:
            step = _Step(number)
            parts.append(_TEXTS[step].format(_key_text(key) if step is _Step.VALUE else key))
        return "".join(parts)

    __repr__ = __str__

    def _steps(self) -> List[Tuple[int, Any]]:
        """Number and key of each step, from the root on."""
        return [(int(path._step), path._key) for path in _upwards(self)][::-1]


class ObjectPathPair:
    """Where two values differ: the paths to the place within each of them.

    Args:
        lhs_path: within the first value.
        rhs_path: within the second one.
        reason: what differs there, in words; may be empty.

    Attributes:
        lhs_path, rhs_path, reason: as given. Unpacking gives the two paths.
    """

    __slots__ = ("lhs_path", "reason", "rhs_path")

    def __init__(self, lhs_path: ObjectPath, rhs_path: ObjectPath, reason: str = "") -> None:
        for path in (lhs_path, rhs_path):
            if not isinstance(path, ObjectPath):
                raise TypeError(f"{path!r} is no ObjectPath")
        self.lhs_path = lhs_path
        self.rhs_path = rhs_path
        self.reason = reason

    def __iter__(self) -> Iterator[ObjectPath]:
        return iter((self.lhs_path, self.rhs_path))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPathPair) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __str__(self) -> str:
        where = str(self.lhs_path)
        if self.rhs_path != self.lhs_path:
            where += f" and {self.rhs_path}"
        return f"{where}: {self.reason}" if self.reason else where

    def __repr__(self) -> str:
        return f"ObjectPathPair({self})"


def _new_path(parent: Optional[ObjectPath], step: _Step, key: Any) -> ObjectPath:
    path = object.__new__(ObjectPath)
    path._parent = parent
    path._step = step
    path._key = key
    path._length = 1 if parent is None else parent._length + 1
    path._hash = hash((0 if parent is None else parent._hash, int(step), type(key), key))
    return path


def _from_steps(steps: List[Tuple[int, Any]]) -> ObjectPath:
    path = None
    for number, key in steps:
        path = _new_path(path, _Step(number), key)
    assert path is not None
    return path


def _upwards(path: ObjectPath) -> Iterator[ObjectPath]:
    """A path and all its prefixes, the longest first."""
    here: Optional[ObjectPath] = path
    while here is not None:
        yield here
        here = here._parent


def _parent_of(path: ObjectPath) -> ObjectPath:
    assert path._parent is not None
    return path._parent


def _integer(name: str, value: Any) -> int:
    number = integer_of(value)
    if number is None:
        raise TypeError(f"{name} is {value!r}; expected an integer")
    if number < 0 and name == "index":
        raise ValueError(f"index is {number}; elements are counted from 0")
    return number


def _key_text(key: Any) -> str:
    if isinstance(key, str):
        return '"' + key.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    return repr(key)
