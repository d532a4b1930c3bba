"""What is measured and what is to be reached, as one table. Nothing here measures."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS = "ours"
NATIVE = "C"
"""Our client and tracker with the server in C."""
TVM_NATIVE = "TVM-C"
"""TVM's client with the server in C."""
TVM = "TVM"
BARE = "bare"
COLUMNS = (OURS, NATIVE, TVM_NATIVE, TVM, BARE)

MEBIBYTE = 1 << 20
MEGABYTE = 1_000_000


class Kind(enum.Enum):
    """What a figure is; it decides how the figure is written and which way is better."""

    TIME = "seconds"
    RATE = "bytes a second"
    MEMORY = "bytes"
    RHYTHM = "a second"
    COUNT = "count"

    def text(self, value: float) -> str:
        """The figure with its unit: ``8.2 ns``, ``16.4 us``, ``1,830 MB/s``, ``12.3 MB``."""
        if self is Kind.TIME:
            for limit, scale, unit in ((1e-6, 1e9, "ns"), (1e-3, 1e6, "us"), (1.0, 1e3, "ms")):
                if abs(value) < limit:
                    return f"{_digits(value * scale)} {unit}"
            return f"{_digits(value)} s"
        if self is Kind.RATE:
            return f"{_digits(value / MEGABYTE)} MB/s"
        if self is Kind.RHYTHM:
            return f"{_digits(value)} /s"
        if self is Kind.MEMORY:
            return f"{_digits(value / MEGABYTE)} MB"
        return f"{value:g}" if value == int(value) else f"{value:.2f}"


class Goal(NamedTuple):
    """A limit: a factor of another column, or, without one, an absolute figure."""

    limit: float
    against: str = ""
    at_least: bool = False

    def is_met(self, figure: float) -> bool:
        """Whether a ratio to `against`, or an absolute figure, is good enough."""
        return figure >= self.limit if self.at_least else figure <= self.limit

    def text(self, kind: Kind) -> str:
        sign = ">=" if self.at_least else "<="
        if self.against:
            return f"{sign} {self.limit:g} x {self.against}"
        return f"{sign} {kind.text(self.limit)}"


class Line(NamedTuple):
    """One line of the table: its name, the work, the kind of its figures, its goal if any."""

    name: str
    work: str
    kind: Kind
    goal: Goal | None = None
    native: Goal | None = None
    """What our client reaches with the server in C."""
    tvm_native: Goal | None = None
    """What TVM's client reaches with it."""

    def of_native(self) -> Iterator[tuple[str, Line]]:
        """The lines of the server in C, each with the column that it is about."""
        for column, goal, who in (
            (NATIVE, self.native, "our client"),
            (TVM_NATIVE, self.tvm_native, "TVM's client"),
        ):
            if goal is not None:
                yield (
                    column,
                    Line(f"{self.name}.{column}", f"... {who}, server in C", self.kind, goal),
                )


class Item(NamedTuple):
    """One item that `--only` can name, with how many rounds it gets when nobody says."""

    name: str
    work: str
    rounds: int
    quick_rounds: int


ITEMS: dict[str, Item] = {
    item.name: item
    for item in (
        Item("P1", "a call", 15, 5),
        Item("P1b", "1,000 calls in flight", 15, 5),
        Item("P2", "a call of a compiled function with tensors", 15, 5),
        Item("P3", "64 MiB to and from a tensor; extra memory for 512 MiB", 7, 3),
        Item("P4", "64 bytes to and from a tensor", 15, 5),
        Item("P5", "allocating and freeing a tensor", 15, 5),
        Item("P6", "a lease", 9, 3),
        Item("P7", "upload and download of 64 MiB", 7, 3),
        Item("P8", "starting a tracker and a server", 9, 3),
        Item("P9", "pytest with one remote test", 9, 3),
        Item("P10", "memory of idle processes", 1, 1),
        Item("P11", "a tracker's connections and matches", 5, 2),
        Item("P12", "many short remote tests", 5, 2),
        Item("P15", "the measuring loop", 5, 2),
        Item("P14", "round trips of an ordinary test", 7, 3),
    )
}

LINES: dict[str, Line] = {
    line.name: line
    for line in (
        Line(
            *("P1", "call rpc.test.addone(10)", Kind.TIME, Goal(1.25, TVM)),
            *(Goal(1.05, TVM), Goal(0.95, TVM)),
        ),
        Line("P1b", "1,000 calls at once", Kind.RHYTHM, Goal(4, TVM, at_least=True)),
        Line("P1b.a", "... at TVM's server", Kind.RHYTHM, Goal(4, TVM, at_least=True)),
        Line(
            *("P2", "call a C function: two tensors, an int", Kind.TIME, Goal(1.6, TVM)),
            *(Goal(1.15, TVM), Goal(0.95, TVM)),
        ),
        Line(
            *("P3.write", "copy 64 MiB to a tensor", Kind.RATE, Goal(0.7, BARE, at_least=True)),
            Goal(0.8, BARE, at_least=True),
        ),
        Line(
            *("P3.read", "copy 64 MiB from a tensor", Kind.RATE, Goal(0.7, BARE, at_least=True)),
            Goal(0.8, BARE, at_least=True),
        ),
        Line("P3.client", "extra memory for 512 MiB, client", Kind.MEMORY, Goal(8 * MEBIBYTE)),
        Line("P3.server", "extra memory for 512 MiB, server", Kind.MEMORY, Goal(8 * MEBIBYTE)),
        Line(
            *("P4.write", "copy 64 bytes to a tensor", Kind.TIME, Goal(0.4, TVM)),
            Goal(0.4, TVM),
        ),
        Line(
            *("P4.read", "read 64 bytes back", Kind.TIME, Goal(0.4, TVM)),
            Goal(0.4, TVM),
        ),
        Line("P5", "allocate and free a tensor", Kind.TIME, Goal(0.5, TVM)),
        Line(
            *("P6.lease", "request, connect, first call, close", Kind.TIME, Goal(6, BARE)),
            Goal(3, BARE),
        ),
        Line(
            *("P6.free", "... until the tracker shows it free", Kind.TIME, Goal(8, BARE)),
            Goal(5, BARE),
        ),
        Line(
            *("P7.upload", "upload 64 MiB", Kind.RATE, Goal(0.5, BARE, at_least=True)),
            Goal(0.8, BARE, at_least=True),
        ),
        Line(
            *("P7.download", "download 64 MiB", Kind.RATE, Goal(0.5, BARE, at_least=True)),
            Goal(0.8, BARE, at_least=True),
        ),
        Line("P8.tracker", "start a tracker", Kind.TIME, Goal(0.10)),
        Line("P8.server", "start a server, until registered", Kind.TIME, Goal(0.10)),
        Line("P9", "pytest: a remote test more than a local one", Kind.TIME, Goal(0.30)),
        Line("P9.version", "pytest --version: more with the plugin", Kind.TIME, Goal(10e-3)),
        Line(
            *("P10.server", "memory of an idle server", Kind.MEMORY, Goal(15 * MEGABYTE)),
            Goal(2 * MEGABYTE),
        ),
        Line("P10.worker", "memory of an idle session", Kind.MEMORY, Goal(20 * MEGABYTE)),
        Line("P10.tracker", "memory of a tracker, 1,000 connections", Kind.MEMORY, Goal(6e7)),
        Line("P11.connect", "1,000 connect at once", Kind.RHYTHM, Goal(30, TVM, at_least=True)),
        Line("P11.one", "... one after the other", Kind.RHYTHM),
        Line("P11.small", "matches: 100 servers", Kind.RHYTHM, Goal(4, TVM, at_least=True)),
        Line("P11.large", "... 1,000 servers, 2,000 clients", Kind.RHYTHM),
        Line("P11.share", "... as a share", Kind.COUNT, Goal(0.7, at_least=True)),
        Line("P11.crowd", "10,000 servers connect", Kind.TIME),
        Line("P11.crowd-memory", "... memory of the tracker", Kind.MEMORY),
        Line("P12", "remote tests, one process", Kind.RHYTHM, Goal(150, at_least=True)),
        Line("P12.gain", "... gain of -n 2 on two devices", Kind.COUNT, Goal(1.6, at_least=True)),
        Line("P12.reports", "... a test more with all reports", Kind.TIME, Goal(1e-3)),
        Line(
            *("P15", "a call's share of the measuring loop", Kind.TIME, Goal(20e-9)),
            Goal(20e-9),
        ),
        Line("P15.kernel", "a sum of 4,096 floats, as measured", Kind.TIME, Goal(1.1, TVM)),
        Line("P14.trips", "round trips of an ordinary test", Kind.COUNT, Goal(24)),
        Line("P14.trips-a", "... our client, TVM's server", Kind.COUNT, Goal(24)),
        Line("P14.trips-b", "... TVM's client, our server", Kind.COUNT),
        Line("P14.time", "its time, link of 5 ms each way", Kind.TIME, Goal(0.55, TVM)),
        Line("P14.time-a", "... our client, TVM's server", Kind.TIME, Goal(0.55, TVM)),
        Line("P14.time-b", "... TVM's client, our server", Kind.TIME),
    )
}


def _digits(value: float) -> str:
    """Three digits that matter; thousands with a comma."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"
