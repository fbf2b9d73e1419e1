"""MULTI, WATCH and EXEC; and RAFT.DO, under which a command happens once."""

from __future__ import annotations

import pytest

from raftd.commands import VALUE_BYTES_MAX, Transaction, decode_command
from raftd.network import redis_transactions
from raftd.network.redis_actions import Later, Query, Session, Write
from raftd.network.redis_commands import interpret
from tests.network.redis_console import Console, cluster_of


@pytest.fixture
def console() -> Console:
    return Console()


@pytest.fixture
def other(console: Console) -> Console:
    """Another client of the same state."""
    return Console(console.world)


def multi(console: Console, *lines: str) -> object:
    """Return what EXEC answers to a transaction."""
    assert console.ask("MULTI") == b"OK"
    for line in lines:
        assert console.ask(line) == b"QUEUED"
    return console.ask("EXEC")


# --- MULTI ----------------------------------------------------------------------------------


def test_a_transaction_is_one_entry_of_the_log(console: Console) -> None:
    before = len(console.world.written)
    assert multi(console, "SET a 1", "INCR a", "GET a", "PING", "DEL a", "EXISTS a b") == [
        *(b"OK", 2, b"2", b"PONG", 1, 0)
    ]
    (written,) = console.world.written[before:]
    assert isinstance(decode_command(written).body, Transaction)


def test_a_transaction_that_only_reads_needs_no_entry_and_reads_at_one_point(
    console: Console,
) -> None:
    console.all("SET a 1", "SET b 2")
    before = len(console.world.written)
    assert multi(console, "GET a", "MGET a b", "TTL a") == [b"1", [b"1", b"2"], -1]
    assert multi(console, "PING", "ECHO x") == [b"PONG", b"x"]
    assert multi(console) == []
    assert len(console.world.written) == before


def test_nothing_is_done_before_exec_nor_after_discard(console: Console, other: Console) -> None:
    console.all("MULTI", "SET a 1")
    assert other.ask("GET a") is None
    assert console.ask("DISCARD") == b"OK"
    assert other.ask("GET a") is None
    assert console.ask("SET a 2") == b"OK"


@pytest.mark.parametrize(
    "line",
    ["HSET a b c", "GET", "SET a 1 EX 0", "SCAN 0", "CLUSTER SLOTS", "MSETNX a 1", "HELLO 3"],
)
def test_a_command_that_is_refused_lets_exec_do_nothing(console: Console, line: str) -> None:
    console.all("MULTI", "SET a 1")
    assert console.refused(line).startswith("ERR ")
    assert console.ask("SET b 1") == b"QUEUED"
    assert console.refused("EXEC").startswith("EXECABORT")
    assert console.all("EXISTS a b", "SET a 1") == [0, b"OK"]


@pytest.mark.parametrize("line", ["MULTI", "WATCH a"])
def test_what_has_no_place_in_a_transaction_does_not_end_it(console: Console, line: str) -> None:
    console.all("MULTI", "SET a 1")
    assert console.refused(line).startswith("ERR ")
    assert console.ask("EXEC") == [b"OK"]


def test_an_error_of_one_command_leaves_the_others(console: Console) -> None:
    first, error, last = multi(console, "SET a x", "INCR a", "SET b 1")  # type: ignore[misc]
    assert (first, last) == (b"OK", b"OK")
    assert str(error) == "ERR value is not an integer or out of range"
    assert console.ask("GET b") == b"1"


def test_cluster_clients_hear_of_the_leader_before_exec(console: Console) -> None:
    console.world.cluster = cluster_of("n2")
    console.ask("MULTI")
    assert console.refused("SET a 1") == "MOVED 15495 127.0.0.1:7202"
    assert console.refused("EXEC").startswith("EXECABORT")
    console.world.cluster = cluster_of("n4")
    console.ask("MULTI")
    assert console.refused("SET a 1").startswith("CLUSTERDOWN")


def test_old_reads_may_be_in_a_transaction_on_any_server(console: Console) -> None:
    console.ask("SET a 1")
    console.world.cluster = cluster_of("n2")
    console.ask("READONLY")
    assert multi(console, "GET a") == [b"1"]
    console.ask("MULTI")
    assert console.refused("SET a 1").startswith("MOVED")


def test_what_transactions_hold_is_bounded(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_transactions, "QUEUED_BYTES_MAX", 10_000)
    surroundings = console.world.surroundings
    console.ask("MULTI")
    assert console.ask("SET a " + "x" * 5_000) == b"QUEUED"
    assert "more than 10000 bytes" in console.refused("SET b " + "x" * 5_000)
    assert surroundings.queued_bytes > 5_000
    assert console.refused("EXEC").startswith("EXECABORT")
    assert surroundings.queued_bytes == 0
    monkeypatch.setattr(redis_transactions, "QUEUED_BYTES_OF_ALL_MAX", 6_000)
    console.all("MULTI", "SET a " + "x" * 5_000)
    late = Console(console.world)
    late.ask("MULTI")
    assert "try again" in late.refused("SET b " + "x" * 900)
    console.ask("DISCARD")
    assert surroundings.queued_bytes == 0
    assert late.refused("EXEC").startswith("EXECABORT")
    assert multi(late, "SET b 1") == [b"OK"]


def test_a_transaction_has_no_more_commands_than_an_entry_may_have_steps(
    console: Console,
) -> None:
    limit = redis_transactions.COMMANDS_MAX
    assert multi(console, *["INCR a"] * limit) == list(range(1, limit + 1))
    console.ask("MULTI")
    for _ in range(limit):
        assert console.ask("INCR a") == b"QUEUED"
    assert f"at most {limit}" in console.refused("INCR a")
    assert console.refused("EXEC").startswith("EXECABORT")


def test_reset_ends_everything_that_a_connection_has_begun(console: Console) -> None:
    console.all("HELLO 3 SETNAME me", "READONLY", "WATCH a", "MULTI", "SET a 1")
    assert console.ask("RESET") == b"RESET"
    session = console.session
    assert session == Session(number=7)
    assert console.world.surroundings.queued_bytes == 0


# --- WATCH ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    ["SET a 1", "INCR a", "DEL a", "SETEX a 5 1", "APPEND a x", "MSET b 1 a 1", "GETDEL a"],
)
def test_a_watched_key_that_has_changed_lets_exec_do_nothing(
    console: Console, other: Console, change: str
) -> None:
    other.ask("SET a 1")
    console.ask("WATCH b a")
    other.ask(change)
    assert multi(console, "SET c 1", "GET a") is None
    assert console.ask("EXISTS c") == 0
    # It is not watched any more.
    other.ask("SET a 2")
    assert multi(console, "SET c 1") == [b"OK"]


def test_a_watched_key_that_was_not_there_must_not_be_there(
    console: Console, other: Console
) -> None:
    console.ask("WATCH a")
    other.ask("SET a 1")
    assert multi(console, "SET a 2") is None
    other.ask("DEL a")
    console.ask("WATCH a")
    other.all("SET a 1", "DEL a")
    assert multi(console, "SET a 2") == [b"OK"]


def test_watched_keys_that_are_as_they_were_let_exec_go(console: Console, other: Console) -> None:
    other.all("SET a 1", "SET b 1")
    console.ask("WATCH a")
    other.ask("SET b 2")
    assert multi(console, "GET a", "INCR a") == [b"1", 2]
    # Its own changes count as well, if they come before.
    console.all("WATCH a", "SET a 5")
    assert multi(console, "INCR a") is None
    console.all("WATCH a", "UNWATCH", "SET a 6")
    assert multi(console, "INCR a") == [7]
    console.all("WATCH a", "MULTI", "DISCARD", "SET a 6")
    assert multi(console, "INCR a") == [7]


def test_transactions_that_only_read_obey_watched_keys_too(
    console: Console, other: Console
) -> None:
    console.ask("WATCH a")
    assert multi(console, "GET a") == [None]
    console.ask("WATCH a")
    other.ask("SET a 1")
    assert multi(console, "GET a") is None
    console.session.protocol = 3
    console.all("WATCH a", "SET a 2", "MULTI", "GET a")
    assert console.reply("EXEC") == b"_\r\n"


def test_transactions_that_only_read_are_linearizable_unless_old_reads_were_asked_for() -> None:
    console = Console()
    for stale in (False, True):
        for watched in (False, True):
            if watched:
                console.ask("WATCH a")
            console.all("MULTI", "GET a")
            query = interpret([b"EXEC"], console.session, 5)
            assert isinstance(query, Query)
            # What was watched is compared with what is there now.
            assert query.stale is (stale and not watched)
        console.ask("READONLY")


def test_exec_waits_for_what_is_watched_and_does_nothing_if_that_failed() -> None:
    console = Console()
    session = console.session
    for fails in (False, True):
        watch = interpret([b"WATCH", b"a"], session, 5)
        assert isinstance(watch, Query)
        assert not watch.stale
        console.all("MULTI", "SET a 1")
        later = interpret([b"EXEC"], session, 5)
        assert isinstance(later, Later)
        if fails:
            assert watch.failed is not None
            watch.failed()
            with pytest.raises(ValueError, match="EXECABORT"):
                later.decide()
        else:
            watch.run(console.world.seen)
            write = later.decide()
            assert isinstance(write, Write)
            body = decode_command(write.encoded).body
            assert isinstance(body, Transaction)
            assert body.conditions == (("a", 0),)
    # What was not watched does not count for the next one.
    assert multi(console, "SET a 1") == [b"OK"]


def test_keys_that_are_too_much_to_look_at_are_not_watched(console: Console) -> None:
    console.ask([b"SET", b"a", b"x" * VALUE_BYTES_MAX])
    names = [b"a"] * (redis_transactions.READ_BYTES_MAX // VALUE_BYTES_MAX + 1)
    assert "ask for fewer keys" in console.refused([b"WATCH", *names])
    console.all("MULTI", "GET b")
    assert console.refused("EXEC").startswith("EXECABORT")
    assert console.ask([b"WATCH", *names[1:]]) == b"OK"
    assert multi(console, "STRLEN a") == [VALUE_BYTES_MAX]


# --- RAFT.DO --------------------------------------------------------------------------------


def test_a_command_of_a_session_happens_once_and_has_one_answer(
    console: Console, other: Console
) -> None:
    assert console.ask("RAFT.SESSION s") == b"s"
    assert [console.ask("RAFT.DO s 1 INCR n"), other.ask("RAFT.DO s 1 INCR n")] == [1, 1]
    assert console.all("RAFT.DO s 2 SET a 1 NX GET", "RAFT.DO s 2 SET a 1 NX GET") == [None, None]
    assert console.all("RAFT.DO s 3 GETDEL a", "RAFT.DO s 3 GETDEL a") == [b"1", b"1"]
    assert console.all("RAFT.DO s 4 MSETNX n 1", "RAFT.DO s 4 MSETNX n 1", "GET n") == [0, 0, b"1"]
    error = "ERR value is not an integer or out of range"
    console.ask("SET t x")
    assert console.refused("RAFT.DO s 5 INCR t") == error
    console.ask("SET t 1")
    assert console.refused("RAFT.DO s 5 INCR t") == error
    assert console.ask("RAFT.DO s 6 INCR t") == 2


def test_a_session_without_a_name_gets_one_that_nobody_has(console: Console) -> None:
    names = {console.ask("RAFT.SESSION") for _ in range(3)}
    assert len(names) == 3
    for name in names:
        assert console.ask([b"RAFT.DO", name, b"1", b"INCR", b"n"]) in (1, 2, 3)


def test_serials_say_which_answers_may_be_forgotten(console: Console) -> None:
    console.ask("RAFT.SESSION s")
    for serial in (1, 2, 3):
        assert console.ask(f"RAFT.DO s {serial} LOWEST 1 INCR n") == serial
    assert console.ask("RAFT.DO s 1 LOWEST 1 INCR n") == 1
    # By itself a serial says that all below it were answered.
    assert console.ask("RAFT.DO s 4 INCR n") == 4
    assert console.refused("RAFT.DO s 3 LOWEST 1 INCR n").startswith("STALESERIAL ")
    assert console.ask("GET n") == b"4"


def test_sessions_that_are_not_known_and_too_many_answers_are_errors_with_names(
    console: Console,
) -> None:
    assert console.refused("RAFT.DO none 1 INCR n").startswith("SESSIONEXPIRED ")
    console.ask("RAFT.SESSION s")
    for serial in range(1, 513):
        assert console.ask(f"RAFT.DO s {serial} LOWEST 1 INCR n") == serial
    assert console.refused("RAFT.DO s 513 LOWEST 1 INCR n").startswith("TOOMANYUNACKNOWLEDGED ")
    assert console.ask("RAFT.DO s 513 LOWEST 2 INCR n") == 513


def test_a_whole_transaction_happens_once(console: Console, other: Console) -> None:
    console.all("RAFT.SESSION s", "SET a 1", "WATCH a")
    for client in (console, console, other):
        client.all("MULTI", "INCR a", "GET a")
        assert client.ask("RAFT.DO s 1 EXEC") == [2, b"2"]
    console.all("WATCH a", "SET a 7", "MULTI", "INCR a")
    assert console.ask("RAFT.DO s 2 EXEC") is None
    # Repeated it answers the same, although nothing would stand against it now.
    for lines in (("MULTI", "INCR a"), ("WATCH a", "MULTI", "INCR a")):
        console.all(*lines)
        assert console.ask("RAFT.DO s 2 EXEC") is None
    assert console.ask("GET a") == b"7"


def test_an_answer_to_another_command_is_not_taken_for_its_own(console: Console) -> None:
    console.ask("RAFT.SESSION s")
    console.ask("RAFT.DO s 1 INCR n")
    assert "another command" in console.refused("RAFT.DO s 1 MSET a 1 b 2")
    console.all("MULTI", "INCR n", "INCR n")
    assert "another command" in console.refused("RAFT.DO s 1 EXEC")
    assert console.all("GET n", "EXISTS a b") == [b"1", 0]


def test_only_exec_takes_a_transaction_into_a_session(console: Console) -> None:
    console.all("RAFT.SESSION s", "MULTI")
    assert "can end a transaction" in console.refused("RAFT.DO s 1 INCR a")
    assert console.refused("RAFT.DO s 1 EXEC").startswith("EXECABORT")


@pytest.mark.parametrize("name", [b"", b"x" * 129, b"\xff"])
def test_the_name_of_a_session_is_text_of_bounded_length(console: Console, name: bytes) -> None:
    assert "name of a session" in console.refused([b"RAFT.SESSION", name])
    assert "name of a session" in console.refused([b"RAFT.DO", name, b"1", b"INCR", b"a"])
