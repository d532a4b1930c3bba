"""Objects in C's memory as references from Python: counted, named, with the fields of their class.

Of containers it knows nothing; `containers` registers its classes here. Calls only what a class of
compiled code registered for its fields and methods.
"""

from __future__ import annotations

import ctypes
from typing import Any, Callable, Dict, List, Type

from . import type_table
from .abi import TVMFFIObject, retain
from .calling import failure, function_at, owned_word
from .foreign import Reference
from .object import Object
from .owned import drop_any, read_any, write_any
from .type_layouts import TVMFFITypeInfo
from .values import value_of_word

__all__ = ["NativeObject", "key_of", "native_class", "object_at"]

_GETTER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_SETTER_IS_FUNCTION = 1 << 11
_IS_STATIC_METHOD = 1 << 2

_classes: Dict[int, Type[NativeObject]] = {}


def native_class(type_index: int) -> Callable[[Any], Any]:
    """Makes a class the one of all objects with this type index; used as a decorator."""

    def register(one: Any) -> Any:
        _classes[type_index] = one
        return one

    return register


def key_of(type_index: int) -> str:
    """The name of a type of objects."""
    found = type_table.find(type_index)
    if found is not None:
        return found.key
    return _key_in_tvm(type_index) or f"(unknown type {type_index})"


def _key_in_tvm(type_index: int) -> str:
    """The name of a type that a TVM in this process has; "" without one."""
    try:
        process: Any = ctypes.CDLL(None)
        get = process.TVMFFIGetTypeInfo
    except (AttributeError, OSError, TypeError):
        return ""
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.c_int32]
    address = get(type_index)
    if not address:
        return ""
    return type_table.text_of(TVMFFITypeInfo.from_address(address).type_key)


class NativeObject(Object):
    """A reference to an object in C's memory; it keeps the object alive.

    Fields and methods that its class registered by reflection are attributes.

    Args:
        reference: to the object.
    """

    __slots__ = ("__weakref__", "_reference")

    def __init__(self, reference: Reference) -> None:
        self._reference = reference

    @property
    def address(self) -> int:
        """Where the object is, as long as this reference is there."""
        return self._reference.address

    @property
    def type_index(self) -> int:
        """The number of its type in this process."""
        return int(TVMFFIObject.from_address(self.address).type_index)

    @property
    def type_key(self) -> str:
        """The name of its type, the same in every process."""
        return key_of(self.type_index)

    def same_as(self, other: object) -> bool:
        """Whether the other refers to this very object."""
        return isinstance(other, NativeObject) and other.address == self.address

    @property
    def id_(self) -> int:
        """The object's address."""
        return self.address

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NativeObject):
            return NotImplemented
        return self.same_as(other)

    def __hash__(self) -> int:
        return hash(self.address)

    def __copy__(self) -> NativeObject:
        return self

    def __reduce__(self) -> Any:
        raise TypeError(f"an object of C's memory ({self.type_key}) cannot be pickled")

    def field_names(self) -> List[str]:
        """The fields that its class registered, those of its parents first."""
        found = type_table.find(self.type_index)
        return [field.name for field in found.all_fields()] if found is not None else []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):  # Python's own protocols ask for many of those
            found = type_table.find(self.type_index)
            if found is not None:
                for field in found.all_fields():
                    if field.name == name:
                        return _field(self, field)
                method = found.all_methods().get(name)
                if method is not None:
                    return _bound(self, method)
        raise AttributeError(f"an object of type {self.type_key} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        found = None if name in _SLOTS else type_table.find(self.type_index)
        for field in found.all_fields() if found is not None else ():
            if field.name == name:
                _set_field(self, field, value)
                return
        object.__setattr__(self, name, value)

    def __dir__(self) -> List[str]:
        found = type_table.find(self.type_index)
        names = set(super().__dir__())
        if found is not None:
            names.update(field.name for field in found.all_fields())
            names.update(name for name in found.all_methods() if not name.startswith("__"))
        return sorted(names)

    def __repr__(self) -> str:
        found = type_table.find(self.type_index)
        fields = found.all_fields() if found is not None else []
        if not fields:
            return f"{self.type_key}({self.address:#x})"
        shown = ", ".join(f"{field.name}={_field(self, field)!r}" for field in fields)
        return f"{self.type_key}({shown})"


_SLOTS = frozenset(("_reference",))


def object_at(type_index: int, address: int) -> NativeObject:
    """A new reference to an object, as the class that is registered for its type."""
    retain(address)
    one = _classes.get(type_index, NativeObject)
    made = one.__new__(one)
    NativeObject.__init__(made, Reference(address))
    return made


# --------------------------------------------------------------------------- fields and methods


def _field(owner: NativeObject, field: type_table.Field) -> Any:
    """The value of a field."""
    result = (ctypes.c_int64 * 2)()
    place = ctypes.addressof(result)
    code = _GETTER(field.getter)(owner.address + field.offset, place)
    if code:
        raise failure(f"field {field.name} of {owner.type_key}", code)
    return value_of_word(read_any(place), owned=True)


def _set_field(owner: NativeObject, field: type_table.Field, value: Any) -> None:
    if not field.is_writable or not field.setter:
        raise AttributeError(f"field {field.name!r} of {owner.type_key} cannot be set")
    if field.flags & _SETTER_IS_FUNCTION:
        function_at(field.setter)(owner, value)
        return
    memory = (ctypes.c_int64 * 2)()
    place = ctypes.addressof(memory)
    write_any(place, owned_word(value))
    try:
        code = _GETTER(field.setter)(owner.address + field.offset, place)
    finally:
        drop_any(read_any(place))
    if code:
        raise failure(f"field {field.name} of {owner.type_key}", code)


def _bound(owner: NativeObject, method: type_table.Method) -> Callable[..., Any]:
    function = function_at(method.function, method.name)
    if method.flags & _IS_STATIC_METHOD:
        return function

    def call(*args: Any) -> Any:
        return function(owner, *args)

    call.__name__, call.__doc__ = method.name, method.doc or None
    return call
