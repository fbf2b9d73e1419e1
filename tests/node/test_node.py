"""The driver: what leaves when, who is answered what, how a server becomes a member and ceases."""

from __future__ import annotations

import attrs
import pytest

from raftd import writing
from raftd.commands import KEY_BYTES_MAX, SESSION_BYTES_MAX, VALUE_BYTES_MAX
from raftd.core.messages import AppendEntries, Envelope, TimeoutNow
from raftd.core.raft import APPLY_ENTRIES_MAX
from raftd.core.types import Entry, EntryKind
from raftd.inputs import LinkChanged, PeerRefused, Received
from raftd.node import EXIT_REMOVED
from raftd.protocol import (
    LIST_LIMIT_MAX,
    PROTOCOL_VERSION_MAX,
    AbortRequest,
    BootstrapReply,
    BootstrapRequest,
    ChangeRequest,
    CompareAndSetRequest,
    DoneReply,
    ErrorReply,
    GetReply,
    GetRequest,
    Hello,
    JoinRequest,
    ListReply,
    ListRequest,
    OpenSessionRequest,
    PutRequest,
    Refusal,
    TransferReply,
    TransferRequest,
    Welcome,
    WriteReply,
)
from raftd.records import decode_entries, encode_entries
from tests.node.disks import MemoryDisk
from tests.node.world import (
    CLUSTER,
    ELECTION_TICKS,
    HEARTBEAT_TICKS,
    Server,
    World,
    drop,
    is_final,
    new,
)


@pytest.fixture
def world() -> World:
    return World()


def hello(server: Server, **more: object) -> Hello:
    """Return the Hello of another member to `server`, with some fields changed."""
    fields = {
        "role": "peer",
        "cluster_id": server.disk.identity.cluster_id,
        "source": "n9/9",
        "dest": server.id,
    }
    return Hello(**fields | more)


# --- batches, reads, writes ---------------------------------------------------------------------


def test_writes_of_one_batch_share_one_append(world: World) -> None:
    leader = world.form(3)
    before = leader.disk.append_count
    writes = [world.ask_later(leader, world.put(f"k{n}")) for n in range(50)]
    world.settle()
    assert leader.disk.append_count == before + 1
    assert [asked.reply.revision for asked in writes] == list(range(1, 51))


def test_a_tick_comes_after_the_messages_that_waited(world: World) -> None:
    leader = world.form(3)
    follower = world["n2"]
    # The follower hears nothing for almost as long as it waits for a leader ...
    timeout = follower.running.raft._election_timeout_ticks
    world.passes = lambda envelope: False
    world.run(timeout - 1)
    world.passes = lambda envelope: True
    term = follower.running.raft.current_term
    heartbeat = AppendEntries(term, leader.status.last_index, term, (), 0, 10_000)
    follower.inbox.append(Received(Envelope(leader.id, follower.id, heartbeat)))
    # ... and then its own turn comes late, with the heartbeat and the last tick at once.
    follower.turn(tick=True)
    assert follower.status.role == "follower"
    assert follower.status.leader == leader.id


def test_a_write_is_answered_only_after_it_is_committed_and_applied(world: World) -> None:
    leader = world.form(3)
    world.passes = lambda envelope: envelope.source == leader.id
    asked = world.ask(leader, world.put("a", "1"))
    assert asked.open
    assert leader.state.get("a") is None
    world.passes = lambda envelope: True
    world.run(HEARTBEAT_TICKS)
    assert asked.reply == WriteReply(applied=True, revision=1)
    assert leader.state.get("a") is not None


def test_writes_that_wait_get_unknown_outcome_when_leadership_is_lost(world: World) -> None:
    leader = world.form(3)
    world.cut(["n1"], ["n2", "n3"])
    asked = world.ask(leader, world.put("a"))
    world.until(lambda: not asked.open)
    assert asked.error.code == "unknown-outcome"
    assert "session" in asked.error.hint


def test_a_follower_says_who_leads_and_has_appended_nothing(world: World) -> None:
    leader = world.form(3)
    before = leader.status.last_index
    for request in (world.put("a"), GetRequest(key="a"), TransferRequest()):
        asked = world.ask("n2", request)
        assert asked.error.code == "not-leader"
        assert asked.error.leader == leader.id
        assert asked.error.leader_address == leader.address
    assert leader.status.last_index == before


def test_without_a_leader_a_write_is_unavailable_and_not_unknown(world: World) -> None:
    world.form(3)
    world["n1"].kill()
    world["n3"].kill()
    world.until(lambda: world["n2"].status.role == "candidate")
    assert world.ask("n2", world.put("a")).error.code == "unavailable"


def test_a_read_is_confirmed_by_a_round_that_starts_after_it_arrived(world: World) -> None:
    leader = world.form(3)
    world.call(leader, world.put("a", "1"))
    world.passes = lambda envelope: envelope.source == leader.id
    asked = world.ask(leader, GetRequest(key="a"))
    assert asked.open
    world.passes = lambda envelope: True
    world.run(HEARTBEAT_TICKS)
    assert asked.reply == GetReply(
        found=True, value=b"1", create_revision=1, mod_revision=1, version=1, revision=1
    )


def test_a_read_waits_for_the_first_commit_of_the_leaders_term(world: World) -> None:
    world.form(3)
    world.call(world.leader(), world.put("a", "1"))
    # The next leader hears no acknowledgement of its no-op.
    world["n1"].kill()
    world.passes = lambda envelope: (
        not (isinstance(envelope.message, AppendEntries) and envelope.message.entries)
    )
    second = world.until(lambda: next((s for s in world.up() if s.leads), None))
    asked = world.ask(second, GetRequest(key="a"))
    world.run(HEARTBEAT_TICKS)
    assert asked.open
    world.passes = lambda envelope: True
    world.until(lambda: not asked.open)
    assert isinstance(asked.reply, GetReply)
    assert asked.reply.value == b"1"


def test_a_read_on_a_deposed_leader_is_refused(world: World) -> None:
    leader = world.form(3)
    world.cut(["n1"], ["n2", "n3"])
    asked = world.ask(leader, GetRequest(key="a"))
    world.until(lambda: not asked.open)
    assert asked.error.code in ("not-leader", "unavailable")


def test_stale_reads_are_answered_by_any_member_from_its_own_state(world: World) -> None:
    leader = world.form(3)
    world.call(leader, world.put("a", "1"))
    world.run(HEARTBEAT_TICKS)
    world.cut(["n1", "n2"], ["n3"])
    world.call(leader, world.put("a", "2"))
    assert world.get("a", world["n3"], stale=True) == "1"
    assert world.get("a", leader, stale=True) == "2"


def test_a_blank_server_answers_no_read_and_no_write(world: World) -> None:
    blank = world.boot("n1")
    for request in (GetRequest(key="a", stale=True), GetRequest(key="a")):
        assert world.ask(blank, request).error.message == "n1 is blank"
    assert world.ask(blank, world.put("a")).error.code == "unavailable"


def test_what_was_on_its_way_when_a_link_broke_is_sent_again_at_once(world: World) -> None:
    leader = world.form(3)
    follower = world["n2"]
    world.passes = lambda envelope: envelope.dest != follower.id
    world.ask_later(leader, world.put("a"))
    leader.turn(tick=False)
    lost = leader.status.last_index
    mark = len(leader.journal)
    leader.turn(tick=False)
    assert leader.journal[mark:] == []
    leader.inbox.append(LinkChanged(follower.id, False, "the connection was reset"))
    leader.turn(tick=False)
    again = [
        entry.index
        for event in leader.journal[mark:]
        if event[0] == "send" and event[1].dest == follower.id
        for entry in event[1].message.entries
    ]
    assert again == [lost]


def test_a_confirmed_read_waits_until_all_that_was_committed_before_it_is_applied() -> None:
    world = World(checks_invariants=False)
    leader, follower = world.form(2), world["n2"]

    def is_joint_at_leader() -> bool:
        return leader.running.raft.configuration.configuration.is_joint

    # C_old,new and more entries than are applied at once wait for the follower, ...
    world.passes = lambda envelope: envelope.source != follower.id or not is_joint_at_leader()
    world.started(world.change("remove", drop("n2")))
    assert is_joint_at_leader()
    writes = [world.put("a", str(number)) for number in range(APPLY_ENTRIES_MAX + 100)]
    for write in writes:
        world.ask_later(leader, attrs.evolve(write, lowest_unacknowledged=write.serial))
    world.settle()
    assert leader.status.last_index - leader.status.commit_index > APPLY_ENTRIES_MAX
    world.passes = lambda envelope: True
    for _ in range(HEARTBEAT_TICKS):
        leader.turn(tick=True)
    follower.turn(tick=False)
    # ... whose answer commits them all. From there on the leader alone confirms its reads.
    before = leader.power.steps.count("apply")
    read = world.ask_later(leader, GetRequest(key="a"))
    leader.turn(tick=False)
    # So many are not applied in one turn, since heartbeats would wait for them.
    assert leader.running.is_behind
    assert read.reply is None
    leader.turn(tick=False)
    assert not leader.running.is_behind
    assert leader.power.steps.count("apply") - before > 1
    assert isinstance(read.reply, GetReply)
    assert read.reply.value == writes[-1].value


def test_a_list_is_cut_at_its_limit_and_says_so(world: World) -> None:
    leader = world.bootstrap()
    for key in ("a1", "a2", "a3", "b1"):
        world.call(leader, world.put(key))
    reply = world.call(leader, ListRequest(prefix="a", limit=2))
    assert isinstance(reply, ListReply)
    assert ([entry.key for entry in reply.entries], reply.more) == (["a1", "a2"], True)
    reply = world.call(leader, ListRequest(prefix="a", limit=3))
    assert isinstance(reply, ListReply)
    assert not reply.more


LONG = "x" * 5_000_000


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (PutRequest(session="s", serial=1, lowest_unacknowledged=0, key="", value=b""), "key"),
        (
            PutRequest(
                session="s",
                serial=1,
                lowest_unacknowledged=0,
                key="ä" * (KEY_BYTES_MAX // 2 + 1),
                value=b"",
            ),
            str(KEY_BYTES_MAX),
        ),
        (
            PutRequest(
                session="s",
                serial=1,
                lowest_unacknowledged=0,
                key="k",
                value=bytes(VALUE_BYTES_MAX + 1),
            ),
            str(VALUE_BYTES_MAX),
        ),
        (
            PutRequest(session=LONG, serial=1, lowest_unacknowledged=0, key="k", value=b""),
            str(SESSION_BYTES_MAX),
        ),
        (PutRequest(session="", serial=1, lowest_unacknowledged=0, key="k", value=b""), "session"),
        (
            CompareAndSetRequest(
                session="s",
                serial=1,
                lowest_unacknowledged=0,
                key="k",
                expected=LONG.encode(),
                value=b"",
            ),
            str(VALUE_BYTES_MAX),
        ),
        (OpenSessionRequest(session=""), "session"),
        (OpenSessionRequest(session="x" * (SESSION_BYTES_MAX + 1)), "session"),
        (GetRequest(key=""), "key"),
        (ListRequest(limit=0), "limit"),
        (ListRequest(limit=LIST_LIMIT_MAX + 1), str(LIST_LIMIT_MAX)),
        (
            ChangeRequest(
                session="s", serial=9, kind="add", changes=(new("n2"),), author="a", reason=LONG
            ),
            "1024",
        ),
        (
            ChangeRequest(session="s", serial=9, kind="add", changes=(new("n2"),) * 65, author="a"),
            "64",
        ),
        (ChangeRequest(session="", serial=9, kind="add", changes=(new("n2"),), author="a"), "ses"),
        (AbortRequest(session="s", serial=9, operation="", author=LONG), "1024"),
        (AbortRequest(session="", serial=0, operation="", author="a"), "has to name its operation"),
        (BootstrapRequest(cluster_name="No Name", incarnation="1", address="n1:1"), "name"),
        (BootstrapRequest(cluster_name="n", incarnation="1", address="n1"), "port"),
        (JoinRequest(cluster_id="", cluster_name="n", name="n1", incarnation="1"), "cluster"),
        (JoinRequest(cluster_id=LONG, cluster_name="n", name="n1", incarnation="1"), "1024"),
    ],
)
def test_a_request_beyond_a_limit_is_invalid_and_harms_nobody(
    world: World, request_: object, says: str
) -> None:
    leader = world.bootstrap()
    before = leader.status.last_index
    asked = world.ask(leader, request_)
    assert asked.error.code == "invalid"
    assert says in asked.error.cause
    assert leader.status.last_index == before
    assert world.call(leader, world.put("k")) == WriteReply(applied=True, revision=1)


def test_a_command_that_would_not_fit_a_record_is_invalid_and_harms_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = world.form(3)
    monkeypatch.setattr(writing, "COMMAND_BYTES_MAX", 1_000)
    before = leader.status.last_index
    asked = world.ask(leader, world.put("k", "v" * 1_000))
    assert asked.error.code == "invalid"
    assert "at most 1000 fit" in asked.error.cause
    assert leader.status.last_index == before
    assert world.call(leader, world.put("k")) == WriteReply(applied=True, revision=1)


def test_the_largest_command_fits_a_record() -> None:
    entry = Entry(2**60, 2**60, EntryKind.COMMAND, bytes(writing.COMMAND_BYTES_MAX))
    (decoded,) = decode_entries(encode_entries((entry,)))
    assert decoded.data == entry.data


def test_the_longest_key_and_value_are_written_and_read(world: World) -> None:
    leader = world.form(3)
    key, value = "k" * KEY_BYTES_MAX, "v" * VALUE_BYTES_MAX
    assert world.call(leader, world.put(key, value)) == WriteReply(applied=True, revision=1)
    assert world.get(key) == value


# --- becoming a member --------------------------------------------------------------------------


def test_a_bootstrap_that_is_repeated_answers_the_same_and_appends_nothing(world: World) -> None:
    leader = world.bootstrap()
    cluster_id = leader.disk.identity.cluster_id
    before = leader.status.last_index
    request = BootstrapRequest(
        cluster_name=CLUSTER,
        incarnation=leader.disk.identity.incarnation,
        address=leader.address,
    )
    assert world.call(leader, request) == BootstrapReply(cluster_id=cluster_id)
    leader.restart()
    assert world.call(leader, request) == BootstrapReply(cluster_id=cluster_id)
    assert world.leader().status.last_index == before + 1  # its no-op


def test_a_bootstrap_of_another_incarnation_is_refused(world: World) -> None:
    blank = world.boot("n1")
    request = BootstrapRequest(cluster_name=CLUSTER, incarnation="other", address="n1:7100")
    assert world.ask(blank, request).error.code == "refused"
    assert blank.status.role == "blank"


def test_a_member_founds_no_second_cluster(world: World) -> None:
    world.form(2)
    second = world["n2"]
    request = BootstrapRequest(
        cluster_name="more", incarnation=second.disk.identity.incarnation, address="n2:7100"
    )
    asked = world.ask(second, request)
    assert asked.error.message == "n2 is not blank"
    assert CLUSTER in asked.error.cause


def test_the_first_entries_of_a_cluster_say_when_they_were_made(world: World) -> None:
    world.run(5)
    leader = world.bootstrap()
    noop = next(entry for entry in leader.disk.entries if entry.kind is EntryKind.NOOP)
    assert f'"time_ms":{world.wall_clock_ms()}'.encode() in noop.data


@pytest.mark.parametrize("step", ["published", "append"])
def test_a_bootstrap_that_crashed_before_its_first_entry_goes_on_at_the_next_start(
    world: World, step: str
) -> None:
    server = world.boot("n1")
    server.power.fail_at_next = step
    request = BootstrapRequest(
        cluster_name=CLUSTER, incarnation=server.disk.identity.incarnation, address="n1:7100"
    )
    assert world.ask(server, request).lost
    assert server.disk.entries == []
    server.start()
    assert server.status.configuration is not None
    cluster_id = server.disk.identity.cluster_id
    assert world.call(server, request) == BootstrapReply(cluster_id=cluster_id)
    world.open_session("s")
    assert world.call(server, world.put("a")) == WriteReply(applied=True, revision=1)


def test_a_bootstrap_that_crashed_before_its_identity_leaves_a_blank_server(world: World) -> None:
    server = world.boot("n1")
    server.power.fail_at_next = "publish"
    request = BootstrapRequest(
        cluster_name=CLUSTER, incarnation=server.disk.identity.incarnation, address="n1:7100"
    )
    assert world.ask(server, request).lost
    server.start()
    assert server.status.role == "blank"


def join(server: Server, cluster_id: str = "c", **more: str) -> JoinRequest:
    fields = {"name": server.name, "incarnation": server.disk.identity.incarnation} | more
    return JoinRequest(cluster_id=cluster_id, cluster_name=CLUSTER, **fields)


def test_a_join_is_durable_before_it_is_answered(world: World) -> None:
    server = world.boot("n1")
    assert world.ask(server, join(server)).reply == DoneReply()
    assert [event[0] for event in server.journal] == ["publish", "reply"]
    server.restart()
    assert server.status.cluster_id == "c"
    assert server.status.role == "learner"


def test_a_join_that_is_repeated_answers_the_same(world: World) -> None:
    server = world.boot("n1")
    world.ask(server, join(server))
    assert world.ask(server, join(server)).reply == DoneReply()


@pytest.mark.parametrize("wrong", [{"name": "n2"}, {"incarnation": "other"}])
def test_a_join_that_means_another_server_is_refused(world: World, wrong: dict[str, str]) -> None:
    server = world.boot("n1")
    assert world.ask(server, join(server, **wrong)).error.code == "refused"
    assert server.status.role == "blank"


def test_a_join_of_a_member_of_another_cluster_is_refused(world: World) -> None:
    server = world.boot("n1")
    world.ask(server, join(server, "c"))
    assert world.ask(server, join(server, "d")).error.message == "n1 is not blank"
    assert server.status.cluster_id == "c"


def test_status_names_the_role_of_every_kind_of_server(world: World) -> None:
    world.form(3, learners=1)
    blank, joined = world.boot("n5"), world.boot("n6")
    world.ask(joined, join(joined, world["n1"].disk.identity.cluster_id))
    roles = {server.name: server.status.role for server in world.up()}
    assert roles == {
        "n1": "leader",
        "n2": "follower",
        "n3": "follower",
        "n4": "learner",
        "n5": "blank",
        "n6": "learner",
    }
    assert blank.status.configuration is None
    world.cut(["n2"])
    world.until(lambda: world["n2"].status.role == "candidate")


# --- who is let in ------------------------------------------------------------------------------


def test_a_member_of_the_cluster_is_welcome_whoever_it_is(world: World) -> None:
    server = world.form(2)
    answer = server.running.admit(hello(server))
    identity = server.disk.identity
    assert answer == Welcome(
        server=server.id,
        cluster_id=identity.cluster_id,
        cluster_name=identity.cluster_name,
        version=PROTOCOL_VERSION_MAX,
    )


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version_min": 9, "version_max": 9}, "version"),
        ({"version_min": 0, "version_max": 0}, "version"),
        ({"dest": "n1/other"}, "identity"),
        ({"dest": "n2/1"}, "identity"),
        ({"dest": ""}, "identity"),
        ({"source": ""}, "identity"),
        ({"cluster_id": ""}, "identity"),
        ({"cluster_id": "other"}, "cluster"),
        ({"cluster_id": "other", "role": "client", "dest": ""}, "cluster"),
    ],
)
def test_a_wrong_hello_is_refused_with_its_code(
    world: World, change: dict[str, object], code: str
) -> None:
    server = world.form(2)
    answer = server.running.admit(hello(server, **change))
    assert isinstance(answer, Refusal)
    assert answer.code == code
    assert answer.server == server.id


def test_a_blank_server_refuses_peers_and_welcomes_clients(world: World) -> None:
    blank = world.boot("n1")
    answer = blank.running.admit(hello(blank, cluster_id="c"))
    assert isinstance(answer, Refusal)
    assert answer.code == "blank"
    client = Hello(role="client", cluster_id="", source="", dest="")
    assert isinstance(blank.running.admit(client), Welcome)


def test_a_server_that_was_removed_is_refused_with_the_index_of_its_removal(world: World) -> None:
    world.form(3)
    removed = world["n3"]
    world.finish(world.started(world.change("remove", drop("n3"))))
    world.run(HEARTBEAT_TICKS)
    for name in ("n1", "n2"):
        server = world[name]
        answer = server.running.admit(hello(server, source=removed.id))
        assert isinstance(answer, Refusal)
        assert (answer.code, answer.removed_index) == ("removed", server.status.configuration.index)


def test_a_blank_server_says_hello_to_nobody(world: World) -> None:
    assert world.boot("n1").running.our_hello("n2/1") is None


# --- ceasing to be a member ---------------------------------------------------------------------


def test_a_removed_server_remembers_it_for_good_before_it_ends_with_70(world: World) -> None:
    world.form(3)
    removed = world["n3"]
    world.finish(world.started(world.change("remove", drop("n3"))))
    world.until(lambda: removed.exit)
    assert removed.exit.exit_code == EXIT_REMOVED
    assert removed.disk.identity.removed_index == world.leader().status.configuration.index
    assert world.configuration_of(world.leader()) == ({"n1", "n2"}, set(), set())


def test_a_removed_leader_hands_leadership_over_before_it_ends(world: World) -> None:
    leader = world.form(3)
    record = world.finish(world.started(world.change("remove", drop("n1"))))
    assert record.result == "done"
    world.until(lambda: leader.exit)
    sent = [event[1] for event in leader.journal if event[0] == "send"]
    handed = [envelope.dest for envelope in sent if isinstance(envelope.message, TimeoutNow)]
    assert handed
    assert world.leader().id in handed


def test_a_removed_server_names_the_new_leader_to_clients_before_it_ends(world: World) -> None:
    leader = world.form(3)
    world.started(world.change("remove", drop("n1")))
    successor = world.until(
        lambda: next((s for s in world.up() if s.leads and s is not leader), None)
    )
    assert leader.exit is None
    assert leader.status.role == "removed"
    world.until(lambda: leader.exit or leader.status.leader == successor.id)
    assert world.ask(leader, world.put("a")).error.leader == successor.id


def test_a_server_that_was_down_when_it_was_removed_is_told_by_a_follower(world: World) -> None:
    world.form(3)
    absent = world["n3"]
    absent.kill()
    world.run(2 * ELECTION_TICKS)
    world.finish(world.started(world.change("remove", drop("n3"))))
    world.run(HEARTBEAT_TICKS)
    # No leader is left that could feed it: only the refused Hello of the other member tells it.
    world["n1"].kill()
    absent.start()
    world.until(lambda: absent.exit)
    assert absent.exit.exit_code == EXIT_REMOVED
    assert absent.disk.identity.removed_index > 0


def test_a_server_that_was_cut_off_from_the_leader_alone_is_told_on_its_other_links(
    world: World,
) -> None:
    leader = world.form(3)
    absent = world["n3"]
    # Its own connections stay up: a process that was stopped keeps them, too.
    world.passes = lambda envelope: envelope.dest != absent.id
    world.finish(world.started(world.change("remove", drop("n3"))))
    world.until(lambda: absent.exit, 2 * leader.running.raft.options.departing_ticks)
    assert absent.exit.exit_code == EXIT_REMOVED
    assert absent.disk.identity.removed_index == leader.status.configuration.index


def test_a_removed_server_that_starts_with_all_others_is_told_once_they_know_again(
    world: World,
) -> None:
    leader = world.form(4)
    absent = world["n4"]
    absent.kill()
    world.run(HEARTBEAT_TICKS)
    world.finish(world.started(world.change("remove", drop("n4"))))
    # Long enough ago that no leader feeds it any more.
    world.run(leader.running.raft.options.departing_ticks + 1)
    world.boot("n5")
    world.finish(world.started(world.change("add", new("n5"))))
    for server in world.up():
        server.kill()
    # The absent one is let in by servers that have not applied its removal yet.
    for server in world.servers.values():
        server.start()
    world.until(lambda: absent.exit)
    assert absent.exit.exit_code == EXIT_REMOVED


def test_a_removed_server_that_is_up_learns_it_from_the_log(world: World) -> None:
    world.form(3)
    removed = world["n3"]
    world.finish(world.started(world.change("remove", drop("n3"))))
    world.until(lambda: removed.exit)
    assert removed.state.tombstone(removed.id) == removed.disk.identity.removed_index


def test_a_removed_leader_is_listened_to_until_it_has_handed_over(world: World) -> None:
    leader = world.form(3)
    others = [world["n2"], world["n3"]]
    world.ask_later(leader, world.change("remove", drop("n1")))
    for _ in range(20):
        leader.turn(tick=False)
        if leader.id not in leader.running.raft.configuration.configuration.all_voters:
            break
        for server in others:
            server.turn(tick=False)
    for server in others:
        server.turn(tick=False)
    # A write comes just before C_new is committed: the others get it together with the news, and
    # only once they have it may one of them be told to take over.
    world.ask_later(leader, world.put("a"))
    leader.inbox.insert(0, leader.inbox.pop())
    leader.turn(tick=False)
    assert leader.state.tombstone(leader.id)
    assert leader.leads
    world.settle()
    assert all(server.state.tombstone(leader.id) for server in others)
    # Not a tick has passed: nobody had to wait for an election timeout.
    assert any(server.leads for server in others)


def test_the_refusal_of_another_cluster_removes_nobody(world: World) -> None:
    world.form(2)
    server = world["n2"]
    refusal = Refusal(code="removed", message="", cluster_id="other", removed_index=7)
    server.inbox.append(PeerRefused(world["n1"].id, refusal))
    world.run(10)
    assert server.exit is None


@pytest.mark.parametrize("step", ["publish", "published"])
def test_a_removal_that_crashes_around_its_tombstone_is_finished_after_the_restart(
    world: World, step: str
) -> None:
    world.form(3)
    removed = world["n3"]
    removed.power.fail_at_next = step
    world.finish(world.started(world.change("remove", drop("n3"))))
    world.until(lambda: removed.node is None)
    if step == "publish":
        assert removed.disk.identity.removed_index == 0
        removed.start()
        world.until(lambda: removed.exit)
    assert removed.disk.identity.removed_index > 0


def test_all_servers_replaced_at_once_end_with_70(world: World) -> None:
    world.form(3)
    for name in ("n4", "n5", "n6"):
        world.boot(name)
    changes = [drop(f"n{n}") for n in (1, 2, 3)] + [new(f"n{n}") for n in (4, 5, 6)]
    assert world.finish(world.started(world.change("replace", *changes))).result == "done"
    world.until(lambda: all(world[name].exit for name in ("n1", "n2", "n3")))
    assert world.leader().name in ("n4", "n5", "n6")


# --- handing over -------------------------------------------------------------------------------


def test_a_transfer_is_answered_when_the_new_leader_is_known(world: World) -> None:
    leader = world.form(3)
    target = world["n3"]
    reply = world.call(leader, TransferRequest(target="n3"))
    assert reply == TransferReply(leader=target.id, term=target.status.term)
    assert target.status.role == "leader"


def test_a_transfer_without_a_target_takes_the_best_voter(world: World) -> None:
    leader = world.form(3)
    world.passes = lambda envelope: "n3" not in (envelope.dest[:2], envelope.source[:2])
    world.call(leader, world.put("a"))
    world.passes = lambda envelope: True
    reply = world.call(leader, TransferRequest())
    assert isinstance(reply, TransferReply)
    assert reply.leader == world["n2"].id


def test_a_transfer_to_the_leader_itself_is_done_already(world: World) -> None:
    leader = world.form(3)
    reply = world.call(leader, TransferRequest(target="n1"))
    assert reply == TransferReply(leader=leader.id, term=leader.status.term)


@pytest.mark.parametrize("target", ["n4", "n9"])
def test_a_transfer_to_no_voter_is_refused(world: World, target: str) -> None:
    leader = world.form(3, learners=1)
    asked = world.ask(leader, TransferRequest(target=target))
    assert asked.error.cause == f"{target} is not a voter of the configuration to come"


def test_a_transfer_that_the_target_does_not_take_up_says_so(world: World) -> None:
    leader = world.form(3)
    world.passes = lambda envelope: not isinstance(envelope.message, TimeoutNow)
    reply = world.call(leader, TransferRequest(target="n2"))
    assert isinstance(reply, ErrorReply)
    assert "n2 did not take over" in reply.cause
    assert leader.status.role == "leader"
    assert world.call(leader, world.put("a")) == WriteReply(applied=True, revision=1)


def test_a_transfer_that_another_server_wins_is_no_success(world: World) -> None:
    leader = world.form(3)
    world.passes = lambda envelope: not isinstance(envelope.message, TimeoutNow)
    asked = world.ask(leader, TransferRequest(target="n2"))
    # n3 is told to campaign instead, as if by an earlier transfer.
    other = world["n3"]
    other.inbox.append(Received(Envelope(leader.id, other.id, TimeoutNow(leader.status.term))))
    world.until(lambda: not asked.open)
    assert asked.error.cause == "n3 won the election and leads now"


def test_writes_pause_during_a_transfer(world: World) -> None:
    leader = world.form(3)
    world.passes = lambda envelope: not isinstance(envelope.message, TimeoutNow)
    world.ask(leader, TransferRequest(target="n2"))
    assert world.ask(leader, world.put("a")).error.code == "unavailable"
    world.run(ELECTION_TICKS)
    assert isinstance(world.call(leader, world.put("a")), WriteReply)


def test_a_name_in_two_incarnations_means_the_one_that_stays(world: World) -> None:
    leader = world.form(3)
    old = world["n3"]
    # The new disk has the smaller incarnation, so that the order of the ids does not decide.
    old.kill()
    replacement = world.boot("n3", disk=MemoryDisk("n3", "0" * 16))
    world.passes = lambda envelope: not is_final(envelope)
    world.started(world.change("replace", drop("n3"), new("n3")))
    world.until(lambda: world.configuration_of(leader)[1] == set() and leader.leads)
    world.passes = lambda envelope: True
    world.until(world.is_settled)
    reply = world.call(world.leader(), TransferRequest(target="n3"))
    assert isinstance(reply, TransferReply)
    assert reply.leader == replacement.id


def test_draining_hands_leadership_over(world: World) -> None:
    leader = world.form(3)
    leader.running.drain()
    assert not leader.running.is_drained
    world.until(lambda: leader.running.is_drained, ELECTION_TICKS)
    assert world.leader() is not leader


def test_draining_goes_on_after_a_membership_change_has_cancelled_it(world: World) -> None:
    leader = world.form(3)
    world.boot("n4")
    world.passes = lambda envelope: not isinstance(envelope.message, TimeoutNow)
    world.started(world.change("add", new("n4")))
    leader.running.drain()
    world.run(2)
    world.passes = lambda envelope: True
    world.until(lambda: leader.running.is_drained, 2 * ELECTION_TICKS)
    assert world.leader() is not leader


def test_a_server_without_others_and_a_follower_are_drained_at_once(world: World) -> None:
    alone = world.bootstrap()
    alone.running.drain()
    assert alone.running.is_drained
    other = World()
    other.form(3)
    assert other["n2"].running.is_drained


def test_a_status_is_answered_from_its_own_view(world: World) -> None:
    leader = world.form(3)
    world["n3"].kill()
    world.run(ELECTION_TICKS)
    status = leader.status
    assert status.leadership_confirmed
    assert {view.server: view.connected for view in status.peers} == {
        world["n2"].id: True,
        world["n3"].id: False,
    }
    problems = {view.server: view.problem for view in status.peers}
    assert problems == {world["n2"].id: "", world["n3"].id: "connection refused"}
    assert world["n2"].status.leader_address == leader.address
    assert attrs.evolve(status.configuration, addresses={}).voters == tuple(
        sorted(world[name].id for name in ("n1", "n2", "n3"))
    )
