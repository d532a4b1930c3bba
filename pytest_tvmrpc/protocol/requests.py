"""Every request of the protocol as one row: what it holds, how it is answered, when it is legal.

Rule: what is known of a request is in this table, for both ends and both dialects. Whoever checks,
reads, answers or dispatches a request looks here. The rows are plain values; what does a request is
named as a method of the serving side's session, which this layer does not know.
"""

from __future__ import annotations

import enum
import itertools
from typing import Any, Dict, FrozenSet, List, NamedTuple, Tuple

from ..data_type import DataType
from ..dlpack import Device, OpaquePointer, TensorRecord
from ..errors import RemoteProtocolError
from .codes import RPCCode


class State(enum.Enum):
    """Where a conversation stands, seen from between two requests."""

    OPENED = "opened"
    READY = "ready"
    CLOSED = "closed"


class Body(enum.Enum):
    """What the body of a request is."""

    EMPTY = "nothing"
    VALUES = "a packed sequence"
    CALL = "a function's handle of 8 bytes, then a packed sequence"
    VERSION = "a length of 8 bytes, a text of so many bytes, then a packed sequence"
    COPY = "a tensor's record, a count of 8 bytes, then the content if it goes to the server"


class Answer(enum.Enum):
    """What a request is answered with, unless by an Exception."""

    NOTHING = "no packet"
    VOID = "Return of a null"
    POINTER = "Return of a pointer"
    ANY = "Return of one value"
    RESULT = "Return of a kind and the value"
    CONTENT = "CopyAck of so many bytes"


class Argument(NamedTuple):
    """One value of a request's packed sequence.

    Attributes:
        name: the parameter of the session's method.
        types: those in which clients of TVM send it, as decoded.
    """

    name: str
    types: Tuple[type, ...]


class Request(NamedTuple):
    """One row.

    Attributes:
        code: of its packet.
        method: which method of a session does it; empty if it takes more than one.
        body: what the packet holds.
        arguments: the values that clients of TVM send, in their order.
        required: how many of them there must be; a null stands for each that is left out.
        answer: what it is answered with.
        more: values that only our client sends, behind the others.
        allocates: whether it may need the memory that a request before it frees.
    """

    code: RPCCode
    method: str
    body: Body
    arguments: Tuple[Argument, ...]
    required: int
    answer: Answer
    more: Tuple[Argument, ...] = ()
    allocates: bool = False


_NAME = Argument("name", (str,))
_DEVICE = Argument("device", (Device,))
_HANDLE = Argument("handle", (OpaquePointer,))
_STREAM = Argument("stream", (OpaquePointer,))

ROWS: Tuple[Request, ...] = (
    Request(RPCCode.SHUTDOWN, "", Body.EMPTY, (), 0, Answer.NOTHING),
    Request(RPCCode.INIT_SERVER, "construct", Body.VERSION, (_NAME,), 0, Answer.VOID),
    Request(RPCCode.CALL_FUNC, "call", Body.CALL, (), 0, Answer.RESULT),
    Request(RPCCode.COPY_FROM_REMOTE, "content", Body.COPY, (), 0, Answer.CONTENT),
    Request(RPCCode.COPY_TO_REMOTE, "", Body.COPY, (), 0, Answer.VOID),
    Request(RPCCode.GET_GLOBAL_FUNC, "get_function", Body.VALUES, (_NAME,), 1, Answer.POINTER),
    Request(RPCCode.FREE_HANDLE, "free", Body.VALUES, (_HANDLE,), 1, Answer.VOID),
    Request(RPCCode.DEV_SET_DEVICE, "set_device", Body.VALUES, (_DEVICE,), 1, Answer.VOID),
    Request(
        RPCCode.DEV_GET_ATTR,
        "get_attr",
        Body.VALUES,
        (_DEVICE, Argument("attribute", (int,))),
        2,
        Answer.ANY,
    ),
    Request(
        RPCCode.DEV_ALLOC_DATA,
        "alloc",
        Body.VALUES,
        (
            _DEVICE,
            Argument("nbytes", (int,)),
            Argument("alignment", (int,)),
            Argument("dtype", (DataType,)),
        ),
        4,
        Answer.POINTER,
        allocates=True,
    ),
    Request(RPCCode.DEV_FREE_DATA, "free_data", Body.VALUES, (_DEVICE, _HANDLE), 2, Answer.VOID),
    Request(RPCCode.DEV_STREAM_SYNC, "sync", Body.VALUES, (_DEVICE, _STREAM), 1, Answer.VOID),
    Request(
        RPCCode.COPY_AMONG_REMOTE,
        "copy_among",
        Body.VALUES,
        (Argument("source", (TensorRecord,)), Argument("target", (TensorRecord,)), _STREAM),
        2,
        Answer.VOID,
    ),
    Request(
        RPCCode.DEV_ALLOC_DATA_WITH_SCOPE,
        "alloc_tensor",
        Body.VALUES,
        (Argument("record", (TensorRecord,)), Argument("scope", (str, type(None)))),
        1,
        Answer.POINTER,
        (Argument("chosen", (OpaquePointer,)),),
        allocates=True,
    ),
    Request(RPCCode.DEV_CREATE_STREAM, "create_stream", Body.VALUES, (_DEVICE,), 1, Answer.POINTER),
    Request(
        RPCCode.DEV_FREE_STREAM, "free_stream", Body.VALUES, (_DEVICE, _STREAM), 2, Answer.VOID
    ),
    Request(RPCCode.DEV_SET_STREAM, "set_stream", Body.VALUES, (_DEVICE, _STREAM), 2, Answer.VOID),
    Request(
        RPCCode.DEV_GET_CURRENT_STREAM, "get_stream", Body.VALUES, (_DEVICE,), 1, Answer.POINTER
    ),
)

REQUESTS: Dict[int, Request] = {row.code: row for row in ROWS}

NAMES: Dict[int, str] = {code: code.name for code in RPCCode}


def code_name(code: int) -> str:
    """The packet's name, or its number when it has none."""
    return NAMES.get(code) or f"of unknown code {code}"


# The order of requests


class Step(NamedTuple):
    """What a request does to a conversation.

    Attributes:
        state: where it leads once it has been done; one that failed leads nowhere.
        refusal: why it is never done here, although the conversation goes on; or empty.
    """

    state: State
    refusal: str = ""


_ONCE = "the session is open already; InitServer comes once"

STEPS: Dict[State, Dict[int, Step]] = {
    State.OPENED: {
        RPCCode.INIT_SERVER: Step(State.READY),
        RPCCode.SHUTDOWN: Step(State.CLOSED),
    },
    State.READY: {
        **dict.fromkeys(REQUESTS, Step(State.READY)),
        RPCCode.INIT_SERVER: Step(State.READY, _ONCE),
        RPCCode.SHUTDOWN: Step(State.CLOSED),
    },
    State.CLOSED: {},
}
"""Which request is legal in which state; any other ends the conversation."""

REPEATED = frozenset(code for code, step in STEPS[State.READY].items() if step == (State.READY, ""))
"""The requests that may come at any time once the session is open, and leave it so."""


def step_of(state: State, code: int) -> Step:
    """What a request of the peer does in this state.

    Raises:
        RemoteProtocolError: the request is not legal now; the message says what would be.
    """
    step = STEPS[state].get(code)
    if step is None:
        raise RemoteProtocolError(illegal(state, code))
    return step


def illegal(state: State, code: int) -> str:
    """Says that a packet must not come in this state, and which may."""
    legal = ", ".join(NAMES[known] for known in sorted(STEPS[state]))
    return f"packet {code_name(code)} in a session that is {state.value}; legal now: {legal}"


# Values


_USUAL: Dict[int, FrozenSet[Tuple[type, ...]]] = {
    row.code: frozenset(itertools.product(*(argument.types for argument in row.arguments)))
    for row in ROWS
    if not row.more
}
"""The types of the values of a request as it usually is."""


def fitted(row: Request, values: List[Any]) -> List[Any]:
    """The arguments of the session's method for a request of these values.

    Surplus values are ignored, and a null pointer is 0. An integer may stand for a pointer.

    Raises:
        RemoteProtocolError: there are fewer values than the request needs, or one is of a type that
            it cannot be.
    """
    if tuple(map(type, values)) in _USUAL.get(row.code, ()):
        return values
    if len(values) < row.required:
        raise RemoteProtocolError(
            f"{NAMES[row.code]} with {len(values)} values, which it does not take; "
            f"{row.required} are needed"
        )
    arguments = []
    for place, argument in enumerate(row.arguments + row.more):
        value = values[place] if place < len(values) else None
        if OpaquePointer in argument.types:
            value = 0 if value is None else value
            is_fit = isinstance(value, int)
        else:
            is_missing = value is None and place >= row.required
            is_fit = is_missing or isinstance(value, argument.types)
        if not is_fit:
            expected = " or ".join(kind.__name__ for kind in argument.types)
            raise RemoteProtocolError(
                f"{NAMES[row.code]} with {repr(value)[:80]} as {argument.name}; expected {expected}"
            )
        arguments.append(value)
    return arguments


def answered(row: Request, result: Any) -> Any:
    """The value of the answer to a request, for what the session's method returned."""
    return OpaquePointer(result) if row.answer is Answer.POINTER else result


def is_answer(row: Request, value: Any) -> bool:
    """Whether a value may answer a request of values."""
    return value is None or isinstance(value, int) or row.answer is Answer.ANY


ANSWERED_BY: Dict[Answer, int] = {
    answer: int(RPCCode.COPY_ACK if answer is Answer.CONTENT else RPCCode.RETURN)
    for answer in Answer
    if answer is not Answer.NOTHING
}
"""The packet that holds each kind of answer."""
