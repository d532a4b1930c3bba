"""The asking end of a session: each request that can be made of it, as a method.

Four ways to ask, all answered in order:

- `call` and `syscall` send and wait;
- small copies are posted, and their answers, which say nothing, taken from in front of a later one;
- `defer` and `release` send with the next request: frees and syncs then cost no round trip;
- `start` sends with many others, and `finish` waits for the answer.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any, Callable, List, Optional, Sequence

from ..dlpack import Device, DeviceType, OpaquePointer
from ..errors import ProtocolError, RemoteProtocolError
from ..owners import not_copied
from ..protocol import packets
from ..protocol.codes import RPCCode
from ..protocol.dialect import FFI, Dialect, of_server
from ..protocol.requests import ANSWERED_BY, NAMES, REQUESTS, Request, is_answer
from ..protocol.values import (
    CHOSEN_HANDLES,
    FunctionHandle,
    ModuleHandle,
    ObjectHandle,
    TensorResult,
)
from .buffers import unfilled
from .conversation import Conversation, clock
from .later import ALLOCATING, COPYING, FREEING, MOST, Pending

if TYPE_CHECKING:
    from ..dlpack import TensorRecord
    from .channel import SocketChannel
    from .conversation import Buffer


_POSTED = 4096
"""Bytes of the largest copy that is posted: several fit any socket buffer."""

_SMALL = 64 * 1024
"""Bytes of the largest memory that is asked for without waiting: a machine out of it is rare."""

_CLAIMED = 1 << 28
"""Bytes for which a peer's word is taken; memory for more is taken as they arrive."""

_CPU = Device(DeviceType.CPU, 0)

_CONTENT = ANSWERED_BY[REQUESTS[RPCCode.COPY_FROM_REMOTE].answer]


@not_copied("open a session there, and get it from that")
class Endpoint:
    """One session's requests, from InitServer to Shutdown.

    Threads may share it; a request and its answer are one step.

    Args:
        channel: to a server that has agreed in the handshake.

    Attributes:
        dialect: the server's, as far as it is known.
        meter: what went over the session.
        takes_handles: whether the server lets us choose the handles of memory.
    """

    def __init__(self, channel: SocketChannel) -> None:
        self.channel = channel
        self.takes_handles = False
        self._conversation = Conversation(channel)
        self.meter = self._conversation.meter
        self._later = self._conversation.later
        self._reader = self._conversation.incoming.reader
        self._handles = itertools.count(CHOSEN_HANDLES)
        self.speak(FFI)

    @property
    def is_ours(self) -> bool:
        """Whether the server is one of this package."""
        return self._conversation.is_ours

    @property
    def closed_because(self) -> Optional[str]:
        """None while the session is open, then why it is not."""
        return self._conversation.closed_because

    @property
    def is_lost(self) -> bool:
        """Whether it ended by neither this side nor a limit."""
        return self._conversation.is_lost

    @property
    def is_idle(self) -> bool:
        """Whether a request could be made without waiting for another one's answer."""
        return self.closed_because is None and self._conversation.turn.is_free

    def speak(self, dialect: Dialect) -> None:
        """Writes and reads in this dialect from now on."""
        self.dialect = dialect
        self._encode_call = dialect.encode_call
        self._encode_request = dialect.encode_request
        self._decode_result = dialect.decode_result

    def init_server(
        self,
        constructor: Sequence[Any] = (),
        *,
        is_sent: bool = False,
        dialect: Optional[Dialect] = None,
    ) -> None:
        """Opens the session and learns the server's dialect.

        Args:
            constructor: name and arguments of the session that the server shall open.
            is_sent: whether the request went out with the handshake.
            dialect: the server's, where the constructor has to be written in it.

        Raises:
            RemoteError: the server refused, e.g. an unknown session constructor.
            ProtocolError: the server's answer is none.
        """
        if dialect is not None:
            self.speak(dialect)
        row = REQUESTS[RPCCode.INIT_SERVER]
        packet = packets.init_server(self.dialect, constructor)
        doing, expected = "opening the session", ANSWERED_BY[row.answer]
        conversation = self._conversation
        with conversation.turn.of(doing):
            if is_sent:
                with conversation.guarded(doing):
                    start, end = conversation.expect(expected, doing)
            else:
                start, end = conversation.ask(packet, doing, expected)
            try:
                if self._reader.missing:
                    raise RemoteProtocolError("the server answers InitServer at length")
                reply = bytes(self._reader.buffer[start:end])
                self.speak(of_server(reply))
                conversation.is_ours = reply == packets.NO_VALUES
            except ProtocolError as error:
                conversation.end(str(error), error)
                raise
            conversation.done(row.code)

    # Calls

    def call(
        self,
        handle: int,
        arguments: Sequence[Any],
        name: str,
        translate: Optional[Callable[[Any], Any]] = None,
    ) -> Any:
        """Calls a function of the other side; returns its result, handles as they are.

        Args:
            translate: asked for what stands for an argument that is not the protocol's.

        Raises:
            RemoteError: the function raised; the session stays usable.
        """
        __tracebackhide__ = True
        packet = self._encode_call(handle, arguments, translate)
        conversation = self._conversation
        turn = conversation.turn
        if turn.is_mine():
            turn.refuse(name)
        with turn.lock:
            start, end = conversation.ask(packet, name)
            try:
                if self._reader.missing:
                    started = clock()
                    try:
                        return self._long_result(start, end)
                    finally:
                        self.meter.call_s += clock() - started
                return self._decode_result(self._reader.buffer, start, end)
            except BaseException as error:
                failure = conversation.failed(error, name)
                if failure is error:
                    raise
                raise failure from error.__cause__

    def start(
        self,
        handle: int,
        arguments: Sequence[Any],
        name: str,
        translate: Optional[Callable[[Any], Any]] = None,
    ) -> Pending:
        """Calls a function without waiting; the request goes out with others, soon.

        Raises:
            LocalProtocolError: an argument cannot be sent; the others are not touched by it.
            ConnectionLostError: the session is over.
        """
        __tracebackhide__ = True
        packet = self._encode_call(handle, arguments, translate)
        pending = Pending(name, self._result, self.abandon)
        whole = packet if isinstance(packet, bytes) else b"".join(packet)
        self._conversation.start(whole, pending)
        return pending

    def finish(self, pending: Optional[Pending] = None) -> None:
        """Takes the answers up to that of one call, or all; errors are kept with their calls.

        Raises:
            ConnectionLostError: the session ended; the calls know it, too.
        """
        self._conversation.finish(pending)

    def abandon(self, pending: Pending) -> None:
        """Nobody will ask for this result: what it holds on the server is let go, once it came."""
        pending.is_abandoned = True
        value, pending.value = pending.value, None
        if isinstance(value, TensorResult):
            self.release(value.handle, TensorResult)
        elif isinstance(value, (FunctionHandle, ModuleHandle, ObjectHandle)):
            self.release(value, type(value))

    def syscall(self, code: int, *values: Any) -> Any:
        """Sends a request of values only; returns the one value it is answered with."""
        __tracebackhide__ = True
        row = REQUESTS[code]
        packet = self._encode_request(code, values)
        doing = NAMES[code]
        with self._conversation.turn.of(doing):
            start, end = self._conversation.ask(
                packet, doing, ANSWERED_BY[row.answer], row.allocates
            )
            if not self._reader.missing:
                return self._one_value(row, start, end)
            with self._conversation.guarded(doing):
                return self._one_value(row, start, end)

    def get_functions(self, names: Sequence[str]) -> List[int]:
        """Looks several functions up in one round trip; 0 stands for one that is not there."""
        __tracebackhide__ = True
        found = self.syscalls([(RPCCode.GET_GLOBAL_FUNC, name) for name in names])
        return [int(handle or 0) for handle in found]

    def syscalls(self, requests: Sequence[Sequence[Any]]) -> List[Any]:
        """Several requests, each its code and its values, in one round trip."""
        __tracebackhide__ = True
        together = b"".join(self._encode_request(code, values) for code, *values in requests)
        rows = [REQUESTS[request[0]] for request in requests]
        return self._conversation.ask_together(
            together,
            NAMES[rows[-1].code],
            [functools.partial(self._one_value, row) for row in rows],
            any(row.allocates for row in rows),
        )

    def allocate(self, record: TensorRecord, scope: Optional[str]) -> int:
        """Memory for a tensor of this form; its handle.

        Where the server lets us choose the handle, small memory is asked for with the next
        request; should there be none, that request raises.
        """
        __tracebackhide__ = True
        if (
            self.takes_handles
            and scope is None
            and record.device == _CPU
            and record.nbytes <= _SMALL
            and len(self._later) < MOST
            and self.closed_because is None
        ):
            handle = next(self._handles)
            values = (record, None, OpaquePointer(handle))
            packet = self._encode_request(RPCCode.DEV_ALLOC_DATA_WITH_SCOPE, values)
            self._later.add(packet, ALLOCATING)
            return handle
        return int(self.syscall(RPCCode.DEV_ALLOC_DATA_WITH_SCOPE, record, scope) or 0)

    # Copies

    def copy_to_remote(
        self, record: TensorRecord, content: memoryview, *, is_awaited: bool = False
    ) -> None:
        """Copies bytes into memory of the other side.

        A small copy is posted, unless it is to be awaited; should the server refuse it, the next
        request raises.
        """
        if record.encoded is None:
            self.dialect.encode_record(record)
        packet = packets.copy_to_remote(record, content)
        doing = "copying to a tensor"
        if is_awaited or len(content) > _POSTED:
            with self._conversation.turn.of(doing):
                self._conversation.ask(packet, doing)
        elif self._conversation.is_ours:
            self._conversation.post(packet, doing)
        elif self.closed_because is None and len(self._later) < MOST:
            self._later.add(bytes(packet[0]), COPYING)
        else:
            with self._conversation.turn.of(doing):
                self._conversation.ask(packet, doing)

    def copy_from_remote(self, record: TensorRecord, target: memoryview) -> None:
        """Copies memory of the other side into the target and fills it."""
        nbytes = len(target)
        if record.encoded is None:
            self.dialect.encode_record(record)
        packet = packets.copy_from_remote(record, nbytes)
        doing = "copying from a tensor"
        with self._conversation.turn.of(doing):
            start, end = self._conversation.ask(packet, doing, _CONTENT)
            reader = self._reader
            coming = end - start + reader.missing
            if coming != nbytes:
                raise self._conversation.broken_rule(
                    f"{coming} bytes came where {nbytes} were asked for"
                )
            if not reader.missing:
                target[:] = reader.view[start:end]
                return
            started = clock()
            with self._conversation.guarded(doing):
                self._conversation.fill(target, start, end)
            self.meter.call_s += clock() - started

    # What goes with the next request

    def defer(self, code: int, *values: Any) -> None:
        """Sends a request with the next one. Never blocks: destructors call it, too."""
        if self.closed_because is None:
            self._later.add(self._encode_request(code, values), FREEING)

    def release(self, handle: int, kind: type) -> None:
        """Frees a function, module, object or tensor with the next request. Never blocks.

        Args:
            kind: of the handle; servers of older dialects have to be told.
        """
        if handle and self.closed_because is None:
            self._later.add(self.dialect.encode_free(handle, kind), FREEING)

    def close(self, because: str = "it was closed") -> None:
        """Ends the session; the server frees all it holds for it. May be called twice.

        A call that another thread waits for ends, too.
        """
        self._conversation.close(because)

    # Answers

    def _one_value(self, row: Request, start: int, end: int) -> Any:
        """The value in the answer to a request of values."""
        buffer: Buffer = self._reader.buffer
        if self._reader.missing:
            buffer = self._conversation.body(start, end)
            start, end = 0, len(buffer)
        values = self.dialect.decode_values(buffer, start, end)
        if len(values) != 1:
            raise self._conversation.broken_rule(
                f"{len(values)} values answer {NAMES[row.code]}; one is expected"
            )
        (value,) = values
        if not is_answer(row, value):
            raise self._conversation.broken_rule(
                f"{repr(value)[:80]} answers {NAMES[row.code]}; a number is expected"
            )
        return value

    def _result(self, start: int, end: int) -> Any:
        """What a called function returned."""
        if self._reader.missing:
            return self._long_result(start, end)
        return self._decode_result(self._reader.buffer, start, end)

    def _long_result(self, start: int, end: int) -> Any:
        """The result of a call when it is larger than the buffer: as a rule a file's bytes."""
        reader, conversation = self._reader, self._conversation
        values, pending = self.dialect.decode_values_before(
            reader.buffer, start, end, end + reader.missing
        )
        if pending is None:
            body = conversation.body(start, end)
            return self.dialect.decode_result(body, 0, len(body))
        if pending.nbytes > _CLAIMED:
            content = bytearray(reader.buffer[pending.offset : end])
            conversation.rest_to(content.extend)
        else:
            content = unfilled(pending.nbytes)
            conversation.fill(memoryview(content), pending.offset, end)
        return self.dialect.result_of([*values, content])
