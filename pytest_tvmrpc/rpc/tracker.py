"""The names of ``tvm.rpc.tracker`` that users import."""

from __future__ import annotations

from ..tracker.launch import Tracker

__all__ = ["Tracker"]
