"""Which key is asked for first, and whether there are other devices: decisions on a summary."""

from __future__ import annotations

from typing import Any, Collection, Dict, List, Tuple

import pytest

from pytest_tvmrpc.errors import DeadlineError
from pytest_tvmrpc.running.search import most_likely, others
from pytest_tvmrpc.running.stack import LONGEST_USER, OPTIONS, _shortened, name_option
from pytest_tvmrpc.settings import SETTINGS

Queues = Dict[str, Tuple[int, int, int]]


def summary(queues: Queues) -> Dict[str, Any]:
    """What a tracker says that has these servers, of which so many are free, and so many waits."""
    servers: List[Dict[str, Any]] = []
    for key, (count, _, _) in queues.items():
        servers += [
            {"key": f"server:{key}", "addr": ("127.0.0.1", 9091 + len(servers) + number)}
            for number in range(count)
        ]
    info = {key: {"free": free, "pending": waits} for key, (_, free, waits) in queues.items()}
    return {"server_info": servers, "queue_info": info}


@pytest.mark.parametrize(
    ("queues", "expected"),
    [
        # key: servers, free ones, waits
        ({"a": (1, 1, 0), "b": (1, 0, 0)}, "a"),
        ({"a": (1, 0, 0), "b": (1, 1, 0)}, "b"),
        ({"a": (2, 1, 0), "b": (2, 2, 0)}, "b"),
        ({"a": (1, 1, 0), "b": (1, 1, 0)}, "a"),  # the first one asked for
        ({"a": (1, 0, 1), "b": (1, 0, 0)}, "b"),
        ({"a": (1, 0, 2), "b": (4, 0, 4)}, "b"),  # 5 waits for 4 are less than 3 for 1
        ({"a": (2, 0, 1), "b": (1, 0, 0)}, "a"),
        ({"b": (1, 0, 9)}, "b"),  # nobody serves the other one
        ({"a": (0, 0, 0), "b": (1, 0, 9)}, "b"),
        ({"a": (0, 0, 3), "b": (0, 0, 0)}, "b"),
        ({}, "a"),
        ({"c": (3, 3, 0)}, "a"),
    ],
)
def test_the_most_likely_key(queues: Queues, expected: str) -> None:
    """That of most free devices, else of the shortest queue for each device."""
    assert most_likely(summary(queues), ("a", "b")) == expected


def test_a_key_behind_a_proxy_is_served() -> None:
    """Its server is in the list under the proxy's name."""
    state = summary({"a": (0, 0, 0)})
    state["server_info"].append({"key": "server:proxy[b,c]", "addr": ("127.0.0.1", 9290)})
    assert most_likely(state, ("a", "b")) == "b"


def test_a_server_that_did_not_introduce_itself() -> None:
    """It is free, so it is there."""
    state = {"server_info": [], "queue_info": {"b": {"free": 1, "pending": 0}}}
    assert most_likely(state, ("a", "b")) == "b"


ADDRESSES = [
    {"key": "server:a", "addr": ["10.0.0.1", 9091]},
    {"key": "server:a", "addr": ["10.0.0.2", 9091]},
    {"key": "server:b", "addr": ["10.0.0.3", 9091]},
    {"key": "server:a", "addr": ["::1", 9092]},
    {"key": "server:a", "addr": [None, "unknown"]},  # a server that told no address
    {"key": "server:proxy[a]", "addr": ["10.0.0.9", 9290]},
]
ONE, TWO, SIX = "a@10.0.0.1:9091", "a@10.0.0.2:9091", "a@[::1]:9092"


@pytest.mark.parametrize(
    ("refused", "disliked", "expected"),
    [
        ((), (), [ONE, TWO, SIX]),
        ((ONE,), (), [TWO, SIX]),
        ((ONE, SIX), (), [TWO]),
        ((ONE,), (TWO,), [SIX]),
        ((ONE,), (TWO, SIX), []),
        ((ONE, TWO, SIX), (), []),
    ],
)
def test_other_devices(
    refused: Collection[str], disliked: Collection[str], expected: List[str]
) -> None:
    """Those of the key that were not refused, and that the test would take."""

    def accepts(key: str, device: str) -> bool:
        assert key == "a"
        return device not in disliked

    state = {"server_info": ADDRESSES}
    assert others(state, "a", set(refused), accepts) == expected


@pytest.mark.parametrize(("argument", "option"), OPTIONS.items())
def test_a_limit_is_named_by_its_option(argument: str, option: str) -> None:
    """Once, however often the error passes by; and there is such an option."""
    assert option in [setting.flag for setting in SETTINGS]
    error = DeadlineError("it took too long")
    error.argument = argument
    outer = ValueError("no device")
    outer.__cause__ = error
    for raised in (error, outer):
        text = str(raised)
        name_option(raised)
        name_option(raised)
        assert str(raised) == f"{text} (option: {option})"


def test_a_limit_that_no_option_sets_is_left_alone() -> None:
    """What the test itself waited for is its own affair."""
    error = DeadlineError("it took too long")
    error.argument = "timeout"
    name_option(error)
    name_option(ValueError())
    assert str(error) == "it took too long"


def test_a_long_node_id() -> None:
    """Others are told of its beginning; a tracker takes only so much."""
    assert _shortened("me@here test_it") == "me@here test_it"
    short = _shortened("me@here " + "x" * 100_000)
    assert len(short) == LONGEST_USER
    assert short.startswith("me@here xxx")
    assert short.endswith("x...")
