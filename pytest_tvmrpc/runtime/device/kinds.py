"""Who drives which kind of device: a module of this folder, or whoever registered. Drives none.

Three ways lead here, in this order: `register_device_api`; a module of this folder with the name of
the kind and an `API`; and the entry points of installed packages, which are read when a kind is
asked for that nobody else drives.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import sys
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple, Union

from ...data_type import integer_of
from ...dlpack import DEVICE_TYPES, DeviceType
from ...errors import DeviceError

if TYPE_CHECKING:
    from .api import DeviceAPI

__all__ = [
    "ENTRY_POINTS",
    "apis",
    "find_api",
    "kind_name",
    "register_device_api",
    "unregister_device_api",
]

ENTRY_POINTS = "pytest_tvmrpc.device"
"""The group of entry points; each has the name of a kind, and is its `DeviceAPI` or the class."""

_FIRST_OF_REMOTE_DEVICES = 128
"""From here on the numbers are TVM's for devices of other machines (kRPCSessMask)."""

apis: Dict[int, DeviceAPI] = {}
"""Who drives each kind, as far as anybody registered or was asked for."""


def register_device_api(kind: Union[str, int], api: DeviceAPI, *, override: bool = False) -> None:
    """Let an API of your own drive a kind of device, here and in processes forked from this one.

    Args:
        kind: TVM's name of the kind, such as ``"ext_dev"``, or its number (1 to 127).
        api: drives all devices of the kind.
        override: whether to take the place of who drives the kind now.

    Raises:
        TypeError: `api` is no `DeviceAPI`.
        ValueError: there is no such kind, or somebody drives it already.
    """
    from .api import DeviceAPI

    if not isinstance(api, DeviceAPI):
        raise TypeError(f"a device kind is driven by a DeviceAPI, not by {type(api).__name__}")
    number = _kind_number(kind)
    if not override and (number in apis or _is_built_in(number)):
        raise ValueError(
            f"device kind {kind_name(number) or number} is driven already; "
            "use override=True to take its place"
        )
    apis[number] = api


def unregister_device_api(kind: Union[str, int]) -> None:
    """Forget who drives a kind. Its tensors have to be gone.

    Raises:
        ValueError: there is no such kind, or nobody registered for it.
    """
    number = _kind_number(kind)
    if apis.pop(number, None) is None:
        raise ValueError(f"no API is registered for device kind {kind_name(number) or number}")


def find_api(device_type: int) -> DeviceAPI:
    """Who drives this kind of device on this machine.

    Raises:
        DeviceError: nobody does, or who should cannot be loaded; names the kinds that are here.
    """
    api = apis.get(device_type)
    if api is None:
        if _is_built_in(device_type):
            api = importlib.import_module(f"{__package__}.{kind_name(device_type)}").API
        else:
            api = _load(device_type)
        apis[device_type] = api
    return api


def kind_name(device_type: int) -> Optional[str]:
    """TVM's name of the kind with this number."""
    try:
        return DeviceType(device_type).name.lower()
    except ValueError:
        return None


def _kind_number(kind: Union[str, int]) -> int:
    if isinstance(kind, str):
        number = DEVICE_TYPES.get(kind) or (int(kind) if _DIGITS.fullmatch(kind) else None)
    else:
        number = integer_of(kind)
    if number is None or not 0 < number < _FIRST_OF_REMOTE_DEVICES:
        raise ValueError(
            f"there is no device kind {kind!r}; expected a number from 1 to "
            f"{_FIRST_OF_REMOTE_DEVICES - 1} or one of {', '.join(DEVICE_TYPES)}"
        )
    return number


_DIGITS = re.compile("[0-9]{1,3}")


def _is_built_in(device_type: int) -> bool:
    name = kind_name(device_type)
    return name is not None and importlib.util.find_spec(f"{__package__}.{name}") is not None


def _load(device_type: int) -> DeviceAPI:
    """The API of an installed package.

    Raises:
        DeviceError: none has one for this kind, several have, or it cannot be loaded.
    """
    from ..registry import unavailable
    from .api import DeviceAPI

    installed, unknown = _installed()
    found = installed.get(device_type, {})
    if not found:
        raise DeviceError(
            f"Device API {kind_name(device_type) or device_type} is not enabled: "
            f"this machine has {', '.join(_kinds_here())}{''.join(unknown)}{unavailable()}"
        )
    if len(found) > 1:
        raise DeviceError(
            f"several packages drive device kind {kind_name(device_type) or device_type}: "
            f"{', '.join(sorted(found))}; choose one with runtime.register_device_api"
        )
    ((value, entry),) = found.items()
    try:
        api = entry.load()
        if isinstance(api, type):
            api = api()
        if not isinstance(api, DeviceAPI):
            raise TypeError(f"expected a DeviceAPI, got a {type(api).__name__}")
    except Exception as error:  # whatever a package raises at its import
        raise DeviceError(
            f"the driver of device kind {kind_name(device_type) or device_type} cannot be loaded "
            f"(entry point {value} of the group {ENTRY_POINTS}): {type(error).__name__}: {error}"
        ) from error
    return api


@functools.lru_cache(maxsize=None)
def _installed() -> Tuple[Dict[int, Dict[str, Any]], List[str]]:
    """The entry points for each kind, by what they name, and what is wrong with others.

    Read once: it takes milliseconds. One that names no kind is of no use and in nobody's way.
    """
    from importlib import metadata

    entries: Any
    if sys.version_info >= (3, 10):
        entries = metadata.entry_points(group=ENTRY_POINTS)
    else:
        entries = metadata.entry_points().get(ENTRY_POINTS, ())
    found: Dict[int, Dict[str, Any]] = {}
    unknown = []
    for entry in entries:
        try:
            number = _kind_number(entry.name)
        except ValueError as error:
            unknown.append(f"; the entry point {entry.value} of {ENTRY_POINTS}: {error}")
        else:
            found.setdefault(number, {})[entry.value] = entry
    return found, unknown


def _kinds_here() -> List[str]:
    numbers = (
        {int(kind) for kind in DeviceType if _is_built_in(kind)} | {*apis} | {*_installed()[0]}
    )
    return [kind_name(number) or str(number) for number in sorted(numbers)]
