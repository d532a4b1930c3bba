"""Tests of compiled kernels on remote devices, over TVM's RPC protocol.

``from pytest_tvmrpc import rpc, runtime`` gives the names of ``tvm.rpc`` and ``tvm.runtime``. They
are imported when they are asked for: importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, List

if TYPE_CHECKING:
    from . import rpc, runtime

__all__ = ["__version__", "rpc", "runtime"]

__version__ = "0.1.0"

if not TYPE_CHECKING:  # to which every name would be there

    def __getattr__(name: str) -> Any:
        if name in ("rpc", "runtime"):
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> List[str]:
    return __all__
