"""Who may say what, and when: one table for both ends of a conversation.

Rule: everything about the order of packets is in this file. It does not know which end it serves.
"""

from __future__ import annotations

import enum
from typing import Dict, FrozenSet

from ..errors import RemoteProtocolError
from .codes import RPCCode


class State(enum.Enum):
    """Where a conversation stands, seen from between two requests."""

    OPENED = "opened"
    READY = "ready"
    CLOSED = "closed"


_IN_READY: Dict[int, State] = {
    code: State.READY
    for code in RPCCode
    if code not in (RPCCode.NONE, RPCCode.RETURN, RPCCode.EXCEPTION, RPCCode.COPY_ACK)
}

TRANSITIONS: Dict[State, Dict[int, State]] = {
    State.OPENED: {RPCCode.INIT_SERVER: State.READY, RPCCode.SHUTDOWN: State.CLOSED},
    State.READY: {**_IN_READY, RPCCode.SHUTDOWN: State.CLOSED},
    State.CLOSED: {},
}
"""Which request is legal in which state, and the state it leads to."""

_RETURNS: FrozenSet[int] = frozenset((RPCCode.RETURN, RPCCode.EXCEPTION))

ANSWERS: Dict[int, FrozenSet[int]] = {
    code: _RETURNS for code in _IN_READY if code is not RPCCode.SHUTDOWN
}
"""Which packets may answer a request; Shutdown has no answer."""
ANSWERS[RPCCode.COPY_FROM_REMOTE] = frozenset((RPCCode.COPY_ACK, RPCCode.EXCEPTION))


def after(state: State, code: int) -> State:
    """The state that a request of the peer leads to.

    Raises:
        RemoteProtocolError: the request is not legal now; the message says what would be.
    """
    following = TRANSITIONS[state].get(code)
    if following is None:
        legal = ", ".join(RPCCode(known).name for known in sorted(TRANSITIONS[state]))
        raise RemoteProtocolError(
            f"packet {code_name(code)} in a session that is {state.value}; legal now: {legal}"
        )
    return following


NAMES: Dict[int, str] = {code: code.name for code in RPCCode}


def code_name(code: int) -> str:
    """The packet's name, or its number when it has none."""
    return NAMES.get(code) or f"of unknown code {code}"
