"""Which keys a proxy tells its tracker: those of its servers, and for a while those it had."""

from __future__ import annotations

from pytest_tvmrpc.proxy.listing import STAYS_S, Listing


def test_a_key_is_new_once() -> None:
    """However many servers have it."""
    listing = Listing()
    assert listing.came("phone")
    assert not listing.came("phone")
    assert listing.came("board")
    assert sorted(listing.keys) == ["board", "phone"]


def test_a_key_goes_some_time_after_its_last_server() -> None:
    """Not with the first one of two, and not at once; each in its turn."""
    listing = Listing()
    for key in ("phone", "phone", "board"):
        listing.came(key)
    listing.left("phone", 0)
    assert listing.next_wakeup(0) is None
    listing.left("phone", 1)
    listing.left("board", 3)
    assert sorted(listing.keys) == ["board", "phone"]
    assert listing.next_wakeup(1) == STAYS_S
    assert not listing.expire(STAYS_S)
    assert listing.expire(1 + STAYS_S)
    assert listing.keys == ["board"]
    assert listing.next_wakeup(1 + STAYS_S) == 2
    assert listing.expire(3 + STAYS_S)
    assert listing.keys == []
    assert listing.next_wakeup(100) is None


def test_a_server_between_two_sessions_is_not_missed() -> None:
    """It comes back before its key goes, and that is nothing new."""
    listing = Listing()
    listing.came("phone")
    listing.left("phone", 0)
    assert not listing.came("phone")
    assert not listing.expire(STAYS_S)
    assert listing.keys == ["phone"]
