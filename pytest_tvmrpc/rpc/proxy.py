"""The names of ``tvm.rpc.proxy`` that users import."""

from __future__ import annotations

from ..proxy.launch import Proxy

__all__ = ["Proxy"]
