"""The letter and the word of a phase, for the outcomes that pytest does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    Status = tuple[str, str, str | tuple[str, dict[str, bool]]]
    """What pytest counts it under, its letter, and its word with the colour."""

YELLOW = {"yellow": True}


def status_of(report: pytest.CollectReport | pytest.TestReport) -> Status | None:
    """The status of a report that is ours; None for any other."""
    if str(report.outcome) != "rerun":  # the types know pytest's own outcomes only
        is_infra = getattr(report, "rpc_verdict", "") == "infra"
        return ("infra", "I", ("INFRA", YELLOW)) if is_infra else None
    if report.when == "teardown" and getattr(report, "rpc", {}).get("verdict") == "lost":
        return "", "", ""  # the phase before it has been counted
    return "rerun", "R", ("RERUN", YELLOW)
