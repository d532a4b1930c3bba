"""Objects of a server that are no tensors, functions or modules; containers are looked into."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Iterator, List, NamedTuple, Optional, Tuple

from ..errors import RemoteError, RPCSessionTimeoutError
from ..owners import not_copied
from ..protocol.values import ObjectHandle

if TYPE_CHECKING:
    from .session import RPCSession

TYPE_KEY = "tvmrpc.server.type_key"
"""What a server of ours says of an object; others are asked for its size in all ways there are."""


class _Form(NamedTuple):
    """The functions with which a server looks into one kind of container.

    Attributes:
        key: its type, as servers name it.
        size: how many elements or pairs it has.
        item: the element of an index, or the value of a key.
        has: of a map, whether it has a key; empty for a sequence.
        pairs: of a map, what goes over its pairs, or gives all of them.
    """

    key: str
    size: str
    item: str
    has: str = ""
    pairs: str = ""


def _map(key: str, name: str, pairs: str) -> _Form:
    return _Form(key, f"{name}Size", f"{name}GetItem", f"{name}Count", f"{name}{pairs}")


_SHAPE = ("rpc.testing.GetShapeSize", "rpc.testing.GetShapeElem")
_LEGACY_SHAPE = ("runtime.GetShapeTupleSize", "runtime.GetShapeTupleElem")

_FORMS = (
    _Form("ffi.Array", "ffi.ArraySize", "ffi.ArrayGetItem"),
    _map("ffi.Map", "ffi.Map", "ForwardIterFunctor"),
    _Form("ffi.Shape", *_SHAPE),
    _Form("ffi.List", "ffi.ListSize", "ffi.ListGetItem"),
    _map("ffi.Dict", "ffi.Dict", "ForwardIterFunctor"),
    _Form("ffi.Array", "runtime.ArraySize", "runtime.ArrayGetItem"),
    _map("ffi.Map", "runtime.Map", "Items"),
    _Form("ffi.Shape", *_LEGACY_SHAPE),
)
"""Those of TVM from 0.22 on, then those of TVM up to 0.21, of which a server has one or both."""


@not_copied("open a session there, and get it from that")
class RemoteObject:
    """Something of the server that is no tensor, function or module; it can be passed back.

    An array, list, shape or map is looked into as one of Python's: ``len(x)``, ``x[0]``,
    ``x["key"]``, ``in``, and ``for``, which for a map gives its keys; `keys`, `values` and `items`
    are lists. Each asks the server; the elements of a sequence are asked for all at once.
    """

    __slots__ = ("_form", "handle", "session")

    def __init__(self, session: RPCSession, handle: int) -> None:
        self.session = session
        self.handle = handle
        self._form: Optional[_Form] = None

    def __del__(self) -> None:
        self.session.release(self.handle, ObjectHandle)

    def __len__(self) -> int:
        size: int = self._ask(self._container().size)
        return size

    def __bool__(self) -> bool:
        """An empty container is false, and everything else is true."""
        try:
            return len(self) > 0
        except TypeError:
            return True

    def __getitem__(self, index: Any) -> Any:
        """An element of a sequence, a list of those of a slice, or the value of a map's key.

        Raises:
            TypeError: the object is no container.
            IndexError: there is no such element; KeyError: no such key.
        """
        form = self._container()
        if form.has:
            try:
                return self._ask(form.item, index)
            except RPCSessionTimeoutError:  # nothing can be asked any more
                raise
            except RemoteError:
                if index in self:
                    raise
                raise KeyError(index) from None
        size = len(self)
        if isinstance(index, slice):
            return [self._ask(form.item, place) for place in range(*index.indices(size))]
        place = operator.index(index)
        if not -size <= place < size:
            raise IndexError(f"index {place} of a container of {size} elements")
        return self._ask(form.item, place % size)

    def __contains__(self, value: Any) -> bool:
        form = self._container()
        if form.has:
            return bool(self._ask(form.has, value))
        return any(element is value or element == value for element in self)

    def __iter__(self) -> Iterator[Any]:
        form = self._container()
        if form.has:
            return iter(self.keys())
        item = self.session.get_function(form.item)
        with self.session.pipeline() as pipeline:
            calls = [pipeline.call(item, self, place) for place in range(len(self))]
        return iter([call.result() for call in calls])

    def keys(self) -> List[Any]:
        """The keys of a map, in the server's order.

        Raises:
            TypeError: the object is no map.
        """
        return [key for key, _ in self.items()]

    def values(self) -> List[Any]:
        """The values of a map, in the order of its keys."""
        return [value for _, value in self.items()]

    def items(self) -> List[Tuple[Any, Any]]:
        """The pairs of a map, in the server's order.

        Raises:
            TypeError: the object is no map.
        """
        form = self._container()
        if not form.has:
            raise TypeError(f"{self!r} is no map; it has no keys")
        if form.pairs.endswith("Items"):  # an array of key, value, key, value
            flat = list(self._ask(form.pairs))
            return list(zip(flat[::2], flat[1::2]))
        size, step = len(self), self._ask(form.pairs)
        with self.session.pipeline() as pipeline:
            calls = [
                [pipeline.call(step, command) for command in (_KEY, _VALUE, _ON)]
                for _ in range(size)
            ]
        return [(key.result(), value.result()) for key, value, _ in calls]

    def _ask(self, name: str, *arguments: Any) -> Any:
        return self.session.call(self.session.offered(name), (self, *arguments), name)

    def _container(self) -> _Form:
        """How to look into it, found out once.

        Raises:
            TypeError: it is no container, or the server cannot look into one.
        """
        if self._form is None:
            self._form = self._find_form()
        return self._form

    def _find_form(self) -> _Form:
        key = self._ask(TYPE_KEY) if self.session.offered(TYPE_KEY) else None
        for form in _FORMS:
            if key not in (None, form.key) or not self.session.offered(form.size):
                continue
            try:
                self._ask(form.size)
            except RPCSessionTimeoutError:
                raise
            except RemoteError:  # of a server that does not say what an object is
                continue
            return form
        raise TypeError(
            f"{self!r} is {f'of type {key}, ' if key else ''}no container that can be looked into; "
            "pass it to a function of its server"
        )

    def __repr__(self) -> str:
        kind = "object" if self._form is None else self._form.key
        return f"<RemoteObject: {kind} {self.handle:#x} on {self.session.address}>"


_KEY, _VALUE, _ON = range(3)
"""What the function that goes over a map is told: the key, the value, the next pair."""
