"""Values that outlive a call: borrowed text becomes an object, an object gets a reference."""

from __future__ import annotations

import ctypes
import struct
from typing import List, Optional

from .abi import ANY_SIZE, TVMFFIByteArray, TypeIndex, new_cell, release, retain
from .words import Word, bytes_at, signed, unsigned

__all__ = ["SMALL", "drop_any", "own_any", "read_any", "text_word", "words_at", "write_any"]

_any = struct.Struct("<iIq")
SMALL = 7
"""Bytes of text that fit into a TVMFFIAny, with their NUL."""


def text_word(kind: int, small_kind: int, text: bytes) -> Word:
    """Text or bytes as a value of its own: within the word where they fit, else as an object."""
    if len(text) <= SMALL:
        return small_kind, len(text), int.from_bytes(text.ljust(8, b"\0"), "little", signed=True)
    memory = ctypes.create_string_buffer(text)
    payload = bytes(TVMFFIByteArray(ctypes.addressof(memory), len(text)))
    return kind, 0, signed(new_cell(kind, memory, payload))


def read_any(address: int) -> Word:
    """The word at an address of a TVMFFIAny."""
    kind, length, number = _any.unpack_from((ctypes.c_char * ANY_SIZE).from_address(address))
    return kind, length, number


def words_at(address: Optional[int], count: int) -> List[Word]:
    """The words of an array of TVMFFIAny, as they are now."""
    if not count or not address:
        return []
    return list(_any.iter_unpack((ctypes.c_char * (ANY_SIZE * count)).from_address(address)))


def write_any(address: int, word: Word) -> None:
    """Put a word where C expects a TVMFFIAny."""
    _any.pack_into((ctypes.c_char * ANY_SIZE).from_address(address), 0, *word)


def own_any(word: Word) -> Word:
    """A borrowed value as one of the owner's (TVMFFIAnyViewToOwnedAny).

    Raises:
        LibraryError: it is text or bytes at NULL.
    """
    kind, _, number = word
    if kind == TypeIndex.RAW_STR:
        text = ctypes.string_at(unsigned(number)) if number else b""
        return text_word(TypeIndex.STR, TypeIndex.SMALL_STR, text)
    if kind == TypeIndex.BYTE_ARRAY_PTR:
        return text_word(TypeIndex.BYTES, TypeIndex.SMALL_BYTES, bytes_at(number))
    if kind == TypeIndex.OBJECT_RVALUE_REF and number:
        place = ctypes.c_void_p.from_address(unsigned(number))  # the object moves to the new owner
        moved, place.value = place.value or 0, None
        if not moved:
            return TypeIndex.NONE, 0, 0
        return ctypes.c_int32.from_address(moved + 8).value, 0, signed(moved)
    if kind >= TypeIndex.OBJECT and number:
        retain(unsigned(number))
    return word


def drop_any(word: Word) -> None:
    """Give a value back that was owned; it is the owner's to see that nobody uses it again."""
    if word[0] >= TypeIndex.OBJECT and word[2]:
        release(unsigned(word[2]))
