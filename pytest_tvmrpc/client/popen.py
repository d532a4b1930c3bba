"""PopenSession: a session with a program that it starts, and that ends with it."""

from __future__ import annotations

import os
import tempfile
import weakref
from typing import IO, TYPE_CHECKING, Any, Optional, Sequence, Union

from ..runtime.toolchain import listed
from ..session.program import Limits, Output, open_program
from .output import RemoteOutput, bounds
from .session import RPCSession

if TYPE_CHECKING:
    from ..session.program import Binary

_LAST_NBYTES = 4096
_LAST_LINES = 20


class PopenSession(RPCSession):
    """A session with a program on this machine that serves it over two descriptors.

    Such a program is what `with_minrpc` makes, of this package or of TVM, or our Popen server by
    itself. It has a process group of its own, so that Ctrl-C does not reach it, and is ended, with
    whatever it started there, by `close()`, the end of the ``with`` block, or the end of this
    process.

    Args:
        binary: the program's path, or the program itself as bytes.
        arguments: what stands in its command line before the two descriptors: with an emulator as
            the program, the emulator's options and the program that it runs.
        log: where the program prints: a file, or a descriptor. None: what it prints is kept in a
            file without a name, for `output` and for the error that says how it ended.
        handshake_timeout: seconds until the session is open. None: for ever.
        call_timeout: seconds that any later call may take without an answer. None: for ever.

    Raises:
        TypeError: the program is neither a path nor bytes, or the arguments are no list of str.
        StartError: there is no such program, it is not executable, or it ended at once; the
            message has its exit status and what it printed last.
        DeadlineError: it did not open the session in time.
    """

    def __init__(
        self,
        binary: Binary,
        *,
        arguments: Sequence[str] = (),
        log: Union[int, IO[Any], None] = None,
        handshake_timeout: Optional[float] = 10.0,
        call_timeout: Optional[float] = 600.0,
    ) -> None:
        words = listed("arguments", arguments, "['-L', '/usr/aarch64-linux-gnu', 'server']")
        self._printed: Optional[_Printed] = None
        if log is None:
            self._printed = _Printed()
            output = Output(self._printed.descriptor, self._printed.last_lines)
        else:
            output = Output(log if isinstance(log, int) else log.fileno(), _unknown)
        endpoint = open_program(binary, words, output, Limits(handshake_timeout, call_timeout))
        name = os.fspath(binary) if isinstance(binary, (str, os.PathLike)) else "a program"
        super().__init__(endpoint, (name, 0))

    def output(self, since: int = 0, limit: Optional[int] = None) -> Optional[RemoteOutput]:
        """What the program has printed; None if that goes to the `log` that was given.

        The arguments are those of `RPCSession.output`. Here, it can also be asked for when the
        session is over. A program of TVM may hold back what is not yet a block of its stdout.
        """
        since, limit = bounds(since, limit)
        return None if self._printed is None else self._printed.read(since, limit)


class _Printed:
    """A file without a name, to which a program prints.

    Attributes:
        descriptor: the file's.
    """

    def __init__(self) -> None:
        self.descriptor, path = tempfile.mkstemp(prefix="tvmrpc-output-")
        os.unlink(path)
        weakref.finalize(self, os.close, self.descriptor)

    def read(self, since: int, limit: Optional[int]) -> RemoteOutput:
        end = os.fstat(self.descriptor).st_size
        start = min(since if limit is None else max(since, end - limit), end)
        content = os.pread(self.descriptor, end - start, start)
        return RemoteOutput(content, end, max(start - since, 0))

    def last_lines(self) -> str:
        """What was printed last, as the end of a message; empty if nothing was."""
        lines = self.read(0, _LAST_NBYTES).text.splitlines()[-_LAST_LINES:]
        return "; it printed last:\n" + "\n".join(lines) if lines else "; it printed nothing"


def _unknown() -> str:
    return ""
