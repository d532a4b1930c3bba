"""What a server can be told, and what it cannot."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_tvmrpc.server.config import ServerConfig


def test_defaults() -> None:
    """TVM's ports, but loopback only."""
    config = ServerConfig()
    config.check()
    assert (config.host, config.port, config.port_end) == ("127.0.0.1", 9090, 9199)
    assert config.key == ""
    assert config.tracker is None


@pytest.mark.parametrize(
    "settings",
    [{"port": 0}, {"port": 65535}, {"key": "jetson"}, {"key": "a:b"}, {"key": "ä"}],
    ids=repr,
)
def test_what_can_be(settings: Any) -> None:
    """Raises nothing."""
    ServerConfig(**settings).check()
    ServerConfig(**{"key": "k", **settings}, tracker=("127.0.0.1", 9190)).check()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tracker": ("127.0.0.1", 9190)}, "Need key .* --key jetson"),
        ({"key": "two words"}, "keys are single words"),
        ({"key": " blank"}, "keys are single words"),
        ({"key": "new\nline"}, "keys are single words"),
        ({"key": "nul\0"}, "keys are single words"),
        ({"port": -1}, "1 to 65535, or 0"),
        ({"port": 65536}, "1 to 65535, or 0"),
        ({"is_proxy": True}, "needs the proxy's port and a key of its own"),
        ({"is_proxy": True, "key": "k" * 300}, "longer than the 256 bytes"),
        ({"tracker": ("127.0.0.1", 9190), "key": "k" * 300}, "longer than the 256 bytes"),
        ({"is_proxy": True, "key": "k", "port": 0}, "needs the proxy's port and a key of its own"),
        ({"idle_s": -1.0}, "the idle timeout -1.0 is no time in seconds; 0 is for no limit"),
        ({"idle_s": float("inf")}, "the idle timeout inf is no time"),
        ({"unused_s": float("nan")}, "the timeout nan is no time"),
    ],
    ids=repr,
)
def test_what_cannot_be(settings: Any, message: str) -> None:
    """Is refused with what would do."""
    with pytest.raises(ValueError, match=message):
        ServerConfig(**settings).check()
