"""A program of ours in a child process: start it, learn its port, stop it, say how it ended.

Not a supervisor: nothing is restarted, and nothing but the port is asked of the child.

The child lives in a session of its own, so that Ctrl-C in a terminal reaches the parent only, and
holds the read end of a pipe whose other end is the parent's: however the parent dies, the pipe
closes and the child exits.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from typing import (
    IO,
    TYPE_CHECKING,
    Any,
    Dict,
    List,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
    Union,
)

from . import network
from .errors import StartError
from .owners import not_copied
from .processes import how_ended

if TYPE_CHECKING:
    import argparse
    import socket
    import subprocess
    from types import TracebackType

_BOOTSTRAP = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "import importlib.util as u; "
    "s = u.spec_from_file_location("
    "'pytest_tvmrpc', {init!r}, submodule_search_locations=[{folder!r}]); "
    "m = sys.modules['pytest_tvmrpc'] = u.module_from_spec(s); s.loader.exec_module(m); "
    "{entry}"
)
"""Finds this very package and nothing that lies beside it: a child sees what a bare board has.
Nor does it find what lies in the working directory, where any file may have a module's name."""

_CHILD = "from pytest_tvmrpc import background; sys.exit(background.run_child())"

_Running = TypeVar("_Running", bound="RunningProgram")

_STOP_LIMIT_S = 5.0
_SIGKILL = 9  # of every system; `signal` takes a while to import
_LINE_LIMIT = 65536
_TAIL_BYTES = 4096
_TAIL_LINES = 20


@not_copied("pass host and port")
class Program:
    """A program of this package, running in a child process.

    Args:
        module: the full name of the module; its ``main(arguments)`` is called in the child.
        arguments: its command line, without the hidden options, which are added here.
        listener: a bound and listening socket that the child shall serve; stays the caller's.
        inherit: other descriptors that the child shall have, under the same numbers.
        log: where the child's output goes: a file, a descriptor, or None for our own stderr.
        start_timeout_s: how long the child may take until it announces its port.
        need_site: whether the child must see site-packages; start-up is slower with them.
        command: what to run in place of an interpreter: a program that takes the hidden options,
            too. `module` is no more than its name in messages then.

    Raises:
        StartError: it ended, refused or said nothing in time; what it printed is in the message.

    Attributes:
        port: the port that the child announced.
        pid: the child's process id, which is its process group's, too.
        announced: all that the child announced, by name.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        listener: Optional[socket.socket] = None,
        log: Union[int, IO[Any], None] = None,
        start_timeout_s: float = 20.0,
        need_site: bool = False,
        inherit: Sequence[int] = (),
        command: Sequence[str] = (),
    ) -> None:
        self.module = module
        self._command = [*command] or [*interpreter(_CHILD, need_site), module]
        self.port = 0
        self.pid = 0
        self.announced: Dict[str, Any] = {}
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._lifeline = -1
        self._owner = os.getpid()
        output = _Output(log)
        parent_fd, self._lifeline = os.pipe()
        network.forget_in_forks(self)
        ready_read, ready_fd = os.pipe()
        try:
            self._spawn(arguments, listener, output, (parent_fd, ready_fd), inherit)
            os.close(ready_fd)
            ready_fd = -1
            self.port = self._await_port(ready_read, start_timeout_s, output)
        except BaseException:
            self.terminate()
            raise
        finally:
            for descriptor in (parent_fd, ready_fd, ready_read):
                if descriptor >= 0:
                    os.close(descriptor)

    def _spawn(
        self,
        arguments: Sequence[str],
        listener: Optional[socket.socket],
        output: _Output,
        pipes: Tuple[int, int],
        inherit: Sequence[int],
    ) -> None:
        import subprocess  # 11 ms, and the child imports this module, too

        parent_fd, ready_fd = pipes
        hidden = ["--parent-fd", str(parent_fd), "--ready-fd", str(ready_fd)]
        inherited = [parent_fd, ready_fd, *inherit]
        if listener is not None:
            hidden += ["--listen-fd", str(listener.fileno())]
            inherited.append(listener.fileno())
        self._process = subprocess.Popen(
            [*self._command, *arguments, *hidden],
            stdin=subprocess.DEVNULL,
            stdout=output.descriptor,
            stderr=output.descriptor,
            pass_fds=inherited,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._expired = subprocess.TimeoutExpired  # an interpreter that ends can import no more

    def _await_port(self, ready_read: int, limit_s: float, output: _Output) -> int:
        line = _read_line(ready_read, limit_s)
        if line is None:
            self.terminate()
            raise StartError(
                f"{self.module} did not announce its port within start_timeout_s={limit_s:g} s"
                + output.tail()
            )
        try:
            word: Dict[str, Any] = json.loads(line) if line else {}
        except ValueError:
            word = {"error": f"it announced {line[:80]!r}"}
        port = word.get("port")
        if isinstance(port, int):
            self.announced = word
            return port
        # It is about to end by itself, or has ended; how it did is part of the story.
        ended = self._wait(_STOP_LIMIT_S) and self.ended()
        self.terminate()
        reason = f": {word['error']}" if "error" in word else ""
        raise StartError(
            f"{self.module} did not start, it {ended or 'had to be killed'}{reason}" + output.tail()
        )

    def forget(self) -> None:
        """This process is a fork: the program is the parent's, and ends with the parent."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        if self._process is not None and self._process.returncode is None:
            self._process.returncode = 0  # as `poll` says of what is no child of this process

    @property
    def alive(self) -> bool:
        """Whether the child is running."""
        return self._process is not None and self._process.poll() is None

    def ended(self) -> Optional[str]:
        """How the child ended (``exited with 3``, ``was killed by SIGKILL``); None: it runs."""
        code = None if self._process is None else self._process.poll()
        return None if code is None else how_ended(code)

    def terminate(self) -> None:
        """End the child and wait for it: politely for 5 s, then its whole process group at once."""
        if self._owner != os.getpid():
            return  # a forked copy of the parent; the child is not ours to end
        process = self._process
        if process is not None and process.poll() is None:
            # Before the pipe closes: a signal to one that is leaving already is no clean end.
            process.terminate()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        if process is not None and not self._wait(_STOP_LIMIT_S):
            # Not reaped yet, so the group's number cannot belong to anybody else.
            os.killpg(process.pid, _SIGKILL)
            process.wait()

    def _wait(self, limit_s: float) -> bool:
        assert self._process is not None
        try:
            self._process.wait(limit_s)
        except self._expired:
            return False
        return True

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self,
        exc_type: Optional[type],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.terminate()

    def __del__(self) -> None:
        if getattr(self, "_lifeline", -1) < 0 or self._owner != os.getpid():
            return
        if not sys.is_finalizing():  # else it was kept to the end, as a script may do
            warnings.warn(
                f"{self.module} (process {self.pid}) was dropped while it ran; "
                "call terminate(), or use it with `with`",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
        self.terminate()


@not_copied("pass host and port")
class RunningProgram:
    """A program that was started from Python and serves at an address: a server, a tracker.

    Args:
        program: the process.
        host: the address that it was told to listen on; None: this machine only.
        details: what else tells it from others, for its ``repr``.

    Attributes:
        program: the process.
        host: the address it listens on.
        port: the port it listens on.
    """

    def __init__(self, program: Program, host: Optional[str], details: Sequence[str] = ()) -> None:
        self.program = program
        self.host = network.LOOPBACK if host is None else host
        self.port = program.port
        self._details = details

    def __repr__(self) -> str:
        address = f"[{self.host}]" if ":" in self.host else self.host
        state = self.program.ended() or f"process {self.program.pid}"
        words = ", ".join([f"{address}:{self.port}", *self._details, state])
        return f"<{type(self).__name__} {words}>"

    @property
    def proc(self) -> Program:
        """The process, under TVM's name for it."""
        return self.program

    def terminate(self) -> None:
        """Ends it, with all that it started, and waits for it. May be called twice."""
        self.program.terminate()

    def __enter__(self: _Running) -> _Running:
        return self

    def __exit__(
        self,
        exc_type: Optional[type],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.terminate()


class _Output:
    """Where a child's output goes, and what it wrote there if that can be read again."""

    def __init__(self, log: Union[int, IO[Any], None]) -> None:
        if log is None:
            self.descriptor = _own_stderr()
        elif isinstance(log, int):
            self.descriptor = log
        else:
            log.flush()
            self.descriptor = log.fileno()
        self._start = self._size()

    def _size(self) -> int:
        """How long the log is, or -1 when it is no file."""
        import stat

        try:
            found = os.fstat(self.descriptor)
        except (OSError, OverflowError):  # subprocess.DEVNULL is no descriptor
            return -1
        return found.st_size if stat.S_ISREG(found.st_mode) else -1

    def tail(self) -> str:
        """What was printed last, as an addition to a message; empty when it is not known."""
        end = self._size()
        if self._start < 0 or end <= self._start:
            return ""
        start = max(self._start, end - _TAIL_BYTES)
        try:
            content = os.pread(self.descriptor, end - start, start)
        except OSError:  # open for writing only
            try:
                with open(f"/proc/self/fd/{self.descriptor}", "rb") as log:
                    log.seek(start)
                    content = log.read(end - start)
            except OSError:
                return ""
        lines = content.decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]
        return "; it printed last:\n" + "\n".join(lines) if lines else ""


def _own_stderr() -> int:
    try:
        os.fstat(2)
    except OSError:  # a daemon without one
        return -3  # subprocess.DEVNULL
    return 2


def interpreter(entry: str, need_site: bool) -> List[str]:
    """The command of a new interpreter that has this very package, and runs `entry`.

    Args:
        entry: a statement; ``sys`` is imported.
        need_site: whether it must see site-packages; start-up is slower with them.
    """
    flags = ["-B"] if sys.dont_write_bytecode else []
    # -I: like -E, and the current folder is not searched for modules. Without site, an
    # interpreter is up in 10 to 20 ms instead of 35 and more.
    flags += [] if need_site else ["-I", "-S"]
    folder = os.path.dirname(os.path.abspath(__file__))
    init = os.path.join(folder, "__init__.py")
    return [
        sys.executable,
        *flags,
        "-c",
        _BOOTSTRAP.format(init=init, folder=folder, entry=entry),
    ]


def _read_line(descriptor: int, limit_s: float) -> Optional[bytes]:
    """The first line from a pipe, as much as there was at its end, or None at the limit."""
    import select

    give_up = time.monotonic() + limit_s
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    line = b""
    while b"\n" not in line and len(line) < _LINE_LIMIT:
        left = give_up - time.monotonic()
        if left <= 0 or not waiting.poll(left * 1000):
            return None
        part = os.read(descriptor, 4096)
        if not part:
            break
        line += part
    return line


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a program's parser the hidden options with which `Program` starts it."""
    import argparse

    for option in ("--ready-fd", "--parent-fd", "--listen-fd"):
        parser.add_argument(option, type=int, default=None, help=argparse.SUPPRESS)


def announce(ready_fd: Optional[int], port: int, **more: Any) -> None:
    """Tell the parent, if there is one waiting, the port on which this program now serves."""
    if ready_fd is not None:
        _say(ready_fd, {"port": port, **more})


def refuse(ready_fd: Optional[int], reason: str) -> None:
    """Say on stderr, and to the parent if there is one waiting, why this program does not start."""
    print(f"error: {reason}", file=sys.stderr, flush=True)
    if ready_fd is not None:
        _say(ready_fd, {"error": reason})


def _say(ready_fd: int, word: Dict[str, Any]) -> None:
    try:
        os.write(ready_fd, json.dumps(word).encode()[: _LINE_LIMIT - 1] + b"\n")
    except OSError:
        pass  # the parent no longer waits; its end of the other pipe says whether it lives
    finally:
        os.close(ready_fd)


def run_child() -> int:
    """The child's side of `Program`: run the module that the command line names."""
    import importlib

    module, *arguments = sys.argv[1:]
    sys.argv[:] = [module, *arguments]
    descriptors = {
        option: int(value)
        for option, value in zip(arguments, arguments[1:])
        if option in ("--ready-fd", "--parent-fd", "--listen-fd", "--callback-fd")
    }
    for descriptor in descriptors.values():
        os.set_inheritable(descriptor, False)  # not for the programs that this one starts
    ready_fd = descriptors["--ready-fd"]
    pipe = os.fstat(ready_fd)
    try:
        status: int = importlib.import_module(module).main(arguments)
    except Exception as error:  # whatever it is that stops the program, its parent shall know it
        if _is_open(ready_fd, pipe):
            _say(ready_fd, {"error": f"{type(error).__name__}: {error}"})
        raise
    return status


def _is_open(descriptor: int, found: os.stat_result) -> bool:
    """Whether the descriptor still is what it was, and not closed or something new."""
    try:
        now = os.fstat(descriptor)
    except OSError:
        return False
    return (now.st_dev, now.st_ino) == (found.st_dev, found.st_ino)
