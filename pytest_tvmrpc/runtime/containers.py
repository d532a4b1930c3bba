"""Arrays and maps of compiled code as sequences and mappings, read where they are."""

from __future__ import annotations

import math
import operator
from typing import (
    Any,
    Dict,
    Hashable,
    ItemsView,
    Iterable,
    Iterator,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    ValuesView,
)

from ..dlpack import OpaquePointer
from .abi import ANY_SIZE, HEADER_SIZE, TypeIndex
from .calling import owned_word
from .container_cells import (
    MapCell,
    TVMFFISeqCell,
    identity,
    new_array,
    new_map,
    pairs_at,
    pairs_of_hash,
    words_of_pairs,
)
from .foreign import Reference
from .native import NativeObject, native_class, object_at
from .owned import drop_any, read_any, words_at
from .values import value_of_word
from .words import Word, number_of

__all__ = ["Array", "FFIDict", "FFIList", "Map", "object_at"]


class _Elements(NativeObject, Sequence[Any]):
    """What arrays and lists have in common."""

    __slots__ = ()

    def _cell(self) -> TVMFFISeqCell:
        return TVMFFISeqCell.from_address(self.address + HEADER_SIZE)

    def __len__(self) -> int:
        return int(self._cell().size)

    def __iter__(self) -> Iterator[Any]:
        cell = self._cell()
        for word in words_at(cell.data, cell.size):
            yield value_of_word(word, owned=False)

    def __getitem__(self, index: Any) -> Any:
        """One element, or a list of them for a slice.

        Raises:
            IndexError: there is no such element.
            TypeError: the index is neither an integer nor a slice.
        """
        size = len(self)
        if isinstance(index, slice):
            return [self._element(at) for at in range(*index.indices(size))]
        try:
            position = operator.index(index)
        except TypeError:
            raise TypeError(
                f"indices must be integers or slices, not {type(index).__name__}"
            ) from None
        if not -size <= position < size:
            raise IndexError(f"Index out of range. size: {size}, got index {position}")
        return self._element(position % size)

    def _element(self, position: int) -> Any:
        return value_of_word(read_any(self._cell().data + position * ANY_SIZE), owned=False)

    def __contains__(self, value: object) -> bool:
        return any(_is_same(element, value) for element in self)

    def index(self, value: Any, start: int = 0, stop: Optional[int] = None) -> int:
        """The position of the first element that is equal to the value.

        Raises:
            ValueError: there is none.
        """
        for position in range(*slice(start, stop).indices(len(self))):
            if _is_same(self._element(position), value):
                return position
        raise ValueError(f"{value!r} is not in this {type(self).__name__}")

    def count(self, value: Any) -> int:
        """How many elements are equal to the value."""
        return sum(_is_same(element, value) for element in self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, type(self)):
            return self.same_as(other) or _are_equal(self, other)
        if isinstance(other, (list, tuple)):
            return _are_equal(self, other)
        return NotImplemented

    def __hash__(self) -> int:
        """That of a tuple of the elements, since a tuple may be equal; of NaN each has its own."""
        return hash(tuple(math.nan if element != element else element for element in self))


@native_class(TypeIndex.ARRAY)
class Array(_Elements):
    """A sequence that cannot be changed, as an object that compiled code can take.

    It is equal to a list or tuple of equal elements. Of numbers, ``1``, ``1.0`` and ``True``
    differ, and so do ``0.0`` and ``-0.0``; NaN equals NaN; one of NumPy's or of `const` is the
    plain number that an array would hold.

    Args:
        input_list: the values; lists, tuples and dicts among them become objects, too.

    Raises:
        TypeError, ValueError: compiled code cannot take one of them.
    """

    __slots__ = ()

    def __init__(self, input_list: Iterable[Any]) -> None:
        super().__init__(Reference(new_array(input_list)))

    def __add__(self, other: Iterable[Any]) -> Array:
        return Array([*self, *other])

    def __radd__(self, other: Iterable[Any]) -> Array:
        return Array([*other, *self])

    def __repr__(self) -> str:
        content = ", ".join(map(repr, self))
        return f"({content},)" if len(self) == 1 else f"({content})"


@native_class(TypeIndex.LIST)
class FFIList(_Elements):
    """A list that compiled code made, and may change; here it is only read."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # as a list: its content can change

    def __iter__(self) -> Iterator[Any]:
        return iter([*super().__iter__()])  # references to all, before any of them is taken out

    def __repr__(self) -> str:
        return f"[{', '.join(map(repr, self))}]"


class _Pairs(NativeObject, Mapping[Any, Any]):
    """What maps and dicts have in common."""

    __slots__ = ()

    def __len__(self) -> int:
        return int(MapCell.from_address(self.address + HEADER_SIZE).size)

    def __iter__(self) -> Iterator[Any]:
        return iter([value_of_word(key, owned=False) for key, _ in words_of_pairs(self.address)])

    def items(self) -> ItemsView[Any, Any]:
        """The keys with their values, in their order."""
        return _Items(self)

    def values(self) -> ValuesView[Any]:
        """The values, in the order of their keys."""
        return _Values(self)

    def _value_at(self, key: Word) -> Optional[int]:
        """Where the value of a key is."""
        wanted = identity(key)
        for pair in pairs_of_hash(self.address, key):
            if identity(read_any(pair)) == wanted:
                return pair + ANY_SIZE
        return None

    def __getitem__(self, key: Any) -> Any:
        """The value of a key; ``1``, ``1.0`` and ``True`` are three keys.

        Raises:
            KeyError: there is no such key.
        """
        place = self._place(key)
        if place is None:
            raise KeyError(key)
        return value_of_word(read_any(place), owned=False)

    def _place(self, key: Any) -> Optional[int]:
        try:
            word = owned_word(key)
        except (TypeError, ValueError):  # no map can have it
            return None
        try:
            return self._value_at(word)
        finally:
            drop_any(word)

    def __contains__(self, key: object) -> bool:
        return self._place(key) is not None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (type(self), dict)):
            return NotImplemented
        if len(self) != len(other):
            return False
        mine = {_key(key): value for key, value in self.items()}
        try:
            return all(_is_same(mine[_key(key)], value) for key, value in other.items())
        except KeyError:
            return False

    def __hash__(self) -> int:
        return hash(frozenset((_key(key), _key(value)) for key, value in self.items()))

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{key!r}: {value!r}' for key, value in self.items())}}}"


class _Items(ItemsView[Any, Any]):
    """The pairs of a map; a look-up of each would cost as much again."""

    def __init__(self, pairs: _Pairs) -> None:
        super().__init__(pairs)
        self._pairs = pairs

    def __iter__(self) -> Iterator[Tuple[Any, Any]]:
        return iter(
            [
                (value_of_word(key, owned=False), value_of_word(value, owned=False))
                for key, value in words_of_pairs(self._pairs.address)
            ]
        )


class _Values(ValuesView[Any]):
    """The values of a map."""

    def __init__(self, pairs: _Pairs) -> None:
        super().__init__(pairs)
        self._pairs = pairs

    def __iter__(self) -> Iterator[Any]:
        pairs = words_of_pairs(self._pairs.address)
        return iter([value_of_word(value, owned=False) for _, value in pairs])


@native_class(TypeIndex.MAP)
class Map(_Pairs):
    """A mapping that cannot be changed, as an object that compiled code can take.

    Args:
        input_dict: the keys and values; its order is kept.

    Raises:
        TypeError: it is no mapping, or compiled code cannot take a key or value.
        ValueError: it cannot take a value.
    """

    __slots__ = ("_known",)

    def __init__(self, input_dict: Mapping[Any, Any]) -> None:
        if not isinstance(input_dict, Mapping):
            raise TypeError(
                f"a Map is made of a dict or another mapping, not of a {type(input_dict).__name__}"
            )
        super().__init__(Reference(new_map(input_dict.items())))

    @classmethod
    def of_pairs(cls, pairs: Iterable[Tuple[Any, Any]]) -> Map:
        """A map of keys that Python takes for equal, but compiled code does not: ``1``, ``True``.

        Raises:
            TypeError, ValueError: compiled code cannot take a key or value.
        """
        made = cls.__new__(cls)
        NativeObject.__init__(made, Reference(new_map(pairs)))
        return made

    def _value_at(self, key: Word) -> Optional[int]:
        try:
            known = self._known
        except AttributeError:  # it cannot change, so it is looked through once
            pairs = pairs_at(self.address)
            known = {identity(read_any(pair)): pair + ANY_SIZE for pair in pairs}
            self._known: Dict[Hashable, int] = known
        return known.get(identity(key))


@native_class(TypeIndex.DICT)
class FFIDict(_Pairs):
    """A dict that compiled code made, and may change; here it is only read."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # as a dict: its content can change


# ------------------------------------------------------------------------------- comparing values


def _number(value: Any) -> Optional[Tuple[type, str]]:
    """The number that an array would hold of a value; None if it would hold none."""
    if value is None or isinstance(value, (str, bytes, OpaquePointer)):
        return None
    try:
        number = value if isinstance(value, bool) else number_of(value)
    except ValueError:  # no array can hold it
        return type(value), ""
    return None if number is None else (type(number), repr(number))


def _key(value: Any) -> Hashable:
    """Something hashable that is equal for two values if `_is_same` holds, and only then."""
    return _number(value) or (None, value)


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values are equal as elements; numbers as C++ compares them, which is by bits."""
    number, its = _number(one), _number(other)
    return bool(one == other) if number is None and its is None else number == its


def _are_equal(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(one) == len(other) and all(map(_is_same, one, other))
