"""The names of ``tvm.rpc.minrpc`` that users import."""

from __future__ import annotations

from ..runtime.minrpc import with_minrpc

__all__ = ["with_minrpc"]
