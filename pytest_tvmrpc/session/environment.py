"""A session's working directory and its ``tvm.rpc.server.*`` functions. Knows no packets.

Names of files are the client's and stay inside the directory, whatever they contain.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Any, Callable, Dict, List, Optional

from ..errors import LibraryError
from ..protocol.values import ByteSource
from ..runtime.function import PackedFunc
from ..runtime.module import LINKED, LOADERS, Module, load_module
from ..runtime.object import Object, ShapeTuple
from ..runtime.registry import get_global_func
from . import machine, selftest, tuning
from .measuring import Measuring, seconds_of

MAX_NAME = 1024
"""Bytes of a file's name with its folders; systems stop at 1,024 to 4,096 bytes of a path."""

MAX_PART = 255
"""Bytes of a name between slashes, where most file systems stop."""

_ODD = frozenset(";|&$`<>\\\x7f").union(map(chr, range(32)))
"""What names do not need, and what a shell, a log or a list of names would misunderstand."""

_SENT_APART = 64 * 1024
"""Bytes from which a downloaded file is sent by the kernel instead of being read."""


class Environment:
    """The functions that belong to one session.

    Args:
        directory: the session's own, which exists, and is removed by whoever made it.
    """

    def __init__(self, directory: str) -> None:
        self.directory = os.path.realpath(directory)
        self.functions: Dict[str, PackedFunc] = {}
        self._loaded = 0
        self._upload = PackedFunc(self.upload, "tvm.rpc.server.upload")
        measuring = Measuring(self.find)
        named: Dict[str, Callable[..., Any]] = {
            "tvm.rpc.server.download": self.download,
            "tvm.rpc.server.remove": self.remove,
            "tvm.rpc.server.workpath": self.workpath,
            "tvm.rpc.server.listdir": self.listdir,
            "tvm.rpc.server.load_module": self.load_module,
            "tvm.rpc.server.download_linked_module": self.download_linked_module,
            "tvmrpc.server.model": machine.model,
            "tvmrpc.server.type_key": _type_key,
            "tvmrpc.server.function_names": _function_names,
            "tvmrpc.server.missing_function": _missing_function,
            "tvmrpc.server.module_file": self.module_file,
            "ffi.ModuleClearImports": _clear_imports,
            "ffi.ModuleInspectSource": _inspect_source,
            "tvm.rpc.server.ImportModule": _import_module,
            "tvm.rpc.server.ModuleGetFunction": _module_get_function,
            "tvmrpc.server.timed": measuring.timed,
            "tvmrpc.server.seconds": seconds_of,
            "runtime.RPCTimeEvaluator": measuring.time_evaluator,
            "runtime.SystemLib": _system_lib,
            "ffi.SystemLib": _system_lib,
        }
        for name, function in {**named, **selftest.FUNCTIONS, **tuning.FUNCTIONS}.items():
            self.functions[name] = PackedFunc(function, name)
        self.functions["tvm.rpc.server.upload"] = self._upload

    def add(self, name: str, function: Callable[..., Any]) -> None:
        """One more function of the session."""
        self.functions[name] = PackedFunc(function, name)

    def find(self, name: str) -> Optional[PackedFunc]:
        """A function of the session, or a global one of the process; None if there is none."""
        return self.functions.get(name) or get_global_func(name, allow_missing=True)

    # Files

    def workpath(self, name: str) -> str:
        """The path of a file of the session.

        Raises:
            ValueError: the name is none, or leads outside of the session's directory.
        """
        _check_name(name)
        path = os.path.realpath(os.path.join(self.directory, name))
        if os.path.isabs(name) or not path.startswith(self.directory + os.sep):
            raise ValueError(
                f"{name!r} leads outside of the session's directory; "
                "give a name inside it, such as 'kernel.so'"
            )
        return path

    def upload(self, name: str, content: Any) -> None:
        """Makes or replaces a file."""
        content = memoryview(content.encode() if isinstance(content, str) else content)
        sink = _FileSink(self, name, content.nbytes)
        try:
            sink.write(content)
        except BaseException:
            sink.abort()
            raise
        sink.finish()

    def open_sink(
        self, function: object, arguments: List[Any], nbytes: int
    ) -> "Optional[_FileSink]":
        """Where the bytes of an upload go as they arrive; None for any other function."""
        if function is not self._upload or len(arguments) != 1:
            return None
        return _FileSink(self, arguments[0], nbytes)

    def download(self, name: str) -> Any:
        """The content of a file."""
        return self._content(name, self.workpath(name))

    def _content(self, name: str, path: str) -> Any:
        try:
            file = open(path, "rb")  # noqa: SIM115  (a large one is closed when it has been sent)
        except OSError as error:
            raise FileNotFoundError(
                f"Cannot open {name}: {error.strerror}; {self._what_is_here()}"
            ) from None
        nbytes = os.fstat(file.fileno()).st_size
        if nbytes >= _SENT_APART:
            return ByteSource(file, nbytes)
        with file:
            return file.read()

    def remove(self, name: str) -> None:
        """Removes a file or an empty directory; of a link, only itself.

        TVM's tuners remove whatever they may have uploaded, by any path, and then their directory.
        So it is no error, as in TVM, if there is no such file or if a directory is not empty; and
        what lies outside, or is the directory itself, stays without an error, other than in TVM.

        Raises:
            ValueError: the name is no text.
            OSError: the file is there, and the system does not let it go.
        """
        if not isinstance(name, str):
            raise _no_name(name)
        folder, last = os.path.split(os.path.join(self.directory, name.rstrip("/")))
        if last in ("", ".", "..") or "\0" in name:
            return
        folder = os.path.realpath(folder)
        if not (folder + os.sep).startswith(self.directory + os.sep):
            return
        path = os.path.join(folder, last)
        if os.path.isdir(path) and not os.path.islink(path):
            with contextlib.suppress(OSError):  # it is not empty
                os.rmdir(path)
        elif os.path.lexists(path):
            os.unlink(path)

    def _what_is_here(self) -> str:
        """For messages about files that are not."""
        if not os.path.isdir(self.directory):
            return (
                f"the session's directory {self.directory} is gone from the server; "
                "open a new session"
            )
        return f"files here: {self.listdir('.') or 'none'}"

    def listdir(self, name: str = ".") -> str:
        """The names in a directory of the session, sorted, with commas between them."""
        path = self.directory if name in ("", ".", "./") else self.workpath(name)
        try:
            entries = sorted(os.listdir(path))
        except OSError as error:
            raise FileNotFoundError(
                f"Cannot list {name}: {error.strerror}; give a directory of the session, or '.'"
            ) from None
        return ",".join(entry for entry in entries if not entry.startswith("."))

    # Modules

    def load_module(self, name: str) -> Module:
        """Loads a library that was uploaded, linked before that where it lacks the linking.

        The loader takes a path that it knows for the library it knows, even if the file is another
        one by now; so each load gets a path of its own.
        """
        path = self._uploaded(name)
        self._loaded += 1
        own = os.path.join(self.directory, f".loaded-{self._loaded}")
        os.mkdir(own)
        if _suffix(path) in LINKED:
            path = self._link(path)
        linked = os.path.join(own, os.path.basename(path))
        try:
            os.link(path, linked)
        except OSError:  # a file system without hard links
            import shutil

            shutil.copy2(path, linked)
        return load_module(linked)

    def download_linked_module(self, name: str) -> Any:
        """The content of a library, linked before that where it lacks the linking."""
        path = self._uploaded(name)
        if _suffix(path) in LINKED:
            return self._content(name, self._link(path))
        if _suffix(path) in LOADERS:
            return self._content(name, path)
        kinds = ", ".join(f".{kind}" for kind in (*LINKED, *LOADERS))
        raise LibraryError(f"Do not know how to link {name}; expected {kinds}")

    def module_file(self, module: Module) -> Any:
        """The bytes of the library that was loaded, whatever is under its name by now."""
        path = os.path.join(self.directory, f".saved-{os.urandom(6).hex()}")
        module.write_to_file(path, "so")
        try:
            return self._content(repr(module), path)
        finally:
            os.unlink(path)

    def _uploaded(self, name: str) -> str:
        """The path of a file, which has to be there."""
        path = self.workpath(name)
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"cannot find file {name}; upload it first; {self._what_is_here()}"
            )
        return path

    def _link(self, path: str) -> str:
        from ..runtime.toolchain import link_library

        return link_library(path, folder=self.directory)


class _FileSink:
    """A file in the making; it gets its name when it is complete.

    Args:
        environment: whose file it is.
        name: the client's.
        nbytes: of the content that will come.
    """

    def __init__(self, environment: Environment, name: str, nbytes: int) -> None:
        self._path = environment.workpath(name)
        self._name, self._nbytes, self._written = name, nbytes, 0
        self._directory = environment.directory
        folder = os.path.dirname(self._path)
        self._partial = os.path.join(folder, f".partial-{os.urandom(6).hex()}")
        try:
            if os.path.isdir(self._directory):  # or it would be made again, and stay for ever
                os.makedirs(folder, exist_ok=True)
            self._file = open(self._partial, "wb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise self._failure(error) from None

    def write(self, part: Any) -> None:
        """Appends; a short write is continued."""
        rest = memoryview(part)
        while len(rest):
            try:
                written = self._file.write(rest)
            except OSError as error:
                raise self._failure(error) from None
            self._written += written
            rest = rest[written:]

    def finish(self) -> None:
        """The file is complete; should it not get its name, nothing of it stays."""
        try:
            self._file.close()
            os.replace(self._partial, self._path)
        except OSError as error:
            self.abort()
            raise self._failure(error) from None

    def abort(self) -> None:
        """The file will not be complete: it goes."""
        with contextlib.suppress(OSError):  # what could not be written before, or is gone already
            self._file.close()
        with contextlib.suppress(OSError):
            os.unlink(self._partial)

    def _failure(self, error: OSError) -> OSError:
        """The system's error with the name of the file, and what it means for it."""
        what = f"{self._name} cannot be written: {error.strerror}"
        if not os.path.isdir(self._directory):
            text = f"{what}; the session's directory is gone from the server; open a new session"
        elif error.errno in _FULL:
            disk = os.statvfs(self._directory)
            text = (
                f"{what} after {self._written} of {self._nbytes} bytes; sessions have a disk of "
                f"{disk.f_blocks * disk.f_frsize} bytes at {os.path.dirname(self._directory)}; "
                "make room there, or start the server with TMPDIR set to a larger place"
            )
        else:
            text = f"{what}; expected a place for it in the session's directory {self._directory}"
        return OSError(error.errno, text)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _check_name(name: Any) -> None:
    """Refuses what cannot be the name of a file, or should not be."""
    if not isinstance(name, str) or not name:
        raise _no_name(name)
    odd = sorted(_ODD.intersection(name))
    if odd:
        raise ValueError(
            f"{name[:80]!r} is no name of a file: it has {odd[0]!r}; expected letters, digits and "
            "the like; give it another name"
        )
    parts = name.encode("utf-8", "surrogatepass").split(b"/")
    if sum(map(len, parts)) + len(parts) - 1 > MAX_NAME or max(map(len, parts)) > MAX_PART:
        raise ValueError(
            f"{name[:40]!r}... is too long; expected at most {MAX_NAME} bytes, and {MAX_PART} "
            "between slashes; give it a shorter name"
        )


def _no_name(name: Any) -> ValueError:
    return ValueError(f"{name!r} is no name of a file; expected one such as 'kernel.so'")


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1][1:]


def _system_lib(symbol_prefix: str = "") -> Module:
    """The functions that are linked into this process."""
    from ..runtime.system_library import system_lib

    return system_lib(symbol_prefix)


def _type_key(value: Any) -> str:
    """What an object of this session is."""
    if isinstance(value, ShapeTuple):
        return "ffi.Shape"
    key = getattr(value, "type_key", None) if isinstance(value, Object) else None
    return key if isinstance(key, str) else f"{type(value).__module__}.{type(value).__qualname__}"


def _import_module(parent: Module, child: Module) -> None:
    parent.import_module(child)


def _module_get_function(module: Module, name: str, query_imports: Any = True) -> Any:
    """A function of a module; None if it has none of this name, for the client to say so."""
    try:
        return module.get_function(name, bool(query_imports))
    except AttributeError:
        return None


def _function_names(module: Module) -> str:
    """The names of a module's functions, a line each."""
    return "\n".join(module.function_names())


def _clear_imports(module: Module) -> None:
    module.clear_imports()


def _inspect_source(module: Module, fmt: str = "") -> str:
    return module.inspect_source(fmt)


def _missing_function(module: Module, name: str) -> str:
    """What the error for a function that is not there says behind TVM's words for it."""
    try:
        module.get_function(name, query_imports=True)
    except AttributeError as error:
        return str(error).partition(f"has no function '{name}'")[2]
    return ""
