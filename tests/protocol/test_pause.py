"""The pauses between attempts that fail."""

from __future__ import annotations

import os

import pytest

from pytest_tvmrpc.protocol.pause import FIRST_PAUSE_S, LAST_PAUSE_S, Pause


@pytest.mark.parametrize("last_s", [LAST_PAUSE_S, 2.0])
def test_pauses_grow_to_a_limit(last_s: float) -> None:
    """They double, end at the limit, and begin anew after a success."""
    pause = Pause(os.urandom, last_s)
    for number in range(12):
        longest = min(FIRST_PAUSE_S * 2**number, last_s)
        assert longest / 2 <= pause.after_failure() < longest
    pause.reset()
    assert pause.after_failure() < FIRST_PAUSE_S


def test_many_do_not_return_at_once() -> None:
    """Pauses are never the same for all; half of them to all of them."""
    pauses = {Pause(os.urandom).after_failure() for _ in range(50)}
    assert len(pauses) > 10
    assert Pause(bytes).about(8) == 4
    assert 7.9 < Pause(lambda size: b"\xff" * size).about(8) < 8
