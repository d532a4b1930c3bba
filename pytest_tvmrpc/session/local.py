"""LocalSession: does here, with the runtime, what a session is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence

from ..dlpack import DataType, Device, OpaquePointer, TensorRecord
from ..errors import DeviceError, LocalProtocolError
from ..protocol.values import (
    ByteSource,
    FunctionHandle,
    ModuleHandle,
    ObjectHandle,
    TensorResult,
)
from ..runtime.device.api import Device as RuntimeDevice
from ..runtime.device.api import Memory
from ..runtime.function import PackedFunc
from ..runtime.handles import HandleError, HandleTable
from ..runtime.module import Module
from ..runtime.tensor import Tensor

if TYPE_CHECKING:
    from .environment import Environment
    from .interface import Sink

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
        self._streams: Dict[Device, int] = {}
        self.known: Dict[bytes, Any] = {}
        self._places: Dict[Device, RuntimeDevice] = {}

    def construct(self, constructor: Sequence[Any]) -> None:
        """A session constructor other than this session itself."""
        name = constructor[0]
        if name == "rpc.LocalSession" and len(constructor) == 1:
            return
        raise ValueError(
            f"Cannot find session constructor {name}; this server knows rpc.LocalSession"
        )

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
        if isinstance(result, Device):
            return Device(*result)
        if isinstance(result, memoryview):
            return bytes(result)
        if isinstance(result, OpaquePointer):
            return result
        for kind in (int, float, str, bytes):
            if isinstance(result, kind):  # a subclass, such as an enum's member
                convert: Callable[[Any], Any] = kind
                return convert(result)
        if isinstance(result, (tuple, list, dict, set)):
            raise LocalProtocolError(
                f"a function returned a {type(result).__name__}; it can return one value only: "
                "None, bool, int, float, str, bytes, a data type, a device, a tensor, "
                "a function or a module"
            )
        if callable(result):
            return FunctionHandle(self.handles.put(PackedFunc(result)))
        return ObjectHandle(self.handles.put(result))

    def _tensor_result(self, tensor: Tensor) -> TensorResult:
        """A returned tensor has two handles: of its memory and of itself; the client frees one."""
        described = tensor.record
        data = self.handles.put(tensor.memory)
        handle = self.handles.put(_Returned(tensor, data))
        record = TensorRecord(
            data, described.device, described.shape, described.dtype, described.byte_offset
        )
        return TensorResult(record, handle)

    def open_sink(self, handle: int, arguments: List[Any], nbytes: int) -> Optional[Sink]:
        """Uploads go to their file while they arrive; no other function takes parts."""
        return self.environment.open_sink(self.handles.get(handle), arguments, nbytes)

    def free(self, handle: int) -> None:
        """Releases what the handle stands for; a returned tensor's memory goes with it."""
        try:
            held = self.handles.get(handle)
        except HandleError:
            return  # TVM 0.21 to 0.23 frees a tensor by a number that is not its own
        self._callables.pop(handle, None)
        self.handles.free(handle)
        if isinstance(held, _Returned):
            self.known.clear()
            self.handles.free(held.data)

    # Memory

    def _memory(self, record: TensorRecord) -> Memory:
        memory = self.handles.get(record.data)
        if isinstance(memory, _Returned):
            memory = memory.tensor.memory
        if not hasattr(memory, "nbytes"):
            raise DeviceError(
                f"handle {record.data} is of a {type(memory).__name__}, not of memory"
            )
        return memory  # type: ignore[no-any-return]

    def memory(self, record: TensorRecord, nbytes: int) -> memoryview:
        """The bytes of a copy, in the memory itself where the machine's CPU can reach it."""
        memory = self._memory(record)
        _check_bounds(memory, record.byte_offset, nbytes)
        view: Optional[memoryview] = getattr(memory, "view", None)
        if view is None:
            raise DeviceError(f"copies of {RuntimeDevice(*record.device)} are not supported here")
        return view[record.byte_offset : record.byte_offset + nbytes]

    def written(self, record: TensorRecord, content: memoryview) -> None:
        """Nothing is left to do: the bytes were received into the memory itself."""

    def alloc(self, device: Device, nbytes: int, alignment: int, dtype: DataType) -> int:
        """Memory of so many bytes."""
        return self._alloc(device, (nbytes,), DataType.of(1, 8), None)

    def alloc_tensor(self, record: TensorRecord, scope: Optional[str]) -> int:
        """Memory for a tensor of this form."""
        return self._alloc(record.device, record.shape, record.dtype, scope)

    def _alloc(self, device: Any, shape: Any, dtype: DataType, scope: Optional[str]) -> int:
        place = self._place(device)
        return self.handles.put(place.api.alloc(place, shape, dtype, scope))

    def free_data(self, device: Device, handle: int) -> None:
        """Releases memory, whose tensors may live on in the hands of functions."""
        self.known.clear()
        self.handles.free(handle)

    def copy_among(self, source: TensorRecord, target: TensorRecord, stream: int) -> None:
        """Copies from tensor to tensor."""
        if source.nbytes != target.nbytes:
            raise ValueError(
                f"a copy of {source.nbytes} bytes to a tensor of {target.nbytes}; "
                "they have to be of one size"
            )
        wanted = self._tensor(target)
        wanted.device.api.copy(self._tensor(source), wanted)

    # Devices

    def _place(self, device: Device) -> RuntimeDevice:
        place = self._places.get(device)
        if place is None:
            place = self._places[device] = RuntimeDevice(*device)
            if len(self._places) > 64:  # a client may ask for any number of devices
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
        self._streams[device] = int(stream)

    def get_stream(self, device: Device) -> int:
        """The stream that was set last; 0 is the device's own."""
        return self._streams.get(device, 0)


_KINDS: Dict[type, type] = {FunctionHandle: PackedFunc, ModuleHandle: Module}


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
