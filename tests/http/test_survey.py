"""A server asks the others how they see the cluster: at once, seldom, and never for long."""

from __future__ import annotations

import json

import attrs
import pytest
import trio

from raftd.cluster_status.view import Health
from raftd.http.survey import ADDRESSES_MAX, ANSWER_SECONDS, FRESH_SECONDS
from raftd.protocol import ErrorReply
from tests.http.members import LEADER, Members, survey_of
from tests.raftctl.documented import problem_of
from tests.raftctl.status_answers import THREE, address_of, configuration, reply

N1, N2, N3 = map(address_of, ("n1/a", "n2/b", "n3/c"))


async def test_what_all_members_say_becomes_the_document_of_status(nursery, autojump_clock):
    members = Members(nursery)
    members.answering(LEADER)
    members.answering(reply("n3/c", THREE))

    sight = await survey_of(members).look()

    assert sight.cluster.health is Health.HEALTHY
    assert problem_of(json.loads(sight.text), "raftctl status") == ""
    assert json.loads(sight.text) == sight.document
    assert [row["id"] for row in sight.document["servers"]] == ["n1", "n2", "n3"]
    assert sight.leader_activity is not None
    assert sight.leader_activity.server == "n1/a"


async def test_nobody_dials_itself(nursery, autojump_clock):
    members = Members(nursery)
    await survey_of(members).look()
    assert sorted(members.dials) == [N1, N3]


async def test_however_many_look_everybody_is_asked_once_in_a_while(nursery, autojump_clock):
    members = Members(nursery)
    members.answering(LEADER)
    members.answering(reply("n3/c", THREE))
    survey = survey_of(members)

    async with trio.open_nursery() as lookers:
        for _ in range(20):
            lookers.start_soon(survey.look)
    assert len(members.dials) == 2
    await trio.sleep(FRESH_SECONDS)
    await survey.look()
    assert len(members.dials) == 4


async def test_servers_that_hang_cost_their_time_once_and_together(nursery, autojump_clock):
    members = Members(nursery)
    members.hanging |= {N1, N3}
    began = trio.current_time()

    sight = await survey_of(members).look()

    assert trio.current_time() - began == pytest.approx(ANSWER_SECONDS)
    assert sight.cluster.health is Health.UNAVAILABLE
    issues = {row["id"]: row["issues"] for row in sight.document["servers"]}
    assert issues["n1"] == ["unreachable: no answer within 1s"]
    assert sight.leader_activity is None


async def test_a_port_where_nobody_listens_is_told_in_the_words_of_raftctl(nursery, autojump_clock):
    members = Members(nursery)
    members.answering(LEADER)
    sight = await survey_of(members).look()
    issues = {row["id"]: row["issues"] for row in sight.document["servers"]}
    assert issues["n3"] == ["unreachable: connection refused"]


async def test_who_speaks_something_else_is_unreachable_and_harms_nobody(nursery, autojump_clock):
    members = Members(nursery)
    members.answers[N1] = lambda request: ErrorReply(code="forbidden", message="not you")
    members.answering(reply("n3/c", THREE))
    sight = await survey_of(members).look()
    issues = {row["id"]: row["issues"] for row in sight.document["servers"]}
    assert issues["n1"] == ["unreachable: it does not say how it is: not you"]


async def test_an_older_leader_is_not_asked_what_it_would_take_for_garbage(nursery, autojump_clock):
    members = Members(nursery)
    members.answering(attrs.evolve(LEADER, http=None))
    members.answering(reply("n3/c", THREE))
    sight = await survey_of(members).look()
    assert sight.cluster.leader is not None
    assert sight.leader_activity is None


async def test_members_that_only_others_know_are_asked_too(nursery, autojump_clock):
    members = Members(nursery)
    four = configuration("n1/a n2/b n3/c n4/d", index=50)
    members.answering(attrs.evolve(LEADER, configuration=four))
    members.answering(reply("n3/c", four))
    members.answering(reply("n4/d", four))

    sight = await survey_of(members).look()

    assert members.dials.count(address_of("n4/d")) >= 1
    assert [row["id"] for row in sight.document["servers"]] == ["n1", "n2", "n3", "n4"]


async def test_a_blank_server_looks_where_its_file_says(nursery, autojump_clock):
    members = Members(nursery)
    members.answering(LEADER)
    own = reply("n9/z", None, cluster_id="", cluster_name="", role="blank", leader="")
    sight = await survey_of(members, own, n1=N1, n9=address_of("n9/z")).look()
    assert sight.document["leader"] == "n1"
    assert [row["id"] for row in sight.document["servers"]][-1] == "n9"


async def test_nonsense_cannot_make_a_server_dial_the_world(nursery, autojump_clock):
    members = Members(nursery)
    addresses = {f"m{number}/x": f"127.0.0.1:{20000 + number}" for number in range(500)}
    members.answering(
        attrs.evolve(LEADER, configuration=attrs.evolve(THREE, addresses=addresses, index=99))
    )
    await survey_of(members).look()
    assert len(set(members.dials)) <= ADDRESSES_MAX
