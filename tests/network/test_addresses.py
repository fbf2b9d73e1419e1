"""Members that are not where the configuration says, but where the cluster file does."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock

from raftd.network.inputs import LinkChanged, PeerRefused
from tests.network.harness import Fabric, Server, linked, until


async def start(fabric: Fabric, server: Server, **members: str) -> None:
    """Let `server` dial members, such as n2="n2:1"; the incarnation of each is `x`."""
    server.network.set_members({f"{name}/x": address for name, address in members.items()})
    await fabric.nursery.start(server.network.run)


async def test_a_member_that_has_moved_is_found_where_the_file_says(
    fabric: Fabric, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "raftd.network")
    n1 = fabric.server("n1/x", file_addresses={"n2": "new:2"})
    fabric.server("n2/x", "new:2")

    await start(fabric, n1, n2="old:2")

    assert await n1.take(LinkChanged) == [
        LinkChanged("n2/x", True, "", version=1, address="new:2"),
    ]
    (record,) = caplog.records
    assert "n2/x answers at new:2" in record.getMessage()
    assert "the configuration says old:2" in record.getMessage()
    assert "raftctl readdress n2=new:2" in record.getMessage()


async def test_the_address_of_the_configuration_is_dialled_first(
    fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1 = fabric.server("n1/x", file_addresses={"n2": "file:2"})
    fabric.server("n2/x", "log:2", "file:2")

    await start(fabric, n1, n2="log:2")
    await until(lambda: linked(n1, "n2/x"))

    assert [address for _, address in fabric.dials] == ["log:2"]


async def test_servers_that_have_exchanged_their_addresses_are_not_taken_for_each_other(
    fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1 = fabric.server("n1/x", file_addresses={"n2": "a:3", "n3": "a:2"})
    fabric.server("n2/x", "a:3")
    fabric.server("n3/x", "a:2")

    await start(fabric, n1, n2="a:2", n3="a:3")

    changes = await n1.take(LinkChanged, 2)
    assert {change.server: change.address for change in changes} == {"n2/x": "a:3", "n3/x": "a:2"}
    assert all(change.connected for change in changes)
    # That somebody else lives there is no word of the member.
    assert not [item for item in n1.taken if isinstance(item, PeerRefused)]


async def test_a_member_that_is_at_neither_address_is_told_with_both(
    fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1 = fabric.server("n1/x", file_addresses={"n2": "file:2"})
    fabric.server("n3/x", "log:2")

    await start(fabric, n1, n2="log:2")

    assert await n1.take(LinkChanged) == [
        LinkChanged(
            "n2/x",
            False,
            "refused: n3/x lives here at log:2; connection refused at file:2",
        )
    ]


async def test_a_link_that_leads_there_already_stays_when_the_configuration_follows(
    fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1 = fabric.server("n1/x", file_addresses={"n2": "new:2"})
    fabric.server("n2/x", "new:2")
    await start(fabric, n1, n2="old:2")
    await until(lambda: linked(n1, "n2/x"))
    connection = n1.network._links["n2/x"].connection
    dials = len(fabric.dials)

    n1.network.set_members({"n2/x": "new:2"})
    await trio.sleep(5)

    assert n1.network._links["n2/x"].connection is connection
    assert len(fabric.dials) == dials


async def test_a_link_to_the_old_place_is_given_up_when_the_configuration_names_a_new_one(
    fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1 = fabric.server("n1/x", file_addresses={"n2": "old:2"})
    fabric.server("n2/x", "old:2", "new:2")
    await start(fabric, n1, n2="old:2")
    await until(lambda: linked(n1, "n2/x"))

    n1.network.set_members({"n2/x": "new:2"})
    await until(lambda: fabric.dials[-1][1] == "new:2" and linked(n1, "n2/x"))

    assert n1.network._links["n2/x"]._address == "new:2"


async def test_a_member_that_the_log_has_readdressed_is_not_looked_for_where_the_file_says(
    fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1 = fabric.server("n1/x", file_addresses={"n2": "old:2"})
    fabric.server("n2/x", "old:2")
    await start(fabric, n1, n2="old:2")
    await until(lambda: linked(n1, "n2/x"))

    n1.network.set_members({"n2/x": "new:2"})
    dials = len(fabric.dials)
    await trio.sleep(5)

    assert {address for _, address in fabric.dials[dials:]} == {"new:2"}
    assert not linked(n1, "n2/x")


async def test_the_file_counts_again_when_the_log_has_taken_its_news_back(
    fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1 = fabric.server("n1/x", file_addresses={"n2": "file:2"})
    fabric.server("n2/x", "file:2")
    await start(fabric, n1, n2="old:2")
    n1.network.set_members({"n2/x": "new:2"})
    await trio.sleep(5)
    assert not linked(n1, "n2/x")

    n1.network.set_members({"n2/x": "old:2"})
    await until(lambda: linked(n1, "n2/x"))


async def test_a_broken_link_is_dialled_first_where_it_last_led(
    fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1 = fabric.server("n1/x", file_addresses={"n2": "new:2"})
    fabric.server("n2/x", "new:2")
    await start(fabric, n1, n2="old:2")
    await until(lambda: linked(n1, "n2/x"))
    dials = len(fabric.dials)

    connection = n1.network._links["n2/x"].connection
    assert connection is not None
    connection.close("for the test")
    await until(lambda: len(fabric.dials) > dials and linked(n1, "n2/x"))

    assert [address for _, address in fabric.dials[dials:]] == ["new:2"]
