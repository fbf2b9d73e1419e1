"""What a benchmark makes of what servers say of themselves: who leads, and what each has used."""

from __future__ import annotations

import selectors
from collections.abc import Iterator

import attrs
import pytest

from raftctl.bench_servers import LEADERS_MAX, SERVERS_MAX, Servers, ServerUse
from raftd.protocol import StatusReply
from tests.raftctl.status_answers import THREE, address_of, leader, reply

N1, N2, N3 = (address_of(name) for name in ("n1/a", "n2/b", "n3/c"))


class Watched:
    """Servers that nobody dials; a test says what each of them says."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self.servers = Servers(selector, "c1", [N1, N2, N3])

    def says(self, address: str, status: StatusReply) -> None:
        self.servers._observers[address]._note(status)

    def use(self, name: str) -> ServerUse:
        return next(use for use in self.servers.uses() if use.name == name)


@pytest.fixture
def watched() -> Iterator[Watched]:
    with selectors.DefaultSelector() as selector:
        yield Watched(selector)


def used(uptime_ms: int, cpu_ms: int | None, anon_bytes: int | None = None) -> StatusReply:
    """Return the status of n2 when it has used so much."""
    sizes = {"rss_bytes": anon_bytes, "rss_anon_bytes": anon_bytes}
    return reply("n2/b", THREE, uptime_ms=uptime_ms, cpu_ms=cpu_ms, **sizes)


def test_what_was_used_before_does_not_count(watched: Watched) -> None:
    watched.says(N2, used(10_000, 9_000, 70))
    watched.says(N2, used(11_000, 9_500, 40))
    watched.servers.begin()
    watched.says(N2, used(12_000, 9_700, 60))
    watched.says(N2, used(13_000, 9_900, 50))
    found = watched.use("n2")
    assert (found.cpu_ms, found.cpu_fraction) == (400, 0.2)
    assert (found.rss_anon_bytes, found.rss_anon_max_bytes) == (50, 60)
    assert found.restarted is False


def test_a_server_that_was_restarted_has_used_what_it_has_since_then(watched: Watched) -> None:
    watched.says(N2, used(90_000, 45_000))
    watched.servers.begin()
    watched.says(N2, used(400, 300))
    watched.says(N2, used(1_000, 500))
    found = watched.use("n2")
    assert found.restarted is True
    assert (found.cpu_ms, found.cpu_fraction) == (500, 0.5)


def test_a_server_that_comes_in_meanwhile_counts_from_then_on(watched: Watched) -> None:
    watched.servers.begin()
    assert watched.servers.uses() == []
    watched.says(N2, used(5_000, 4_000))
    assert watched.use("n2").cpu_ms == 0
    watched.says(N2, used(6_000, 4_250))
    assert watched.use("n2").cpu_fraction == 0.25


def test_a_server_of_an_older_release_does_not_say_what_it_uses(watched: Watched) -> None:
    watched.says(N2, used(5_000, None))
    watched.servers.begin()
    watched.says(N2, used(6_000, None))
    found = watched.use("n2")
    assert (found.cpu_ms, found.cpu_fraction, found.rss_anon_max_bytes) == (None, None, None)


# --- who leads --------------------------------------------------------------------------------


def test_the_leader_is_who_is_confirmed_in_the_latest_term(watched: Watched) -> None:
    servers = watched.servers
    watched.says(N1, leader(THREE, term=7))
    assert (servers.leader, servers.leader_name) == (N1, "n1")
    # Cut off from the others, and late to say so.
    watched.says(N2, leader(THREE, "n2/b", term=8))
    watched.says(N1, leader(THREE, term=7))
    assert servers.leader == N2
    watched.says(N3, leader(THREE, "n3/c", term=9, leadership_confirmed=False))
    assert servers.leader == N2
    watched.says(N2, reply("n2/b", THREE, term=9))
    assert servers.leader == ""
    assert [name for _, name in servers.leaders] == ["n1", "n2"]


def test_a_leader_that_is_lost_is_looked_for(watched: Watched) -> None:
    servers = watched.servers
    servers.leader = N1
    servers.lost(N2)
    assert servers.leader == N1
    servers.lost(N1)
    assert servers.leader == ""


def test_a_follower_is_believed_only_where_nobody_knows_better(watched: Watched) -> None:
    servers = watched.servers
    servers.leader = N2
    servers.pointed_at(N3, by=N1)
    assert servers.leader == N2
    servers.pointed_at(N3, by=N2)
    assert servers.leader == N3
    # It knows nobody, or points at itself or at what is no address.
    for address in ("", N3, "nonsense"):
        servers.leader = N3
        servers.pointed_at(address, by=N3)
        assert servers.leader == ""


def test_members_are_learned_up_to_a_bound(watched: Watched) -> None:
    addresses = {f"n{number}/x": f"127.0.0.1:{8000 + number}" for number in range(SERVERS_MAX * 2)}
    watched.says(N1, leader(attrs.evolve(THREE, addresses=addresses)))
    assert len(watched.servers.addresses) == SERVERS_MAX


def test_changes_of_the_leader_are_remembered_up_to_a_bound(watched: Watched) -> None:
    for term in range(10, 10 + 2 * LEADERS_MAX):
        name, address = ("n1/a", N1) if term % 2 else ("n2/b", N2)
        watched.says(address, leader(THREE, name, term=term))
    assert len(watched.servers.leaders) == LEADERS_MAX
