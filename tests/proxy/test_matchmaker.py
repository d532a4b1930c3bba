"""Who is paired with whom, as lists of decisions: no socket, and a clock of our own."""

from __future__ import annotations

from pytest_tvmrpc.protocol.codes import HandshakeReply
from pytest_tvmrpc.proxy.matchmaker import Decision, Matchmaker, Pair, Refuse

CLIENT, SERVER = False, True


def replies(decisions: "list[Decision]") -> "list[tuple[object, HandshakeReply]]":
    """Who is refused, and how; nobody is paired."""
    refusals = [decision for decision in decisions if isinstance(decision, Refuse)]
    assert len(refusals) == len(decisions)
    return [(refusal.peer, refusal.reply) for refusal in refusals]


def test_the_one_who_waited_comes_first() -> None:
    """Either side may come first; the pair names it first, too."""
    matchmaker = Matchmaker(600, 600)
    assert matchmaker.arrived("s", SERVER, "k", 0) == []
    assert matchmaker.arrived("c", CLIENT, "k", 1) == [Pair("s", "c")]
    assert matchmaker.arrived("c2", CLIENT, "k", 2) == []
    assert matchmaker.arrived("s2", SERVER, "k", 3) == [Pair("c2", "s2")]
    assert matchmaker.next_wakeup(4) is None


def test_keys_are_kept_apart() -> None:
    """Another key, or the same side, is no partner; the empty key is one like any other."""
    matchmaker = Matchmaker(600, 600)
    assert matchmaker.arrived("s", SERVER, "k", 0) == []
    assert matchmaker.arrived("c", CLIENT, "other", 0) == []
    assert matchmaker.arrived("s2", SERVER, "", 0) == []
    assert matchmaker.arrived("c2", CLIENT, "", 0) == [Pair("s2", "c2")]


def test_a_duplicate_is_refused() -> None:
    """The second of the same side and key goes; the first stays, and is paired."""
    matchmaker = Matchmaker(600, 600)
    for side in (CLIENT, SERVER):
        key = f"k{side}"
        matchmaker.arrived("first", side, key, 0)
        refused = matchmaker.arrived("second", side, key, 0)
        assert replies(refused) == [("second", HandshakeReply.DUPLICATE)]
        assert matchmaker.arrived("partner", not side, key, 0) == [Pair("first", "partner")]


def test_waits_end() -> None:
    """Each side has a limit of its own; who is over it is refused, once."""
    matchmaker = Matchmaker(timeout_client_s=10, timeout_server_s=5)
    matchmaker.arrived("c", CLIENT, "a", 0)
    matchmaker.arrived("s", SERVER, "b", 1)
    assert matchmaker.next_wakeup(2) == 4
    assert matchmaker.tick(5.9) == []
    assert replies(matchmaker.tick(6)) == [("s", HandshakeReply.MISMATCH)]
    assert matchmaker.next_wakeup(6) == 4
    assert replies(matchmaker.tick(100)) == [("c", HandshakeReply.MISMATCH)]
    assert matchmaker.next_wakeup(100) is None
    assert matchmaker.tick(200) == []


def test_who_leaves_is_forgotten() -> None:
    """Its key is free again, and its time limit gone; leaving twice, or unknown, is nothing."""
    matchmaker = Matchmaker(600, 600)
    matchmaker.arrived("s", SERVER, "k", 0)
    matchmaker.left("s")
    matchmaker.left("s")
    matchmaker.left("nobody")
    assert matchmaker.next_wakeup(0) is None
    assert matchmaker.arrived("s2", SERVER, "k", 0) == []
    assert matchmaker.arrived("c", CLIENT, "k", 0) == [Pair("s2", "c")]


def test_a_client_that_may_not_wait() -> None:
    """Is paired if its server is there, and refused at once if not."""
    matchmaker = Matchmaker(600, 600)
    refused = matchmaker.arrived("c", CLIENT, "k:0.5", 0, waits=False)
    assert replies(refused) == [("c", HandshakeReply.MISMATCH)]
    matchmaker.arrived("s", SERVER, "k:0.5", 0)
    assert matchmaker.arrived("c", CLIENT, "k:0.5", 0, waits=False) == [Pair("s", "c")]


def test_a_new_match_key() -> None:
    """The old one is nobody's from then on; how long the server has waited does not change."""
    matchmaker = Matchmaker(600, timeout_server_s=5)
    matchmaker.arrived("s", SERVER, "k:0.1", 0)
    matchmaker.arrived("s2", SERVER, "k:0.2", 3)
    matchmaker.rename("s", "k:0.3")
    matchmaker.rename("s", "k:0.3")
    matchmaker.rename("gone", "k:0.4")
    assert matchmaker.next_wakeup(4) == 1
    refused = matchmaker.arrived("c", CLIENT, "k:0.1", 4, waits=False)
    assert replies(refused) == [("c", HandshakeReply.MISMATCH)]
    assert matchmaker.arrived("c", CLIENT, "k:0.3", 4, waits=False) == [Pair("s", "c")]
    assert matchmaker.next_wakeup(4) == 4


def test_a_full_house() -> None:
    """Over the cap nobody else may wait, but partners of those who do are welcome."""
    matchmaker = Matchmaker(600, 600, max_waiting=2)
    matchmaker.arrived("s1", SERVER, "1", 0)
    matchmaker.arrived("s2", SERVER, "2", 0)
    assert replies(matchmaker.arrived("s3", SERVER, "3", 0)) == [("s3", HandshakeReply.MISMATCH)]
    assert matchmaker.arrived("c1", CLIENT, "1", 0) == [Pair("s1", "c1")]
    assert matchmaker.arrived("s3", SERVER, "3", 0) == []
