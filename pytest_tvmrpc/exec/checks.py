"""What a check is, and the first two of each hop: the name and the port. Knows no protocol.

A check returns what it found, or raises why there is no going on; `examine` makes steps of that.
"""

from __future__ import annotations

import enum
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from .. import network
from ..errors import DeadlineError, RPCError
from .probing import Attempt, connect_to, look_up

if TYPE_CHECKING:
    import socket

    from .probing import Place


class Outcome(str, enum.Enum):
    """What came of a check."""

    OK = "ok"
    FAILED = "FAILED"
    SKIPPED = "skipped"


class Step(NamedTuple):
    """A check that was made, or skipped.

    Fields: its name; what came of it; what was found; after a failure, what to do; how long it
    took in seconds; the same findings for scripts.
    """

    name: str
    outcome: Outcome
    facts: str = ""
    advice: str = ""
    took_s: float = 0.0
    values: Dict[str, Any] = {}  # noqa: RUF012 -- never written to


class Found(NamedTuple):
    """What a check found, in words and for scripts."""

    facts: str
    values: Dict[str, Any] = {}  # noqa: RUF012 -- never written to


class FailedCheckError(Exception):
    """A check failed: what is the case, and what to do about it."""

    def __init__(self, facts: str, advice: str, **values: Any) -> None:
        super().__init__(facts)
        self.advice = advice
        self.values = values


class SkippedCheckError(Exception):
    """A check cannot be made here, which is no failure; the message, if any, says why."""


class Check(NamedTuple):
    """A check by its name; one that `tidies` is made even after a failure."""

    name: str
    make: Callable[[], Found]
    advice: str = ""
    """What to do if it fails in a way for which it has no advice of its own."""
    tidies: bool = False


def examine(checks: Sequence[Check], show: Callable[[Step], None]) -> bool:
    """Make the checks in order, up to the first that fails; whether all went well."""
    is_well = True
    for check in checks:
        step = _made(check) if is_well or check.tidies else Step(check.name, Outcome.SKIPPED)
        is_well = is_well and step.outcome is not Outcome.FAILED
        show(step)
    return is_well


def _made(check: Check) -> Step:
    started = time.monotonic()
    outcome, advice = Outcome.FAILED, check.advice
    values: Dict[str, Any] = {}
    try:
        facts, values = check.make()
        outcome, advice = Outcome.OK, ""
    except FailedCheckError as error:
        facts, advice, values = str(error), error.advice, error.values
    except SkippedCheckError as error:
        outcome, facts, advice = Outcome.SKIPPED, str(error), ""
    except (RPCError, OSError, ValueError) as error:  # of the library; they explain
        facts = str(error)
    return Step(check.name, outcome, facts, advice, time.monotonic() - started, values)


class Hop:
    """The way to one machine: from its name to a connection.

    Args:
        what: what should be there, for messages.
        host, port: where; may be set later.
        limit_s: seconds for each check.

    Attributes:
        place: what was connected to.
    """

    def __init__(self, what: str, host: str, port: int, limit_s: float) -> None:
        self.what = what
        self.host = host
        self.port = port
        self.limit_s = limit_s
        self.place: Optional[Place] = None
        self._places: List[Place] = []

    @property
    def name(self) -> str:
        """The address as people write it."""
        return network.format_address(self.host, self.port)

    def find(self) -> Found:
        """Resolves the name."""
        if self.host in network.WILDCARDS:
            raise FailedCheckError(
                f"{self.host or '(empty)'} is an address to listen on, not to connect to",
                "give the address of the machine itself; 127.0.0.1, if it is this one",
            )
        try:
            self._places = look_up(self.host, self.port, self.limit_s)
        except DeadlineError:
            raise FailedCheckError(
                f"the name server did not answer within {self.limit_s:g} s for {self.host}",
                "give the number instead of the name, or see to the name server of this machine",
            ) from None
        except RPCError as error:
            raise FailedCheckError(
                str(error),
                "correct the name, give the number instead, or enter it in /etc/hosts here",
            ) from None
        numbers = list(dict.fromkeys(address[0] for _, address in self._places))
        if numbers == [self.host]:
            return Found(f"{self.host}, a number: nothing to look up", {"addresses": numbers})
        return Found(f"{self.host} is {', '.join(numbers)}", {"addresses": numbers})

    def connect(self) -> socket.socket:
        """A connection, to be closed by the caller."""
        deadline = network.Deadline(self.limit_s, f"connecting to {self.name}", "--timeout")
        connection, attempts = connect_to(self._places, deadline)
        if connection is None:
            raise self._unreachable(attempts)
        self.place = self._places[len(attempts) - 1]
        return connection

    def reached(self) -> Found:
        """What `connect` found, for its step."""
        assert self.place is not None
        address = network.format_address(*self.place[1][:2])
        return Found(f"{address} accepts connections", {"address": address})

    def _unreachable(self, attempts: Sequence[Attempt]) -> FailedCheckError:
        facts = ", ".join(f"{attempt.address}: {attempt.text}" for attempt in attempts)
        outcomes = {attempt.outcome for attempt in attempts}
        if "refused" in outcomes:
            advice = (
                f"the machine is there, but nothing listens on this port: start {self.what}, or "
                "correct the port; it prints `bind to HOST:PORT`. One that is bound to 127.0.0.1, "
                "as without --host, is reached from its own machine only: start it with "
                "--host 0.0.0.0 if the network is trusted"
            )
        elif "timeout" in outcomes:
            advice = (
                "a firewall drops what is sent there, or no machine has this address: see whether "
                f"it is switched on, and open port {self.port} for TCP on it"
            )
        else:
            advice = (
                "there is no way to that network from here: correct the address, or see to the "
                "cable, the Wi-Fi or the VPN of this machine"
            )
        return FailedCheckError(facts, advice, attempts=[attempt._asdict() for attempt in attempts])
