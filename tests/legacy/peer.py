"""A peer of TVM 0.8 to 0.20, as scripts on plain sockets. Only its names; it is in three parts."""

from __future__ import annotations

from .clients import (
    FfiClient,
    LegacyClient,
    PeerClosedError,
    RefusedError,
    RemoteRaisedError,
)
from .sequences import RuleBrokenError, Value
from .server import LegacyServer

__all__ = [
    "FfiClient",
    "LegacyClient",
    "LegacyServer",
    "PeerClosedError",
    "RefusedError",
    "RemoteRaisedError",
    "RuleBrokenError",
    "Value",
]
