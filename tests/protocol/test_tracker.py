"""The control plane's messages: what is written is TVM's, what is read is checked."""

from __future__ import annotations

import json
from typing import Any, List

import pytest

from pytest_tvmrpc.errors import LocalProtocolError, RemoteProtocolError
from pytest_tvmrpc.protocol import tracker as wire
from pytest_tvmrpc.protocol.json_frames import MAX_FRAME

RECORDED = {
    "update_info": '33000000 [5, {"key": "server:board", "addr": [null, 19100]}]',
    "put": '37000000 [3, "board", [19100, "board:0.7956352009146216"], null]',
    "get_pending_matchkeys": "03000000 [7]",
    "pending": '1c000000 ["board:0.7956352009146216"]',
    "summary": "03000000 [6]",
    "summary_reply": '81000000 [0, {"queue_info": {"board": {"free": 1, "pending": 0}}, '
    '"server_info": [{"key": "server:board", "addr": ["127.0.0.1", 19100]}]}]',
    "success": "01000000 0",
}
"""Frames between TVM 0.27's own peers: the length in hexadecimal, and the text behind it."""

STATE = {
    "queue_info": {"board": {"free": 1, "pending": 0}},
    "server_info": [{"key": "server:board", "addr": ["127.0.0.1", 19100]}],
}


def recorded(name: str) -> bytes:
    length, _, text = RECORDED[name].partition(" ")
    return bytes.fromhex(length) + text.encode()


@pytest.mark.parametrize(
    ("frame", "name"),
    [
        (wire.update_info("board", 19100), "update_info"),
        (wire.put("board", 19100, "board:0.7956352009146216"), "put"),
        (wire.get_pending_matchkeys(), "get_pending_matchkeys"),
        (wire.encode(["board:0.7956352009146216"]), "pending"),
        (wire.summary(), "summary"),
        (wire.summary_reply(STATE), "summary_reply"),
        (wire.SUCCESS, "success"),
    ],
)
def test_frames_are_what_tvm_writes(frame: bytes, name: str) -> None:
    """Each frame equals, byte for byte, the one that TVM's own peers were seen to send."""
    assert frame == recorded(name)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1], wire.Ping()),
        ([2, "tracker:0.1"], wire.Stop("tracker:0.1")),
        ([3, "k", [1, "k:0.5"], None], wire.Put("k", 1, "k:0.5", None)),
        ([3, "a:b", [65535, "a:b:0.5"], "10.0.0.1"], wire.Put("a:b", 65535, "a:b:0.5", "10.0.0.1")),
        ([3, "k", [1, "k:0.5"]], wire.Put("k", 1, "k:0.5", None)),
        ([4, "k", "", 1], wire.Request("k", "", 1)),
        ([4, "k", "me", 1, 2.5, "more"], wire.Request("k", "me", 1, 2.5)),
        ([4, "k", "a\x1b[2Jb\n" + "c" * 200, 1], wire.Request("k", "a?[2Jb?" + "c" * 121, 1)),
        ([1, 2], wire.Ping()),
        ([1, {"tvmrpc": 1, "more": 2}], wire.Ping(True)),
        (
            [1, {"tvmrpc": 1, "orders": True, "serving": ["h:1", 2], "key": "k"}, 3],
            wire.Ping(True, True, wire.Serving("h:1", 2), "k"),
        ),
        ([4, "gerät", None, -2.5], wire.Request("gerät", "", -2.5)),
        ([5, {"key": "server:k", "addr": [None, 9]}], None),
        ([5, {"key": "server:k", "addr": [None, "9090"]}], None),
        ([5, {}], None),
        ([6], wire.Summary()),
        ([7], wire.GetPendingMatchkeys()),
    ],
)
def test_messages_become_values(value: List[Any], message: Any) -> None:
    """Every message of TVM's peers is read, and the C++ server's quoted port, too."""
    found = wire.parse_request(wire.parse_json(json.dumps(value).encode()))
    expected = wire.UpdateInfo(value[1]) if message is None else message
    assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"GET / HTTP/1.1",
        b"\xff\xfe",
        b"null",
        b"{}",
        b"[]",
        b"[true]",
        b"[1.0]",
        b'["1"]',
        b"[0]",
        b"[8]",
        b"[-1]",
        b"[[1]]",
        b"[2]",
        b"[2, 5]",
        b'[3, "k", [1], null]',
        b'[3, "k", {"port": 1}, null]',
        b'[3, "k", [0, "k:0.5"], null]',
        b'[3, "k", [65536, "k:0.5"], null]',
        b'[3, "k", ["1", "k:0.5"], null]',
        b'[3, "k", [true, "k:0.5"], null]',
        b'[3, "k", [1, "k"], null]',
        b'[3, "k", [1, 5], null]',
        b'[3, "k", [1, "k:0. 5"], null]',
        b'[3, "k", [1, "k:0.5"], 7]',
        b'[3, "k", [1, "k:0.5"], ""]',
        b'[3, "k", [1, "k:0.5"], "a b"]',
        b'[3, 5, [1, "k:0.5"], null]',
        b'[3, {}, [1, "k:0.5"], null]',
        b'[4, "", "", 1]',
        b'[4, "a b", "", 1]',
        b'[4, "a\\nb", "", 1]',
        b'[4, "a\\u0000b", "", 1]',
        b'[4, "\\ud800", "", 1]',
        b'[4, ["k"], "", 1]',
        b'[4, "k", 5, 1]',
        b'[4, "k", "", "1"]',
        b'[4, "k", "", true]',
        b'[4, "k", "", null]',
        b'[4, "k", "", 1, -1]',
        b'[4, "k", "", 1, true]',
        b'[4, "k", "", 1, "1"]',
        b'[4, "k", "", NaN]',
        b'[1, {"tvmrpc": 1, "key": "a b"}]',
        b'[1, {"tvmrpc": 1, "serving": "h:1"}]',
        b'[1, {"tvmrpc": 1, "serving": [1, 2]}]',
        b'[1, {"tvmrpc": 1, "serving": ["h:1", -1]}]',
        b'[4, "k", "", Infinity]',
        b'[4, "k", "", 1e999]',
        b'[4, "k", "", 123456789012345678901234567890]',
        b"[5, []]",
        b'[5, {"key": 5}]',
        b'[5, {"key": "a b"}]',
        b'[5, {"addr": "127.0.0.1:1"}]',
        b'[5, {"addr": []}]',
        b'[5, {"addr": [5, 1]}]',
        b'[5, {"addr": [null, "x"]}]',
        b'[5, {"addr": [null, -1]}]',
    ],
)
def test_what_is_no_message_is_refused(body: bytes) -> None:
    """Wrong types, missing and surplus fields, odd numbers and keys: one error for all."""
    with pytest.raises(RemoteProtocolError):
        wire.parse_request(wire.parse_json(body))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000,
        b'[5, {"x": ' + b"[" * 500 + b"]" * 500 + b"}]",
        b"9" * MAX_FRAME,
        b'[4, "' + b"k" * 100_000 + b'", "", 1]',
        b'[5, {"x": "' + b"y" * wire.MAX_INFO + b'"}]',
    ],
    ids=["open", "nested", "objects", "info", "digits", "key", "long info"],
)
def test_hostile_sizes_are_refused(body: bytes) -> None:
    """Depth, digits and lengths that would cost others time or memory are refused."""
    with pytest.raises(RemoteProtocolError):
        wire.parse_request(wire.parse_json(body))


def test_replies_become_values() -> None:
    """The three kinds of replies are read back from what the tracker writes."""
    resource = wire.Granted("10.0.0.5", 9090, "k:0.5")

    def value(frame: bytes) -> Any:
        return wire.parse_json(frame[4:])

    assert wire.parse_granted(value(wire.granted(resource))) == resource
    assert wire.is_granted(value(wire.granted(resource)))
    assert wire.parse_summary(value(wire.summary_reply(STATE))) == STATE
    assert not wire.is_granted(value(wire.summary_reply(STATE)))
    assert wire.parse_pending(["k:0.5"]) == ["k:0.5"]
    wire.parse_status(0)


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        (wire.parse_status, -1),
        (wire.parse_status, False),
        (wire.parse_status, [0]),
        (wire.parse_granted, [-1, ["h", 1, "k:0"]]),
        (wire.parse_granted, [0, ["h", 1]]),
        (wire.parse_granted, [0, ["h", "1", "k:0"]]),
        (wire.parse_granted, [0, ["", 1, "k:0"]]),
        (wire.parse_granted, [0, {}]),
        (wire.parse_granted, 0),
        (wire.parse_summary, [0, {}]),
        (wire.parse_summary, [0, {"queue_info": {"k": 1}, "server_info": []}]),
        (wire.parse_summary, [0, {"queue_info": {"k": {"free": "1"}}, "server_info": []}]),
        (wire.parse_summary, [0, {"queue_info": {}, "server_info": [{"addr": []}]}]),
        (wire.parse_summary, [0, {"queue_info": {}, "server_info": [{"key": "server:k"}]}]),
        (wire.parse_pending, [1]),
        (wire.parse_pending, 0),
    ],
)
def test_what_is_no_reply_is_refused(parse: Any, value: Any) -> None:
    """A client does not stumble over a tracker's nonsense: it says what was expected."""
    with pytest.raises(RemoteProtocolError):
        parse(value)


@pytest.mark.parametrize("key", ["board", "a:b:c", "192.168.0.143:5555", "gerät", '"'])
def test_match_keys_lead_back_to_their_key(key: str) -> None:
    """Keys may have colons: a match key is cut at its last one."""
    match_key = wire.make_match_key(key, bytes(range(8)))
    device_key, _, tail = match_key.rpartition(":")
    assert device_key == key
    assert tail.startswith("0.")
    assert 0 <= float(tail) < 1
    assert wire.make_match_key(key, bytes(range(1, 9))) != match_key


@pytest.mark.parametrize("key", ["", "a b", "a\tb", "a\0b", "\ud800", "k" * 1025, "ä" * 513, 5])
def test_keys_that_cannot_be_are_our_fault_here(key: Any) -> None:
    """What the wire cannot carry is refused where it is said, in the same way everywhere."""
    with pytest.raises(LocalProtocolError, match="device key"):
        wire.check_key(key)
