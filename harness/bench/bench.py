"""One run of the bench: who is there, how long to measure, and what came out so far."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, TextIO

from . import machine
from .goals import COLUMNS, ITEMS, LINES, NATIVE, TVM_NATIVE
from .rounds import ABSENT, Contest, Outcome, explain, step_limit
from .table import Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from .peers import Absent, Address, Session, Stack


class Bench:
    """What every item gets: the stacks, a work folder, the library, the number of rounds.

    Args:
        stacks: who is measured; those with the server in C only where they have goals.
        absent: who is not, and why.
        folder: a scratch folder; library: the compiled kernels in it.
        rounds: of every item, or None for the item's own. quick: fewer rounds, smaller checks.
        progress: where to say what is going on.
    """

    def __init__(
        self,
        stacks: Sequence[Stack],
        absent: Sequence[Absent],
        folder: Path,
        library: Path,
        *,
        rounds: int | None,
        quick: bool,
        with_bare: bool,
        progress: TextIO,
    ) -> None:
        self.with_native = tuple(stacks)
        self.stacks = tuple(one for one in stacks if one.name not in (NATIVE, TVM_NATIVE))
        self.absent = tuple(absent)
        self.folder = folder
        self.library = library
        self.quick = quick
        self.with_bare = with_bare
        self.rows: list[Row] = []
        self._rounds = rounds
        self._progress = progress
        self._core: int | None = None

    def rounds(self, item: str) -> int:
        """How many rounds an item gets."""
        if self._rounds is not None:
            return self._rounds
        return ITEMS[item].quick_rounds if self.quick else ITEMS[item].rounds

    def calls(self, full: int) -> int:
        """How many short operations make one sample."""
        return max(1, full // 5) if self.quick else full

    @property
    def core(self) -> int:
        """The core for latencies: the quieter one, chosen once for a run."""
        if self._core is None:
            self._core = machine.quiet_core()
        return self._core

    def stack(self, name: str) -> Stack | None:
        """The stack with a name, if it is measured."""
        return next((stack for stack in self.stacks if stack.name == name), None)

    def add(self, line: str, outcomes: Mapping[str, Outcome], note: str = "") -> None:
        """Adds a line of the table."""
        cells = {name: outcomes.get(name, ABSENT) for name in COLUMNS}
        self.rows.append(Row(LINES[line], cells, note))
        for subject, more in LINES[line].of_native():
            self.rows.append(Row(more, cells, subject=subject))

    def missing(self) -> dict[str, Outcome]:
        """The stacks that are not measured at all, as outcomes."""
        return {name: Outcome(error=reason, absent=True) for name, reason in self.absent}

    def contest(self, item: str, failed: Mapping[str, str]) -> Contest:
        """A contest over the rounds of an item; `failed` are out before it begins."""
        entries = Contest(self.rounds(item), self.missing())
        for name, error in failed.items():
            entries.fail(name, error)
        return entries

    @contextlib.contextmanager
    def announced(self, item: str) -> Iterator[None]:
        """Says what is measured, and then how long it took."""
        self._progress.write(f"{item:<4} {ITEMS[item].work} ... ")
        self._progress.flush()
        start = time.monotonic()
        yield
        self._progress.write(f"{time.monotonic() - start:.1f} s\n")
        self._progress.flush()


class Opened:
    """Things that were opened for each stack, and what happened to those that did not open."""

    def __init__(self, owner: contextlib.ExitStack) -> None:
        self.sessions: dict[str, tuple[Stack, Session]] = {}
        self.addresses: dict[str, Address] = {}
        self.failed: dict[str, str] = {}
        self._owner = owner

    def open_servers(self, stacks: Sequence[Stack]) -> Opened:
        """Starts a server of each stack."""
        for stack in stacks:
            try:
                with step_limit():
                    address = self._owner.enter_context(stack.server())
            except Exception as error:  # a stack that does not start is a cell of the table
                self.failed[stack.name] = explain(error)
            else:
                self.addresses[stack.name] = address
        return self

    def open_sessions(self, stacks: Sequence[Stack]) -> Opened:
        """Starts a server of each stack, and connects."""
        self.open_servers(stacks)
        for stack in stacks:
            if stack.name not in self.addresses:
                continue
            try:
                with step_limit():
                    session = stack.connect(self.addresses[stack.name])
            except Exception as error:  # as above
                self.failed[stack.name] = explain(error)
            else:
                self.sessions[stack.name] = (stack, session)
                self._owner.callback(self._close, stack.name)
        return self

    def _close(self, name: str) -> None:
        stack, session = self.sessions.pop(name)
        with contextlib.suppress(Exception), step_limit():  # measured already, or failed already
            stack.close(session)


@contextlib.contextmanager
def opened() -> Iterator[Opened]:
    """A place to open servers and sessions; all are closed with the block."""
    with contextlib.ExitStack() as owner:
        yield Opened(owner)
