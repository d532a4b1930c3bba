"""The names of ``tvm.rpc.client`` that users import."""

from __future__ import annotations

from ..client.connect import connect
from ..client.local import LocalSession
from ..client.popen import PopenSession
from ..client.session import RPCSession
from ..client.tracker import TrackerSession, connect_tracker

__all__ = [
    "LocalSession",
    "PopenSession",
    "RPCSession",
    "TrackerSession",
    "connect",
    "connect_tracker",
]
