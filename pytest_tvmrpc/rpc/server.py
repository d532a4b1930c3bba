"""The names of ``tvm.rpc.server`` that users import."""

from __future__ import annotations

from ..server.launch import Server

__all__ = ["Server"]
