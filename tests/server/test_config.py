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
    ],
    ids=repr,
)
def test_what_cannot_be(settings: Any, message: str) -> None:
    """Is refused with what would do."""
    with pytest.raises(ValueError, match=message):
        ServerConfig(**settings).check()
