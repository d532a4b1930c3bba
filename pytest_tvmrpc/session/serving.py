"""The answering end: take a packet, have a Session do it, answer; until shutdown.

Strategy: requests are looked up by code in a table of methods, each of which returns the answer's
buffers. Answers to requests that came together leave together. Whatever a request raises is its
answer; only what makes the byte stream unreadable ends the conversation.
"""

from __future__ import annotations

import functools
import struct
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Set, Tuple, Union

from ..errors import RemoteError, RemoteProtocolError
from ..protocol import packets
from ..protocol.codes import PROTOCOL_VERSION, RPCCode
from ..protocol.dialect import FFI, LEGACY, Dialect, of_client
from ..protocol.requests import (
    REPEATED,
    ROWS,
    Body,
    Request,
    State,
    Step,
    answered,
    code_name,
    fitted,
    step_of,
)
from ..protocol.values import ByteSource
from .copies import leave, make_mark
from .incoming import LAST_NBYTES, Incoming

if TYPE_CHECKING:
    from .channel import SocketChannel
    from .interface import Session, Sink

_U64 = struct.Struct("<Q")

_CALL_FUNC = int(RPCCode.CALL_FUNC)

clock = time.perf_counter

Buffer = Union[bytes, bytearray, memoryview]
Buffers = List[Buffer]
Answer = Union[bytes, List[Any]]
"""One bytes object; or buffers, the last of which may be a file."""

_SHORT = 1024
"""Bytes that a socket takes all at once: whoever is killed has sent them, or none of them."""

_LONG = 4 * LAST_NBYTES
"""Bytes of an answer that a client may take in its own time."""

_MOST_TOGETHER = 64

_HELD_S = 1e-4
"""How long an answer may wait for others, and what a quick function takes at most."""

_MOST_QUICK = 1024

MAX_TEXT = 64 * 1024
"""Characters of an exception's text; longer ones are cut."""

MAX_COLLECTED = 1 << 31
"""Bytes of a request that has to be collected in memory before it can be read."""


class StreamBrokenError(Exception):
    """The client is gone within a packet, or its packets cannot be told apart any more."""


class Progress:
    """Where a session stands, as its supervisor sees it; two bytes of memory they share.

    The supervisor may say something to the client only when the session's process, which is dead
    by then, was not in the middle of an answer, or when so much of that answer is missing that
    what is said cannot be taken for the rest. The second byte is 1 for a client of the legacy
    dialect.
    """

    IDLE = 0
    CALLING = 1
    ANSWERING = 2
    ANSWERING_LONG = 3
    """More than `LAST_NBYTES` of the answer are still missing."""

    NBYTES = 2


class Server:
    """One session's answering end.

    Args:
        channel: to a client whose handshake is done.
        session: what does the work.
        progress: two bytes, the first of which is written before and after each answer.
        on_ready: called once, when the client has opened the session.
    """

    def __init__(
        self,
        channel: SocketChannel,
        session: Session,
        progress: Optional[memoryview] = None,
        on_ready: Optional[Callable[[], object]] = None,
    ) -> None:
        self._channel = channel
        self._on_ready = on_ready
        self._progress = memoryview(bytearray(Progress.NBYTES)) if progress is None else progress
        self._incoming = Incoming(channel)
        self._reader = self._incoming.reader
        self._buffer = self._reader.buffer
        self._send_once = channel.send_once
        self._use(FFI)
        self._is_dialect_known = False
        self._state = State.OPENED
        self._quick: Set[int] = set()
        self._mark = make_mark()
        self._settled: Dict[int, Callable[[int, int], Answer]] = {}
        """The handlers, once the session is open and the dialect known: no checks are needed."""
        self._serve_from(session)
        self._find_methods()

    def _serve_from(self, session: Session) -> None:
        """Has this session do what comes."""
        self._session = session
        self._call, self._known, self._resolve = session.call, session.known, session.resolve

    def _find_methods(self) -> None:
        """What answers each request; those of values only are the session's own methods."""
        self._methods: Dict[int, Callable[[int, int], Answer]] = {
            RPCCode.INIT_SERVER: self._init_server,
            RPCCode.CALL_FUNC: self._call_func,
            RPCCode.COPY_FROM_REMOTE: self._copy_from_remote,
            RPCCode.COPY_TO_REMOTE: self._copy_to_remote,
            **{
                row.code: functools.partial(self._syscall, row)
                for row in ROWS
                if row.body is Body.VALUES
            },
        }

    def receive_early(self, content: bytes) -> None:
        """Takes bytes that came behind the client's hello, before this end was there."""
        self._reader.room()[: len(content)] = content
        self._reader.received(len(content))

    def serve(self) -> None:
        """Answers until the client says Shutdown or is gone; then the session is closed.

        Raises:
            StreamBrokenError: the client's bytes cannot be read any further; if it broke the
                protocol, it was told.
        """
        try:
            self._serve()
        finally:
            self._session.close()

    def _serve(self) -> None:
        reader, recv_into = self._reader, self._channel.recv_into
        answers: Buffers = []
        packet: Optional[Tuple[int, int, int]] = None
        now = first = clock()
        while True:
            try:
                packet = None
                packet = reader.next_packet()
                if packet is None:
                    if answers:
                        self._send(answers)
                        answers = []
                    if not self._receive_more(recv_into):
                        return
                    now = clock()
                    continue
                code, start, end = packet
                step = None
                if code not in self._settled:
                    step = step_of(self._state, code)
                    if step.state is State.CLOSED:
                        return
            except RemoteProtocolError as error:
                self._choose_for_refusal(packet, error)
                self._send([*answers, packets.exception(self._dialect, describe(error))])
                raise StreamBrokenError(str(error)) from None
            handle, is_quick = 0, True
            if code == _CALL_FUNC and end - start >= 8:
                handle = _U64.unpack_from(self._buffer, start)[0]
                is_quick = handle in self._quick
            if answers and not (is_quick and now - first <= _HELD_S):
                self._send(answers)
                answers = []
            if not answers:
                first = now
            answer = self._answer(code, start, end, step)
            began, now = now, clock()
            if handle and is_quick is (now - began > _HELD_S):
                self._judge(handle, not is_quick)
            if isinstance(answer, bytes):
                answers.append(answer)
                if len(answers) < _MOST_TOGETHER:
                    continue
            else:
                answers += answer
            self._send(answers)
            answers = []

    def _judge(self, handle: int, is_quick: bool) -> None:
        """Remembers which functions are quick: earlier answers may wait for them, and no others."""
        if not is_quick:
            self._quick.discard(handle)
        elif len(self._quick) < _MOST_QUICK:
            self._quick.add(handle)

    def _receive_more(self, recv_into: Callable[[memoryview], int]) -> bool:
        """Receives until there is more than one whole request, which it answers at once.

        One request that comes alone is the usual case, and stays in here. False: the client has
        closed, between two packets.
        """
        reader, settled, progress = self._reader, self._settled, self._progress
        mark = self._mark
        room, view = reader.room(), reader.view
        progress[0] = 0
        received = recv_into(room)
        while room is view:
            method = settled.get(reader.only_packet(received))
            if method is None:
                break
            progress[0] = 1
            try:
                answer = method(12, received)
            except BaseException as error:
                answer = packets.exception(self._dialect, describe(error))
            if not mark[0]:
                leave()
            if not isinstance(answer, bytes):
                self._send(answer)
            elif len(answer) > _SHORT:
                self._send([answer])
            else:
                progress[0] = 0  # before the send, which it survives whole or not at all
                sent = self._send_once(answer)
                if sent != len(answer):
                    progress[0] = Progress.ANSWERING
                    self._channel.send_rest(answer, sent)
            received = recv_into(view)
        if received:
            reader.received(received)
        elif not reader.is_between_packets:
            raise StreamBrokenError("the client closed within a packet")
        return received > 0

    def _answer(self, code: int, start: int, end: int, step: Optional[Step] = None) -> Answer:
        """Has a request done, and takes the step that goes with it; its answer."""
        self._progress[0] = 1
        incoming = self._incoming
        try:
            if step is not None:
                self._learn_dialect(code, start, end)
                if step.refusal:
                    raise RemoteProtocolError(step.refusal)
            answer = self._methods[code](start, end)
            if not self._mark[0]:
                leave()
            if self._reader.missing:
                raise RemoteProtocolError(
                    f"{code_name(code)} with {self._reader.missing} bytes behind what it holds"
                )
            if step is not None and step.state is not self._state:
                self._enter(step.state)
            return answer
        except BaseException as error:  # whatever a request raises is its answer
            if not self._mark[0]:
                leave()
            if incoming.is_broken:
                raise StreamBrokenError(str(error)) from None
            if isinstance(error, RemoteProtocolError) and error.dialect is not None:
                self._use(error.dialect)  # for this answer; the next request may tell more
            refusal = packets.exception(self._dialect, describe(error))
            if self._reader.missing > MAX_COLLECTED:
                self._send([refusal])
                raise StreamBrokenError("a refused request is too long to be passed over") from None
        try:
            incoming.rest_to(len)
        except OSError as error:
            raise StreamBrokenError(str(error)) from None
        return refusal

    def _enter(self, state: State) -> None:
        self._state = state
        self._settle()
        if self._on_ready is not None:
            self._on_ready()

    def _send(self, answers: Sequence[Any]) -> None:
        """Sends answers; the last buffer may be a file."""
        source = answers[-1]
        if type(source) is bytes and sum(map(len, answers)) <= _SHORT:
            self._progress[0] = Progress.IDLE  # as in _receive_more
            self._channel.send(answers)
            return
        self._progress[0] = Progress.ANSWERING
        if type(source) is ByteSource:
            with source.file:
                self._channel.send(answers[:-1])
                self._channel.send_file_with_end(
                    source.file, source.nbytes, LAST_NBYTES, self._is_cut
                )
        elif len(source) > _LONG:
            self._channel.send_with_end(answers, LAST_NBYTES, self._is_cut)
        else:
            self._channel.send(answers)
        self._progress[0] = Progress.IDLE

    def _is_cut(self, is_cut: bool) -> None:
        self._progress[0] = Progress.ANSWERING_LONG if is_cut else Progress.ANSWERING

    # Requests with a form of their own

    def _init_server(self, start: int, end: int) -> Answer:
        buffer, start, end = self._whole(start, end)
        version, values_at = packets.decode_init_server(buffer, start, end)
        constructor = self._dialect.decode_values(buffer, values_at, end)
        if version != PROTOCOL_VERSION:
            if version < PROTOCOL_VERSION:
                self._use(LEGACY)  # which clients of TVM 0.7 read, too
            raise RemoteProtocolError(
                f"the client speaks version {version.decode('ascii', 'replace')!r} of the "
                f"protocol; this server speaks {PROTOCOL_VERSION.decode()!r}"
            )
        if constructor:
            self._serve_from(self._session.construct(constructor))
        return packets.RETURN_NOTHING

    def _call_func(self, start: int, end: int) -> Answer:
        if self._reader.missing:
            return self._long_call(start, end)
        if end - start < 12:
            raise RemoteProtocolError("a call without a function or without arguments")
        buffer = self._buffer
        result = self._call(
            _U64.unpack_from(buffer, start)[0],
            self._decode_values(buffer, start + 8, end, self._known, self._resolve),
        )
        answer = self._encode_result(result)
        return answer if type(result) is not ByteSource else [answer, result]

    def _copy_from_remote(self, start: int, end: int) -> Answer:
        record, nbytes, _ = packets.decode_copy(self._reader.buffer, start, end, self._records)
        return packets.copy_ack(self._session.content(record, nbytes))

    def _copy_to_remote(self, start: int, end: int) -> Answer:
        reader = self._reader
        record, nbytes, content_at = packets.decode_copy(reader.buffer, start, end, self._records)
        here = end - content_at
        if here + reader.missing != nbytes:
            raise RemoteProtocolError(
                f"a copy of {nbytes} bytes in a packet with {here + reader.missing}"
            )
        target = self._session.memory(record, nbytes)
        if reader.missing:
            self._incoming.fill(target, content_at, end)
        else:
            target[:] = reader.view[content_at:end]
        self._session.written(record, target)
        return self._void

    def _syscall(self, row: Request, start: int, end: int) -> Answer:
        buffer, start, end = self._whole(start, end)
        values = self._decode_values(buffer, start, end, self._records)
        result = getattr(self._session, row.method)(*fitted(row, values))
        return self._void if result is None else self._encode_return(answered(row, result))

    # Packets larger than the reader's buffer

    def _long_call(self, start: int, end: int) -> Answer:
        """A call whose last argument is, as a rule, a file: taken in parts if the function can."""
        reader = self._reader
        handle = packets.decode_call_handle(reader.buffer, start, end)
        try:
            arguments, pending = self._dialect.decode_values_before(
                reader.buffer, start + 8, end, end + reader.missing
            )
        except RemoteProtocolError:
            arguments, pending = [], None  # a long value that is not the last: read it whole
        sink: Optional[Sink] = None
        if pending is not None:
            sink = self._session.open_sink(handle, arguments, pending.nbytes)
        if pending is None or sink is None:
            body, begin, size = self._whole(start + 8, end)
            arguments = self._decode_values(body, begin, size, None, self._session.resolve)
            return self._encode_result(self._session.call(handle, arguments))
        try:
            sink.write(memoryview(reader.buffer)[pending.offset : end])
            self._incoming.rest_to(sink.write)
        except BaseException:
            sink.abort()
            raise
        return self._encode_result(sink.finish())

    def _whole(self, start: int, end: int) -> Tuple[Buffer, int, int]:
        """A body with what is missing of it, and its bounds there."""
        missing = self._reader.missing
        if not missing:
            return self._buffer, start, end
        if end - start + missing > MAX_COLLECTED:
            raise RemoteProtocolError(
                f"a request of {end - start + missing} bytes; at most {MAX_COLLECTED} can be"
            )
        body = self._incoming.body(start, end)
        return body, 0, len(body)

    def _learn_dialect(self, code: int, start: int, end: int) -> None:
        if self._is_dialect_known:
            return
        body = memoryview(self._reader.buffer)[start:end]
        dialect = of_client(code, body, self._reader.missing)
        if dialect is not None:
            self._use(dialect)
            self._progress[1] = dialect is not FFI
            self._is_dialect_known = True
            self._settle()

    def _choose_for_refusal(
        self, packet: Optional[Tuple[int, int, int]], error: RemoteProtocolError
    ) -> None:
        """Finds the dialect in which a client shall be told that it is not understood."""
        if error.dialect is None and packet is not None:
            try:
                self._learn_dialect(*packet)
            except RemoteProtocolError as unreadable:
                error = unreadable
        if error.dialect is not None:
            self._use(error.dialect)

    def _use(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._decode_values = dialect.decode_values
        self._encode_result = dialect.encode_result
        self._encode_return = dialect.encode_return
        self._void = dialect.encode_return(None)
        self._records: Dict[bytes, Any] = {}

    def _settle(self) -> None:
        if self._state is State.READY and self._is_dialect_known:
            self._settled = {code: self._methods[code] for code in REPEATED}


def describe(error: BaseException) -> str:
    """What a client is told of an error: its type, message and notes, as much as is sensible."""
    try:
        text = "\n".join((str(error), *getattr(error, "__notes__", ())))
    except BaseException as problem:  # the type of the error is a user's, too
        text = f"its text cannot be made: {type(problem).__name__}"
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]}... ({len(text) - MAX_TEXT} characters more)"
    if type(error) is RemoteError:  # of a session behind this one, in its own words
        return text
    name = getattr(error, "remote_type", None) or type(error).__name__
    return f"{name}: {text}" if text else name
