"""The lines at the start of a run, and its section on remote devices at the end.

Only formatting: what is shown was measured elsewhere. Colours are the terminal reporter's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Sequence

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

    from ..options import Options
    from .facts import DeviceTally, Tally

OUTCOMES = ("passed", "failed", "error")  # columns that are always there
GAP = "  "


def header(options: Options) -> list[str]:
    """What pytest prints before the first test."""
    keys = ", ".join(options.keys)
    if options.tracker is not None:
        from ..network import format_address

        return [f"rpc: tracker {format_address(*options.tracker)}, keys: {keys}"]
    servers = options.servers * len(options.keys)
    plural = "" if servers == 1 else "s"
    return [
        f"rpc: tracker and {servers} server{plural} start when a test asks for a device "
        f"(keys: {keys})"
    ]


def write_section(reporter: TerminalReporter, tally: Tally, notes: Sequence[str]) -> None:
    """The section at the end; nothing when nothing remote ran.

    Args:
        reporter: pytest's own.
        tally: the sums of the run.
        notes: texts about programs of ours that failed or ended, a paragraph each.
    """
    devices = tally.devices
    if not devices and not notes:
        return
    reporter.write_sep("=", "remote devices")
    if devices:
        table = lines([*devices, tally.total])
        reporter.write_line(table[0])
        for line, row in zip(table[1:-1], devices):
            trouble = bool(row.outcomes["failed"] or row.outcomes["error"])
            reporter.write_line(line, red=trouble, green=not trouble)
        reporter.write_line(table[-1], bold=True)
    for note in notes:
        first, *rest = note.splitlines()
        reporter.write_line(first, red=True)
        for line in rest:
            reporter.write_line(f"    {line}")


def lines(rows: Sequence[DeviceTally]) -> list[str]:
    """The table as aligned lines, its head first."""
    others = sorted({name for row in rows for name in row.outcomes} - set(OUTCOMES))
    outcomes = (*OUTCOMES, *others)
    head = ["device", "tests", *outcomes, "queued", "connecting", "in calls", "on device"]
    cells = [[*head, "sent", "received"]]
    for row in rows:
        cells.append(
            [
                row.device,
                str(row.tests),
                *(str(row.outcomes[name]) for name in outcomes),
                *map(seconds, (row.queued_s, row.connect_s, row.call_s, row.device_s)),
                size(row.bytes_sent),
                size(row.bytes_received),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*cells)]
    return [
        GAP.join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in cells
    ]


def seconds(duration_s: float) -> str:
    """A duration as people read it: ``0 s``, ``14 us``, ``1.2 ms``, ``3.4 s``, ``12 min 5 s``."""
    if duration_s <= 0:
        return "0 s"
    if duration_s < 0.9995e-3:
        return f"{duration_s * 1e6:.0f} us"
    if duration_s < 0.9995:
        return f"{duration_s * 1e3:.{1 if duration_s < 0.09995 else 0}f} ms"
    if duration_s < 119.95:
        return f"{duration_s:.1f} s"
    minutes, rest = divmod(round(duration_s), 60)
    return f"{minutes} min {rest} s"


def size(count: int) -> str:
    """A number of bytes as people read it: ``512 B``, ``12.3 MiB``."""
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} TiB"
