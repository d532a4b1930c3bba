"""A session's working directory and its ``tvm.rpc.server.*`` functions. Knows no packets.

Names of files are the client's and stay inside the directory, whatever they contain.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List, Optional

from ..protocol.values import ByteSource
from ..runtime.device.api import Device
from ..runtime.function import PackedFunc
from ..runtime.module import Module, load_module
from ..runtime.registry import get_global_func
from . import selftest

MAX_NAME = 1024
"""Letters of a file's name with its folders; systems stop at 1,024 to 4,096 bytes of a path."""

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
        named: Dict[str, Callable[..., Any]] = {
            "tvm.rpc.server.download": self.download,
            "tvm.rpc.server.remove": self.remove,
            "tvm.rpc.server.workpath": self.workpath,
            "tvm.rpc.server.listdir": self.listdir,
            "tvm.rpc.server.load_module": self.load_module,
            "tvm.rpc.server.ImportModule": _import_module,
            "tvm.rpc.server.ModuleGetFunction": _module_get_function,
            "runtime.RPCTimeEvaluator": self.time_evaluator,
        }
        for name, function in {**named, **selftest.FUNCTIONS}.items():
            self.functions[name] = PackedFunc(function, name)
        self.functions["tvm.rpc.server.upload"] = self._upload

    def find(self, name: str) -> Optional[PackedFunc]:
        """A function of the session, or a global one of the process; None if there is none."""
        return self.functions.get(name) or get_global_func(name, allow_missing=True)

    # Files

    def workpath(self, name: str) -> str:
        """The path of a file of the session.

        Raises:
            ValueError: the name leads outside of the session's directory.
        """
        if not isinstance(name, str) or not name or "\0" in name:
            raise ValueError(f"{name!r} is no name of a file")
        if len(name) > MAX_NAME:
            raise ValueError(f"{name[:40]!r}... is too long; a name has at most {MAX_NAME} letters")
        path = os.path.realpath(os.path.join(self.directory, name))
        if os.path.isabs(name) or not path.startswith(self.directory + os.sep):
            raise ValueError(
                f"{name!r} leads outside of the session's directory; "
                "give a name inside it, such as 'kernel.so'"
            )
        return path

    def upload(self, name: str, content: Any) -> None:
        """Makes or replaces a file."""
        sink = _FileSink(self.workpath(name))
        try:
            sink.write(content.encode() if isinstance(content, str) else content)
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
        return _FileSink(self.workpath(arguments[0]))

    def download(self, name: str) -> Any:
        """The content of a file."""
        path = self.workpath(name)
        try:
            file = open(path, "rb")  # noqa: SIM115  (a large one is closed when it has been sent)
        except OSError as error:
            raise FileNotFoundError(
                f"Cannot open {name}: {error.strerror}; files here: {self.listdir('.') or 'none'}"
            ) from None
        nbytes = os.fstat(file.fileno()).st_size
        if nbytes >= _SENT_APART:
            return ByteSource(file, nbytes)
        with file:
            return file.read()

    def remove(self, name: str) -> None:
        """Removes a file; one that is not there is no error, as in TVM."""
        path = self.workpath(name)
        if os.path.lexists(path):
            os.unlink(path)

    def listdir(self, name: str = ".") -> str:
        """The names in a directory of the session, sorted, with commas between them."""
        path = self.directory if name in ("", ".", "./") else self.workpath(name)
        return ",".join(entry for entry in sorted(os.listdir(path)) if not entry.startswith("."))

    # Modules

    def load_module(self, name: str) -> Module:
        """Loads a library that was uploaded.

        The loader takes a path that it knows for the library it knows, even if the file is another
        one by now; so each load gets a path of its own.
        """
        path = self.workpath(name)
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"cannot find file {name}; upload it first. Files here: "
                f"{self.listdir('.') or 'none'}"
            )
        self._loaded += 1
        own = os.path.join(self.directory, f".loaded-{self._loaded}")
        os.mkdir(own)
        linked = os.path.join(own, os.path.basename(path))
        try:
            os.link(path, linked)
        except OSError:  # a file system without hard links
            import shutil

            shutil.copy2(path, linked)
        return load_module(linked)

    def time_evaluator(
        self,
        module: Optional[Module],
        name: str,
        device_type: int,
        device_id: int,
        *settings: Any,
    ) -> PackedFunc:
        """Measures a function on the device; its results are doubles in bytes, seconds per call.

        The settings grew with TVM's versions: 8, 10, 11 or 12 arguments in all. The first seven
        and the last are always the same.
        """
        if len(settings) not in (4, 6, 7, 8):
            raise ValueError(
                f"a time evaluator of {4 + len(settings)} arguments; expected 8, 10, 11 or 12"
            )
        number, repeat, min_repeat_ms, *more, preproc = settings
        if len(more) == 2:  # TVM 0.9 has the cool-down, but not the limit before it
            more.insert(0, 100)
        more += (100, 0, 1, 0)[len(more) :]
        limit_zero, cooldown_ms, repeats_to_cooldown, flush = more
        all_functions = _Globals(self.find)
        evaluate = (module or all_functions).time_evaluator(
            name,
            Device(device_type, device_id),
            number,
            repeat,
            min_repeat_ms,
            limit_zero,
            cooldown_ms,
            repeats_to_cooldown,
            flush,
            all_functions.find_function(preproc) if preproc else "",
        )
        return PackedFunc(lambda *values: evaluate(*values).to_bytes(), f"measuring {name}")


class _FileSink:
    """A file in the making; it gets its name when it is complete."""

    def __init__(self, path: str) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self._path = path
        self._partial = os.path.join(os.path.dirname(path), f".partial-{os.urandom(6).hex()}")
        self._file = open(self._partial, "wb", buffering=0)  # noqa: SIM115

    def write(self, part: Any) -> None:
        """Appends; a short write is continued."""
        rest = memoryview(part)
        while len(rest):
            rest = rest[self._file.write(rest) :]

    def finish(self) -> None:
        """The file is complete; should it not get its name, nothing of it stays."""
        self._file.close()
        try:
            os.replace(self._partial, self._path)
        except OSError:
            os.unlink(self._partial)
            raise

    def abort(self) -> None:
        """The file will not be complete: it goes."""
        self._file.close()
        os.unlink(self._partial)


def _import_module(parent: Module, child: Module) -> None:
    parent.import_module(child)


def _module_get_function(module: Module, name: str, query_imports: Any = True) -> Any:
    """A function of a module; None if it has none of this name, for the client to say so."""
    try:
        return module.get_function(name, bool(query_imports))
    except AttributeError:
        return None


class _Globals(Module):
    """A session's global functions as a module: what is measured when no module is named."""

    kind = "global"

    def __init__(self, find: Callable[[str], Optional[PackedFunc]]) -> None:
        super().__init__()
        self._find_global = find

    def find_function(self, name: str) -> PackedFunc:
        found = self._find_global(name)
        if found is None:
            raise ValueError(f"Cannot find {name} in the global registry")
        return found
