"""Modules of source code and of object files. Compiles nothing itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, List, Optional, Sequence, Union

from ..errors import LibraryError
from . import compile_cache, toolchain
from .compile_cache import Source
from .library import LibraryModule
from .module import Module, ModulePropertyMask, Path, described

if TYPE_CHECKING:
    from .function import PackedFunc

__all__ = ["SourceModule", "StaticLibrary", "load_static_library", "module_from_source"]

_LANGUAGES = {"": "c", "c": "c", "c++": "cc", "cxx": "cc", "cpp": "cc", "cc": "cc"}
"""The suffix of a source by the name of its language."""

_TEXT = "\n{};"
"""What is in a program, and hardly in the name of a file."""


class SourceModule(LibraryModule):
    """The functions of a program of C or C++, compiled for this machine.

    It can be called like a library, and exported like source code, also for another machine.

    Args:
        source: the program.
        library: what was made of it.
    """

    kind = "c"
    properties = ModulePropertyMask(7)

    def __init__(self, source: Source, library: str) -> None:
        super().__init__(library)
        self.source = source
        self.format = source.suffix

    def inspect_source(self, fmt: str = "") -> str:
        """The program."""
        return self.source.text

    def get_write_formats(self) -> Sequence[str]:
        """Its source, and the library that was made of it."""
        return [self.format, "so"]

    def write_to_file(self, file_name: Path, fmt: str = "") -> None:
        """Write the source, or with the suffix or format ``so`` the library.

        Raises:
            LibraryError: another format.
        """
        wanted = fmt or os.path.splitext(os.fspath(file_name))[1][1:] or self.format
        if wanted == "so":
            super().write_to_file(file_name)
        elif _LANGUAGES.get(wanted) == self.format:
            with open(file_name, "w", encoding="utf-8", errors="surrogateescape", newline="") as to:
                to.write(self.source.text)
        else:
            raise LibraryError(
                f"{self!r} cannot be written in the format {wanted!r}; expected "
                f"{' or '.join(map(repr, self.get_write_formats()))}"
            )

    def __repr__(self) -> str:
        what = self.source.path or f"{len(self.source.text)} characters"
        return described(self.kind, what, self.function_names())


class StaticLibrary(Module):
    """An object file that stays one until it is exported: it has functions, but none to call.

    Args:
        path: of the file.
        names: of its functions.

    Raises:
        LibraryError: it is no object file, or is one for another machine.
        TypeError: the names are no list of str.
    """

    kind = "static_library"
    format = "o"
    properties = ModulePropertyMask.COMPILATION_EXPORTABLE | ModulePropertyMask.BINARY_SERIALIZABLE

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        super().__init__()
        self.path = os.path.abspath(os.fspath(path))
        self._names = toolchain.listed("func_names", names, "['add']")
        if not os.path.isfile(self.path):
            raise LibraryError(
                f"{self.path} is no file; expected an object file to keep; check the path"
            )
        toolchain.check_object(self.path)
        with open(self.path, "rb") as file:
            self._content = file.read()

    def find_function(self, name: str) -> Optional[PackedFunc]:
        """None: nothing of it can be called before it is linked."""
        return None

    def has_own(self, name: str) -> bool:
        """Whether it was said to have a function of this name."""
        return name in self._names

    def function_names(self) -> List[str]:
        """The names that it was given."""
        return sorted(self._names)

    def write_to_file(self, file_name: Path, fmt: str = "") -> None:
        """Write the object file as it was when it was loaded.

        Raises:
            LibraryError: another format than ``o``.
        """
        if fmt not in ("", self.format):
            raise LibraryError(f"{self!r} cannot be written in the format {fmt!r}; expected 'o'")
        with open(file_name, "wb") as file:
            file.write(self._content)

    def _hint(self, name: str) -> str:
        if self.has_own(name):
            return (
                f" to call: {self.path} is not linked; export it with "
                "module.export_library('kernel.so'), and load that"
            )
        return super()._hint(name)

    def __repr__(self) -> str:
        return described(self.kind, self.path, self.function_names())


def load_static_library(path: Path, func_names: Sequence[str]) -> StaticLibrary:
    """Keep an object file as a module, to be imported and exported; it is not linked for calls.

    Args:
        path: the object file (``.o``).
        func_names: the names of its functions.

    Raises:
        LibraryError: it is no object file, or is one for another machine.
        TypeError: `func_names` are no names.
    """
    return StaticLibrary(path, func_names)


def module_from_source(
    source: Path,
    lang: str = "",
    *,
    functions: Sequence[str] = (),
    flags: Sequence[str] = (),
    compiler: Union[str, Sequence[str], None] = None,
) -> SourceModule:
    """Compile C or C++ and load it. The same source, compiled before, is loaded at once.

    Functions are what ``KERNEL(name)`` of ``kernel.h`` makes, which is found without a flag.

    Args:
        source: the program, or the path of its file: a str with a line break, a brace or a
            semicolon is a program.
        lang: ``c`` or ``c++``; by default what the file's suffix says, and C for a program.
        functions: names that it has to have.
        flags: for the compiler, at the end, where libraries (``-lm``) belong.
        compiler: path or name, or a command in parts; by default what `find_compiler` finds.

    Returns:
        The module; what it was made of can be exported for another machine.

    Raises:
        CompilerError: no compiler, or it refused; the message has its first lines.
        LibraryError: there is no such file, or a function is missing.
        TypeError: an argument is of another type.
        ValueError: another language.
    """
    wanted = toolchain.listed("functions", functions, "['add']")
    words = toolchain.listed("flags", flags, "['-O3', '-lm']")
    if not isinstance(lang, str):
        raise TypeError(f"lang is {lang!r}; expected 'c', 'c++', or '' for the default")
    given = _source(source, lang, words)
    module = compile_cache.load(given, compiler, lambda path: SourceModule(given, path))
    for name in wanted:
        if not module.implements_function(name):
            try:
                module.get_function(name)
            except AttributeError as error:
                raise LibraryError(f"{error}; expected a function of this name") from None
    return module


def _source(source: Path, lang: str, flags: Sequence[str]) -> Source:
    text = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise TypeError(
            f"the source is of type {type(source).__name__}; expected a program or the path of its "
            "file as str; decode bytes"
        )
    path = ""
    if not isinstance(source, str) or not any(character in text for character in _TEXT):
        path = os.path.abspath(text)
        try:
            with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
                text = file.read()
        except OSError as error:
            raise LibraryError(
                f"{path} cannot be read: {error.strerror}; expected a file of C or C++, or a "
                "program as text"
            ) from None
        lang = lang or os.path.splitext(path)[1][1:]
    suffix = _LANGUAGES.get(lang.lower())
    if suffix is None:
        raise ValueError(f"no compiler for the language {lang!r}; expected 'c' or 'c++'")
    return Source(text, suffix, path, tuple(flags))
