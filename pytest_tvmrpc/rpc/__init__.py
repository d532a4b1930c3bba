"""The names of ``tvm.rpc``, gathered from where they are made, when they are asked for.

The files of this folder have the names of TVM's, for imports such as ``tvm.rpc.tracker``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, List

if TYPE_CHECKING:
    from ..client.connect import connect
    from ..client.local import LocalSession
    from ..client.popen import PopenSession
    from ..client.session import RPCSession
    from ..client.tracker import TrackerSession, connect_tracker
    from ..errors import RemoteError, RPCError, RPCSessionTimeoutError
    from ..proxy.launch import Proxy
    from ..runtime.minrpc import with_minrpc
    from ..server.launch import Server
    from ..tracker.launch import Tracker
    from . import base, client, minrpc, proxy, server, tracker

__all__ = [
    "LocalSession",
    "PopenSession",
    "Proxy",
    "RPCError",
    "RPCSession",
    "RPCSessionTimeoutError",
    "RemoteError",
    "Server",
    "Tracker",
    "TrackerSession",
    "base",
    "client",
    "connect",
    "connect_tracker",
    "minrpc",
    "proxy",
    "server",
    "tracker",
    "with_minrpc",
]

_HOMES = {
    "LocalSession": "client.local",
    "PopenSession": "client.popen",
    "Proxy": "proxy.launch",
    "RPCError": "errors",
    "RPCSession": "client.session",
    "RPCSessionTimeoutError": "errors",
    "RemoteError": "errors",
    "Server": "server.launch",
    "Tracker": "tracker.launch",
    "TrackerSession": "client.tracker",
    "connect": "client.connect",
    "connect_tracker": "client.tracker",
    "with_minrpc": "runtime.minrpc",
}

if not TYPE_CHECKING:  # to which every name would be there

    def __getattr__(name: str) -> Any:
        if name in ("base", "client", "minrpc", "proxy", "server", "tracker"):
            return importlib.import_module(f"{__name__}.{name}")
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"..{home}", __name__), name)


def __dir__() -> List[str]:
    return __all__
