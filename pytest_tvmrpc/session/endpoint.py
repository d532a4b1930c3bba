"""The asking end of a conversation: each request that can be made of a session, as a method.

Four ways to ask, all answered in order:

- `call` and `syscall` send and wait;
- small copies are posted, and their answers, which say nothing, taken from in front of a later one;
- `defer` and `release` send with the next request: frees and syncs then cost no round trip;
- `start` sends with many others, and `finish` waits for the answer.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any, Callable, List, Optional, Sequence

from ..dlpack import Device, DeviceType, OpaquePointer
from ..errors import (
    ProtocolError,
    RemoteError,
    RemoteProtocolError,
    RPCError,
    RPCSessionTimeoutError,
)
from ..protocol import packets
from ..protocol.codes import RPCCode
from ..protocol.dialect import of_server
from ..protocol.state import NAMES
from ..protocol.values import CHOSEN_HANDLES
from .conversation import COPY_ACK, RETURN, Conversation, Meter, clock
from .later import ALLOCATING, COPYING, FREEING, MOST, Pending

if TYPE_CHECKING:
    from ..dlpack import TensorRecord
    from ..protocol.dialect import Dialect
    from .channel import SocketChannel
    from .conversation import Buffer

__all__ = ["Endpoint", "Meter"]

_POSTED = 4096
"""Bytes of the largest copy that is posted: several fit any socket buffer."""

_GOODBYE_S = 2.0
"""How long the last answers of a server of TVM are waited for."""

_UNSENT = 16 * 1024
"""Bytes of a pipeline's calls that go out together."""

_SMALL = 64 * 1024
"""Bytes of the largest memory that is asked for without waiting: a machine out of it is rare."""

_CPU = Device(DeviceType.CPU, 0)

_ALLOCATES = frozenset((RPCCode.DEV_ALLOC_DATA, RPCCode.DEV_ALLOC_DATA_WITH_SCOPE))


class Endpoint(Conversation):
    """One session's connection, from InitServer to Shutdown.

    Threads may share it; a request and its answer are one step.

    Attributes:
        takes_handles: whether the server lets us choose the handles of memory.
    """

    takes_handles = False

    def __init__(self, channel: SocketChannel) -> None:
        super().__init__(channel)
        self._handles = itertools.count(CHOSEN_HANDLES)

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
        packet = packets.init_server(self.dialect, constructor)
        doing = "opening the session"
        with self._lock:
            if is_sent:
                with self._guarded(doing):
                    start, end = self._expect(RETURN, doing)
            else:
                start, end = self._ask(packet, doing)
            try:
                if self._reader.missing:
                    raise RemoteProtocolError("the server answers InitServer at length")
                reply = bytes(self._reader.buffer[start:end])
                self.speak(of_server(reply))
                self.is_ours = reply == packets.NO_VALUES
            except ProtocolError as error:
                self._break(str(error), error)
                raise

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
        with self._lock:
            start, end = self._ask(packet, name)
            try:
                if self._reader.missing:
                    started = clock()
                    try:
                        return self._long_result(start, end)
                    finally:
                        self.meter.call_s += clock() - started
                return self._decode_result(self._reader.buffer, start, end)
            except OSError as error:
                raise self._fail(error, name) from error.__cause__
            except ProtocolError as error:
                self._break(str(error), error)
                raise
            except BaseException as error:
                self._break(f"it was interrupted in {name} ({error!r})")
                raise

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
        pending = Pending(name)
        whole = packet if isinstance(packet, bytes) else b"".join(packet)
        with self._lock:
            self._check_step()
            try:
                while self._waiting:  # what was asked for before, and may be a copy
                    waiting, owed = self._later.take()
                    self._unsent += waiting
                    self._owed += owed
                self._unsent.append(whole)
                self._unsent_bytes += len(whole)
                self._owed.append(pending)
                self._pipelined += 1
                self.meter.calls += 1
                if self._pipelined == 1 or self._unsent_bytes >= _UNSENT:
                    self._work_off(name)
            except BaseException as error:
                self._break(f"it was interrupted in {name} ({error!r})")
                raise
        return pending

    def finish(self, pending: Optional[Pending] = None) -> None:
        """Takes the answers up to that of one call, or all; errors are kept with their calls.

        Raises:
            ConnectionLostError: the session ended; the calls know it, too.
        """
        with self._lock:
            if pending is not None and pending.is_done:
                return
            if self.closed_because is None and (self._pipelined or self._late):
                self._work_off("a pipeline", pending, is_last=True)

    def _work_off(
        self, doing: str, until: Optional[Pending] = None, *, is_last: bool = False
    ) -> None:
        started = clock()
        try:
            with self._guarded(doing):
                self._send_unsent()
                if is_last:
                    self._settle(doing, until)
                    self._raise_late()
        finally:
            self.meter.call_s += clock() - started

    def syscall(self, code: int, *values: Any) -> Any:
        """Sends a request of values only; returns the one value it is answered with."""
        __tracebackhide__ = True
        packet = self._encode_request(code, values)
        doing = NAMES[code]
        with self._lock:
            start, end = self._ask(packet, doing, RETURN, code in _ALLOCATES)
            if not self._reader.missing:
                return self._one_value(start, end, doing)
            with self._guarded(doing):
                return self._one_value(start, end, doing)

    def get_functions(self, names: Sequence[str]) -> List[int]:
        """Looks several functions up in one round trip; 0 stands for one that is not there."""
        __tracebackhide__ = True
        found = self.syscalls([(RPCCode.GET_GLOBAL_FUNC, name) for name in names])
        return [int(handle or 0) for handle in found]

    def syscalls(self, requests: Sequence[Sequence[Any]]) -> List[Any]:
        """Several requests, each its code and its values, in one round trip."""
        __tracebackhide__ = True
        together = b"".join(self._encode_request(code, values) for code, *values in requests)
        is_alloc = any(request[0] in _ALLOCATES for request in requests)
        doing = NAMES[requests[-1][0]]
        with self._lock, self._guarded(doing):
            while is_alloc and len(self._later) > MOST:  # it may need the memory of any of them
                self._send_batch(doing)
            behind = self._send(together, is_alloc)
            self._settle(doing)
            answers = []
            for _ in requests:
                try:
                    answers.append(self._one_value(*self._expect(RETURN, doing), doing))
                except RPCSessionTimeoutError:  # which ended the session: nothing comes after it
                    raise
                except RemoteError as error:  # the answers to the others have to be taken, too
                    self._late = self._late or error
            self._owed += behind
            self.meter.calls += 1
            self._raise_late()
            return answers

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
            with self._lock:
                self._ask(packet, doing)
        elif self.is_ours:
            self._post(packet, doing)
        elif self.closed_because is None and len(self._later) < MOST:
            self._later.add(bytes(packet[0]), COPYING)
        else:
            with self._lock:
                self._ask(packet, doing)

    def _post(self, packet: Sequence[Buffer], doing: str) -> None:
        """Sends a request whose void answer is taken with a later one's."""
        with self._lock, self._guarded(doing):
            if len(self._owed) >= MOST:
                self._send_unsent()
                self._settle(doing)
            started = clock()
            behind = self._send(packet, False)
            self._owed.append(COPYING)
            self._owed += behind
            self.meter.call_s += clock() - started

    def copy_from_remote(self, record: TensorRecord, target: memoryview) -> None:
        """Copies memory of the other side into the target and fills it."""
        nbytes = len(target)
        if record.encoded is None:
            self.dialect.encode_record(record)
        packet = packets.copy_from_remote(record, nbytes)
        doing = "copying from a tensor"
        with self._lock:
            start, end = self._ask(packet, doing, COPY_ACK)
            reader = self._reader
            coming = end - start + reader.missing
            if coming != nbytes:
                raise self._broken_rule(f"{coming} bytes came where {nbytes} were asked for")
            target[: end - start] = memoryview(reader.buffer)[start:end]
            if reader.missing:
                started = clock()
                with self._guarded(doing):
                    self._receive_missing(target[end - start :])
                self.meter.call_s += clock() - started

    # What goes with the next request

    def defer(self, code: int, *values: Any) -> None:
        """Sends a request with the next one. Never blocks: destructors call it, too."""
        if self.closed_because is None:
            self._later.add(self._encode_request(code, values), FREEING)

    def close(self, because: str = "it was closed") -> None:
        """Ends the session; the server frees all it holds for it. May be called twice.

        A call that another thread waits for ends, too.
        """
        self._is_leaving = True
        if not self._lock.acquire(blocking=False):
            self.channel.interrupt()
            if not self._lock.acquire(timeout=_GOODBYE_S):
                return
        try:
            if self.closed_because is None:
                with contextlib.suppress(OSError, RPCError):  # gone already: what Shutdown asks for
                    if not self.is_ours:
                        self._take_leave()
                    self.channel.send([packets.SHUTDOWN])
                self._break(because)
        finally:
            self._lock.release()

    def _take_leave(self) -> None:
        """Takes what is owed, since TVM's server does not survive an answer that nobody takes."""
        self.channel.limit(_GOODBYE_S, "")
        if self._owed:
            self._send_unsent()
            self._settle("closing")
        while self._later.has_copies:
            self._send_batch("closing")
