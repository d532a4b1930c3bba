"""The numbers under which objects of ours are known on another machine. Frees no memory itself."""

from __future__ import annotations

from typing import Any, Dict

__all__ = ["HandleError", "HandleTable"]


FIRST_CHOSEN = 1 << 48
"""Numbers from here on are left to those who choose them."""


class HandleError(LookupError):
    """A number that names no object: never given out, or freed."""


class HandleTable:
    """Objects by number. Numbers count from 1 and are never used twice.

    An object that is put in again gets the same number and must be freed once more.
    """

    __slots__ = ("_chosen", "_counts", "_last", "_numbers", "_objects")

    def __init__(self) -> None:
        self._objects: Dict[int, Any] = {}
        self._numbers: Dict[int, int] = {}  # by id(); an object in the table keeps its id
        self._counts: Dict[int, int] = {}  # only of objects that were put in more than once
        self._last = 0
        self._chosen = range(0)  # from the lowest to the highest of those that were

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, handle: int) -> bool:
        return handle in self._objects

    def put(self, target: Any) -> int:
        """The number of the object, with one more reference."""
        number = self._numbers.get(id(target))
        if number is not None:
            self._counts[number] = self._counts.get(number, 1) + 1
            return number
        self._last = number = self._last + 1
        self._numbers[id(target)] = number
        self._objects[number] = target
        return number

    def put_as(self, handle: int, target: Any) -> None:
        """Put in a new object under a number that its user chose.

        Raises:
            HandleError: the number is taken.
        """
        if handle in self._objects or handle < FIRST_CHOSEN:
            raise HandleError(
                f"handle {handle:#x} cannot be chosen: it is taken, or below {FIRST_CHOSEN:#x}"
            )
        low = min(self._chosen.start or handle, handle)
        self._chosen = range(low, max(self._chosen.stop, handle + 1))
        self._numbers[id(target)] = handle
        self._objects[handle] = target

    def get(self, handle: int) -> Any:
        """The object with this number.

        Raises:
            HandleError: there is none.
        """
        try:
            return self._objects[handle]
        except KeyError:
            raise HandleError(self._reason(handle)) from None

    def free(self, handle: int) -> bool:
        """Give back one reference, the last of which drops the object; False: no such number."""
        count = self._counts.get(handle, 1) - 1
        if count:
            if count == 1:
                del self._counts[handle]
            else:
                self._counts[handle] = count
            return True
        target = self._objects.pop(handle, self)
        if target is self:
            return False
        del self._numbers[id(target)]
        return True

    def clear(self) -> None:
        """Drop every object."""
        self._numbers.clear()
        self._counts.clear()
        objects, self._objects = self._objects, {}  # what they do when dropped may call us
        objects.clear()

    def _reason(self, handle: int) -> str:
        if 0 < handle <= self._last or handle in self._chosen:
            return f"handle {handle:#x} was freed; hold on to the object as long as it is used"
        return (
            f"handle {handle:#x} was never given out in this session; "
            "handles of another session mean nothing here"
        )
