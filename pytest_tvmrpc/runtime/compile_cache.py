"""Libraries and programs by the content of what they are compiled from: each is compiled once.

The folder is that of the environment variable ``PYTEST_TVMRPC_COMPILE_CACHE``, else
``pytest-tvmrpc/compiled`` in ``XDG_CACHE_HOME`` or ``~/.cache``, else one in the folder for
temporary files. It belongs to one user. The name of a file is a hash of its source, flags, compiler
and machine, and of the headers that it includes; those of the system count as a part of
the compiler. What was not used for long goes first when the folder is full.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import tempfile
import time
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
    Union,
)

from ..errors import CompilerError, LibraryError
from . import toolchain

__all__ = ["VARIABLE", "Source", "folder", "load", "made_once"]

VARIABLE = "PYTEST_TVMRPC_COMPILE_CACHE"
"""The environment variable that names the folder."""

MAX_NBYTES = 256 << 20
"""Bytes of all files; the oldest go when there are more."""

LOCK_TIMEOUT_S = 600.0
"""How long another process may take to compile the same."""

_FORM = "2"  # of the folder; changed when a library of an older form must not be found
_IN_USE_S = 3600.0  # a library that was found so recently may be about to be opened
_VARIABLES = ("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "GCC_EXEC_PREFIX")

_SUFFIXES = (".so", ".bin", ".o")
"""Of libraries, programs, and programs that are to be linked with more."""

_WITH_A_PATH = re.compile(r"-[BILi@](?!/)")
"""Flags that may name a file relative to the working directory."""

Command = Union[str, Sequence[str], None]
Loaded = TypeVar("Loaded")


class Source(NamedTuple):
    """A program of C or C++.

    Attributes:
        text: all of it.
        suffix: ``c`` or ``cc``.
        path: the file that it is from; empty for a text.
        flags: for the compiler, at the end.
    """

    text: str
    suffix: str
    path: str = ""
    flags: Tuple[str, ...] = ()


def folder() -> str:
    """The folder of the cache, which is made if it is not there.

    Raises:
        LibraryError: it belongs to somebody else, or others can write there.
        OSError: it cannot be made.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return _made(os.path.abspath(named))
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if os.path.isabs(home):  # others count as unset
        with contextlib.suppress(OSError, LibraryError):  # no home of one's own
            return _made(os.path.join(home, "pytest-tvmrpc", "compiled"))
    return _made(os.path.join(tempfile.gettempdir(), f"pytest-tvmrpc-{os.getuid()}"))


def _made(path: str) -> str:
    os.makedirs(path, mode=0o700, exist_ok=True)
    status = os.stat(path)
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise LibraryError(
            f"{path} cannot keep libraries: others can write there, and what is in it is run; "
            f"expected a folder of your own; set {VARIABLE} to one"
        )
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(f"{path} is read-only")
    return path


def load(source: Source, compiler: Command, loader: Callable[[str], Loaded]) -> Loaded:
    """Load the library of a source, compiled if it has not been before.

    Args:
        loader: called with its path.

    Raises:
        CompilerError: no compiler, or it refused; or another process compiles it for too long.
        LibraryError: the library cannot be loaded, though it was compiled anew.
    """
    command = _command(source, compiler)
    place = folder()
    entry = _Entry(place, _digest(source, command))
    found = entry.find()
    if found is not None:
        with contextlib.suppress(LibraryError):  # one that was damaged is made again
            return loader(found)
    with _locked(os.path.join(place, f"lock-{entry.key[:2]}")):
        made = entry.find() if found is None else None  # by whoever had the lock
        if made is None:
            made = entry.make(source, command)
            _prune(place)
    return loader(made)


def _command(source: Source, compiler: Command) -> List[str]:
    if compiler is None:
        return toolchain.find_compiler(has_objects=source.suffix != "c")
    words = [compiler] if isinstance(compiler, str) else list(compiler)
    return [shutil.which(words[0]) or words[0], *words[1:]]


def made_once(
    suffix: str,
    content: bytes,
    flags: Sequence[str],
    command: Sequence[str],
    make: Callable[[str, str], Any],
) -> str:
    """The path of a program or object file, made if it has not been before.

    Args:
        suffix: ``.bin`` of a program, ``.o`` of an object file.
        content: of all its sources and headers, with their names.
        flags: for the compiler.
        command: the compiler.
        make: compiles it; called with the path to write and a folder for temporary files.

    Raises:
        CompilerError: the compiler refused; or another process compiles it for too long.
        LibraryError: there is no place for it.
    """
    place = folder()
    key = _hash_of_all([suffix], content, flags, command)
    path = os.path.join(place, key + suffix)
    if _is_used(path):
        return path
    with _locked(os.path.join(place, f"lock-{key[:2]}")):
        if not _is_used(path):  # made by whoever had the lock
            work = tempfile.mkdtemp(prefix="work-", dir=place)
            try:
                made = os.path.join(work, "made" + suffix)
                make(made, work)
                os.replace(made, path)
            finally:
                shutil.rmtree(work, ignore_errors=True)
            _prune(place)
    return path


def _is_used(path: str) -> bool:
    """Whether the file is there; if so, it is marked as used, for `_prune`."""
    if not os.path.isfile(path):
        return False
    with contextlib.suppress(OSError):
        os.utime(path)
    return True


def _digest(source: Source, command: Sequence[str]) -> str:
    """What a library depends on, but for the headers."""
    parts = [source.suffix, source.path, toolchain.include_dir()]
    return _hash_of_all(parts, _encoded(source.text), source.flags, command)


def _hash_of_all(
    parts: List[str], content: bytes, flags: Sequence[str], command: Sequence[str]
) -> str:
    stamps = tuple(_stamp(word) for word in command if not word.startswith("-"))
    every: List[Any] = [_FORM, *parts, *map(list, (flags, command)), platform.machine()]
    every += [_version(tuple(command), stamps), *(os.environ.get(name) for name in _VARIABLES)]
    words = (*flags, *command[1:])
    if any("native" in word for word in words):
        every.append(_processor())
    if any(_WITH_A_PATH.match(word) or _is_relative(word) for word in words):
        every.append(os.getcwd())
    head = json.dumps(every).encode("utf-8")
    return hashlib.sha256(head + b"\0" + content).hexdigest()


def _is_relative(word: str) -> bool:
    return not os.path.isabs(word) and os.path.exists(word)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _stamp(program: str) -> Tuple[str, int, int]:
    try:
        path = os.path.realpath(program)
        status = os.stat(path)
    except OSError:  # running it says what is wrong
        return program, 0, 0
    return path, status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=16)
def _version(command: Tuple[str, ...], stamps: Tuple[Tuple[str, int, int], ...]) -> str:
    """What a compiler says of its version and its target; asked once as long as it is the same."""
    import subprocess

    try:
        said = subprocess.run(
            [*command, "-v"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return repr(stamps)
    return repr(stamps) + said.stdout.decode("utf-8", "replace")


@functools.lru_cache(maxsize=1)
def _processor() -> str:
    """What -march=native depends on."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            first = file.read().partition("\n\n")[0]
    except OSError:
        return platform.processor()
    return "\n".join(re.findall(r"^(?:model name|flags|Features|CPU part)\s*:.*$", first, re.M))


class _Entry:
    """One source in the cache: a record of its headers, and its library for these.

    Args:
        place: the folder of the cache.
        key: the hash of the source, flags and compiler.
    """

    def __init__(self, place: str, key: str) -> None:
        self.key = key
        self._start = os.path.join(place, key)

    def find(self) -> Optional[str]:
        """The path of its library, if there is one for the headers of today."""
        try:
            with open(f"{self._start}.json", encoding="utf-8") as file:
                headers: Dict[str, str] = json.load(file)
            current = {path: _hash_of(path) for path in headers}
        except (OSError, ValueError):  # none, or cut by a disk that was full
            return None
        path = self._library(headers)
        return path if current == headers and _is_used(path) else None

    def _library(self, headers: Dict[str, str]) -> str:
        digest = hashlib.sha256(json.dumps(sorted(headers.items())).encode("utf-8")).hexdigest()
        return f"{self._start}-{digest[:16]}.so"

    def make(self, source: Source, command: Sequence[str]) -> str:
        """Compile it; what was there appears whole or not at all."""
        work = tempfile.mkdtemp(prefix="work-", dir=os.path.dirname(self._start))
        try:
            return self._compile(source, command, work)
        except CompilerError as error:
            raise CompilerError(str(error).replace(work + os.sep, "")) from None
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _compile(self, source: Source, command: Sequence[str], work: str) -> str:
        name = os.path.join(work, f"source.{source.suffix}")
        text, options = source.text, ["-MMD", "-MF", os.path.join(work, "headers.d")]
        if source.path:  # its own lines are shown, and its neighbours are found
            text = f"#line 1 {json.dumps(source.path, ensure_ascii=False)}\n{text}"
            options += ["-iquote", os.path.dirname(source.path)]
        with open(name, "wb") as file:
            file.write(_encoded(text))
        made = toolchain.compile_library(
            name,
            os.path.join(work, "made.so"),
            options=[*options, *source.flags],
            compiler=command,
            scratch=work,
        )
        headers = {path: _hash_of(path) for path in _headers(work, name)}
        path = self._library(headers)
        os.replace(made, path)
        record = os.path.join(work, "record.json")
        with open(record, "w", encoding="utf-8") as file:
            json.dump(headers, file)
        os.replace(record, f"{self._start}.json")
        return path


def _hash_of(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _headers(work: str, source: str) -> List[str]:
    """The headers that the compiler says it read, but for those of the system."""
    try:
        with open(os.path.join(work, "headers.d"), encoding="utf-8", errors="surrogateescape") as f:
            text = f.read().replace("\\\n", " ")
    except FileNotFoundError:  # a compiler that does not say
        return []
    words = re.findall(r"(?:\\.|\$\$|[^\s\\])+", text.partition(": ")[2])
    paths = [re.sub(r"\\(.)", r"\1", word).replace("$$", "$") for word in words]
    return sorted({os.path.abspath(path) for path in paths} - {source})


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """One process at a time compiles; where filelock is not, each does, and the last one counts."""
    try:
        import filelock
    except ImportError:
        yield
        return
    lock = filelock.FileLock(path, timeout=LOCK_TIMEOUT_S)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise CompilerError(
            f"another process has compiled for longer than {LOCK_TIMEOUT_S:g} s, and has the lock "
            f"{path}; expected it to end; end that process, or set {VARIABLE} to another folder"
        ) from None
    except NotImplementedError:  # a file system without locks
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _prune(place: str) -> None:
    """Remove what is too much, and what processes that were killed left behind."""
    now_at = time.time()  # as the file system counts
    files: List[Tuple[float, int, str]] = []
    for entry in os.scandir(place):
        with contextlib.suppress(OSError):  # another process does the same
            status = entry.stat(follow_symlinks=False)
            if entry.name.endswith(_SUFFIXES):
                files.append((status.st_mtime, status.st_size, entry.path))
            elif entry.name.startswith("work-") and status.st_mtime < now_at - _IN_USE_S:
                shutil.rmtree(entry.path, ignore_errors=True)
    total = sum(nbytes for _, nbytes, _ in files)
    for used_at, nbytes, path in sorted(files):
        if total <= MAX_NBYTES or used_at > now_at - _IN_USE_S:
            break
        with contextlib.suppress(OSError):
            os.unlink(path)
            if path.endswith(".so"):
                os.unlink(path.rpartition("-")[0] + ".json")
        total -= nbytes
