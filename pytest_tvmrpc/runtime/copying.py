"""From tensor to tensor, on whatever devices they are: by one of those who drive them, or both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import DeviceError

if TYPE_CHECKING:
    from .tensor import Tensor

__all__ = ["copy", "copy_bytes", "not_in_this_process"]

_RELAYED = 8 << 20
"""Bytes that a copy between two other machines holds here at a time."""


def copy(source: Tensor, target: Tensor) -> None:
    """Copy all elements to a tensor of the same type and as many bytes.

    Raises:
        ValueError: it is of another type or size.
    """
    if source.nbytes != target.nbytes:
        raise ValueError(
            "array shape do not match the shape of NDArray "
            f"{source.shape} {source.dtype} vs {target.shape} {target.dtype}"
        )
    if str(source.dtype) != str(target.dtype):  # their names: bool is one type under two numbers
        raise ValueError(
            f"a tensor of {source.dtype} cannot be copied to one of {target.dtype}; "
            "convert with target.copyfrom(source.numpy())"
        )
    if source is not target:
        copy_bytes(source, target)


def copy_bytes(source: Tensor, target: Tensor) -> None:
    """Copy between two tensors with the same number of bytes, wherever they are.

    By whoever drives both; to and from memory of this process without a stop; else block by block.
    """
    if not source.nbytes:
        return
    source_api, target_api = source.device.api, target.device.api
    if source_api is target_api:
        source_api.copy(source, target)
        return
    view = target.host_view()
    if view is not None and not view.readonly:
        source_api.copy_to_host(source, view)
        return
    view = source.host_view()
    if view is not None:
        target_api.copy_from_host(view, target)
    else:
        _relay(source, target)


def not_in_this_process(tensor: Tensor) -> DeviceError:
    """What to raise where code of this process would need the memory of a tensor."""
    return DeviceError(
        f"the memory of this tensor on {tensor.device!r} is not in this process; "
        "copy the tensor to the CPU with copyto(cpu(0))"
    )


def _relay(source: Tensor, target: Tensor) -> None:
    """Copies between two machines that do not know each other, block by block."""
    block = memoryview(bytearray(min(source.nbytes, _RELAYED)))
    for start in range(0, source.nbytes, _RELAYED):
        part = block[: source.nbytes - start]
        source.device.api.copy_to_host(source.part(start, len(part)), part)
        target.device.api.copy_from_host(part, target.part(start, len(part)))
