"""A conversation with a serving end: what is sent, owed, received, and the end. Asks for nothing.

It carries packets; what is in them, `endpoint` knows. Every request is answered in order, so what
is owed is a queue. After an error in the middle of a conversation nobody knows which answer comes
next: the connection is closed, and every later request says why. The hot path, a short request
with a short answer and nothing else going on, is flat.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
import weakref
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from .. import network
from ..errors import (
    ConnectionLostError,
    LocalProtocolError,
    ProtocolError,
    RemoteError,
    RemoteProtocolError,
    RPCError,
    RPCSessionTimeoutError,
    remote_error,
)
from ..owners import not_copied
from ..protocol.codes import RPCCode
from ..protocol.dialect import of_server
from ..protocol.packets import SHUTDOWN
from ..protocol.requests import STEPS, State, code_name, illegal
from .channel import Meter
from .ending import (
    CLOSED_THERE,
    CODE_AT,
    EXITING,
    LOSSES,
    of_connection,
    refuse,
    refuse_early,
    said_at_the_end,
)
from .incoming import Incoming
from .later import COPYING, ENDS, MOST, Later, Owed, Owing, Pending, goes_behind
from .turn import Turn

if TYPE_CHECKING:
    from .channel import SocketChannel

Buffer = Union[bytes, bytearray, memoryview]

RETURN = int(RPCCode.RETURN)

_GOODBYE_S = 2.0
"""How long the last answers of a server of TVM are waited for."""

_LAST_WORDS_S = 2.0
"""How long what a server said before it closed is waited for; as a rule, it is here already."""

_UNSENT = 16 * 1024
"""Bytes of a pipeline's calls that go out together."""

clock = time.perf_counter


@not_copied("open a session there, and get it from that")
class Conversation:
    """One session's connection: sending, what is owed, receiving, and the end.

    Threads may share it: who asks has the turn until the answer has been read. A fork of the
    process has a copy that is over: the answers are the parent's.

    Args:
        channel: to a server that has agreed in the handshake.

    Attributes:
        incoming: the packets that come; bounds of a body are offsets into its reader's buffer.
        later: what goes out with the next request.
        is_ours: whether the server is one of this package.
        turn: which thread asks; to be held from a request to the end of its answer.
        state: which requests are legal.
        closed_because: None while the session is open, then why it is not.
        is_lost: whether it ended by neither this side nor a limit.
    """

    def __init__(self, channel: SocketChannel) -> None:
        self.channel = channel
        self.incoming = Incoming(channel)
        self.meter = Meter()
        self.turn = Turn()
        self.later = Later()
        self.is_ours = False
        self.state = State.OPENED
        self.closed_because: Optional[str] = None
        self.is_lost = False
        self._reader = self.incoming.reader
        self._recv_into = channel.recv_into
        self._send_once: Callable[[Buffer], int] = refuse_early
        self._is_leaving = False
        # Weak, as its traceback holds the session, which would never be given up.
        self._harmless: Callable[[], Optional[Exception]] = lambda: None
        self._waiting = self.later.queue
        self._owing = Owing()
        self._owed = self._owing.queue
        self._unsent = bytearray()  # of a pipeline

        network.forget_in_forks(self)

    def forget(self) -> None:
        """This process is a fork: the session is the parent's, which goes on with it."""
        self.turn.renew()
        if self.closed_because is None:
            self.channel.connection.close()  # this process's copy of it; nothing is said
            self.end(
                f"it belongs to process {os.getppid()}, of which this one is a fork; "
                "open a session here"
            )

    def done(self, code: int) -> None:
        """A request was answered; those that change the state are told here."""
        self.state = STEPS[self.state][code].state
        self._send_once = self.channel.send_once

    # The steps of a request

    def ask(
        self,
        packet: Union[bytes, Sequence[Buffer]],
        doing: str,
        expected: int = RETURN,
        is_alloc: bool = False,
    ) -> Tuple[int, int]:
        """Sends a request; returns where the body of its answer lies in the reader's buffer.

        Args:
            packet: of one buffer, if it is short.
            doing: names it in messages.
            expected: the code of its answer.
            is_alloc: whether it may need memory that is freed with it.

        Raises:
            RemoteError: the server answered with an error; the session stays usable.
            LocalProtocolError: the request is not legal now; nothing was sent.
        """
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
            return self.expect(expected, doing)
        except BaseException as error:
            failure = self.failed(error, doing)
            if failure is error:
                raise
            raise failure from error.__cause__
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
        behind = self._send_in_order(packet, doing, is_alloc)
        try:
            bounds = self.expect(expected, doing)
        finally:
            if self.closed_because is None:
                self._owed += behind
        self._raise_late()
        return bounds

    def ask_together(
        self,
        packet: bytes,
        doing: str,
        readers: Sequence[Callable[[int, int], Any]],
        is_alloc: bool,
    ) -> List[Any]:
        """Sends several requests in one go; what the readers made of the bounds of each answer.

        Raises:
            RemoteError: the server answered one of them with an error; all answers were taken.
        """
        __tracebackhide__ = True
        with self.turn.of(doing), self.guarded(doing):
            behind = self._send_in_order(packet, doing, is_alloc)
            answers = []
            for read in readers:
                try:
                    answers.append(read(*self.expect(RETURN, doing)))
                except RPCSessionTimeoutError:  # which ended the session: nothing comes after it
                    raise
                except RemoteError as error:  # the answers to the others have to be taken, too
                    if error is not self._harmless():
                        raise
                    self._owing.keep(error)
            self._owed += behind
            self.meter.calls += 1
            self._raise_late()
            return answers

    def post(self, packet: Sequence[Buffer], doing: str) -> None:
        """Sends a copy, whose void answer is taken with a later one's."""
        with self.turn.of(doing), self.guarded(doing):
            if len(self._owed) >= MOST:
                self._send_unsent()
                self._settle(doing)
            started = clock()
            behind = self._send(packet, False)
            self._owed.append(COPYING)
            self._owed += behind
            self.meter.call_s += clock() - started

    def start(self, packet: bytes, pending: Pending) -> None:
        """Sends a call with others, soon; its answer comes when it is finished.

        Raises:
            ConnectionLostError: the session is over.
        """
        with self.turn.of(pending.name):
            self._check_step(packet)
            try:
                while self._waiting:  # what was asked for before, and may be a copy
                    waiting, owed = self.later.take()
                    self._unsent += b"".join(waiting)
                    self._owed += owed
                self._unsent += packet
                self._owing.add(pending)
                self.meter.calls += 1
                if self._owing.pipelined == 1 or len(self._unsent) >= _UNSENT:
                    self._work_off(pending.name)
            except BaseException as error:
                self.end(f"it was interrupted in {pending.name} ({error!r})")
                raise

    def finish(self, pending: Optional[Pending] = None) -> None:
        """Takes the answers up to that of one call, or all; errors are kept with their calls.

        Raises:
            ConnectionLostError: the session ended; the calls know it, too.
        """
        with self.turn.of("a pipeline"):
            if pending is not None and pending.is_done:
                return
            if self.closed_because is None and (self._owing.pipelined or self._owing.late):
                self._work_off("a pipeline", pending, is_last=True)

    def _work_off(
        self, doing: str, until: Optional[Pending] = None, *, is_last: bool = False
    ) -> None:
        started = clock()
        try:
            with self.guarded(doing):
                self._send_unsent()
                if is_last:
                    self._settle(doing, until)
                    self._raise_late()
        finally:
            self.meter.call_s += clock() - started

    def close(self, because: str) -> None:
        """Says Shutdown and ends the session. May be called twice.

        A call that another thread waits for ends, too, and so does one that this thread is within.
        But at the end of the interpreter, daemon threads are not to be told of it: a server of ours
        then just sees the connection close, and one of TVM's has a moment to answer.
        """
        self._is_leaving = True
        if self.turn.is_mine():
            self.channel.interrupt()
            self.end(because)
            return
        if not threading.main_thread().is_alive():
            because = EXITING
            if not self.turn.lock.acquire(timeout=0 if self.is_ours else _GOODBYE_S):
                return
        elif not self.turn.lock.acquire(blocking=False):
            self.channel.interrupt()
            if not self.turn.lock.acquire(timeout=_GOODBYE_S):
                return
        try:
            if self.closed_because is None:
                try:
                    if not self.is_ours:
                        self._take_leave()
                    self.channel.send([SHUTDOWN])
                except (OSError, RPCError) as error:  # gone already: what Shutdown asks for
                    if network.is_interrupt(error):
                        raise
                finally:
                    self.end(because)
        finally:
            self.turn.lock.release()

    def _take_leave(self) -> None:
        """Takes what is owed, since TVM's server does not survive an answer that nobody takes."""
        self.channel.limit(_GOODBYE_S, "")
        if self._owed:
            self._send_unsent()
            self._settle("closing")
        while self.later.has_copies:
            self._send_batch("closing")

    def _send_in_order(
        self, packet: Union[bytes, Sequence[Buffer]], doing: str, is_alloc: bool
    ) -> List[Owed]:
        """Sends a request and takes all answers before its own; what is owed behind that."""
        __tracebackhide__ = True
        while is_alloc and len(self.later) > MOST:  # it may need the memory of any of them
            self._send_batch(doing)
        behind = self._send(packet, is_alloc)
        self._settle(doing)
        return behind

    def _send(self, packet: Union[bytes, Sequence[Buffer]], is_alloc: bool) -> List[Owed]:
        """Sends this request and some of what waits in one go; what is owed behind its answer."""
        buffers: List[Buffer] = [packet] if isinstance(packet, bytes) else list(packet)
        self._check_step(buffers[0])
        if self._owing.pipelined or len(self._owed) > MOST:
            # Neither side may block on a send to the other, so these answers come first.
            self._send_unsent()
            self._settle("earlier requests")
        waiting, owed = self.later.take()
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
        waiting, owed = self.later.take()
        self._owed += owed
        self.meter.bytes_sent += self.channel.send(waiting)
        self._settle(doing)

    def _check_step(self, packet: Buffer) -> None:
        """Lets nothing be said that is not legal now, or could be taken for something else.

        Raises:
            ConnectionLostError: the session is over, or an interrupt tore an answer apart.
            LocalProtocolError: this request is not legal now.
        """
        if self._reader.missing and self.closed_because is None:
            self.end("an answer was not taken to its end")
        if self.closed_because is not None:
            refuse(self.channel.peer, self.closed_because)
        step = STEPS[self.state].get(packet[CODE_AT])
        if step is None or step.refusal:
            refused = LocalProtocolError(
                step.refusal if step else illegal(self.state, packet[CODE_AT])
            )
            self._harmless = weakref.ref(refused)
            raise refused

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
                owed.value = owed.read(*self.expect(RETURN, owed.name))
                owed.is_done = True
            else:
                self.expect(RETURN, doing)
        except RPCSessionTimeoutError:  # which ended the session: nothing comes after it
            raise
        except RemoteError as error:
            if error is not self._harmless():
                raise
            if isinstance(owed, Pending):
                owed.fail(error)
            elif owed.matters:
                self._owing.keep(error)
        if self.closed_because is None:
            self._owing.settled()

    def _raise_late(self) -> None:
        __tracebackhide__ = True
        late, self._owing.late = self._owing.late, None
        if late is not None:
            self.rest_to(len)
            self._harmless = weakref.ref(late)
            raise late

    def _send_unsent(self) -> None:
        """Sends a pipeline's calls, and takes the answers that come meanwhile.

        A server that nobody takes answers from stops reading, and then our send would never end.
        """
        channel, reader = self.channel, self._reader
        rest = memoryview(bytes(self._unsent))
        self._unsent.clear()
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

    def expect(self, expected: int, doing: str) -> Tuple[int, int]:
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
            body = self.body(start, end)
            # in the server's words, which in answer to InitServer may not be ours yet
            text = of_server(body).decode_values(body, 0, len(body))
            if len(text) != 1:
                raise self.broken_rule(f"an exception of {len(text)} values answers {doing}")
            raised = remote_error(str(text[0]))
            if isinstance(raised, RPCSessionTimeoutError):
                self.end(str(raised), raised)
            self._harmless = weakref.ref(raised)
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

    def body(self, start: int, end: int) -> Buffer:
        """A body with what is missing of it; takes memory only for what has arrived."""
        self.meter.bytes_received += self._reader.missing
        return self.incoming.body(start, end)

    def fill(self, target: memoryview, start: int, end: int) -> None:
        """Fills the target with a body, or the end of one, and what is missing of it."""
        self.meter.bytes_received += self._reader.missing
        self.incoming.fill(target, start, end)

    def rest_to(self, take: Callable[[memoryview], object]) -> None:
        """Receives what is missing of a body in parts."""
        self.meter.bytes_received += self._reader.missing
        self.incoming.rest_to(take)

    # Errors

    @contextlib.contextmanager
    def guarded(self, doing: str) -> Iterator[None]:
        """The error handling of `ask`, for what has more steps than a request and its answer."""
        try:
            yield
        except BaseException as error:
            failure = self.failed(error, doing)
            if failure is error:
                raise
            raise failure from error.__cause__

    def failed(self, error: BaseException, doing: str) -> BaseException:
        """What to raise for an error that came within a request: it, or what it means.

        The session ends with it, unless it was the answer. An error of the same type may be a
        signal handler's; then the answer is still to come, and the error is raised as it is.
        """
        cause = of_connection(error)
        if cause is None:
            if error is not self._harmless() and self.state is not State.OPENED:
                is_broken = isinstance(error, ProtocolError)
                why = str(error) if is_broken else f"it was interrupted in {doing} ({error!r})"
                self.end(why, error)
            return error
        failure = self.channel.lost(cause, doing)
        try:
            if isinstance(cause, ConnectionLostError):
                failure = said_at_the_end(self.incoming.last_bytes) or failure
            elif cause.errno in CLOSED_THERE:
                failure = self._last_words(doing) or failure
        finally:
            self.end(str(failure), failure)
        return failure

    def _last_words(self, doing: str) -> Optional[Exception]:
        """What a server that closed said of the session's end; a send fails before it is read.

        It stands behind the answers that are owed, and nowhere else.
        """
        try:
            self.channel.limit(_LAST_WORDS_S, "")
            for _ in range(len(self._owed) + 1):
                try:
                    self.expect(RETURN, doing)
                except ENDS as error:
                    return error
                except RemoteError:
                    continue  # of a request that was answered before
        except (ProtocolError, OSError) as error:
            if network.is_interrupt(error):
                raise
        return None

    def broken_rule(self, message: str) -> RemoteProtocolError:
        """The error to raise for an answer that is none, which ends the session."""
        error = RemoteProtocolError(f"{self.channel.peer} broke the protocol: {message}")
        self.end(message, error)
        return error

    def end(self, because: str, error: Optional[BaseException] = None) -> None:
        """Ends the session, and all that is owed in it. May be called twice.

        Args:
            error: what ended it, if this side would have gone on.
        """
        if self.closed_because is None:
            self.closed_because = because
            self.state = State.CLOSED
            self.is_lost = isinstance(error, LOSSES) and not self._is_leaving
            # No method of ours: that would be a cycle, and the buffer garbage until it is found.
            self._send_once = functools.partial(refuse, self.channel.peer, because)
        self.later.clear()
        self._unsent.clear()
        self._owing.end(self.channel.peer, because, error)
        self.channel.close()
