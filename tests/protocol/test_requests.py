"""The table of requests: order, values and answers of each."""

from __future__ import annotations

import inspect

import pytest

from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import Device, OpaquePointer, TensorRecord
from pytest_tvmrpc.errors import RemoteProtocolError
from pytest_tvmrpc.protocol.codes import RPCCode
from pytest_tvmrpc.protocol.requests import (
    ANSWERED_BY,
    NAMES,
    REPEATED,
    REQUESTS,
    ROWS,
    STEPS,
    Answer,
    Body,
    Request,
    State,
    answered,
    code_name,
    fitted,
    is_answer,
    step_of,
)
from pytest_tvmrpc.session.interface import Session

OPENED, READY, CLOSED = State.OPENED, State.READY, State.CLOSED

REQUESTS_LEAD = {
    RPCCode.SHUTDOWN: (CLOSED, CLOSED),
    RPCCode.INIT_SERVER: (READY, READY),  # a second one is refused, and the session goes on
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
    assert {*REQUESTS_LEAD, *NO_REQUESTS} == set(RPCCode)
    assert [int(code) for code in RPCCode] == list(range(22))


BY_NAME = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.code.name)


def test_the_rows_are_those_requests() -> None:
    """Each request has one row, and nothing else has."""
    assert [row.code for row in ROWS] == list(REQUESTS)
    assert set(REQUESTS) == {*STEPS[READY]} == {code for code in RPCCode if code not in NO_REQUESTS}


@pytest.mark.parametrize("code", list(RPCCode), ids=lambda code: code.name)
def test_requests_lead_where_the_table_says(code: RPCCode) -> None:
    """Each request in each state: the next state, or an error that names what would be legal."""
    opened, ready = REQUESTS_LEAD.get(code, (None, None))
    for state, following in [(OPENED, opened), (READY, ready), (CLOSED, None)]:
        if following is not None:
            assert step_of(state, code).state is following
            assert step_of(state, int(code)).state is following
            continue
        with pytest.raises(RemoteProtocolError) as caught:
            step_of(state, code)
        assert code.name in str(caught.value)
        assert state.value in str(caught.value)
        for legal in STEPS[state]:
            assert NAMES[legal] in str(caught.value)


def test_one_request_is_refused_and_does_no_harm() -> None:
    """A second InitServer; all that may be repeated leaves a session as it is."""
    refused = [
        (state, code) for state, steps in STEPS.items() for code in steps if steps[code].refusal
    ]
    assert refused == [(READY, RPCCode.INIT_SERVER)]
    assert {*REQUESTS} - REPEATED == {RPCCode.INIT_SERVER, RPCCode.SHUTDOWN}
    assert {step_of(READY, code).state for code in REPEATED} == {READY}


@pytest.mark.parametrize("code", [-1, 22, 23, 115, -(2**31), 2**31 - 1])
@pytest.mark.parametrize("state", list(State), ids=lambda state: state.value)
def test_unknown_codes_are_legal_nowhere(state: State, code: int) -> None:
    """A code that is not in the list breaks the protocol in every state; its number is named."""
    with pytest.raises(RemoteProtocolError, match=f"unknown code {code}"):
        step_of(state, code)
    assert code_name(code) == f"of unknown code {code}"


@BY_NAME
def test_the_methods_are_those_of_a_session(row: Request) -> None:
    """What a row names is a method that takes the row's arguments, by their names."""
    if row.body is not Body.VALUES:
        assert not row.method or hasattr(Session, row.method)
        return
    names = [*inspect.signature(getattr(Session, row.method)).parameters][1:]
    of_row = [argument.name for argument in row.arguments + row.more]
    assert [name for name in names] == of_row
    assert row.required <= len(row.arguments)


@BY_NAME
def test_answers(row: Request) -> None:
    """All requests but Shutdown have an answer; that of a copy to the client is CopyAck."""
    if row.code is RPCCode.SHUTDOWN:
        assert row.answer is Answer.NOTHING
        assert row.answer not in ANSWERED_BY
    elif row.code is RPCCode.COPY_FROM_REMOTE:
        assert ANSWERED_BY[row.answer] == RPCCode.COPY_ACK
    else:
        assert ANSWERED_BY[row.answer] == RPCCode.RETURN


SAMPLES = {
    str: "a name",
    int: 3,
    OpaquePointer: OpaquePointer(5),
    Device: Device(1, 0),
    DataType: DataType("int8"),
    TensorRecord: TensorRecord(0, Device(1, 0), (2,), DataType("int8")),
}


@BY_NAME
def test_values_are_fitted(row: Request) -> None:
    """Too few are refused with the number; what is left out is null, what is too much goes."""
    arguments = row.arguments + row.more
    samples = [SAMPLES[argument.types[0]] for argument in arguments] + [1, 2]
    for given in range(len(samples) + 1):
        if given < row.required:
            with pytest.raises(RemoteProtocolError, match=f"{row.code.name} with {given} values"):
                fitted(row, samples[:given])
        else:
            values = fitted(row, samples[:given])
            assert len(values) == len(arguments)
            assert values[:given] == samples[: min(given, len(arguments))]
            assert not any(values[given:])


@BY_NAME
def test_null_pointers_are_zero(row: Request) -> None:
    """Wherever a pointer is expected, and nowhere else; an integer may stand for one."""
    for place, argument in enumerate(row.arguments + row.more):
        samples = [SAMPLES[each.types[0]] for each in row.arguments + row.more]
        if argument.types == (OpaquePointer,):
            samples[place] = None
            assert fitted(row, samples)[place] == 0
            samples[place] = 7
            assert fitted(row, samples)[place] == 7


def test_which_values_are_answers() -> None:
    """A number or nothing; an attribute of a device may be anything. Pointers are made of ints."""
    assert is_answer(REQUESTS[RPCCode.DEV_GET_ATTR], "a name")
    alloc = REQUESTS[RPCCode.DEV_ALLOC_DATA]
    assert not is_answer(alloc, "a name")
    assert is_answer(alloc, OpaquePointer(3))
    assert is_answer(alloc, None)
    assert type(answered(alloc, 3)) is OpaquePointer
    assert type(answered(REQUESTS[RPCCode.DEV_GET_ATTR], 3)) is int
