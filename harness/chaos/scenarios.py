"""The scenarios by name, with the seconds that each may take. What they do is elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from . import clients, decoders, farm, garbage, impostors, pairs, pytest_runs, sessions

if TYPE_CHECKING:
    from collections.abc import Callable

    from .trial import Trial


class Scenario(NamedTuple):
    """A function of one trial; the first line of its docstring says what happens."""

    run: Callable[[Trial], None]
    limit_s: float = 600.0

    @property
    def text(self) -> str:
        return (self.run.__doc__ or "").strip().splitlines()[0]


SCENARIOS = {
    "crashes": Scenario(sessions.crashes),
    "one-after-the-other": Scenario(sessions.one_after_the_other),
    "at-once": Scenario(sessions.at_once),
    "threads": Scenario(sessions.threads),
    "short-limits": Scenario(sessions.short_limits),
    "families": Scenario(sessions.families),
    "full-disk": Scenario(sessions.full_disk),
    "large-copies": Scenario(sessions.large_copies),
    "killed-clients": Scenario(clients.killed),
    "frozen-clients": Scenario(clients.frozen),
    "vanished-machines": Scenario(clients.vanished, 180.0),
    "tracker-restarts": Scenario(farm.tracker_restarts),
    "thousand-servers": Scenario(farm.thousand_servers),
    "grants": Scenario(farm.grants),
    "keys": Scenario(farm.keys),
    "proxy-restarts": Scenario(pairs.proxy_restarts),
    "pytest-drop-outs": Scenario(pytest_runs.drop_outs),
    "garbage": Scenario(garbage.garbage),
    "impostors": Scenario(impostors.impostors),
    "decoders": Scenario(decoders.decoders),
}
