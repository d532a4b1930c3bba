"""LocalSession: does here, with the runtime, what a session is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Tuple

from ..data_type import DataType
from ..dlpack import Device, OpaquePointer, TensorRecord, checked_shape
from ..errors import DeviceError, LocalProtocolError
from ..protocol.values import (
    ByteSource,
    FunctionHandle,
    ModuleHandle,
    ObjectHandle,
    TensorResult,
)
from ..runtime.copying import copy_bytes
from ..runtime.device.api import Device as RuntimeDevice
from ..runtime.device.api import Memory
from ..runtime.function import PackedFunc
from ..runtime.handles import HandleError, HandleTable
from ..runtime.module import Module
from ..runtime.object import Object, ShapeTuple
from ..runtime.tensor import Tensor
from ..runtime.words import bytes_of, number_of
from .interface import OUTPUT

if TYPE_CHECKING:
    from .environment import Environment
    from .interface import Session, Sink

_PLAIN = frozenset(
    (type(None), bool, int, float, str, bytes, bytearray, DataType, Device, ByteSource)
)


class LocalSession:
    """One client's work on this machine.

    Args:
        environment: the session's directory and its functions.

    Attributes:
        handles: everything the client holds, by the numbers it knows.
        known: see `Session`; its tensors keep their memory.
    """

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.handles = HandleTable()
        self._callables: Dict[int, Callable[..., Any]] = {}
        self._kinds: Dict[int, int] = {}  # of the device whose memory a handle is, by the handle
        self._returned: Dict[int, List[int]] = {}  # handles of returned tensors, by their memory's
        self.known: Dict[bytes, Any] = {}
        self._places: Dict[Device, RuntimeDevice] = {}
        self._is_apart = False  # the memory that was asked for last: this process cannot reach it

    def construct(self, constructor: Sequence[Any]) -> Session:
        """This session, or one on another server that this one reaches."""
        name, *arguments = constructor
        if name == "rpc.LocalSession" and not arguments:
            return self
        if name == "rpc.Connect":
            from .remote import connect_onward

            return connect_onward(arguments)
        if name == "rpc.PopenSession":
            from .remote import start_onward

            printed = self.environment.functions.get(OUTPUT)
            return start_onward(arguments, printed, self.environment.directory)
        raise ValueError(
            f"Cannot find session constructor {name}; this server knows rpc.LocalSession, "
            "rpc.Connect(host, port, key, enable_logging) and rpc.PopenSession(program)"
        )

    def close(self) -> None:
        """What the session holds goes with its process and its directory."""

    # Functions

    def get_function(self, name: str) -> int:
        """Handle of a global function of this session, 0 if there is none."""
        if not isinstance(name, str):
            raise LocalProtocolError(f"a function's name is a str, not {type(name).__name__}")
        function = self.environment.find(name)
        return 0 if function is None else self.handles.put(function)

    def resolve(self, value: Any) -> Any:
        """The tensor, device, function, module or object that a value of a packet stands for."""
        kind = type(value)
        if kind is TensorRecord:
            return self._tensor(value)
        if kind is Device:
            return self._place(value)
        found = self.handles.get(value)
        wanted = _KINDS.get(kind, object)
        if not isinstance(found, wanted):
            raise TypeError(
                f"handle {int(value)} is of a {type(found).__name__}, not a {kind.__name__}"
            )
        return found

    def call(self, handle: int, arguments: List[Any]) -> Any:
        """Calls a function."""
        function = self._callables.get(handle) or self._callable(handle)
        result = function(*arguments)
        return result if type(result) in _PLAIN else self._result(result)

    def _callable(self, handle: int) -> Callable[..., Any]:
        """What to call for a handle; kept, since the same few are called again and again."""
        function = self.handles.get(handle)
        if not isinstance(function, PackedFunc):
            raise TypeError(f"handle {handle} is of a {type(function).__name__}, not of a function")
        found = function.function if type(function) is PackedFunc else function
        self._callables[handle] = found
        return found

    def _tensor(self, record: TensorRecord) -> Tensor:
        """The tensor that a record describes, with its bounds checked."""
        memory = self._memory(record)
        _check_bounds(memory, record.byte_offset, record.nbytes)
        device = self._place(record.device)
        return Tensor(memory, record.shape, record.dtype, device, record.byte_offset)

    def _result(self, result: Any) -> Any:
        if isinstance(result, PackedFunc):
            return FunctionHandle(self.handles.put(result))
        if isinstance(result, Module):
            return ModuleHandle(self.handles.put(result))
        if isinstance(result, Tensor):
            return self._tensor_result(result)
        if isinstance(result, Object):
            return ObjectHandle(self.handles.put(result))
        if isinstance(result, Device):
            return Device(*result)
        if isinstance(result, memoryview):
            return _bytes_of(result)
        if isinstance(result, OpaquePointer):
            return result
        if isinstance(result, str):
            return str.__str__(result)  # of an enum's member, str() would be its name
        if isinstance(result, int):
            return int.__int__(result)
        if isinstance(result, float):
            return float.__float__(result)
        if isinstance(result, (bytes, bytearray)):
            return bytes_of(result)
        if hasattr(result, "dtype") and getattr(result, "shape", None) == ():  # one of NumPy's
            return _element_of(result)
        if isinstance(result, (list, tuple, dict, ShapeTuple)):
            return ObjectHandle(self.handles.put(_object_of(result)))
        if isinstance(result, set):
            raise LocalProtocolError(
                "a function returned a set; it can return one value only: "
                "None, bool, int, float, str, bytes, a data type, a device, a tensor, "
                "a function, a module, an object, or a list, tuple or dict of these"
            )
        if callable(result):
            return FunctionHandle(self.handles.put(PackedFunc(result)))
        return ObjectHandle(self.handles.put(result))

    def _tensor_result(self, tensor: Tensor) -> TensorResult:
        """A returned tensor has two handles: of its memory and of itself; the client frees one."""
        described = tensor.record
        data = self._put_memory(tensor.memory, described.device)
        handle = self.handles.put(_Returned(tensor, data))
        self._returned.setdefault(data, []).append(handle)
        record = TensorRecord(
            data, described.device, described.shape, described.dtype, described.byte_offset
        )
        return TensorResult(record, handle)

    def open_sink(self, handle: int, arguments: List[Any], nbytes: int) -> Optional[Sink]:
        """Uploads go to their file while they arrive; no other function takes parts."""
        return self.environment.open_sink(self.handles.get(handle), arguments, nbytes)

    def free(self, handle: int) -> None:
        """Releases what the handle stands for; a returned tensor's memory goes with it."""
        if handle in self._returned:  # TVM 0.21 to 0.23 frees a tensor by its memory's handle
            handle = self._returned[handle][-1]
        try:
            held = self.handles.get(handle)
        except HandleError:
            return
        self._callables.pop(handle, None)
        self.handles.free(handle)
        if isinstance(held, _Returned):
            others = self._returned[held.data]
            others.remove(handle)
            if not others:
                del self._returned[held.data]
            self._free_memory(held.data)

    # Memory

    def _put_memory(self, memory: Memory, device: Device, chosen: int = 0) -> int:
        if chosen:
            self.handles.put_as(chosen, memory)
        handle = chosen or self.handles.put(memory)
        self._kinds[handle] = device.device_type
        return handle

    def _free_memory(self, handle: int) -> None:
        self.known.clear()
        self.handles.free(handle)
        if handle not in self.handles:
            self._kinds.pop(handle, None)

    def _memory(self, record: TensorRecord) -> Memory:
        """The memory that a record names: a live one, of the device that the record names."""
        memory = self.handles.get(record.data)
        kind = self._kinds.get(record.data)
        if isinstance(memory, _Returned):
            kind = memory.tensor.device.device_type
            memory = memory.tensor.memory
        if kind is None:
            raise DeviceError(
                f"handle {record.data} is of a {type(memory).__name__}, not of memory"
            )
        if kind != record.device.device_type:
            raise DeviceError(
                f"handle {record.data} is of memory of {RuntimeDevice(kind)!r}, "
                f"not of {RuntimeDevice(*record.device)!r}"
            )
        return memory  # type: ignore[no-any-return]

    def content(self, record: TensorRecord, nbytes: int) -> memoryview:
        """The bytes that a copy reads; the memory itself where this process can reach it."""
        memory, view = self._checked(record, nbytes)
        if view is None:
            view = memoryview(bytearray(nbytes))
            if nbytes:
                part = self._part(memory, record, nbytes)
                part.device.api.copy_to_host(part, view)
        return view

    def memory(self, record: TensorRecord, nbytes: int) -> memoryview:
        """Where the bytes of a copy go: the memory itself where this process can reach it."""
        view = self._checked(record, nbytes)[1]
        self._is_apart = view is None
        return memoryview(bytearray(nbytes)) if view is None else view

    def written(self, record: TensorRecord, content: memoryview) -> None:
        """Gives what is in the memory that `memory` returned last to a device with its own."""
        if self._is_apart and len(content):
            part = self._part(self._checked(record, len(content))[0], record, len(content))
            part.device.api.copy_from_host(content, part)

    def _checked(self, record: TensorRecord, nbytes: int) -> Tuple[Memory, Optional[memoryview]]:
        """The memory of a copy, and the copy's part of it if this process can reach it."""
        memory = self._memory(record)
        start = record.byte_offset
        _check_bounds(memory, start, nbytes)
        return memory, self._place(record.device).api.host_view(memory, start, nbytes)

    def _part(self, memory: Memory, record: TensorRecord, nbytes: int) -> Tensor:
        """The bytes of a copy as a tensor."""
        place = self._place(record.device)
        return Tensor(memory, (nbytes,), _BYTE, place, record.byte_offset)

    def alloc(self, device: Device, nbytes: int, alignment: int, dtype: DataType) -> int:
        """Memory of so many bytes."""
        return self._alloc(device, (nbytes,), _BYTE, None)

    def alloc_tensor(self, record: TensorRecord, scope: Optional[str], chosen: int = 0) -> int:
        """Memory for a tensor of this form."""
        return self._alloc(record.device, record.shape, record.dtype, scope, chosen)

    def _alloc(
        self, device: Any, shape: Any, dtype: DataType, scope: Optional[str], chosen: int = 0
    ) -> int:
        place = self._place(device)
        shape = checked_shape(shape, dtype)
        if dtype.bits % 8:
            # TVM up to 0.20 takes whole bytes for each element, and its clients read them all.
            shape, dtype = (*shape, dtype.itemsize), _BYTE
        return self._put_memory(place.api.alloc(place, shape, dtype, scope), place, chosen)

    def free_data(self, device: Device, handle: int) -> None:
        """Releases memory, whose tensors may live on in the hands of functions."""
        if handle in self.handles and handle not in self._kinds:
            held = self.handles.get(handle)
            raise DeviceError(f"handle {handle} is of a {type(held).__name__}, not of memory")
        self._free_memory(handle)

    def copy_among(self, source: TensorRecord, target: TensorRecord, stream: int) -> None:
        """Copies from tensor to tensor."""
        if source.nbytes != target.nbytes:
            raise ValueError(
                f"a copy of {source.nbytes} bytes to a tensor of {target.nbytes}; "
                "they have to be of one size"
            )
        copy_bytes(self._tensor(source), self._tensor(target))

    # Devices

    def _place(self, device: Device) -> RuntimeDevice:
        place = self._places.get(device)
        if place is None:
            place = self._places[device] = RuntimeDevice(*device)
            if len(self._places) > _MOST_DEVICES:
                self._places.clear()
        return place

    def set_device(self, device: Device) -> None:
        """Nothing to select: every request names its device. Raises for one that is not here."""
        self._place(device).api  # noqa: B018  (it raises)

    def get_attr(self, device: Device, attribute: int) -> Any:
        """A property of a device; whether it exists is never an error."""
        place = self._place(device)
        try:
            api = place.api
        except DeviceError:
            if attribute == 0:
                return 0
            raise
        return api.get_attr(place, attribute)

    def sync(self, device: Device, stream: int) -> None:
        """Waits for the stream's work."""
        place = self._place(device)
        place.api.sync(place, stream)

    def create_stream(self, device: Device) -> int:
        """A new stream."""
        place = self._place(device)
        return place.api.create_stream(place)

    def free_stream(self, device: Device, stream: int) -> None:
        """Releases a stream."""
        place = self._place(device)
        place.api.free_stream(place, int(stream))

    def set_stream(self, device: Device, stream: int) -> None:
        """Makes a stream the current one of its device."""
        place = self._place(device)
        place.api.set_stream(place, int(stream))

    def get_stream(self, device: Device) -> int:
        """The stream that was set last; 0 is the device's own."""
        place = self._place(device)
        return place.api.get_stream(place)


_BYTE = DataType("uint8")

_MOST_DEVICES = 64
"""Devices that are remembered; a client may name any number of them."""

_KINDS: Dict[type, type] = {FunctionHandle: PackedFunc, ModuleHandle: Module}


def _bytes_of(result: memoryview) -> bytes:
    """The content of a memoryview that a function returned.

    Raises:
        LocalProtocolError: its elements are no bytes in a row, and would become some.
    """
    if result.ndim != 1 or result.format not in ("B", "b", "c"):
        raise LocalProtocolError(
            f"a function returned a memoryview of format {result.format!r} and shape "
            f"{result.shape}; expected one of bytes in a row; return its tobytes(), or a tensor"
        )
    return bytes(result)


def _element_of(result: Any) -> Any:
    """The number, text or bytes that a NumPy value without axes is.

    Raises:
        LocalProtocolError: nothing that can be returned is all of it: it is masked, a date, a
            duration, a complex number, or more than a float of 64 bits holds.
    """
    try:
        number = number_of(result)
    except ValueError as error:
        raise LocalProtocolError(
            f"a function returned a value that is lost on its way: {error}"
        ) from None
    if number is not None:
        return number
    value = result.item()
    if isinstance(value, (str, bytes)) and not getattr(result, "mask", False):
        return value
    raise LocalProtocolError(
        f"a function returned {type(result).__name__} {str(result)[:80]}, which no value of the "
        "protocol is; expected a number, text or bytes; return its parts, or str() of it"
    )


def _object_of(result: Any) -> Any:
    """The object that a container of Python's becomes.

    Raises:
        LocalProtocolError: something in it cannot.
    """
    from ..runtime.conversion import convert

    try:
        return convert(result)
    except (TypeError, ValueError) as error:
        raise LocalProtocolError(
            f"a function returned a {type(result).__name__}, which cannot become an object: {error}"
        ) from error


class _Returned:
    """A tensor in the client's hands, and the handle under which it knows the memory."""

    __slots__ = ("data", "tensor")

    def __init__(self, tensor: Tensor, data: int) -> None:
        self.tensor = tensor
        self.data = data


def _check_bounds(memory: Memory, offset: int, nbytes: int) -> None:
    if offset + nbytes > memory.nbytes:
        raise ValueError(
            f"bytes {offset} to {offset + nbytes} of a memory of {memory.nbytes} bytes; "
            "a copy or tensor has to lie within its memory"
        )
