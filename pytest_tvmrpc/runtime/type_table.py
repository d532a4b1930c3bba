"""The types of objects by their index: what compiled code registers of its classes, and asks.

A type stays for ever, as the library does whose class it is. Converts no value.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Dict, Iterator, List, NamedTuple, Optional, TypeVar

from ..errors import LibraryError
from .abi import ANY_SIZE, TVMFFIByteArray, TypeIndex, retain
from .owned import own_any, read_any, write_any
from .type_layouts import (
    TVMFFIFieldInfo,
    TVMFFIMethodInfo,
    TVMFFITypeAttrColumn,
    TVMFFITypeInfo,
    TVMFFITypeMetadata,
)
from .words import unsigned

__all__ = [
    "Type",
    "allocate",
    "column",
    "describe",
    "find",
    "find_key",
    "register_attribute",
    "register_field",
    "register_metadata",
    "register_method",
    "text_of",
]


class Field(NamedTuple):
    """A registered field.

    Attributes:
        offset: from the beginning of the object, in bytes.
        getter: address of a function ``int(void *field, TVMFFIAny *result)``.
        setter: address of ``int(void *field, const TVMFFIAny *value)``, or, as bit 11 of the
            flags says, of a function object; 0 where there is none.
    """

    name: str
    doc: str
    flags: int
    offset: int
    getter: int
    setter: int

    @property
    def is_writable(self) -> bool:
        """Whether the class lets others set it."""
        return bool(self.flags & 1)


class Method(NamedTuple):
    """A registered method: its flags say by bit 2 that it is static, without an object first."""

    name: str
    doc: str
    flags: int
    function: int
    """Address of the function object."""


def _hash(key: bytes) -> int:
    """FNV-1a: the same in every process."""
    value = 0xCBF29CE484222325
    for byte in key:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


class Type:
    """A class of objects.

    Attributes:
        index: its number in this process, which objects carry.
        key: its name, the same in every process.
        parent: the class it is derived from.
        info: the same for C++; it stays where it is.
    """

    def __init__(self, index: int, key: str, parent: Optional[Type], slots: int) -> None:
        self.index = index
        self.key = key
        self.parent = parent
        self.depth: int = parent.depth + 1 if parent is not None else 0
        self.fields: List[Field] = []
        self.methods: List[Method] = []
        self.slots = slots
        self.used_slots = 1
        self.can_overflow = True
        self.info = TVMFFITypeInfo()
        self._kept: List[object] = []  # memory that C++ may have the address of, for ever
        self._describe()

    def is_a(self, index: int) -> bool:
        """Whether it is the type of this index, or derived from it."""
        return any(one.index == index for one in self.lineage())

    def lineage(self) -> Iterator[Type]:
        """The type itself, its parent, and so on."""
        one: Optional[Type] = self
        while one is not None:
            yield one
            one = one.parent

    def all_fields(self) -> List[Field]:
        """Its own fields and those of its parents, the oldest first."""
        return [field for one in reversed(list(self.lineage())) for field in one.fields]

    def all_methods(self) -> Dict[str, Method]:
        """Its methods and those that it inherits, by name."""
        found: Dict[str, Method] = {}
        for one in reversed(list(self.lineage())):
            found.update((method.name, method) for method in one.methods)
        return found

    def keep(self, memory: object) -> None:
        """Hold memory as long as the type."""
        self._kept.append(memory)

    def _describe(self) -> None:
        key = self.key.encode()
        text = ctypes.create_string_buffer(key)
        ancestors = (ctypes.c_void_p * max(self.depth, 1))()
        for one in list(self.lineage())[1:]:
            ancestors[one.depth] = ctypes.addressof(one.info)
        self._kept += text, ancestors
        self.info.type_index, self.info.type_depth = self.index, self.depth
        self.info.type_key = TVMFFIByteArray(ctypes.addressof(text), len(key))
        self.info.type_key_hash = _hash(key)
        self.info.type_ancestors = ctypes.addressof(ancestors)

    def __repr__(self) -> str:
        return f"Type({self.index}, {self.key!r})"


_FIRST_DYNAMIC = 128
_MAX_SLOTS = 1 << 20  # what a class may reserve for those derived from it

_BUILTIN = {
    TypeIndex.NONE: "None",
    TypeIndex.INT: "int",
    TypeIndex.BOOL: "bool",
    TypeIndex.FLOAT: "float",
    TypeIndex.OPAQUE_PTR: "void*",
    TypeIndex.DATA_TYPE: "DataType",
    TypeIndex.DEVICE: "Device",
    TypeIndex.DL_TENSOR_PTR: "DLTensor*",
    TypeIndex.RAW_STR: "const char*",
    TypeIndex.BYTE_ARRAY_PTR: "TVMFFIByteArray*",
    TypeIndex.OBJECT_RVALUE_REF: "ObjectRValueRef",
    TypeIndex.SMALL_STR: "ffi.SmallStr",
    TypeIndex.SMALL_BYTES: "ffi.SmallBytes",
    13: "ffi.Unchanged",
    TypeIndex.OBJECT: "ffi.Object",
}
_OBJECTS = {
    TypeIndex.STR: "ffi.String",
    TypeIndex.BYTES: "ffi.Bytes",
    TypeIndex.ERROR: "ffi.Error",
    TypeIndex.FUNCTION: "ffi.Function",
    TypeIndex.SHAPE: "ffi.Shape",
    TypeIndex.TENSOR: "ffi.Tensor",
    TypeIndex.ARRAY: "ffi.Array",
    TypeIndex.MAP: "ffi.Map",
    TypeIndex.MODULE: "ffi.Module",
    74: "ffi.OpaquePyObject",
    75: "ffi.List",
    76: "ffi.Dict",
    78: "ffi.BigInt",
}


class _Column:
    """An attribute's values by type index, in memory that grows."""

    def __init__(self) -> None:
        self.head = TVMFFITypeAttrColumn()
        self._memory: List[ctypes.Array[ctypes.c_char]] = []

    def place(self, index: int) -> int:
        """The address for the value of one type."""
        if index >= self.head.size:
            memory = ctypes.create_string_buffer(ANY_SIZE * max(index + 1, 2 * self.head.size))
            if self.head.data:
                ctypes.memmove(memory, self.head.data, ANY_SIZE * self.head.size)
            self._memory.append(memory)  # the old one, too: C++ may be reading it
            self.head.data = ctypes.addressof(memory)
            self.head.size = len(memory) // ANY_SIZE
        return int(self.head.data or 0) + ANY_SIZE * index


class _Table:
    """All types of this process."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.by_index: Dict[int, Type] = {}
        self.by_key: Dict[str, Type] = {}
        self.columns: Dict[str, _Column] = {}
        self.next_index = _FIRST_DYNAMIC
        self.unknown: Dict[int, Type] = {}
        for index, key in _BUILTIN.items():
            self.add(int(index), key, None, 1)
        for index, key in _OBJECTS.items():
            self.add(int(index), key, self.by_index[TypeIndex.OBJECT], 1)

    def add(self, index: int, key: str, parent: Optional[Type], slots: int) -> Type:
        """Enter a type under an index that is free."""
        one = Type(index, key, parent, slots)
        self.by_index[index] = self.by_key[key] = one
        return one

    def free_index(self, parent: Type, slots: int, key: str) -> int:
        """An index behind the parent's own, among those reserved for it where they suffice.

        Raises:
            LibraryError: they do not, and C++ tells the parent's classes by those indices only.
        """
        if parent.used_slots + slots <= parent.slots:
            index = parent.index + parent.used_slots
            parent.used_slots += slots
            return index
        if not parent.can_overflow:
            raise LibraryError(
                f"compiled code enters the type {key!r}, for which {parent.key} has no index left "
                f"(it reserves {parent.slots - 1} and allows no others); expected a parent with "
                "more _type_child_slots"
            )
        index = self.next_index
        self.next_index += slots
        return index


_table = _Table()


def allocate(
    key: str, static_index: int, child_slots: int, can_overflow: bool, parent_index: int
) -> int:
    """The index of a type, which is entered if it is new (TVMFFITypeGetOrAllocIndex).

    Args:
        static_index: the index that it has in every process, or a negative number.
        child_slots: how many indices behind its own are kept for classes derived from it.
        can_overflow: whether there may be more of them.
        parent_index: of the class it is derived from; -1: none; -2: only look for the type.

    Returns:
        The index; -2 when it was only looked for and is not there.

    Raises:
        LibraryError: all indices that its parent allows are taken.
    """
    with _table.lock:
        known = _table.by_key.get(key)
        if known is not None:
            return known.index
        if parent_index == -2:
            return -2
        parent = _table.by_index.get(parent_index) if parent_index >= 0 else None
        slots = min(max(child_slots, 0), _MAX_SLOTS) + 1
        index = static_index
        if static_index < 0 or static_index in _table.by_index:
            parent = parent or _table.by_index[TypeIndex.OBJECT]
            index = _table.free_index(parent, slots, key)
        one = _table.add(index, key, parent, slots)
        one.can_overflow = can_overflow and (parent is None or parent.can_overflow)
        return index


def find(index: int) -> Optional[Type]:
    """The type of an index, or None."""
    return _table.by_index.get(index)


def find_key(key: str) -> Optional[Type]:
    """The type of this name, or None."""
    return _table.by_key.get(key)


def describe(index: int) -> int:
    """The address of a type's TVMFFITypeInfo; one of no name for an index that nobody has.

    C++ reads what it gets without a check, so there is always something to read.
    """
    one = _table.by_index.get(index) or _table.unknown.get(index)
    if one is None:
        with _table.lock:
            one = _table.unknown.setdefault(index, Type(index, f"(unknown type {index})", None, 1))
    return ctypes.addressof(one.info)


def _known(index: int) -> Type:
    one = _table.by_index.get(index)
    if one is None:
        raise LibraryError(
            f"compiled code registers something for type index {index}, which no type has; "
            "expected an index that TVMFFITypeGetOrAllocIndex gave"
        )
    return one


def register_field(index: int, address: int) -> None:
    """Note a field (TVMFFITypeRegisterField); one of the same name is replaced.

    A library that is loaded again, under another name, registers its classes again: to refuse
    that would end the process, since constructors of C++ libraries cannot fail.

    Raises:
        LibraryError: no type has this index.
    """
    with _table.lock:
        one, given = _known(index), TVMFFIFieldInfo.from_address(address)
        field = _kept_record(one, given)
        if given.flags & 2:  # HasDefault
            _own_member(field, given, TVMFFIFieldInfo.default_value.offset)
        if given.flags & 1 << 11 and given.setter:  # SetterIsFunctionObj
            retain(given.setter)
        entry = Field(
            text_of(given.name),
            text_of(given.doc),
            given.flags,
            given.offset,
            given.getter or 0,
            given.setter or 0,
        )
        one.info.fields = _entered(one, one.fields, one.info.fields, entry, field)
        one.info.num_fields = len(one.fields)


def register_method(index: int, address: int) -> None:
    """Note a method (TVMFFITypeRegisterMethod); one of the same name is replaced.

    Raises:
        LibraryError: no type has this index.
    """
    with _table.lock:
        one, given = _known(index), TVMFFIMethodInfo.from_address(address)
        method = _kept_record(one, given)
        _own_member(method, given, TVMFFIMethodInfo.method.offset)
        function = unsigned(method.method[1])
        entry = Method(text_of(given.name), text_of(given.doc), given.flags, function)
        one.info.methods = _entered(one, one.methods, one.info.methods, entry, method)
        one.info.num_methods = len(one.methods)


def register_metadata(index: int, address: int) -> None:
    """Note what a class says of itself (TVMFFITypeRegisterMetadata).

    Raises:
        LibraryError: no type has this index.
    """
    with _table.lock:
        one, given = _known(index), TVMFFITypeMetadata.from_address(address)
        metadata = TVMFFITypeMetadata.from_buffer_copy(given)
        metadata.doc = _copied(one, given.doc)
        one.keep(metadata)
        one.info.metadata = ctypes.addressof(metadata)


def register_attribute(index: int, name: str, address: int) -> None:
    """Note an attribute of a type (TVMFFITypeRegisterAttr); of index 0: only that there is one."""
    with _table.lock:
        found = _table.columns.setdefault(name, _Column())
        if index != TypeIndex.NONE:
            _known(index)
            _own(found.place(index), address)


def column(name: str) -> int:
    """The address of an attribute's TVMFFITypeAttrColumn, which fills as types register it.

    Code asks once and keeps the answer, so there is one before the first value is.
    """
    with _table.lock:
        return ctypes.addressof(_table.columns.setdefault(name, _Column()).head)


def text_of(text: TVMFFIByteArray) -> str:
    """Text in the memory of compiled code."""
    if not text.size or not text.data:
        return ""
    return ctypes.string_at(text.data, text.size).decode("utf-8", "replace")


def _own(target: int, source: int) -> None:
    write_any(target, own_any(read_any(source)))


def _copied(one: Type, text: TVMFFIByteArray) -> TVMFFIByteArray:
    if not text.size or not text.data:
        return TVMFFIByteArray(None, 0)
    memory = ctypes.create_string_buffer(ctypes.string_at(text.data, text.size))
    one.keep(memory)
    return TVMFFIByteArray(ctypes.addressof(memory), text.size)


_Record = TypeVar("_Record", bound=ctypes.Structure)
_Entry = TypeVar("_Entry", Field, Method)


def _kept_record(one: Type, given: _Record) -> _Record:
    """A copy of what is registered, with texts of its own."""
    record = type(given).from_buffer_copy(given)
    for name in ("name", "doc", "metadata"):
        setattr(record, name, _copied(one, getattr(given, name)))
    return record


def _own_member(record: ctypes.Structure, given: ctypes.Structure, offset: int) -> None:
    """Make the value at an offset of a copied record one of its own."""
    _own(ctypes.addressof(record) + offset, ctypes.addressof(given) + offset)


def _entered(
    one: Type, entries: List[_Entry], old: Optional[int], entry: _Entry, record: ctypes.Structure
) -> int:
    """Put an entry, and its record for C++, in the place of those of the same name, or behind all.

    Returns:
        The address of a new array of records; the old array stays readable.
    """
    count = len(entries)
    names = [known.name for known in entries]
    position = names.index(entry.name) if entry.name in names else count
    entries[position : position + 1] = [entry]
    size = ctypes.sizeof(record)
    memory = ctypes.create_string_buffer(size * len(entries))
    if old:
        ctypes.memmove(memory, old, size * count)
    ctypes.memmove(ctypes.addressof(memory) + size * position, ctypes.addressof(record), size)
    one.keep(memory)
    return ctypes.addressof(memory)
