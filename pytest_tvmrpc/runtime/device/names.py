"""Devices by TVM's names for their kinds. Asks no device whether it is there."""

from __future__ import annotations

import re
import warnings
from typing import Any, Mapping, Optional, Union

from ... import dlpack
from ...dlpack import DeviceType
from ...errors import DeviceError
from .api import Device
from .kinds import find_api, kind_name

__all__ = [
    "Device",
    "cl",
    "cpu",
    "cuda",
    "device",
    "device_from_target",
    "enabled",
    "ext_dev",
    "gpu",
    "hexagon",
    "metal",
    "mtl",
    "opencl",
    "rocm",
    "vpi",
    "vulkan",
    "webgpu",
]


def device(dev_type: Union[str, int], dev_id: int = 0) -> Device:
    """The device of a kind: by TVM's name of the kind (``"cpu"``, ``"cuda:1"``) or its number.

    Raises:
        TypeError: a number is no integer.
        ValueError: no such kind, or no such number.
    """
    kind = dev_type
    if isinstance(dev_type, str):
        words = dev_type.split()
        name, colon, number = (words[0] if words else "").partition(":")
        if name not in dlpack.DEVICE_TYPES or (colon and not _DIGITS.fullmatch(number)):
            known = ", ".join(dlpack.DEVICE_TYPES)
            raise ValueError(f"Unknown device {dev_type!r}; expected one of {known}")
        kind = dlpack.DEVICE_TYPES[name]
        dev_id = int(number) if colon else dev_id
    found = Device(kind, dev_id)  # type: ignore[arg-type]  # a kind by its name is a number by now
    if found.device_id < 0 or found.device_type < 1:
        name = kind_name(found.device_type) or str(found.device_type)
        raise ValueError(
            f"device {name!r} number {found.device_id}: devices are counted from 0, kinds from 1"
        )
    return found


_DIGITS = re.compile("[0-9]{1,10}")


def enabled(target: Any) -> bool:
    """Whether what was compiled for a target can run on this machine.

    Args:
        target: a name of a kind of device (``cuda``), of a compiler for the CPU (``llvm``, ``c``),
            ``rpc``, a target that begins with such a name, a mapping with its name under ``kind``,
            or a target object of TVM's.

    Returns:
        Whether there is something that drives such devices; not whether one is plugged in, which
        is `Device.exist`.

    Raises:
        ValueError: no such target.
    """
    name = _kind_of(target)
    if name in ("llvm", "c", "rpc"):
        return True
    if name not in dlpack.DEVICE_TYPES:
        known = ", ".join((*dlpack.DEVICE_TYPES, "rpc"))
        raise ValueError(f"Unknown target {target!r}; expected one of {known}")
    if dlpack.DEVICE_TYPES[name] == DeviceType.CPU:
        return name == "cpu"  # nothing here interprets stackvm and the like
    try:
        find_api(dlpack.DEVICE_TYPES[name])
    except DeviceError:
        return False
    return True


def device_from_target(target: Any, index: Optional[int] = None) -> Device:
    """The device that code for a target runs on.

    Args:
        target: a name of a kind of target (``llvm``, ``cuda``), a text that begins with such a
            name, a mapping or JSON with the name under ``kind``, or a target object of TVM's.
        index: the device's number; None: 0.

    Raises:
        ValueError: no such target. The tags of TVM's compiler, such as ``nvidia/nvidia-a100``, are
            known to that only: give it ``tvm.target.Target(tag)``.
    """
    asked = getattr(target, "get_target_device_type", None)
    if asked is not None:
        return device(int(asked()), index or 0)
    name = _kind_of(target)
    if name not in dlpack.DEVICE_TYPES:
        known = ", ".join(dlpack.DEVICE_TYPES)
        raise ValueError(f"Unknown target {target!r}; expected one of {known}")
    return device(dlpack.DEVICE_TYPES[name], index or 0)


def _kind_of(target: Any) -> str:
    """The name of a target's kind, in whatever form the target is given."""
    if isinstance(target, str) and target.lstrip().startswith("{"):
        import json

        try:
            target = json.loads(target)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the target {target[:200]!r} is no JSON: {error}") from None
    if isinstance(target, Mapping):
        target = target.get("kind", "")
    kind = getattr(target, "kind", target)
    name = kind if isinstance(kind, str) else str(getattr(kind, "name", kind))
    return (name.split() or [""])[0]


def cpu(dev_id: int = 0) -> Device:
    """A CPU."""
    return device(DeviceType.CPU, dev_id)


def cuda(dev_id: int = 0) -> Device:
    """A CUDA GPU."""
    return device(DeviceType.CUDA, dev_id)


def gpu(dev_id: int = 0) -> Device:
    """A CUDA GPU, in the spelling of old."""
    warnings.warn("gpu() is deprecated; use cuda()", DeprecationWarning, stacklevel=2)
    return device(DeviceType.CUDA, dev_id)


def opencl(dev_id: int = 0) -> Device:
    """An OpenCL device."""
    return device(DeviceType.OPENCL, dev_id)


def cl(dev_id: int = 0) -> Device:
    """An OpenCL device."""
    return device(DeviceType.OPENCL, dev_id)


def vulkan(dev_id: int = 0) -> Device:
    """A Vulkan device."""
    return device(DeviceType.VULKAN, dev_id)


def metal(dev_id: int = 0) -> Device:
    """A Metal device."""
    return device(DeviceType.METAL, dev_id)


def mtl(dev_id: int = 0) -> Device:
    """A Metal device."""
    return device(DeviceType.METAL, dev_id)


def vpi(dev_id: int = 0) -> Device:
    """A simulated VPI device."""
    return device(DeviceType.VPI, dev_id)


def rocm(dev_id: int = 0) -> Device:
    """A ROCm GPU."""
    return device(DeviceType.ROCM, dev_id)


def ext_dev(dev_id: int = 0) -> Device:
    """An extension device: whatever a plugin drives under this name."""
    return device(DeviceType.EXT_DEV, dev_id)


def webgpu(dev_id: int = 0) -> Device:
    """A WebGPU device."""
    return device(DeviceType.WEBGPU, dev_id)


def hexagon(dev_id: int = 0) -> Device:
    """A Hexagon DSP."""
    return device(DeviceType.HEXAGON, dev_id)
