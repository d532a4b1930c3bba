"""The asking end of a conversation: say one thing, wait for its answer. The hot path: flat.

Three ways to ask, all answered in order:

- `ask` and `call` send and wait;
- `post` sends, and the answer is taken from in front of a later one: for small copies, whose
  answer says nothing;
- `defer` sends with the next request: for frees and syncs, which then cost no round trip.

After an error in the middle of a conversation nobody knows which answer comes next, so the
connection is closed and every later request says why.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
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
    remote_error,
)
from ..protocol import packets
from ..protocol.codes import RPCCode
from ..protocol.dialect import FFI, Dialect, of_server
from ..protocol.framing import PacketReader
from ..protocol.state import NAMES, code_name
from .buffers import unfilled
from .later import COPYING, FREEING, MOST, Later, Owed, goes_behind

if TYPE_CHECKING:
    from ..dlpack import TensorRecord
    from .channel import SocketChannel

Buffer = Union[bytes, bytearray, memoryview]

_RETURN = int(RPCCode.RETURN)
_COPY_ACK = int(RPCCode.COPY_ACK)

_POSTED = 4096
"""Bytes of the largest copy that is posted: several fit any socket buffer."""

_CLAIMED = 1 << 28
"""Bytes for which a peer's word is taken; memory for more is taken as they arrive."""

_GOODBYE_S = 2.0
"""How long the last answers of a server of TVM are waited for."""

_clock = time.perf_counter


class Meter:
    """What went over one session: its calls, bytes and seconds.

    Attributes:
        calls: requests that were waited for.
        bytes_sent, bytes_received: bytes of packets.
        call_s: seconds spent in requests.
        device_s: seconds that ``time_evaluator`` measured on the device.
    """

    __slots__ = ("bytes_received", "bytes_sent", "call_s", "calls", "device_s")

    def __init__(self) -> None:
        self.calls = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self.call_s = 0.0
        self.device_s = 0.0


_ALLOCATES = frozenset((RPCCode.DEV_ALLOC_DATA, RPCCode.DEV_ALLOC_DATA_WITH_SCOPE))


class Endpoint:
    """One session's connection, from InitServer to Shutdown.

    Threads may share it; a request and its answer are one step.

    Args:
        channel: to a server that has agreed in the handshake.

    Attributes:
        closed_because: None while the session is open, then why it is not.
    """

    def __init__(self, channel: SocketChannel) -> None:
        self.channel = channel
        self._recv_into = channel.recv_into
        self._send_once: Callable[[Buffer], int] = channel.send_once
        self._use(FFI)
        self._is_ours = False
        self.meter = Meter()
        self.closed_because: Optional[str] = None
        self._reader = PacketReader()
        self._lock = threading.Lock()
        self._later = Later()
        self._waiting = self._later.queue
        self._owed: List[Owed] = []
        self._late: Optional[RPCError] = None

    def init_server(self, constructor: Sequence[Any] = (), *, is_sent: bool = False) -> None:
        """Opens the session and learns the server's dialect.

        Args:
            constructor: name and arguments of the session that the server shall open.
            is_sent: whether the request went out with the handshake.

        Raises:
            RemoteError: the server refused, e.g. an unknown session constructor.
            ProtocolError: the server speaks a dialect that is not spoken here.
        """
        packet = packets.init_server(self.dialect, constructor)
        doing = "opening the session"
        with self._lock:
            if is_sent:
                with self._guarded(doing):
                    start, end = self._expect(_RETURN, doing)
            else:
                start, end = self._ask(packet, doing)
            try:
                if self._reader.missing:
                    raise RemoteProtocolError("the server answers InitServer at length")
                reply = bytes(self._reader.buffer[start:end])
                self._use(of_server(reply))
                self._is_ours = reply == packets.NO_VALUES
            except ProtocolError as error:
                self._break(str(error))
                raise

    def _use(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._encode_call = dialect.encode_call
        self._encode_request = dialect.encode_request
        self._decode_result = dialect.decode_result

    # Asking

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
                    return self._long_result(start, end)
                return self._decode_result(self._reader.buffer, start, end)
            except OSError as error:
                raise self._fail(error, name) from error.__cause__
            except ProtocolError as error:
                self._break(str(error))
                raise
            except BaseException as error:
                self._break(f"it was interrupted in {name} ({error!r})")
                raise

    def syscall(self, code: int, *values: Any) -> Any:
        """Sends a request of values only; returns the one value it is answered with."""
        __tracebackhide__ = True
        packet = self._encode_request(code, values)
        doing = NAMES[code]
        with self._lock:
            return self._one_value(*self._ask(packet, doing, _RETURN, code in _ALLOCATES), doing)

    def get_functions(self, names: Sequence[str]) -> List[int]:
        """Looks several functions up in one round trip; 0 stands for one that is not there."""
        __tracebackhide__ = True
        requests = [self._encode_request(RPCCode.GET_GLOBAL_FUNC, (name,)) for name in names]
        doing = "looking functions up"
        with self._lock, self._guarded(doing):
            behind = self._send(b"".join(requests), False)
            self._settle(doing)
            found = []
            for _ in names:
                try:
                    handle = self._one_value(*self._expect(_RETURN, doing), doing)
                    found.append(int(handle or 0))
                except RPCSessionTimeoutError:  # which ended the session: nothing comes after it
                    raise
                except RemoteError as error:  # the answers to the others have to be taken, too
                    self._late = self._late or error
            self._owed += behind
            self.meter.calls += 1
            self._raise_late()
            return found

    def copy_to_remote(self, record: TensorRecord, content: memoryview) -> None:
        """Copies bytes into memory of the other side.

        A small copy is posted; should the server refuse it, the next request raises.
        """
        packet = packets.copy_to_remote(record, content)
        doing = "copying to a tensor"
        if len(content) > _POSTED:
            with self._lock:
                self._ask(packet, doing)
        elif self._is_ours:
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
                self._settle(doing)
            started = _clock()
            behind = self._send(packet, False)
            self._owed += [COPYING, *behind]
            self.meter.call_s += _clock() - started

    def copy_from_remote(self, record: TensorRecord, target: memoryview) -> None:
        """Copies memory of the other side into the target and fills it."""
        nbytes = len(target)
        packet = packets.copy_from_remote(record, nbytes)
        doing = "copying from a tensor"
        with self._lock:
            start, end = self._ask(packet, doing, _COPY_ACK)
            reader = self._reader
            coming = end - start + reader.missing
            if coming != nbytes:
                raise self._broken_rule(f"{coming} bytes came where {nbytes} were asked for")
            target[: end - start] = memoryview(reader.buffer)[start:end]
            if reader.missing:
                started = _clock()
                with self._guarded(doing):
                    self._receive_missing(target[end - start :])
                self.meter.call_s += _clock() - started

    def defer(self, code: int, *values: Any) -> None:
        """Sends a request with the next one. Never blocks: destructors call it, too."""
        if self.closed_because is None:
            self._later.add(self._encode_request(code, values), FREEING)

    def close(self, because: str = "it was closed") -> None:
        """Ends the session; the server frees all it holds for it. May be called twice."""
        with self._lock:
            if self.closed_because is None:
                with contextlib.suppress(OSError, RPCError):  # gone already: what Shutdown asks for
                    if self._owed and not self._is_ours:
                        # TVM's server does not survive an answer that nobody takes.
                        self.channel.limit(_GOODBYE_S, "")
                        self._settle("closing")
                    self.channel.send([packets.SHUTDOWN])
                self._break(because)

    # The steps of a request

    def _ask(
        self,
        packet: Union[bytes, Sequence[Buffer]],
        doing: str,
        expected: int = _RETURN,
        is_alloc: bool = False,
    ) -> Tuple[int, int]:
        """Sends a request; returns where the body of its answer lies in the reader's buffer."""
        __tracebackhide__ = True
        meter, reader = self.meter, self._reader
        started = _clock()
        try:
            if type(packet) is not bytes or self._waiting or self._owed or reader.filled:
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
            self._break(f"it was interrupted in {doing} ({error!r})")
            raise
        finally:
            meter.calls += 1
            meter.call_s += _clock() - started

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
        if self.closed_because is not None:
            self._refuse_as_closed()
        buffers: List[Buffer] = [packet] if isinstance(packet, bytes) else list(packet)
        waiting, owed = self._later.take()
        behind: List[Owed] = []
        if waiting and not self._is_ours and goes_behind(owed, is_alloc):
            buffers += waiting
            behind = owed
        elif waiting:
            buffers[0] = b"".join([*waiting, buffers[0]])
            self._owed += owed
        self.meter.bytes_sent += self.channel.send(buffers)
        if not self._is_ours:
            self.channel.acknowledge_at_once()
        return behind

    def _send_batch(self, doing: str) -> None:
        """Sends some of what waits by itself, and takes the answers."""
        waiting, owed = self._later.take()
        self._owed += owed
        self.meter.bytes_sent += self.channel.send(waiting)
        self._settle(doing)

    def _refuse_as_closed(self, packet: object = None) -> NoReturn:
        """What sending is once the session is over."""
        raise ConnectionLostError(
            f"the session with {self.channel.peer} is over: {self.closed_because}"
        )

    def _settle(self, doing: str) -> None:
        """Takes the answers that are owed and keeps the first error among them that matters."""
        __tracebackhide__ = True
        owed, self._owed = self._owed, []
        for (matters,) in owed:
            try:
                self._expect(_RETURN, doing)
            except RPCSessionTimeoutError:  # which ended the session: nothing comes after it
                raise
            except RemoteError as error:
                if matters:
                    self._late = self._late or error

    def _raise_late(self) -> None:
        __tracebackhide__ = True
        if self._late is not None:
            late, self._late = self._late, None
            self._skip_missing()
            raise late

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
            text = self.dialect.decode_values(body, 0, len(body))
            if len(text) != 1:
                raise self._broken_rule(f"an exception of {len(text)} values answers {doing}")
            raised = remote_error(str(text[0]))
            if isinstance(raised, RPCSessionTimeoutError):
                self._break(str(raised))
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
        return values[0]

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
        missing, reader.missing = reader.missing, 0
        self.channel.receive_to(body.extend, missing)
        self.meter.bytes_received += missing
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
            self._break(f"it was interrupted in {doing} ({error!r})")
            raise

    def _fail(self, error: OSError, doing: str) -> Exception:
        """The error to raise for one of the channel's, which ends the session."""
        failure = self.channel.lost(error, doing)
        if not isinstance(error, (ConnectionLostError, BlockingIOError)):
            failure = self._last_words(doing) or failure
        self._break(str(failure))
        return failure

    def _last_words(self, doing: str) -> Optional[Exception]:
        """What a server that closed said of the session's end; a send fails before it is read."""
        while True:
            try:
                self._expect(_RETURN, doing)
            except (RPCSessionTimeoutError, SessionCrashedError) as error:
                return error
            except RemoteError:
                continue  # of a request that was answered before
            except (ProtocolError, OSError):
                return None

    def _broken_rule(self, message: str) -> RemoteProtocolError:
        self._break(message)
        return RemoteProtocolError(f"{self.channel.peer} broke the protocol: {message}")

    def _break(self, because: str) -> None:
        if self.closed_because is None:
            self.closed_because = because
            self._send_once = self._refuse_as_closed
        self._later.clear()
        self._owed.clear()
        self.channel.close()
