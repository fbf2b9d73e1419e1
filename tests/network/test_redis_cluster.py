"""What servers say of themselves and each other to Redis clients; descriptions of commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from raftd.network.redis_actions import Write
from raftd.network.redis_catalogue import DESCRIPTIONS
from raftd.network.redis_cluster import hash_slot, node_id
from raftd.network.redis_commands import _COMMANDS, interpret
from raftd.network.redis_plans import PLANNERS
from raftd.network.redis_unsupported import ADVICE
from tests.network.redis_console import FEATURES, Console, cluster_of

N1, N2, N3 = (node_id(name) for name in ("n1", "n2", "n3"))


@pytest.fixture
def console() -> Console:
    return Console()


def fields(text: bytes) -> dict[str, str]:
    """Return the fields of INFO or CLUSTER INFO."""
    lines = [line for line in text.decode().splitlines() if line and not line.startswith("#")]
    return dict(line.split(":", 1) for line in lines)


def see(console: Console, leader: str, **options: Any) -> None:
    console.world.cluster = cluster_of(leader, **options)


# --- one shard, whose master is the leader --------------------------------------------------


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        (b"123456789", 12739),
        (b"foo", 12182),
        (b"{user1000}.following", 3443),
        (b"{user1000}.followers", 3443),
        (b"foo{}{bar}", 8363),
        (b"foo{{bar}}zap", 4015),
        (b"foo{bar}{zap}", 5061),
        (b"", 0),
    ],
)
def test_keys_have_the_slots_of_redis(console: Console, key: bytes, slot: int) -> None:
    assert hash_slot(key) == slot
    assert console.ask([b"CLUSTER", b"KEYSLOT", key]) == slot


def test_the_ids_of_servers_are_stable_and_differ(console: Console) -> None:
    assert re.fullmatch("[0-9a-f]{40}", N1)
    assert len({N1, N2, N3, node_id("n1/2")}) == 4
    assert console.ask("CLUSTER MYID").decode() == N1
    assert len(console.ask("CLUSTER MYSHARDID")) == 40


def test_all_slots_are_those_of_the_leader(console: Console) -> None:
    see(console, "n2")
    assert console.ask("CLUSTER SLOTS") == [
        [
            *(0, 16383),
            [b"127.0.0.1", 7202, N2.encode(), []],
            [b"127.0.0.1", 7201, N1.encode(), []],
            [b"127.0.0.1", 7203, N3.encode(), []],
        ]
    ]
    (shard,) = Console(console.world, protocol=3).ask("CLUSTER SHARDS")
    assert shard[b"slots"] == [0, 16383]
    assert [(node[b"id"].decode(), node[b"role"], node[b"health"]) for node in shard[b"nodes"]] == [
        *((N2, b"master", b"online"), (N1, b"replica", b"online"), (N3, b"replica", b"fail"))
    ]
    assert console.ask("CLUSTER NODES").decode().splitlines() == [
        f"{N2} 127.0.0.1:7202@7102 master - 0 0 7 connected 0-16383",
        f"{N1} 127.0.0.1:7201@7101 myself,slave {N2} 0 0 7 connected",
        f"{N3} 127.0.0.1:7203@7103 slave {N2} 0 0 7 disconnected",
    ]
    replicas = console.ask(f"CLUSTER REPLICAS {N2}")
    assert [line.decode().split()[0] for line in replicas] == [N1, N3]
    assert "another one" in console.refused(f"CLUSTER REPLICAS {N1}")
    found = fields(console.ask("CLUSTER INFO"))
    assert (found["cluster_state"], found["cluster_slots_ok"], found["cluster_size"]) == (
        *("ok", "16384"),
        "1",
    )


def test_where_no_leader_is_known_the_last_one_is_named(console: Console) -> None:
    see(console, "n2", knows_leader=False)
    assert console.ask("CLUSTER SLOTS")[0][2][1] == 7202
    assert fields(console.ask("CLUSTER INFO"))["cluster_state"] == "fail"
    assert console.ask("RAFT LEADER") is None
    see(console, "", knows_leader=False)
    assert console.ask("CLUSTER SLOTS") == []
    assert console.ask("CLUSTER NODES").count(b"slave - ") == 3
    assert fields(console.ask("CLUSTER INFO"))["cluster_slots_assigned"] == "0"


def test_servers_without_redis_clients_are_left_out(console: Console) -> None:
    cluster = cluster_of("n1")
    first, second, third = cluster.members
    silent = attrs.evolve(second, redis="")
    console.world.cluster = attrs.evolve(cluster, members=(first, silent, third))
    assert len(console.ask("CLUSTER SLOTS")[0]) == 4
    console.world.cluster = attrs.evolve(cluster, leader="n2", members=(first, silent, third))
    assert console.ask("CLUSTER SLOTS") == []
    (shard,) = Console(console.world, protocol=3).ask("CLUSTER SHARDS")
    assert (shard[b"slots"], len(shard[b"nodes"])) == ([], 2)


# --- about a server -------------------------------------------------------------------------


def test_info_tells_who_leads(console: Console) -> None:
    leader = fields(console.ask("INFO"))
    assert leader["role"] == "master"
    assert leader["slave1"] == "ip=127.0.0.1,port=7203,state=offline"
    assert (leader["cluster_enabled"], leader["redis_mode"]) == ("1", "cluster")
    assert (leader["tcp_port"], leader["uptime_in_days"]) == ("7201", "1")
    assert leader["used_memory"] == "5000000"
    assert b"master" in console.ask("HELLO")
    see(console, "n2")
    assert b"replica" in console.ask("HELLO")
    follower = fields(console.ask("INFO replication"))
    assert (follower["role"], follower["master_port"]) == ("slave", "7202")
    assert (follower["master_link_status"], follower["raft_term"]) == ("up", "7")
    assert "redis_version" not in follower
    assert set(fields(console.ask("INFO server CLIENTS"))) >= {"redis_version", "maxclients"}
    see(console, "n9")
    assert fields(console.ask("INFO"))["master_host"] == ""
    assert fields(console.ask("INFO nonsense")) == {}


def test_role_and_wait_promise_no_more_than_is_known(console: Console) -> None:
    assert console.ask("ROLE") == [
        *(b"master", 20),
        [[b"127.0.0.1", b"7202", b"0"], [b"127.0.0.1", b"7203", b"0"]],
    ]
    # Two of three servers have what was acknowledged, one of them besides the leader.
    assert console.ask("WAIT 2 1000") == 1
    see(console, "n2")
    assert console.ask("ROLE") == [b"slave", b"127.0.0.1", 7202, b"connected", 19]
    assert "cannot be used" in console.refused("WAIT 1 0")
    see(console, "", knows_leader=False)
    assert console.ask("ROLE") == [b"slave", b"", 0, b"connect", 19]


def test_raft_tells_what_a_server_sees(console: Console) -> None:
    client = Console(console.world, protocol=3)
    status = client.ask("RAFT STATUS")
    assert (status[b"server"], status[b"leader"], status[b"term"]) == (b"n1", b"n1", 7)
    assert [member[b"connected"] for member in client.ask("RAFT MEMBERS")] == [1, 1, 0]
    assert client.ask("RAFT LEADER") == b"127.0.0.1:7201"
    assert any(b"RAFT.DO" in line for line in client.ask("RAFT HELP"))
    see(client, "", knows_leader=False)
    assert client.ask("RAFT STATUS")[b"leader"] is None


def test_time_is_that_of_the_server(console: Console) -> None:
    console.world.time_ms = 1_795_000_000_123
    assert console.ask("TIME") == [b"1795000000", b"123000"]


def test_a_connection_tells_of_itself(console: Console) -> None:
    console.all("CLIENT SETNAME me", "CLIENT SETINFO LIB-NAME redis-py", "WATCH a", "READONLY")
    assert console.ask("CLIENT GETNAME") == b"me"
    for line in ("CLIENT INFO", "CLIENT LIST", "CLIENT LIST ID 7"):
        found = dict(part.split("=") for part in console.ask(line).decode().split())
        assert (found["id"], found["name"], found["watch"]) == ("7", "me", "1")
        assert (found["lib-name"], found["flags"], found["multi"]) == ("redis-py", "r", "-1")
    for name in ("CLIENT SETNAME", "HELLO 3 SETNAME"):
        assert "Client names cannot" in console.refused([*name.encode().split(), b"a b"])
    assert console.session.protocol == 2


_ARGUMENTS = (
    ("SETEX PSETEX", "a 5 1"),
    ("GETRANGE SUBSTR", "a 0 1"),
    ("MSET MSETNX", "a 1 b 2"),
    ("DEL UNLINK MGET EXISTS TOUCH", "a b"),
    ("OBJECT", "ENCODING a"),
    ("SET SETNX GETSET APPEND INCRBY DECRBY EXPIRE PEXPIRE EXPIREAT PEXPIREAT", "a 1"),
)
"""What commands are given here that take more than one key."""

# --- descriptions ---------------------------------------------------------------------------


def test_what_is_described_is_what_is_carried_out() -> None:
    no_commands = {b"POST", b"HOST:"}
    assert set(_COMMANDS) - no_commands == set(DESCRIPTIONS)
    assert set(ADVICE).isdisjoint(DESCRIPTIONS)


@pytest.mark.parametrize("name", sorted(PLANNERS))
def test_the_keys_of_a_command_stand_where_its_description_says(
    console: Console, name: bytes
) -> None:
    described = DESCRIPTIONS[name]
    arguments = {
        name: line.encode().split() for names, line in _ARGUMENTS for name in names.encode().split()
    }
    words = [name, *arguments.get(name, [b"a"])]
    expected = [b"a", b"b"] if b"b" in words else [b"a"]
    assert console.ask([b"COMMAND", b"GETKEYS", *words]) == expected
    flags = console.ask([b"COMMAND", b"GETKEYSANDFLAGS", *words])
    assert [key for key, _ in flags] == expected
    # It writes as it is said to, and has as many words as it may have.
    is_write = isinstance(interpret(words, console.session, FEATURES), Write)
    if name != b"GETEX":
        assert is_write is ("write" in described.flags.split())
    assert described.allows(len(words))
    for wrong in ([name], [*words, *[b"x"] * 9] if described.arity > 0 else [name]):
        assert "wrong number of arguments" in console.refused(wrong)


def test_commands_are_described_as_clients_read_it(console: Console) -> None:
    assert console.ask("COMMAND COUNT") == len(DESCRIPTIONS) == len(console.ask("COMMAND"))
    assert len(console.ask("COMMAND LIST")) == len(DESCRIPTIONS)
    get, nothing = console.ask("COMMAND INFO Get nope")
    assert get[:6] == [b"get", 2, [b"readonly", b"fast"], 1, 1, 1]
    assert nothing is None
    docs = Console(console.world, protocol=3).ask("COMMAND DOCS get nope")
    assert set(docs[b"get"]) == {b"summary", b"since", b"group"}
    assert len(console.ask("COMMAND DOCS")) == 2 * len(DESCRIPTIONS)


def test_what_is_not_carried_out_is_refused_with_what_to_use(console: Console) -> None:
    for name in ADVICE:
        refusal = console.refused([name, b"a", b"b"])
        assert refusal.startswith(f"ERR unknown command '{name.decode()}', not supported")
        assert len(refusal.partition(": ")[2]) > 20


def test_the_readme_names_every_command() -> None:
    text = (Path(__file__).parent.parent.parent / "README.md").read_text()
    section = text.partition("## Redis clients")[2].partition("\n## ")[0]
    missing = [
        name.decode() for name in DESCRIPTIONS if not re.search(rf"`{name.decode()}\b", section)
    ]
    assert missing == []
