"""What can be done with a module, as TVM counts it. Knows no module."""

from __future__ import annotations

import enum

__all__ = ["Answer", "ModulePropertyMask"]


class ModulePropertyMask(enum.IntFlag):
    """What can be done with a module; the numbers are TVM's."""

    BINARY_SERIALIZABLE = 1
    """In TVM, that it can be a part of another library."""
    RUNNABLE = 2
    """It has functions to call."""
    COMPILATION_EXPORTABLE = 4
    """It is source or object code, for `Module.export_library`."""


class Answer(int):
    """Yes or no; TVM up to 0.20 has it as an attribute, later TVM as a method: both work."""

    def __call__(self) -> bool:
        return bool(self)

    def __repr__(self) -> str:
        return repr(bool(self))
