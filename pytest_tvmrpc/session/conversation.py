"""A conversation with a serving end: the steps of which each request consists. Asks for nothing.

Every request is answered in order, so what is owed is a queue. After an error in the middle of a
conversation nobody knows which answer comes next: the connection is closed, and every later
request says why. The hot path, a short request with a short answer and nothing else going on,
is flat.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections import deque
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Deque,
    Iterator,
    List,
    NoReturn,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from ..errors import (
    ConnectionLostError,
    ProtocolError,
    RemoteError,
    RemoteProtocolError,
    RPCError,
    RPCSessionTimeoutError,
    SessionCrashedError,
    SessionKickedError,
    remote_error,
)
from ..protocol.codes import RPCCode
from ..protocol.dialect import FFI, Dialect, of_server
from ..protocol.framing import PacketReader
from ..protocol.state import NAMES, code_name
from ..protocol.values import FunctionHandle, ModuleHandle, ObjectHandle, TensorResult
from .buffers import unfilled
from .later import FREEING, MOST, Later, Owed, Pending, goes_behind

if TYPE_CHECKING:
    from .channel import SocketChannel

Buffer = Union[bytes, bytearray, memoryview]

RETURN = int(RPCCode.RETURN)
COPY_ACK = int(RPCCode.COPY_ACK)

_OF_ANY_TYPE = NAMES[RPCCode.DEV_GET_ATTR]
"""The one request but calls whose answer may be a text, or whatever a device knows."""

_CLAIMED = 1 << 28
"""Bytes for which a peer's word is taken; memory for more is taken as they arrive."""

clock = time.perf_counter

_ENDS = (RPCSessionTimeoutError, SessionCrashedError, SessionKickedError)
"""What ends a session by its own name, and is told to every call that waits."""


_LOSSES = (ConnectionLostError, RemoteProtocolError)
"""What ends a session that this side would have gone on with."""


class Meter:
    """What went over one session: its calls, bytes and seconds.

    Attributes:
        calls: requests that were waited for.
        bytes_sent, bytes_received: bytes of packets.
        call_s: seconds spent in requests.
        device_s: seconds that ``time_evaluator`` measured on the device.
        upload_s: the part of `call_s` that uploads and downloads of files took.
        upload_nbytes: bytes of the files that were uploaded.
    """

    __slots__ = (
        *("bytes_received", "bytes_sent", "call_s", "calls", "device_s"),
        *("upload_nbytes", "upload_s"),
    )

    def __init__(self) -> None:
        self.calls = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self.call_s = 0.0
        self.device_s = 0.0
        self.upload_s = 0.0
        self.upload_nbytes = 0


class Conversation:
    """One session's connection: sending, what is owed, receiving, and the end.

    Args:
        channel: to a server that has agreed in the handshake.

    Attributes:
        dialect: the server's, as far as it is known.
        is_ours: whether the server is one of this package.
        closed_because: None while the session is open, then why it is not.
        is_lost: whether it ended by neither this side nor a limit.
    """

    def __init__(self, channel: SocketChannel) -> None:
        self.channel = channel
        self._recv_into = channel.recv_into
        self._send_once: Callable[[Buffer], int] = channel.send_once
        self.speak(FFI)
        self.is_ours = False
        self.meter = Meter()
        self.closed_because: Optional[str] = None
        self.is_lost = False
        self._is_leaving = False
        self._reader = PacketReader()
        self._lock = threading.Lock()
        self._later = Later()
        self._waiting = self._later.queue
        self._owed: Deque[Union[Owed, Pending]] = deque()
        self._unsent: List[Buffer] = []
        self._unsent_bytes = 0
        self._pipelined = 0  # of what is owed
        self._late: Optional[RPCError] = None

    def speak(self, dialect: Dialect) -> None:
        """Writes and reads in this dialect from now on."""
        self.dialect = dialect
        self._encode_call = dialect.encode_call
        self._encode_request = dialect.encode_request
        self._decode_result = dialect.decode_result

    # The steps of a request

    def _ask(
        self,
        packet: Union[bytes, Sequence[Buffer]],
        doing: str,
        expected: int = RETURN,
        is_alloc: bool = False,
    ) -> Tuple[int, int]:
        """Sends a request; returns where the body of its answer lies in the reader's buffer."""
        __tracebackhide__ = True
        meter, reader = self.meter, self._reader
        started = clock()
        try:
            if (
                type(packet) is not bytes
                or self._waiting
                or self._owed
                or reader.filled
                or reader.missing
            ):
                return self._ask_among_others(packet, doing, expected, is_alloc)
            sent = self._send_once(packet)
            if sent != len(packet):
                self.channel.send_rest(packet, sent)
            meter.bytes_sent += len(packet)
            received = self._recv_into(reader.view)
            if reader.only_packet(received) == expected:
                meter.bytes_received += received
                return 12, received
            self._take(received, doing)
            return self._expect(expected, doing)
        except RemoteError:
            raise
        except OSError as error:
            raise self._fail(error, doing) from error.__cause__
        except BaseException as error:
            self._break(f"it was interrupted in {doing} ({error!r})", error)
            raise
        finally:
            meter.calls += 1
            meter.call_s += clock() - started

    def _ask_among_others(
        self,
        packet: Union[bytes, Sequence[Buffer]],
        doing: str,
        expected: int,
        is_alloc: bool,
    ) -> Tuple[int, int]:
        """`_ask` when there are frees to send along, or answers to take before."""
        __tracebackhide__ = True
        while is_alloc and len(self._later) > MOST:  # it may need the memory of any of them
            self._send_batch(doing)
        behind = self._send(packet, is_alloc)
        self._settle(doing)
        try:
            bounds = self._expect(expected, doing)
        finally:
            if self.closed_because is None:
                self._owed += behind
        self._raise_late()
        return bounds

    def _send(self, packet: Union[bytes, Sequence[Buffer]], is_alloc: bool) -> List[Owed]:
        """Sends this request and some of what waits in one go; what is owed behind its answer."""
        self._check_step()
        if self._pipelined or len(self._owed) > MOST:
            # Neither side may block on a send to the other, so these answers come first.
            self._send_unsent()
            self._settle("earlier requests")
        buffers: List[Buffer] = [packet] if isinstance(packet, bytes) else list(packet)
        waiting, owed = self._later.take()
        behind: List[Owed] = []
        if waiting and not self.is_ours and goes_behind(owed, is_alloc):
            buffers += waiting
            behind = owed
        elif waiting:
            buffers[0] = b"".join([*waiting, buffers[0]])
            self._owed += owed
        self.meter.bytes_sent += self.channel.send(buffers)
        if not self.is_ours:
            self.channel.acknowledge_at_once()
        return behind

    def _send_batch(self, doing: str) -> None:
        """Sends some of what waits by itself, and takes the answers."""
        waiting, owed = self._later.take()
        self._owed += owed
        self.meter.bytes_sent += self.channel.send(waiting)
        self._settle(doing)

    def _check_step(self) -> None:
        """Lets nothing be said that could be taken for something else.

        Raises:
            ConnectionLostError: the session is over, or an interrupt tore an answer apart.
        """
        if self._reader.missing and self.closed_because is None:
            self._break("an answer was not taken to its end")
        if self.closed_because is not None:
            _refuse(self.channel.peer, self.closed_because)

    # What is owed

    def _settle(self, doing: str, until: Optional[Pending] = None) -> None:
        """Takes the answers that are owed, all of them or up to that of one call."""
        __tracebackhide__ = True
        while self._owed and not (until is not None and until.is_done):
            if not (self.is_ours or self._reader.filled):
                self.channel.acknowledge_at_once()  # else TVM's server waits 40 ms to go on
            self._settle_next(doing)

    def _settle_next(self, doing: str) -> None:
        """Takes the answer that is owed first; keeps the first error that matters to somebody."""
        __tracebackhide__ = True
        owed = self._owed[0]  # stays there meanwhile: whoever ends the session tells it
        try:
            if isinstance(owed, Pending):
                start, end = self._expect(RETURN, owed.name)
                if self._reader.missing:
                    owed.value = self._long_result(start, end)
                else:
                    owed.value = self._decode_result(self._reader.buffer, start, end)
                owed.is_done = True
            else:
                self._expect(RETURN, doing)
        except RPCSessionTimeoutError:  # which ended the session: nothing comes after it
            raise
        except RemoteError as error:
            if isinstance(owed, Pending):
                owed.fail(error)
            elif owed.matters:
                self._late = self._late or error
        if self.closed_because is not None:
            return
        self._owed.popleft()
        if isinstance(owed, Pending):
            self._pipelined -= 1
            if owed.is_abandoned:
                self.abandon(owed)  # whose answer has come now

    def abandon(self, pending: Pending) -> None:
        """Nobody will ask for this result: what it holds on the server is let go, once it came."""
        pending.is_abandoned = True
        value, pending.value = pending.value, None
        if isinstance(value, TensorResult):
            self.release(value.handle, TensorResult)
        elif isinstance(value, (FunctionHandle, ModuleHandle, ObjectHandle)):
            self.release(value, type(value))

    def release(self, handle: int, kind: type) -> None:
        """Frees a function, module, object or tensor with the next request. Never blocks.

        Args:
            kind: of the handle; servers of older dialects have to be told.
        """
        if handle and self.closed_because is None:
            self._later.add(self.dialect.encode_free(handle, kind), FREEING)

    def _raise_late(self) -> None:
        __tracebackhide__ = True
        if self._late is not None:
            late, self._late = self._late, None
            self._skip_missing()
            raise late

    def _send_unsent(self) -> None:
        """Sends a pipeline's calls, and takes the answers that come meanwhile.

        A server that nobody takes answers from stops reading, and then our send would never end.
        """
        channel, reader = self.channel, self._reader
        rest = memoryview(b"".join(self._unsent))
        self._unsent.clear()
        self._unsent_bytes = 0
        self.meter.bytes_sent += len(rest)
        while rest:
            rest = rest[channel.send_now(rest) :]
            received = channel.receive_now(reader.room())
            if received is not None:
                self._take(received, "a pipeline")
                if not self.is_ours:
                    channel.acknowledge_at_once()
                while self._owed and reader.filled:  # the rest of one that has begun will come
                    self._settle_next("a pipeline")
            elif rest:
                channel.wait_until_ready()

    # Answers

    def _expect(self, expected: int, doing: str) -> Tuple[int, int]:
        """Bounds of the next packet's body, which has to have this code."""
        __tracebackhide__ = True
        reader = self._reader
        packet = reader.next_packet()
        while packet is None:
            room = reader.room()
            self._take(self._recv_into(room), doing)
            packet = reader.next_packet()
        code, start, end = packet
        if code == expected:
            return start, end
        if code == RPCCode.EXCEPTION:
            body = self._whole(start, end)
            # in the server's words, which in answer to InitServer may not be ours yet
            text = of_server(body).decode_values(body, 0, len(body))
            if len(text) != 1:
                raise self._broken_rule(f"an exception of {len(text)} values answers {doing}")
            raised = remote_error(str(text[0]))
            if isinstance(raised, RPCSessionTimeoutError):
                self._break(str(raised), raised)
            raise raised
        if code == RPCCode.SHUTDOWN:
            raise ConnectionLostError(
                f"{self.channel.peer} ended the session in {doing}; the process that served it "
                "may have crashed"
            )
        raise RemoteProtocolError(f"{self.channel.peer} answered {doing} with {code_name(code)}")

    def _take(self, received: int, doing: str) -> None:
        __tracebackhide__ = True
        if not received:
            raise ConnectionLostError(f"{self.channel.peer} closed the connection in {doing}")
        self._reader.received(received)
        self.meter.bytes_received += received

    def _one_value(self, start: int, end: int, doing: str) -> Any:
        buffer: Buffer = self._reader.buffer
        if self._reader.missing:
            buffer = self._whole(start, end)
            start, end = 0, len(buffer)
        values = self.dialect.decode_values(buffer, start, end)
        if len(values) != 1:
            raise self._broken_rule(f"{len(values)} values answer {doing}; one is expected")
        (value,) = values
        if not (value is None or isinstance(value, int) or doing == _OF_ANY_TYPE):
            raise self._broken_rule(f"{repr(value)[:80]} answers {doing}; a number is expected")
        return value

    def _result(self, start: int, end: int) -> Any:
        """What a called function returned."""
        if self._reader.missing:
            return self._long_result(start, end)
        return self._decode_result(self._reader.buffer, start, end)

    # Packets larger than the reader's buffer

    def _long_result(self, start: int, end: int) -> Any:
        """The result of a call when it is larger than the buffer: as a rule a file's bytes."""
        reader = self._reader
        values, pending = self.dialect.decode_values_before(
            reader.buffer, start, end, end + reader.missing
        )
        if pending is None:
            body = self._whole(start, end)
            return self.dialect.decode_result(body, 0, len(body))
        here = end - pending.offset
        if pending.nbytes > _CLAIMED:
            content = bytearray(reader.buffer[pending.offset : end])
            self.channel.receive_to(content.extend, reader.missing)
            self.meter.bytes_received += reader.missing
            reader.missing = 0
        else:
            content = unfilled(pending.nbytes)
            content[:here] = memoryview(reader.buffer)[pending.offset : end]
            self._receive_missing(memoryview(content)[here:])
        return self.dialect.result_of([*values, content])

    def _whole(self, start: int, end: int) -> Buffer:
        """The body, with what is missing; takes memory only for what has arrived."""
        reader = self._reader
        if not reader.missing:
            return bytes(reader.buffer[start:end])
        body = bytearray(reader.buffer[start:end])
        self.channel.receive_to(body.extend, reader.missing)
        self.meter.bytes_received += reader.missing
        reader.missing = 0
        return memoryview(body)

    def _receive_missing(self, target: memoryview) -> None:
        self.channel.receive_exactly(target)
        self.meter.bytes_received += len(target)
        self._reader.missing = 0

    def _skip_missing(self) -> None:
        if self._reader.missing:
            self.channel.receive_to(len, self._reader.missing)
            self._reader.missing = 0

    # Errors

    @contextlib.contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        """The error handling of `_ask`, for what has more steps than a request and its answer."""
        try:
            yield
        except RemoteError:
            raise
        except OSError as error:
            raise self._fail(error, doing) from error.__cause__
        except BaseException as error:
            self._break(f"it was interrupted in {doing} ({error!r})", error)
            raise

    def _fail(self, error: OSError, doing: str) -> Exception:
        """The error to raise for one of the channel's, which ends the session."""
        failure = self.channel.lost(error, doing)
        if not isinstance(error, (ConnectionLostError, BlockingIOError)):
            failure = self._last_words(doing) or failure
        self._break(str(failure), failure)
        return failure

    def _last_words(self, doing: str) -> Optional[Exception]:
        """What a server that closed said of the session's end; a send fails before it is read."""
        while True:
            try:
                self._expect(RETURN, doing)
            except (RPCSessionTimeoutError, SessionCrashedError) as error:
                return error
            except RemoteError:
                continue  # of a request that was answered before
            except (ProtocolError, OSError):
                return None

    def _broken_rule(self, message: str) -> RemoteProtocolError:
        error = RemoteProtocolError(f"{self.channel.peer} broke the protocol: {message}")
        self._break(message, error)
        return error

    def _break(self, because: str, error: Optional[BaseException] = None) -> None:
        if self.closed_because is None:
            self.closed_because = because
            self.is_lost = isinstance(error, _LOSSES) and not self._is_leaving
            # No method of ours: that would be a cycle, and the buffer garbage until it is found.
            self._send_once = functools.partial(_refuse, self.channel.peer, because)
        self._later.clear()
        self._unsent.clear()
        self._pipelined = 0
        for owed in self._owed:
            if isinstance(owed, Pending) and not owed.is_done:
                if isinstance(error, _ENDS):
                    owed.fail(type(error)(str(error)))
                else:
                    owed.fail(
                        ConnectionLostError(
                            f"the session with {self.channel.peer} ended before {owed.name} "
                            f"was answered: {because}"
                        )
                    )
        self._owed.clear()
        self.channel.close()


def _refuse(peer: str, because: str, packet: object = None) -> NoReturn:
    """What sending is once the session is over."""
    raise ConnectionLostError(f"the session with {peer} is over: {because}")
