from __future__ import annotations

import threading

from pytest_tvmrpc.session.later import COPYING, FREEING, MOST, Later, goes_behind


def test_the_order_stays():
    """What was added first is taken first, whatever it is; the kinds come with it."""
    later = Later()
    later.add(b"copy", COPYING)
    later.add(b"free", FREEING)
    assert later.take() == ([b"copy", b"free"], [COPYING, FREEING])
    assert later.take() == ([], [])


def test_not_too_many_at_once():
    """Nobody reads the answers meanwhile, so their number has a limit; the rest stays."""
    later = Later()
    for number in range(MOST + 5):
        later.add(bytes([number]), FREEING)
    assert len(later.take()[0]) == MOST
    assert len(later) == 5


def test_what_goes_behind():
    """An allocation may need a free before it, anything else a copy."""
    assert goes_behind([COPYING], is_alloc=True)
    assert goes_behind([FREEING], is_alloc=False)
    assert not goes_behind([FREEING, COPYING], is_alloc=True)
    assert not goes_behind([FREEING, COPYING], is_alloc=False)


def test_many_threads_add():
    """Each is taken once, however many add while one takes."""
    later = Later()
    threads = [
        threading.Thread(target=lambda: [later.add(b".", FREEING) for _ in range(1000)])
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    taken = 0
    while any(thread.is_alive() for thread in threads) or len(later):
        packets, owed = later.take()
        assert len(packets) == len(owed)
        taken += len(packets)
    for thread in threads:
        thread.join()
    assert taken == 3000
