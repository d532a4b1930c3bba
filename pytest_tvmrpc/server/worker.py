"""A session in a process of its own, as its supervisor sees it: its start, its deadline, its end.

The parent keeps a copy of the client's socket. When the session's process dies of something, the
parent can tell the client what it was, unless the process stood in the middle of an answer: a
byte of shared memory says so.
"""

from __future__ import annotations

import contextlib
import enum
import mmap
import os
import signal
import socket
import time
from typing import TYPE_CHECKING, Callable, List, NamedTuple, Optional, Sequence

from ..processes import has_ended, how_ended
from ..session.serving import Progress
from .ending import end_at_once
from .forking import fork_child
from .process import PROGRESS, STAGE, Serve, Stage, Start, become_session, last_packet, never_opened
from .strays import new_mark

if TYPE_CHECKING:
    from .directory import SessionDirectory
    from .output import SessionOutput
    from .strays import Strays

_STRAYS_S = 5.0
"""How long to wait for processes that were killed; one that the kernel holds fast stays."""

_LOOK_AGAIN_S = 0.05
_MOMENT_S = 0.01


class WorkerState(enum.Enum):
    """Where a session's process stands."""

    SERVING = "serving"
    STOPPING = "stopping"
    STRAYS = "strays"
    """It has ended and its client is told; what it started has not ended yet."""
    EXITED = "exited"


_LATER_S = 0.5
"""How much later than the process itself its supervisor looks whether the session is open."""


class Verdict(NamedTuple):
    """Why a session was ended: for the report, and for its client."""

    outcome: str
    message: str


class Worker:
    """One session, from fork to reaping.

    Args:
        connection: the client's socket, blocking, handshake done; owned.
        address: the client's, for reports.
        directory: the session's working directory.
        session_timeout: seconds until the session is ended; 0 for no limit.
        serve: what the child does.
        close: descriptors of the parent that the child must not keep.
        output: where the child prints, if not where its parent does; owned.
        strays: what finds the processes that a session left behind.
        shared_fd: a file for the memory that the two share, if `serve` needs one; owned.
        opening_s: seconds that the client may take until it has opened the session; 0: any time.
        end: takes the client's socket, and what is left to be said there.

    Attributes:
        lifeline: a connection to the process, which ends itself when it closes; on it the process
            asks what it has printed. -1 once it is closed.

    Raises:
        OSError: no process can be started now; the socket is still open.
    """

    def __init__(
        self,
        connection: socket.socket,
        address: str,
        directory: SessionDirectory,
        session_timeout: float,
        serve: Serve,
        close: Sequence[int],
        output: Optional[SessionOutput] = None,
        strays: Optional[Strays] = None,
        shared_fd: int = -1,
        opening_s: float = 0.0,
        end: Callable[[socket.socket, bytes], object] = end_at_once,
    ) -> None:
        self.connection = connection
        self.address = address
        self.directory = directory
        self.session_timeout = session_timeout
        self._opening_s = opening_s
        self._end = end
        self._asks_at: Optional[float] = None
        self._opens_by = time.monotonic() + opening_s + _LATER_S if opening_s else None
        self.output = output
        self.state = WorkerState.SERVING
        self.expires_at: Optional[float] = None
        self.kill_at: Optional[float] = None
        self._verdict: Optional[Verdict] = None
        self._has_client = True
        self._outcome = ""
        self._strays = strays
        self._give_up_at = 0.0
        self._mark = new_mark()
        self.lifeline = -1
        try:
            self._shared = mmap.mmap(shared_fd, mmap.PAGESIZE)
            try:
                self.pid = self._fork(serve, close, shared_fd)
            except OSError:
                self._release()
                raise
        finally:
            if shared_fd >= 0:
                os.close(shared_fd)
        self._started()

    def _fork(self, serve: Serve, close: Sequence[int], shared_fd: int) -> int:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.lifeline, lifeline = ours.detach(), theirs.detach()
        start = Start(
            self.connection,
            self.directory.path,
            memoryview(self._shared),
            shared_fd,
            lifeline,
            os.getpid(),
            self._mark,
        )
        output = self.output.writer if self.output is not None else -1
        try:
            return fork_child(lambda: become_session(start, serve, output), [*close, self.lifeline])
        finally:
            start.shared.release()
            os.close(lifeline)

    def _started(self) -> None:
        with contextlib.suppress(OSError):  # the child does it too; whoever comes first
            os.setpgid(self.pid, self.pid)
        if self.output is not None:
            self.output.started()
        limit_s = self.session_timeout
        self.expires_at = time.monotonic() + limit_s if limit_s else None

    def descriptors(self) -> List[int]:
        """What no other process that the parent forks may keep open."""
        own = [self.connection.fileno(), self.lifeline]
        if self.output is not None:
            own.append(self.output.fileno())
        return [descriptor for descriptor in own if descriptor >= 0]

    def answer(self) -> bool:
        """Answers a question of the process; whether there may be more one day."""
        return self.output is not None and self.output.answer(self.lifeline)

    def expect_end(self, by: float) -> None:
        """The client is gone: the process has until then to notice."""
        self._has_client = False
        if self.state is WorkerState.SERVING:
            self.kill_at = by

    def stop(self, now: float, grace_s: float, verdict: Optional[Verdict] = None) -> None:
        """Asks the process to end; `tick` kills it when it does not."""
        if self.state is WorkerState.SERVING:
            self.state = WorkerState.STOPPING
            self.kill_at = now + grace_s
            self._verdict = verdict
            self._asks_at = now
            self._ask_to_end(now)

    def _ask_to_end(self, now: float) -> None:
        """Not amid a short answer, as nothing could be said behind a part of it."""
        if self._shared[PROGRESS] == Progress.ANSWERING:
            self._asks_at = now + _MOMENT_S
        else:
            self._asks_at = None
            self._signal(signal.SIGTERM)

    def tick(self, now: float, grace_s: float) -> None:
        """Does what is due: the end of the session's time, or of the patience with its end."""
        if self.expires_at is not None and now >= self.expires_at:
            self.expires_at = None
            self.stop(now, grace_s, _expired(self.session_timeout))
        if self._opens_by is not None and now >= self._opens_by:
            self._opens_by = self._check_opened(now, grace_s)
        if self._asks_at is not None and now >= self._asks_at:
            self._ask_to_end(now)
        if self.kill_at is not None and now >= self.kill_at:
            self.kill_at = None
            if self.state is not WorkerState.STRAYS:
                self._signal(signal.SIGKILL)

    def limit_opening(self, opening_s: float) -> None:
        """The client has no longer than this, in all, to open the session."""
        if self._opens_by is not None and opening_s < self._opening_s:
            self._opens_by += opening_s - self._opening_s - _LATER_S
            self._opening_s = opening_s

    def next_wakeup(self) -> Optional[float]:
        """When `tick` has something to do, on the monotonic clock."""
        moments = (self.expires_at, self.kill_at, self._opens_by, self._asks_at)
        return min((moment for moment in moments if moment is not None), default=None)

    def _check_opened(self, now: float, grace_s: float) -> Optional[float]:
        """Ends a session whose client only pretends to open it; when to look again, if at all.

        The process limits each wait for the client; one that says a byte now and then passes that.
        """
        stage = self._shared[STAGE]
        if stage in (Stage.OPEN, Stage.WAS_IDLE) or self.state is not WorkerState.SERVING:
            return None
        if stage == Stage.STARTING or self._shared[PROGRESS] != Progress.IDLE:
            return now + _LATER_S  # it is the server that takes its time
        self.stop(now, grace_s, Verdict("was never opened", never_opened(self._opening_s)))
        return None

    def reap(self) -> Optional[str]:
        """Once the process and all that it started have ended: how; `dispose` is left to do.

        The client is told as soon as the process cannot say anything itself any more. None: not
        everything has ended; the last of it is looked for at `next_wakeup`, too.
        """
        if self.state is not WorkerState.STRAYS:
            # As long as it is not reaped, its number cannot belong to anybody else.
            if not has_ended(self.pid):
                return None
            self._signal(signal.SIGKILL)  # what it started and left in its group
            _, status = os.waitpid(self.pid, 0)
            self._conclude(_outcome(status))
            self.state = WorkerState.STRAYS
            self.expires_at = self.kill_at = self._asks_at = None
            self._give_up_at = time.monotonic() + _STRAYS_S
        if self._strays is not None and not self._strays.kill(self._mark):
            now = time.monotonic()
            if now < self._give_up_at:
                self.kill_at = now + _LOOK_AGAIN_S
                return None
            self._outcome += "; processes that it started cannot be killed"
        self.state = WorkerState.EXITED
        return self._outcome

    def _conclude(self, ended: str) -> None:
        """Tells the client, if there is something to be told, how its session ended."""
        if self.output is not None:
            self.output.close()
        progress, stage = self._shared[PROGRESS], self._shared[STAGE]
        verdict = self._verdict
        if verdict is None and stage == Stage.WAS_IDLE and not ended:
            verdict = Verdict("its client asked nothing for too long", "")
        elif verdict is None and progress == Progress.CALLING:
            verdict = self._crashed(ended or "exited with 0", "while it served a request")
        elif verdict is None and stage == Stage.OPEN and self._has_client:
            # A thread of the session, or somebody's signal: no request has to go on for that.
            when = "between two requests" if progress == Progress.IDLE else "within an answer"
            verdict = self._crashed(ended or "exited with 0", when)
        elif verdict is None and ended and stage == Stage.STARTING:
            verdict = self._crashed(ended, "before it served anything")
        packet = b""
        if verdict is not None and verdict.message and progress != Progress.ANSWERING:
            packet = last_packet(memoryview(self._shared), verdict.message)
        self._end(socket.socket(fileno=self.connection.detach()), packet)
        self._outcome = verdict.outcome if verdict is not None else ended or "session ended"

    def _crashed(self, ended: str, when: str) -> Verdict:
        printed = self.output.last_lines() if self.output is not None else ""
        return Verdict(
            ended,
            f"SessionCrashedError: the session's process {ended} {when}"
            + (printed or "; it printed nothing"),
        )

    def _signal(self, number: int) -> None:
        """To the process, wherever it may have gone, and to those that stayed in its group."""
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left
                kill(self.pid, number)

    def dispose(self) -> None:
        """Releases what the session had; may be called twice."""
        self.connection.close()
        self._release()

    def _release(self) -> None:
        self._shared.close()
        if self.output is not None:
            self.output.close()
        if self.lifeline >= 0:
            os.close(self.lifeline)
            self.lifeline = -1


def _expired(session_timeout: float) -> Verdict:
    """The words are TVM's."""
    return Verdict(
        "session expired",
        f"RPCSessionTimeoutError: Your {float(session_timeout)}s session has expired, "
        'try to increase the "session_timeout" value.',
    )


def kicked(reason: str) -> Verdict:
    """The session was ended by somebody in charge of the farm."""
    return Verdict(f"kicked: {reason}", f"SessionKickedError: {reason}")


def _outcome(status: int) -> str:
    """How a process ended; empty for a clean end."""
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return how_ended(code) if code else ""
