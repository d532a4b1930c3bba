"""The order of packets: the table, as a table."""

from __future__ import annotations

import pytest

from pytest_tvmrpc.errors import RemoteProtocolError
from pytest_tvmrpc.protocol.codes import RPCCode
from pytest_tvmrpc.protocol.state import ANSWERS, TRANSITIONS, State, after, code_name

OPENED, READY, CLOSED = State.OPENED, State.READY, State.CLOSED

REQUESTS = {
    RPCCode.SHUTDOWN: (CLOSED, CLOSED),
    RPCCode.INIT_SERVER: (READY, READY),  # a second one is answered with an error, not the end
    RPCCode.CALL_FUNC: (None, READY),
    RPCCode.COPY_FROM_REMOTE: (None, READY),
    RPCCode.COPY_TO_REMOTE: (None, READY),
    RPCCode.GET_GLOBAL_FUNC: (None, READY),
    RPCCode.FREE_HANDLE: (None, READY),
    RPCCode.DEV_SET_DEVICE: (None, READY),
    RPCCode.DEV_GET_ATTR: (None, READY),
    RPCCode.DEV_ALLOC_DATA: (None, READY),
    RPCCode.DEV_FREE_DATA: (None, READY),
    RPCCode.DEV_STREAM_SYNC: (None, READY),
    RPCCode.COPY_AMONG_REMOTE: (None, READY),
    RPCCode.DEV_ALLOC_DATA_WITH_SCOPE: (None, READY),
    RPCCode.DEV_CREATE_STREAM: (None, READY),
    RPCCode.DEV_FREE_STREAM: (None, READY),
    RPCCode.DEV_SET_STREAM: (None, READY),
    RPCCode.DEV_GET_CURRENT_STREAM: (None, READY),
}
"""For each request, where it leads from OPENED and from READY; None where it is not legal."""

NO_REQUESTS = [RPCCode.NONE, RPCCode.RETURN, RPCCode.EXCEPTION, RPCCode.COPY_ACK]


def test_every_code_has_its_place() -> None:
    """A code is a request or is none; the tables above and TVM's list agree."""
    assert {*REQUESTS, *NO_REQUESTS} == set(RPCCode)
    assert [int(code) for code in RPCCode] == list(range(22))


@pytest.mark.parametrize("code", list(RPCCode), ids=lambda code: code.name)
def test_requests_lead_where_the_table_says(code: RPCCode) -> None:
    """Each request in each state: the next state, or an error that names what would be legal."""
    opened, ready = REQUESTS.get(code, (None, None))
    for state, following in [(OPENED, opened), (READY, ready), (CLOSED, None)]:
        if following is not None:
            assert after(state, code) is following
            assert after(state, int(code)) is following
            continue
        with pytest.raises(RemoteProtocolError) as caught:
            after(state, code)
        assert code.name in str(caught.value)
        assert state.value in str(caught.value)
        for legal in TRANSITIONS[state]:
            assert RPCCode(legal).name in str(caught.value)


@pytest.mark.parametrize("code", [-1, 22, 23, 115, -(2**31), 2**31 - 1])
@pytest.mark.parametrize("state", list(State), ids=lambda state: state.value)
def test_unknown_codes_are_legal_nowhere(state: State, code: int) -> None:
    """A code that is not in the list breaks the protocol in every state; its number is named."""
    with pytest.raises(RemoteProtocolError, match=f"unknown code {code}"):
        after(state, code)
    assert code_name(code) == f"of unknown code {code}"


def test_answers() -> None:
    """All requests but Shutdown have an answer; that of a copy to the client is CopyAck."""
    returns = {RPCCode.RETURN, RPCCode.EXCEPTION}
    expected = {code: returns for code in REQUESTS if code is not RPCCode.SHUTDOWN}
    expected[RPCCode.COPY_FROM_REMOTE] = {RPCCode.COPY_ACK, RPCCode.EXCEPTION}
    assert expected == ANSWERS
