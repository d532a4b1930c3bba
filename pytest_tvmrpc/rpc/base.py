"""The numbers of ``tvm.rpc.base``. They are defined with the protocol's others."""

from __future__ import annotations

from ..protocol.codes import RPC_MAGIC, RPC_TRACKER_MAGIC, HandshakeReply, TrackerCode

__all__ = [
    "RPC_CODE_DUPLICATE",
    "RPC_CODE_MISMATCH",
    "RPC_CODE_SUCCESS",
    "RPC_MAGIC",
    "RPC_TRACKER_MAGIC",
    "TrackerCode",
]

RPC_CODE_SUCCESS = int(HandshakeReply.SUCCESS)
RPC_CODE_DUPLICATE = int(HandshakeReply.DUPLICATE)
RPC_CODE_MISMATCH = int(HandshakeReply.MISMATCH)
