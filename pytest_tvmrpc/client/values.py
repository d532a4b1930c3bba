"""Values of NumPy and ctypes, as the plain ones that can be sent. Loads neither."""

from __future__ import annotations

from typing import Any

from ..dlpack import OpaquePointer
from ..errors import LocalProtocolError
from ..runtime.words import bytes_of, number_of


def plain(value: Any) -> Any:
    """What a value of NumPy or ctypes stands for; neither needs to be there.

    Raises:
        LocalProtocolError: there is nothing that stands for all of it.
    """
    if isinstance(value, memoryview):
        if value.ndim != 1 or value.format not in ("B", "b", "c") or not value.contiguous:
            raise LocalProtocolError(
                f"a memoryview of format {value.format!r} and shape {value.shape} cannot be sent; "
                "expected one of bytes in a row; make a tensor of it, or pass view.tobytes()"
            )
        return value
    if isinstance(value, (bytes, bytearray)):
        return bytes_of(value)
    is_array = hasattr(value, "__array__") or hasattr(value, "__dlpack__")
    if is_array and not isinstance(value, type) and getattr(value, "shape", None):
        raise LocalProtocolError(
            f"an array of shape {value.shape} cannot be sent; make a tensor of it on the "
            "device first: runtime.tensor(array, remote.cpu(0))"
        )
    try:
        number = number_of(value)
    except ValueError as error:
        raise LocalProtocolError(str(error)) from None
    if number is not None:
        return number
    if type(value).__name__ == "c_void_p":
        return OpaquePointer(value.value or 0)
    return value  # which the encoder refuses, with a message of its own
