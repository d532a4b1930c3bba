"""``tvm.nd``: the older spelling of tensors and devices. Nothing of its own."""

from __future__ import annotations

from .device import names as _devices
from .device.names import *  # noqa: F403  (what it lists, and it says so below)
from .tensor import NDArray, array, empty, from_dlpack, numpyasarray

__all__ = ["NDArray", "array", "empty", "from_dlpack", "numpyasarray"]
__all__ += _devices.__all__
