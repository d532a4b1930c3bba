"""A word at the debugger's prompt: which devices stay leased meanwhile, and what ends that.

Keeps nothing: a device is given back at the end of its test, and that waits for the debugger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

    from .leases import Lessor


class Debugger:
    """The hook by which pytest tells that it enters a debugger.

    Args:
        lessor: who has the devices of this process.
    """

    def __init__(self, lessor: Lessor) -> None:
        self._lessor = lessor

    def pytest_enter_pdb(self, config: pytest.Config) -> None:
        reporter: Any = config.pluginmanager.getplugin("terminalreporter")
        if reporter is None:
            return  # -p no:terminal
        for line in self._lines():
            reporter.write_line(line)

    def _lines(self) -> list[str]:
        """What is to be said; nothing without devices."""
        from ..wording import printable, seconds

        held = [lease for lease in self._lessor.held if not lease.session.closed]
        trial = self._lessor.current
        if not held or trial is None:
            return []
        limit_s = trial.wish.session_s
        end = "its server ends the session an hour after the last call, if it has no other limit"
        if limit_s:
            left_s = min(limit_s - lease.held_s for lease in held)
            end = f"the session ends in {seconds(left_s)} (option: --rpc-session-timeout)"
        names = ", ".join(lease.device for lease in held)
        return [
            printable(f"rpc: leased while you debug: {names}"),
            f"rpc: {end}; continue or quit, and the test gives back what it has",
        ]
