"""The protocol's numbers, each list with its home in TVM. No behaviour."""

from __future__ import annotations

import enum

from ..dlpack import ArgTypeCode as ArgTypeCode
from ..dlpack import TypeIndex as TypeIndex

RPC_MAGIC = 0x000FF271
"""The first word on a data connection (python/tvm/rpc/base.py); also the reply "success"."""

RPC_TRACKER_MAGIC = 0x0002F271
"""The first word on a tracker connection, in both directions."""

PROTOCOL_VERSION = b"0.8.0"
"""What InitServer carries (kRPCProtocolVer); the same in both dialects."""


class HandshakeReply(enum.IntEnum):
    """The server's first word (python/tvm/rpc/base.py)."""

    SUCCESS = RPC_MAGIC
    DUPLICATE = RPC_MAGIC + 1
    MISMATCH = RPC_MAGIC + 2


class RPCCode(enum.IntEnum):
    """The kind of a packet (src/runtime/rpc/rpc_reference.h)."""

    NONE = 0
    SHUTDOWN = 1
    INIT_SERVER = 2
    CALL_FUNC = 3
    RETURN = 4
    EXCEPTION = 5
    COPY_FROM_REMOTE = 6
    COPY_TO_REMOTE = 7
    COPY_ACK = 8
    GET_GLOBAL_FUNC = 9
    FREE_HANDLE = 10
    DEV_SET_DEVICE = 11
    DEV_GET_ATTR = 12
    DEV_ALLOC_DATA = 13
    DEV_FREE_DATA = 14
    DEV_STREAM_SYNC = 15
    COPY_AMONG_REMOTE = 16
    DEV_ALLOC_DATA_WITH_SCOPE = 17
    DEV_CREATE_STREAM = 18
    DEV_FREE_STREAM = 19
    DEV_SET_STREAM = 20
    DEV_GET_CURRENT_STREAM = 21


LEGACY_OBJECT_REF = 9
"""What stands before the handle of an object (src/runtime/object_internal.h): its type index."""


class TrackerCode(enum.IntEnum):
    """The first element of a tracker message (python/tvm/rpc/base.py)."""

    FAIL = -1
    SUCCESS = 0
    PING = 1
    STOP = 2
    PUT = 3
    REQUEST = 4
    UPDATE_INFO = 5
    SUMMARY = 6
    GET_PENDING_MATCHKEYS = 7
