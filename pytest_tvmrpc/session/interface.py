"""Session: everything one machine can ask of another. What does it is elsewhere.

Values are those of packed sequences; functions, modules, memory and objects are named by handles
that the session chose. `serving` turns packets into calls of these methods, whatever stands
behind them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Protocol, Sequence, Union

if TYPE_CHECKING:
    from ..data_type import DataType
    from ..dlpack import Device, TensorRecord

Buffer = Union[bytes, bytearray, memoryview]

OUTPUT = "tvmrpc.server.output"
"""The function of a server's sessions that returns what was printed: told an offset and a limit,
it returns eight bytes with the end's offset, and then the text."""


class Sink(Protocol):
    """Where a long byte string goes while it arrives."""

    def write(self, part: memoryview) -> object:
        """Takes the next part."""

    def finish(self) -> Any:
        """All parts are there: does what the call was for, returns its result."""

    def abort(self) -> None:
        """The rest will not come: leaves nothing behind."""


class Session(Protocol):
    """The verbs, in the order of their packet codes.

    Methods raise what the other side shall be told; the session stays usable.

    Attributes:
        known: what `resolve` made of tensor records, by their bytes; emptied when memory is freed.
    """

    known: Dict[bytes, Any]

    def resolve(self, value: Any) -> Any:
        """What stands here for a handle, a device or a tensor record among a call's arguments."""

    def construct(self, constructor: Sequence[Any]) -> Session:
        """The session that this constructor (name, arguments) makes; may be this one."""

    def close(self) -> None:
        """Nobody will ask for anything any more."""

    def get_function(self, name: str) -> int:
        """Handle of a global function; 0 if there is none."""

    def call(self, handle: int, arguments: List[Any]) -> Any:
        """Calls a function with resolved arguments; its result as a packed sequence has it."""

    def open_sink(self, handle: int, arguments: List[Any], nbytes: int) -> Optional[Sink]:
        """Where the last argument of a call goes, if the function takes it in parts."""

    def content(self, record: TensorRecord, nbytes: int) -> memoryview:
        """The bytes that a copy reads: `nbytes` from the record's byte offset."""

    def memory(self, record: TensorRecord, nbytes: int) -> memoryview:
        """Where the bytes go that a copy writes: `nbytes` from the record's byte offset."""

    def written(self, record: TensorRecord, content: memoryview) -> None:
        """What `memory` gave has been filled; a device with memory of its own takes it now."""

    def free(self, handle: int) -> None:
        """Releases a function, module, object or tensor. Unknown handles are no error."""

    def set_device(self, device: Device) -> None:
        """Selects a device for what follows."""

    def get_attr(self, device: Device, attribute: int) -> Any:
        """A property of a device, or None."""

    def alloc(self, device: Device, nbytes: int, alignment: int, dtype: DataType) -> int:
        """Handle of new memory of so many bytes."""

    def alloc_tensor(self, record: TensorRecord, scope: Optional[str], chosen: int = 0) -> int:
        """Handle of new memory for a tensor of this form: the one that was chosen, if one was."""

    def free_data(self, device: Device, handle: int) -> None:
        """Releases memory."""

    def sync(self, device: Device, stream: int) -> None:
        """Waits until the stream has done its work."""

    def copy_among(self, source: TensorRecord, target: TensorRecord, stream: int) -> None:
        """Copies between two tensors of this session."""

    def create_stream(self, device: Device) -> int:
        """A new stream."""

    def free_stream(self, device: Device, stream: int) -> None:
        """Releases a stream."""

    def set_stream(self, device: Device, stream: int) -> None:
        """Makes a stream the current one."""

    def get_stream(self, device: Device) -> int:
        """The current stream."""
