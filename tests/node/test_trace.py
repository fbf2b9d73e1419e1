"""The trace of a server: its events and their order, the file that takes them, and their table."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from raftd import trace as trace_module
from raftd.core.messages import AppendEntries
from raftd.core.types import HardState
from raftd.node import Node
from raftd.protocol import AbortReply, BootstrapRequest, TransferReply, TransferRequest
from raftd.trace import EVENT_KINDS, Event, Trace, main, tracing_to_file
from tests.node import world as world_module
from tests.node.asking import abort
from tests.node.clients import Client
from tests.node.growing import EAGER, did
from tests.node.growing import fill as write
from tests.node.world import (
    CLUSTER,
    ELECTION_TICKS,
    HEARTBEAT_TICKS,
    Server,
    World,
    become,
    drop,
    is_joint,
    new,
)

COMMON = {"time_us", "server", "event"}


class Traces:
    """The traces of all servers of a world, which are checked against the disks as they grow."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.traces: list[Trace] = []
        self.hashes: dict[int, str] = {}
        """The state hash at each applied index, on whichever server."""

    def node(self, **more: Any) -> Node:
        """Return a node with a trace: what the world makes in place of a plain one."""
        server: Server = more["network"]
        state = more["state"]

        def emit(event: Event) -> None:
            json.dumps(event)
            self.check(server, event)
            self.events.append(event)

        trace = Trace(
            emit,
            lambda: 1000 * more["wall_clock_ms"](),
            lambda: state.effects_hash,
        )
        self.traces.append(trace)
        return Node(**more, trace=trace)

    def check(self, server: Server, event: Event) -> None:
        """Assert that what the event says has happened already, and not long ago."""
        disk = server.disk
        assert event["server"] == server.id
        match event["event"]:
            case "term":
                assert event["term"] == disk.durable_hard_state.current_term
            case "vote":
                assert disk.durable_hard_state == HardState(event["term"], event["voted_for"])
            case "append":
                assert event["last_index"] == disk.last_index
                assert event["last_term"] == disk.durable_entries[-1].term
            case "configuration":
                assert event["index"] <= disk.last_index
            case "commit":
                assert event["commit_index"] <= disk.last_index
                assert event["term"] == disk.term_at(event["commit_index"])
            case "apply":
                assert event["applied_index"] == server.state.applied_index
                known = self.hashes.setdefault(event["applied_index"], event["state_hash"])
                assert known == event["state_hash"], "the servers have diverged"

    def of(self, server: Server, since: int = 0, *kinds: str) -> list[Event]:
        """Return the events of a server after the first `since` of all, perhaps of some kinds."""
        return [
            event
            for event in self.events[since:]
            if event["server"] == server.id and (not kinds or event["event"] in kinds)
        ]

    def words(self, server: Server, since: int = 0, *kinds: str) -> list[str]:
        """Return the events in short: the kind and what is told apart in these tests."""
        return [in_words(event) for event in self.of(server, since, *kinds)]

    def assert_unbroken(self) -> None:
        assert [trace.problem for trace in self.traces if trace.problem is not None] == []


def name(server: str | None) -> str:
    return (server or "-").partition("/")[0]


def names(servers: list[str]) -> str:
    return "".join(name(server) for server in servers)


def in_words(event: Event) -> str:
    match event["event"]:
        case "start":
            words = f"{event['term']} {name(event['vote'])} {event['last_index']}"
            words += f"/{event['last_term']} {event['configuration_index']}"
        case "term":
            words = f"{event['term']}"
        case "vote":
            words = f"{event['term']} {name(event['voted_for'])}"
        case "role":
            words = f"{event['role']} {event['term']} {name(event['leader'])}"
        case "append":
            words = f"{event['first_index']}-{event['last_index']}/{event['last_term']}"
            words += f" -{event['replaced']}" if event["replaced"] else ""
        case "configuration":
            words = f"{event['index']}/{event['term']} {event['kind']}"
            words += f" {names(event['outgoing'])}>{names(event['voters'])}"
            words += f"+{names(event['learners'])}" if event["learners"] else ""
        case "commit":
            words = f"{event['commit_index']}/{event['term']}"
        case "apply":
            words = f"{event['first_index']}-{event['applied_index']}"
        case "restore":
            words = f"{event['last_index']}/{event['last_term']}"
        case kind:
            assert kind == "stop"
            words = event["why"]
    return f"{event['event']} {words}"


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traces]:
    """Every node that a world starts from now on has a trace."""
    traces = Traces()
    monkeypatch.setattr(world_module, "Node", traces.node)
    yield traces
    traces.assert_unbroken()


@pytest.fixture
def world(traces: Traces) -> World:
    return World()


def elected_after(world: World, dead: str) -> tuple[Server, Server]:
    """Kill a server; return the leader and the follower of the two that are left."""
    world[dead].kill()
    leader = world.leader()
    (follower,) = (server for server in world.up() if server is not leader)
    return leader, follower


# --- events ---


def test_a_blank_server_starts_with_nothing(world: World, traces: Traces) -> None:
    server = world.boot("n1")
    world.run(50)
    assert traces.words(server) == ["start 0 - 0/0 0"]


def test_founding_a_cluster_is_an_entry_and_an_election(world: World, traces: Traces) -> None:
    server = world.boot("n1")
    world.ask(
        server,
        BootstrapRequest(
            cluster_name=CLUSTER, incarnation=server.disk.identity.incarnation, address="n1:7100"
        ),
    )
    assert traces.words(server) == [
        "start 0 - 0/0 0",
        "term 1",
        "role follower 1 -",
        "append 1-1/1",
        "configuration 1/1 bootstrap >n1",
        "term 2",
        "vote 2 n1",
        "role candidate 2 -",
        "role leader 2 n1",
        "append 2-2/2",
        "commit 2/2",
        "apply 1-2",
    ]


@pytest.mark.parametrize(
    ("step", "found"),
    [
        ("published", ["start 0 - 0/0 0", "term 1", "role follower 1 -", "append 1-1/1"]),
        ("append", ["start 0 - 0/0 0", "term 1", "role follower 1 -", "append 1-1/1"]),
        ("appended", ["start 1 - 1/1 1", "configuration 1/1 bootstrap >n1"]),
    ],
)
def test_a_founding_that_a_crash_has_cut_short_is_traced_from_where_it_goes_on(
    world: World, traces: Traces, step: str, found: list[str]
) -> None:
    server = world.boot("n1")
    server.power.fail_at_next = step
    request = BootstrapRequest(
        cluster_name=CLUSTER, incarnation=server.disk.identity.incarnation, address="n1:7100"
    )
    assert world.ask(server, request).lost
    mark = len(traces.events)
    server.start()
    world.leader()
    words = traces.words(server, mark)
    assert words[: len(found)] == found
    assert words[-1] == "apply 1-2"


def test_an_election_shows_term_and_vote_before_the_role_and_the_no_op(
    world: World, traces: Traces
) -> None:
    world.form(3)
    last = world["n1"].status.last_index
    term = world["n1"].status.term
    mark = len(traces.events)
    leader, follower = elected_after(world, "n1")
    new_term = term + 1
    assert leader.status.term == new_term
    assert traces.words(leader, mark) == [
        f"role precandidate {term} -",
        f"term {new_term}",
        f"vote {new_term} {leader.name}",
        f"role candidate {new_term} -",
        f"role leader {new_term} {leader.name}",
        f"append {last + 1}-{last + 1}/{new_term}",
        f"commit {last + 1}/{new_term}",
        f"apply {last + 1}-{last + 1}",
    ]
    assert traces.words(follower, mark)[:5] == [
        f"term {new_term}",
        f"vote {new_term} {leader.name}",
        f"role follower {new_term} -",
        f"role follower {new_term} {leader.name}",
        f"append {last + 1}-{last + 1}/{new_term}",
    ]


def test_a_write_is_appended_committed_and_applied_everywhere(world: World, traces: Traces) -> None:
    leader = world.form(3)
    index, term = leader.status.last_index + 1, leader.status.term
    mark = len(traces.events)
    world.call(leader, world.put("a"))
    world.run(HEARTBEAT_TICKS)
    for server in world.up():
        assert traces.words(server, mark) == [
            f"append {index}-{index}/{term}",
            f"commit {index}/{term}",
            f"apply {index}-{index}",
        ]
    assert (
        len({event["state_hash"] for event in traces.events[mark:] if "state_hash" in event}) == 1
    )


def test_an_apply_has_the_hash_of_the_state_after_it(world: World, traces: Traces) -> None:
    leader = world.form(3)
    world.call(leader, world.put("a"))
    applied = traces.of(leader, 0, "apply")[-1]
    assert applied["state_hash"] == f"{leader.state.effects_hash:016x}"
    assert len(applied["state_hash"]) == 16


def test_a_batch_of_writes_is_one_append_and_one_apply(world: World, traces: Traces) -> None:
    leader = world.form(3)
    first = leader.status.last_index + 1
    mark = len(traces.events)
    for number in range(5):
        world.ask_later(leader, world.put(f"k{number}"))
    world.settle()
    appended, applied = traces.of(leader, mark, "append", "apply")
    assert (appended["first_index"], appended["last_index"]) == (first, first + 4)
    assert (applied["first_index"], applied["applied_index"]) == (first, first + 4)


def test_a_replacement_shows_every_configuration_with_its_operation(
    world: World, traces: Traces
) -> None:
    leader = world.form(3)
    world.boot("n4")
    mark = len(traces.events)
    operation = world.started(world.change("replace", drop("n3"), new("n4")))
    assert world.finish(operation).result == "done"
    for server in (leader, world["n2"], world["n4"]):
        events = traces.of(server, mark, "configuration")
        shown = [in_words(event).split(" ", 2)[2] for event in events]
        assert shown[-3:] == [
            "simple >n1n2n3+n4",
            "joint n1n2n3>n1n2n4",
            "final >n1n2n4",
        ]
        assert {event["operation"] for event in events[-3:]} == {operation}
        assert {event["term"] for event in events[-3:]} == {leader.status.term}
    # All that the newcomer was sent came into force there, in the same order.
    newcomer = traces.of(world["n4"], mark, "configuration")
    assert [event["index"] for event in newcomer] == sorted(event["index"] for event in newcomer)
    assert in_words(newcomer[0]) == "configuration 1/1 bootstrap >n1"


def test_a_configuration_is_in_force_when_it_is_appended_and_before_its_commit(
    world: World, traces: Traces
) -> None:
    leader = world.form(3)
    mark = len(traces.events)
    world.finish(world.started(world.change("remove", drop("n3"))))
    joint = next(e for e in traces.of(leader, mark, "configuration") if e["kind"] == "joint")
    words = traces.words(leader, mark, "append", "configuration", "commit")
    appended = words.index(f"append {joint['index']}-{joint['index']}/{joint['term']}")
    after = joint["index"] + 1
    assert words[appended + 1 : appended + 4] == [
        in_words(joint),
        # C_new is appended because C_old,new is committed.
        f"commit {joint['index']}/{joint['term']}",
        f"append {after}-{after}/{joint['term']}",
    ]


def joint_on_a_leader_that_is_cut_off(world: World) -> tuple[Server, str]:
    """Return a leader that alone has a C_old,new, another one being elected, and its operation."""
    old = world.form(3)
    world.passes = lambda envelope: not is_joint(envelope)
    operation = world.started(world.change("remove", drop("n3")))
    assert old.running.raft.configuration.configuration.is_joint
    world.passes = lambda envelope: True
    world.cut(["n1"], ["n2", "n3"])
    world.until(lambda: any(server.leads for server in (world["n2"], world["n3"])))
    return old, operation


def test_a_configuration_that_is_rolled_back_is_followed_by_the_one_before(
    world: World, traces: Traces
) -> None:
    old, operation = joint_on_a_leader_that_is_cut_off(world)
    leader = world.leader()
    assert isinstance(world.call(leader, abort(world, operation)), AbortReply)
    mark = len(traces.events)
    world.heal()
    world.until(world.is_settled)
    assert in_words(traces.of(old, 0, "configuration")[-2]) == "configuration 9/2 joint n1n2n3>n1n2"
    last, term = leader.status.last_index, leader.status.term
    assert traces.words(old, mark) == [
        f"term {term}",
        f"role follower {term} {leader.name}",
        f"append 9-{last}/{term} -1",
        "configuration 7/2 final >n1n2n3",
        f"commit {last}/{term}",
        f"apply 9-{last}",
    ]


def test_a_rollback_and_the_configurations_in_its_place_are_all_shown(
    world: World, traces: Traces
) -> None:
    old, operation = joint_on_a_leader_that_is_cut_off(world)
    mark = len(traces.events)
    world.heal()
    world.finish(operation)
    # The next leader takes the operation up again, in one message with what rolls ours back.
    assert traces.words(old, mark, "append", "configuration")[:3] == [
        "append 9-10/3 -1",
        "configuration 7/2 final >n1n2n3",
        "configuration 10/3 joint n1n2n3>n1n2",
    ]


def test_a_restart_begins_with_what_is_durable(world: World, traces: Traces) -> None:
    leader = world.form(3)
    world.call(leader, world.put("a"))
    follower = world["n2"]
    world.run(HEARTBEAT_TICKS)
    status, configuration = follower.status, follower.running.raft.configuration
    mark = len(traces.events)
    follower.restart()
    found = HardState(status.term, follower.disk.durable_hard_state.voted_for)
    assert traces.words(follower, mark) == [
        f"start {found.current_term} {name(found.voted_for)} {status.last_index}/{status.term} "
        f"{configuration.index}",
        f"configuration {configuration.index}/{status.term} final >n1n2n3",
    ]
    world.run(HEARTBEAT_TICKS + 1)
    # Nothing is applied twice as far as anybody can see: memory was empty.
    assert traces.words(follower, mark)[2:] == [
        f"role follower {status.term} n1",
        f"commit {status.last_index}/{status.term}",
        f"apply 1-{status.last_index}",
    ]


def test_a_transfer_shows_the_old_leader_as_a_follower_of_the_new_one(
    world: World, traces: Traces
) -> None:
    leader = world.form(3)
    term = leader.status.term
    mark = len(traces.events)
    assert isinstance(world.call(leader, TransferRequest(target="n2")), TransferReply)
    assert traces.words(leader, mark, "role")[-1] == f"role follower {term + 1} n2"
    assert traces.words(world["n2"], mark, "role") == [
        f"role candidate {term + 1} -",
        f"role leader {term + 1} n2",
    ]


def test_a_role_that_changes_without_work_for_disk_and_network_is_traced(
    world: World, traces: Traces
) -> None:
    world.form(3)
    world.finish(world.started(world.change("demote", become("n3", "learner"))))
    world.until(world.is_settled)
    server = world["n3"]
    term = server.status.term
    mark = len(traces.events)
    world.passes = lambda envelope: (
        not (isinstance(envelope.message, AppendEntries) and envelope.dest == server.id)
    )
    # A learner does not campaign; it only stops to believe in the leader.
    world.until(lambda: traces.of(server, mark))
    assert traces.words(server, mark) == [f"role follower {term} -"]


def installed(world: World) -> Server:
    """Form a cluster in which `n3` gets a snapshot; return it."""
    world.settings["snapshot_log_bytes"] = EAGER
    world.form(3)
    follower = world["n3"]
    follower.kill()
    world.run(2 * ELECTION_TICKS)
    world.finish(world.started(world.change("demote", become("n3", "learner"))))
    write(world, 5)
    world.run(HEARTBEAT_TICKS)
    follower.start()
    world.until(world.is_settled)
    return follower


def test_a_snapshot_that_was_installed_is_traced_with_the_configuration_it_brings(
    world: World, traces: Traces
) -> None:
    follower = installed(world)
    index = did(follower, "install")[0][1]
    latest = world.leader().running.raft.configuration
    mark = next(n for n, e in enumerate(traces.events) if e["event"] == "restore")
    words = traces.words(follower, mark)
    assert words[0] == f"restore {index}/{world.leader().status.term}"
    assert words[1].startswith(f"configuration {latest.index}/")
    assert traces.events[mark]["server"] == follower.id
    # What follows goes on from there.
    applied = traces.of(follower, mark, "apply")
    assert all(event["first_index"] > index for event in applied)


def test_events_have_exactly_the_fields_of_the_documented_table(
    world: World, traces: Traces
) -> None:
    installed(world)
    world["n2"].restart()
    world.leader()
    traces.traces[-1].stopped("enough")
    documented: dict[str, set[str]] = {}
    text = trace_module.__doc__ or ""
    for row in text.splitlines():
        cells = [cell.replace("`", "").strip() for cell in row.strip("|").split("|")]
        if len(cells) == 3 and row.startswith("| `"):
            fields = cells[1].replace("and the three lists", "voters, outgoing, learners")
            documented[cells[0]] = {field.strip() for field in fields.split(",")}
    seen = {event["event"]: event.keys() - COMMON for event in traces.events}
    assert seen == {kind: fields for kind, fields in documented.items() if kind != "dropped"}
    assert documented["dropped"] == {"count"}


def test_times_are_those_of_the_clock(world: World, traces: Traces) -> None:
    server = world.boot("n1")
    assert traces.of(server)[0]["time_us"] == 1000 * world.wall_clock_ms()


def test_what_is_traced_is_durable_and_the_states_agree_in_a_hostile_world(
    world: World, traces: Traces, seed: int
) -> None:
    world.form(5)
    world.shuffled, world.delay_ticks, world.loss = True, (0, 3), 0.1
    clients = [Client(world, f"c{number}", world.random) for number in range(3)]
    for step in range(400):
        for client in clients:
            client.act()
        world.tick()
        if step % 60 == 30:
            world.random.choice(world.up()).restart()
    for server in world.up():
        check_story(traces.of(server))
    kinds = {event["event"] for event in traces.events}
    assert kinds == {"start", "term", "vote", "role", "append", "configuration", "commit", "apply"}
    assert len(traces.hashes) > 50


def check_story(events: list[Event]) -> None:
    """Assert that each event of a server follows from those before it."""
    term = last_index = applied = commit = 0
    for event in events:
        match event["event"]:
            case "start":
                assert (event["term"], event["last_index"]) == (term, last_index)
                applied = commit = 0
            case "term":
                assert event["term"] > term
                term = event["term"]
            case "vote" | "role":
                assert event["term"] == term
            case "append":
                assert event["first_index"] == last_index - event["replaced"] + 1
                assert event["first_index"] > commit
                last_index = event["last_index"]
            case "commit":
                assert commit < event["commit_index"] <= last_index
                commit = event["commit_index"]
            case "apply":
                assert event["first_index"] == applied + 1
                assert event["applied_index"] <= commit
                applied = event["applied_index"]


# --- a trace harms nobody ---


def test_after_stop_nothing_follows(world: World, traces: Traces) -> None:
    server = world.bootstrap("n1")
    (trace,) = traces.traces
    trace.stopped("removed")
    trace.stopped("again")
    world.call(server, world.put("a"))
    assert traces.words(server)[-1] == "stop removed"


def test_a_trace_that_fails_ends_and_the_server_goes_on(
    traces: Traces, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[str] = []

    def fail(event: Event) -> None:
        taken.append(event["event"])
        if event["event"] == "apply":
            raise RuntimeError("no room")

    def node(**more: Any) -> Node:
        trace = Trace(fail, lambda: 0)
        broken.append(trace)
        return Node(**more, trace=trace)

    broken: list[Trace] = []
    monkeypatch.setattr(world_module, "Node", node)
    world = World()
    with caplog.at_level(logging.ERROR, logger="raftd"):
        server = world.bootstrap("n1")
        world.call(server, world.put("a"))
    assert world.get("a") == "v"
    assert taken.count("apply") == 1
    assert taken[-1] == "apply"
    assert str(broken[0].problem) == "no room"
    assert [record.getMessage() for record in caplog.records] == ["the trace ends here"]


def test_without_a_hash_the_field_is_null(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    monkeypatch.setattr(
        world_module, "Node", lambda **more: Node(**more, trace=Trace(events.append, lambda: 0))
    )
    World().bootstrap("n1")
    assert {event["state_hash"] for event in events if event["event"] == "apply"} == {None}


# --- the file ---


def numbered(number: int) -> Event:
    return {"time_us": number, "server": "n1/1", "event": "term", "term": number}


def lines(path: Path) -> list[Event]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_events_are_lines_of_the_file_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    with tracing_to_file(path) as emit:
        for number in range(1000):
            emit(numbered(number))
    assert lines(path) == [numbered(number) for number in range(1000)]


def test_a_second_process_appends(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    for number in range(2):
        with tracing_to_file(path) as emit:
            emit(numbered(number))
    assert lines(path) == [numbered(0), numbered(1)]


def test_a_line_that_was_cut_does_not_spoil_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(b'{"time_us":1,"ser')
    with tracing_to_file(path) as emit:
        emit(numbered(7))
    cut, whole = path.read_text().splitlines()
    assert cut == '{"time_us":1,"ser'
    assert json.loads(whole) == numbered(7)


def test_what_was_emitted_reaches_the_file_when_the_process_fails(tmp_path: Path) -> None:
    path = tmp_path / "trace"

    def emit_and_fail() -> None:
        with tracing_to_file(path) as emit:
            emit(numbered(1))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        emit_and_fail()
    assert lines(path) == [numbered(1)]


@pytest.mark.parametrize(
    ("path", "problem"),
    [("no/such/folder", "No such file"), (".", "Is a directory"), ("pipe", "No such device")],
)
def test_a_file_that_cannot_be_written_to_is_an_error_at_once(
    tmp_path: Path, path: str, problem: str
) -> None:
    # Nobody reads the pipe: to open it would take for ever.
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=problem), tracing_to_file(tmp_path / path):
        pass


@pytest.fixture
def full_pipe(tmp_path: Path) -> tuple[Path, int]:
    """A named pipe that takes nothing more, and the descriptor to read it; the test closes that."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    fill(writer)
    os.close(writer)
    return path, reader


def fill(writer: int) -> None:
    """Fill a pipe that does not block, with blank lines."""
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"\n" * 4096)


def test_lines_that_found_no_room_are_counted_where_they_are_missing(
    full_pipe: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_module, "QUEUE_EVENTS_MAX", 10)
    path, reader = full_pipe
    received = b""
    with tracing_to_file(path) as emit:
        for number in range(100):
            emit(numbered(number))
        # The pipe is read again, and what comes then finds room.
        while b'"term":5' not in received:
            with suppress(BlockingIOError):
                received += os.read(reader, 65_536)
        emit(numbered(100))
    while chunk := os.read(reader, 65_536):
        received += chunk
    os.close(reader)
    due = 0
    gaps = []
    for event in map(json.loads, received.split()):
        if event["event"] == "dropped":
            assert event.keys() == COMMON | {"count"}
            assert (event["time_us"], event["server"]) == (due, "n1/1")
            due += event["count"]
            gaps.append(event["count"])
        else:
            assert event == numbered(due)
            due += 1
    assert due == 101
    # One may be with the writer already, ten are in the queue.
    assert sum(gaps) in (89, 90)


def test_a_file_that_takes_nothing_holds_up_neither_the_server_nor_its_end(
    full_pipe: tuple[Path, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trace_module, "QUEUE_EVENTS_MAX", 10)
    monkeypatch.setattr(trace_module, "FLUSH_SECONDS_MAX", 0.05)
    path, reader = full_pipe
    threads = set(threading.enumerate())
    started = time.monotonic()
    with tracing_to_file(path) as emit:
        for number in range(1000):
            emit(numbered(number))
    assert time.monotonic() - started < 5
    (stuck,) = set(threading.enumerate()) - threads
    assert stuck.daemon
    # Nobody reads any more: the write fails, and the thread goes on to what is left. It says so
    # before the next test looks at what is logged.
    os.close(reader)
    deadline = time.monotonic() + 20
    while "the trace has a gap" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("afterwards", [[numbered(9)], []], ids=["an event", "the end"])
def test_lines_that_the_file_refused_are_counted_when_it_takes_them_again(
    caplog: pytest.LogCaptureFixture, afterwards: list[Event]
) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    fill(writer)
    tracing = trace_module._Writer(writer)
    with caplog.at_level(logging.WARNING, logger="raftd"):
        tracing.emit(numbered(1))
        tracing.emit(numbered(2))
        # What was dropped before stays counted.
        tracing.emit({"time_us": 3, "server": "n1/1", "event": "dropped", "count": 40})
        deadline = time.monotonic() + 20
        while tracing._unwritten is None or tracing._unwritten["count"] < 42:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        with suppress(BlockingIOError):
            while os.read(reader, 65_536):
                pass
        for event in afterwards:
            tracing.emit(event)
        assert tracing.close()
    os.close(writer)
    received = os.read(reader, 65_536)
    os.close(reader)
    dropped = {"time_us": 1, "server": "n1/1", "event": "dropped", "count": 42}
    # The line before may have been taken in part, so that it is ended first.
    assert received.startswith(b"\n")
    assert [json.loads(line) for line in received.split()] == [dropped, *afterwards]
    assert len(caplog.records) == 1


# --- the table ---


def write_trace(path: Path, server: str, *times_us: int) -> str:
    with tracing_to_file(path) as emit:
        for time_us in times_us:
            emit({"time_us": time_us, "server": server, "event": "term", "term": time_us})
            emit({"time_us": time_us, "server": server, "event": "vote", "voted_for": None})
    return str(path)


def test_the_table_merges_servers_by_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write_trace(tmp_path / "1", "n1/00000000aaaa0001", 1, 3, 5)
    two = write_trace(tmp_path / "2", "n2/00000000bbbb0002", 2, 4)
    assert main([one, two, "--event", "term"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split() for row in rows] == [
        ["00:00:00.000001", "n1/0001", "term", "term=1"],
        ["00:00:00.000002", "n2/0002", "term", "term=2"],
        ["00:00:00.000003", "n1/0001", "term", "term=3"],
        ["00:00:00.000004", "n2/0002", "term", "term=4"],
        ["00:00:00.000005", "n1/0001", "term", "term=5"],
    ]


def test_the_table_may_be_the_end_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path / "1", "n1/1", 1, 2, 3)
    assert main([path, "--last", "3", "--event", "vote", "--event", "term"]) == 0
    out = capsys.readouterr().out
    assert [row.split()[-1] for row in out.splitlines()] == ["voted_for=-", "term=3", "voted_for=-"]


def test_lines_that_are_no_events_are_counted_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "1"
    write_trace(path, "n1/1", 1)
    with path.open("ab") as file:
        file.write(
            b'[]\n"x"\n\xff\n{"event":"term"}\n{"time_us":"1","event":"term"}\n{"time_us":1,"ev'
        )
    assert main([str(path)]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    assert "6 lines" in captured.err


def test_a_row_is_of_bounded_width_and_printable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "1"
    event = {"time_us": -1, "server": "n" * 70, "event": "\x1b[31m" * 9, "why": "long\n" * 99}
    path.write_text(json.dumps(event) + "\n")
    assert main([str(path)]) == 0
    (row,) = capsys.readouterr().out.splitlines()
    assert len(row) < 180
    assert row.isprintable()


def test_a_file_that_is_not_there_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("redirection", "why"),
    [(">/dev/full", "No space left on device"), (">&-", "standard output is closed")],
)
def test_a_table_that_cannot_be_written_is_an_error(
    tmp_path: Path, redirection: str, why: str
) -> None:
    path = write_trace(tmp_path / "1", "n1/1", 1)
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -m raftd.trace "$1" {redirection}', sys.executable, path],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, f"error: cannot write: {why}\n")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff" * 99,
        b'[{"time_us":1,"event":"term"}]\n',
        b'{"type":"ok","op":1,"time_us":2}\n',
    ],
    ids=["empty", "binary", "array", "history"],
)
def test_a_file_without_any_event_is_no_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    good = write_trace(tmp_path / "1", "n1/1", 1)
    path = tmp_path / "2"
    path.write_bytes(content)
    assert main([good, str(path)]) == 2
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    assert captured.err.splitlines()[-1] == f"{path}: no events of a server trace"


def test_a_kind_that_is_neither_known_nor_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "1"
    write_trace(path, "n1/1", 1)
    with path.open("a") as file:
        file.write('{"time_us":2,"event":"weather","bad":true}\n')
    assert main([str(path), "--event", "weather", "--event", "stop"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert main([str(path), "--event", "nonsense"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "nonsense" in captured.err
    assert all(kind in captured.err for kind in EVENT_KINDS)


def test_all_known_kinds_are_described() -> None:
    described = (trace_module.__doc__ or "").split("| what it is |")[0]
    assert [
        line.split("`")[1] for line in described.splitlines() if line.startswith("| `")
    ] == list(EVENT_KINDS)
