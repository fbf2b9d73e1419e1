"""The cluster file: what is accepted, what is refused and where, and the files that are shipped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raftd.config import (
    DEFAULTS,
    ConfigError,
    SharedKeys,
    effective,
    format_duration,
    format_size,
    is_loopback,
    load,
    parse_address,
    parse_duration_ms,
    parse_member_argument,
    parse_size_bytes,
)
from raftd.config_yaml import DEPTH_MAX, FILE_BYTES_MAX
from tests.config_files import CONFIGS, with_default

MINIMAL = """\
cluster: orders
servers:
  n1: {address: 127.0.0.1:7101}
"""


@pytest.fixture
def problems(written, tmp_path: Path):
    """Return a function that gives the problems of a cluster file, without the file's name."""

    def refuse(text: str | bytes) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            written(text)
        prefix = f"{tmp_path / 'cluster.yaml'}:"
        assert str(caught.value) == "\n".join(caught.value.problems)
        assert all(problem.startswith(prefix) for problem in caught.value.problems)
        return [problem.removeprefix(prefix) for problem in caught.value.problems]

    return refuse


# --- what is accepted -----------------------------------------------------------------------


def test_a_server_overrides_the_defaults_of_the_file_which_override_ours(written, tmp_path):
    config = written(
        """\
        cluster: orders
        defaults: {heartbeat_interval: 20ms, zone: east, role: learner}
        servers:
          n1: {address: 127.0.0.1:7101, heartbeat_interval: 30ms, role: voter}
          n2: {address: "localhost:7102", listen: "127.0.0.1:9", data_dir: "/srv/{id}/x"}
        """
    )
    n1, n2 = config.servers.values()
    assert (config.cluster, config.insecure) == ("orders", False)
    assert (n1.heartbeat_interval_ms, n1.role, n1.zone) == (30.0, "voter", "east")
    assert (n2.heartbeat_interval_ms, n2.role, n2.zone) == (20.0, "learner", "east")
    assert (n1.listen, n2.listen) == ("127.0.0.1:7101", "127.0.0.1:9")
    assert n1.data_dir == tmp_path / "data" / "n1"
    assert n2.data_dir == Path("/srv/n2/x")
    assert n1.election_timeout_ms == 500.0
    assert n1.catch_up_timeout_ms == 30_000.0
    assert n1.log_level == "info"


def test_redis_clients_are_served_only_where_a_server_says_so(written):
    config = written(
        two_servers("address: 127.0.0.1:1", "address: 127.0.0.1:2, redis: 127.0.0.1:6379")
    )
    assert [server.redis for server in config.servers.values()] == [None, "127.0.0.1:6379"]
    shown = [server["redis"] for server in effective(config)["servers"].values()]
    assert shown == [
        {"value": None, "origin": "default"},
        {"value": "127.0.0.1:6379", "origin": "file"},
    ]


@pytest.mark.parametrize("key", ["redis", "http"])
def test_a_listener_of_one_server_is_no_key_of_the_defaults(problems, key):
    (problem,) = problems(
        f"cluster: a\ndefaults: {{{key}: '127.0.0.1:6'}}\nservers: {{n1: {{address: 127.0.0.1:1}}}}"
    )
    assert f"defaults.{key}" in problem


def test_http_is_served_only_where_a_server_says_so(written):
    config = written(
        two_servers("address: 127.0.0.1:1, http: localhost:81", "address: 127.0.0.1:2")
    )
    assert [server.http for server in config.servers.values()] == ["localhost:81", None]
    shown = [server["http"] for server in effective(config)["servers"].values()]
    assert shown == [
        {"value": "localhost:81", "origin": "file"},
        {"value": None, "origin": "default"},
    ]


def test_the_joint_timeout_is_twice_the_election_timeout_of_its_server(written):
    config = written(
        """\
        cluster: a
        servers:
          n1: {address: 127.0.0.1:1, election_timeout: 2s}
          n2: {address: 127.0.0.1:2, joint_timeout: 3s}
        """
    )
    assert config.servers["n1"].joint_timeout_ms == 4000.0
    assert config.servers["n2"].joint_timeout_ms == 3000.0


def test_sizes_are_bytes_in_the_fields_of_each_server(written):
    config = written(
        """\
        cluster: a
        defaults: {snapshot_log_size: 64KiB, disk_reserve: 1024GiB, snapshot_rate: 1.5MiB}
        servers:
          n1: {address: 127.0.0.1:1, snapshot_log_size: 4GiB, disk_reserve: 0B}
          n2: {address: 127.0.0.1:2, catch_up_rate: 65536B}
        """
    )
    n1, n2 = config.servers.values()
    assert (n1.snapshot_log_bytes, n2.snapshot_log_bytes) == (4 * 2**30, 64 * 1024)
    assert (n1.disk_reserve_bytes, n2.disk_reserve_bytes) == (0, 2**40)
    assert n1.snapshot_bytes_per_second == n2.snapshot_bytes_per_second == 1_572_864
    assert (n1.catch_up_bytes_per_second, n2.catch_up_bytes_per_second) == (2**30, 65_536)


def test_the_data_dir_is_relative_to_the_folder_of_the_file(written, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cluster.yaml").write_text(MINIMAL)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load(Path("../cluster.yaml")).servers["n1"].data_dir == tmp_path / "data" / "n1"


def test_insecure_allows_addresses_of_a_network(written):
    config = written(
        """\
        cluster: a
        insecure: true
        servers:
          n1: {address: 10.0.0.1:7101, listen: 0.0.0.0:7101}
          n2: {address: "[fd00::2]:7101", listen: 0.0.0.0:7101}
          n3: {address: raft-3.example.org:7101}
        """
    )
    assert config.insecure is True
    assert len(config.servers) == 3


def test_an_alias_stands_for_the_value_of_its_anchor(written):
    config = written(
        """\
        cluster: a
        servers:
          n1: {address: 127.0.0.1:1, election_timeout: &slow 3s}
          n2: {address: 127.0.0.1:2, election_timeout: *slow}
        """
    )
    assert config.servers["n2"].election_timeout_ms == 3000.0


def test_a_byte_order_mark_is_no_part_of_the_file(written):
    assert written(b"\xef\xbb\xbf" + MINIMAL.encode()).cluster == "orders"


# --- all problems, with their places --------------------------------------------------------


def test_every_problem_is_reported_in_one_run_in_the_order_of_the_file(problems):
    assert problems(
        """\
        cluster: Orders
        insecure: no
        heartbeat_interval: 10ms
        defaults:
          heartbeat_interval: 50
          election-timeout: 500ms
          role: votr
          address: 127.0.0.1:1
        servers:
          n1: {address: 127.0.0.1:7101}
          n2: {address: 127.0.0.1:7101, log_level: 12}
          n2: {}
          N3: {address: 10.0.0.1, zone: 0777}
          n4:
          n5: {addres: 127.0.0.1:7105}
        """
    ) == [
        "1:10: cluster: 'Orders' is not a name: 1 to 63 of a-z, 0-9 and '-', "
        "starting with a letter (did you mean orders?)",
        "2:11: insecure: expected true or false, got 'no' (did you mean false, without quotes?)",
        "3:1: heartbeat_interval: unknown key (did you mean defaults.heartbeat_interval?)",
        "5:23: defaults.heartbeat_interval: expected a duration with its unit "
        "(us, ms, s, m or h), got the number 50 (did you mean 50ms?)",
        "6:3: defaults.election-timeout: unknown key (did you mean 'election_timeout'?)",
        "7:9: defaults.role: expected voter or learner, got 'votr' (did you mean 'voter'?)",
        "8:3: defaults.address: unknown key; each server has its own "
        "(did you mean servers.ID.address?)",
        "11:17: servers.n2.address: 127.0.0.1:7101 is already the address of n1 (line 10)",
        "11:44: servers.n2.log_level: expected debug, info, warning or error, got the number 12",
        "12:3: servers.n2: duplicate key, first used on line 11",
        "13:3: servers.N3: 'N3' is not a name: 1 to 63 of a-z, 0-9 and '-', "
        "starting with a letter (did you mean n3?)",
        "13:17: servers.N3.address: '10.0.0.1' lacks a port: write HOST:PORT, "
        "such as 127.0.0.1:7101",
        "14:6: servers.n4: expected a mapping, got nothing",
        "15:3: servers.n5: the key 'address' is missing",
        "15:8: servers.n5.addres: unknown key (did you mean 'address'?)",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", "1:1: $: the key 'cluster' is missing"),
        ("[a]", "1:1: $: expected a mapping, got a list"),
        ("just words", "1:1: $: expected a mapping, got 'just words'"),
        ("cluster: a\nservers: [n1]", "2:10: servers: expected a mapping from server names"),
        ("cluster: a\nservers: {}", "2:10: servers: a cluster needs at least one server"),
        ("cluster: a\nservers: {n1: {}, 1: {}}", "2:19: servers: a key has to be text, and '1'"),
        ("cluster: a\nservers: {[n1]: {}}", "2:11: servers: a key has to be text, and a coll"),
        ("cluster: !!str a\nservers: {n1: {}}", "1:10: cluster: a tag such as !!str is not allow"),
        ("cluster: a\n<<: {x: 1}\n" + MINIMAL[16:], "2:1: '<<': unknown key"),
        ("cluster:\n" + MINIMAL[16:], "1:9: cluster: expected a name, got nothing"),
        ("cluster: [a]\n" + MINIMAL[16:], "1:10: cluster: expected a name, got a list"),
        ('insecure: "true"\n' + MINIMAL, "1:11: insecure: expected true or false, got 'true'"),
        ("insecure: 1\n" + MINIMAL, "1:11: insecure: expected true or false, got the number 1"),
        (with_default("cluster", "b"), "2:12: defaults.cluster: unknown key (did you mean cluster"),
        (with_default("zone", "12"), "defaults.zone: expected the name of a zone, got the number"),
        (with_default("zone", "a b"), "defaults.zone: 'a b' is not a zone"),
        (with_default("data_dir", "~/raft"), "defaults.data_dir: '~/raft': '~' is not expanded"),
        (with_default("data_dir", '"d/{name}"'), "only {id} can stand in braces"),
        (with_default("data_dir", '""'), "defaults.data_dir: '' is not the name of a folder"),
        (with_default("log_level", "warn"), "(did you mean 'warning'?)"),
        (
            with_default("redis", '"127.0.0.1:7201"'),
            "unknown key; each server has its own (did you mean servers.ID.redis?)",
        ),
    ],
)
def test_what_is_not_as_the_schema_says_is_refused(problems, text, expected):
    found = problems(text)
    assert any(expected in problem for problem in found), found


@pytest.mark.parametrize(
    ("value", "meant"),
    [("0.05", "5%"), ("5", "5%"), ("0.5", "0.5%"), ("0.001", "0.1%"), ("90", "")],
)
def test_a_percentage_without_its_sign_is_what_the_limits_allow(problems, value, meant):
    (problem,) = problems(with_default("clock_drift", value))
    hint = f" (did you mean {meant}?)" if meant else ""
    assert problem.endswith(f"expected a percentage with its sign, got the number {value}{hint}")


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("heartbeat_interval", "50", "50ms"),
        ("heartbeat_interval", "0.5", "0.5s"),
        ("catch_up_timeout", '"30"', "30s"),
        ("catch_up_timeout", "500", "500ms"),
        ("election_timeout", "900000000", ""),
    ],
)
def test_a_duration_without_its_unit_is_what_the_limits_allow(problems, key, value, meant):
    problem = next(found for found in problems(with_default(key, value)) if key in found)
    assert ("did you mean" in problem) == bool(meant)
    assert f"(did you mean {meant}?)" in problem or not meant


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("12:30", "'12:30' is not a duration"),
        ("no", "'no' is not a duration"),
        ("0777", "'0777' is not a duration"),
        ("2026-01-01", "'2026-01-01' is not a duration"),
        ("1_000", "'1_000' is not a duration"),
        ("0x10", "'0x10' is not a duration"),
        ('"12"', "'12' is not a duration"),
        ("12", "got the number 12 (did you mean 12s?)"),
        ("1.5", "got the number 1.5 (did you mean 1.5s?)"),
        ("true", "got true"),
        ("~", "got nothing"),
        ("2 sec", "(did you mean 2s?)"),
        ("1ms", "1ms is too short; at least 100ms is needed"),
        ("25h", "25h is too long; at most 24h is allowed"),
        ("-1s", "'-1s' is not a duration"),
        ("999999999999999999999999s", "is not a duration"),
    ],
)
def test_yaml_never_turns_a_value_into_something_else(problems, value, expected):
    (problem,) = problems(with_default("catch_up_timeout", value))
    assert problem.startswith("2:30: defaults.catch_up_timeout: ")
    assert expected in problem


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("64", "expected a size with its unit (B, KiB, MiB or GiB), got the number 64 "
               "(did you mean 64MiB?)"),
        ("65536", "got the number 65536 (did you mean 65536B?)"),
        ("0", "got the number 0 (did you mean 0B?)"),
        ("1.5", "got the number 1.5 (did you mean 1.5MiB?)"),
        ("-1", "expected a size with its unit (B, KiB, MiB or GiB), got the number -1"),
        ('"64"', "'64' is not a size: a number and its unit B, KiB, MiB or GiB, such as 64MiB "
                 "(did you mean 64MiB?)"),
        ("64MB", "'64MB' is not a size: a number and its unit B, KiB, MiB or GiB, such as 64MiB "
                 "(did you mean 64MiB?)"),
        ("64M", "(did you mean 64MiB?)"),
        ("64 mib", "(did you mean 64MiB?)"),
        ("1g", "(did you mean 1GiB?)"),
        ("512 bytes", "(did you mean 512B?)"),
        ("1TiB", "'1TiB' is not a size: a number and its unit B, KiB, MiB or GiB, such as 64MiB"),
        ("64ms", "'64ms' is not a size"),
        ("0777", "'0777' is not a size"),
        ("12:30", "'12:30' is not a size"),
        ("no", "'no' is not a size"),
        ("-1MiB", "'-1MiB' is not a size"),
        ("0.3KiB", "'0.3KiB' is not a whole number of bytes"),
        ("999999999999999999999999GiB", "is not a size"),
        ("true", "got true"),
        ("~", "got nothing"),
        ("[1]", "got a list"),
        ("63KiB", "63KiB is too little; at least 64KiB is needed"),
        ("0B", "0B is too little; at least 64KiB is needed"),
        ("4.1GiB", "'4.1GiB' is not a whole number of bytes"),
        ("5GiB", "5GiB is too much; at most 4GiB is allowed"),
    ],
)  # fmt: skip
def test_a_size_needs_its_unit_and_keeps_to_its_limits(problems, value, expected):
    (problem,) = problems(with_default("snapshot_log_size", value))
    start = "2:31: defaults.snapshot_log_size: "
    assert problem.startswith(start)
    assert expected in problem.removeprefix(start)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("snapshot_rate", "64KiB"),
        ("snapshot_rate", "64GiB"),
        ("catch_up_rate", "64KiB"),
        ("catch_up_rate", "64GiB"),
        ("disk_reserve", "0B"),
        ("disk_reserve", "1024GiB"),
    ],
)
def test_the_limits_of_rates_and_of_the_reserve_are_inclusive(written, problems, key, value):
    shown = effective(written(with_default(key, value)))["servers"]["n1"][key]
    assert parse_size_bytes(shown["value"]) == parse_size_bytes(value)
    over = {"64KiB": "65535B", "64GiB": "64.5GiB", "1024GiB": "1024.5GiB"}.get(value)
    if over is not None:
        (problem,) = problems(with_default(key, over))
        assert f"{over} is too" in problem


def test_a_misspelt_size_key_is_guessed(problems):
    (problem,) = problems(with_default("snapshot_log_bytes", "64MiB"))
    assert "unknown key (did you mean 'snapshot_log_size'?)" in problem


def test_words_that_yaml_1_1_takes_for_booleans_are_names(written):
    config = written("cluster: off\nservers: {no: {address: 127.0.0.1:1}}")
    assert (config.cluster, list(config.servers)) == ("off", ["no"])


# --- what concerns several keys -------------------------------------------------------------


def two_servers(first: str, second: str, head: str = "") -> str:
    return f"cluster: a\n{head}servers:\n  n1: {{{first}}}\n  n2: {{{second}}}\n"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", "5:17: servers.n2.address: 127.0.0.1:80 is already"),
        ("127.0.0.1:80", "LOCALHOST:80", "LOCALHOST:80 is already the address of n1 (line 4)"),
        ("127.0.0.1:80", "127.0.0.1:81, listen: 127.0.0.1:80", "5:39: servers.n2.listen: 127.0"),
        ("127.0.0.1:81, listen: 127.0.0.1:80", "127.0.0.1:80", "is already the listen of n1"),
        ('"[::1]:80"', '"[0:0::1]:80"', "[0:0::1]:80 is already the address of n1"),
        (
            "127.0.0.1:80, redis: 127.0.0.1:90",
            "127.0.0.1:81, redis: localhost:90",
            "servers.n2.redis: localhost:90 is already the redis of n1",
        ),
        ("127.0.0.1:80", "127.0.0.1:81, redis: 127.0.0.1:80", "is already the address of n1"),
        ("127.0.0.1:80", "127.0.0.1:81, redis: 127.0.0.1:81", "is already the address of n2"),
        (
            "127.0.0.1:80",
            "127.0.0.1:81, listen: 127.0.0.1:82, redis: 127.0.0.1:82",
            "is already the listen of n2",
        ),
        (
            "127.0.0.1:80, http: 127.0.0.1:90",
            "127.0.0.1:81, redis: 127.0.0.1:90",
            "is already the http of n1",
        ),
        (
            "127.0.0.1:80",
            "127.0.0.1:81, redis: 127.0.0.1:82, http: 127.0.0.1:82",
            "servers.n2.http: 127.0.0.1:82 is already the redis of n2",
        ),
        (
            "127.0.0.1:81, listen: 0.0.0.0:80",
            "127.0.0.1:82, listen: 0.0.0.0:80",
            "0.0.0.0:80 is already the listen of n1",
        ),
    ],
)
def test_an_address_used_twice_names_the_other_server(problems, first, second, expected):
    text = two_servers(f"address: {first}", f"address: {second}", "insecure: true\n")
    (problem,) = problems(text)
    assert expected in problem


def test_a_wildcard_may_be_listened_on_by_two_machines(written):
    text = two_servers(
        "address: 10.0.0.1:80, listen: 0.0.0.0:80",
        "address: 10.0.0.2:80, listen: 0.0.0.0:80",
        "insecure: true\n",
    )
    assert written(text).servers["n2"].listen == "0.0.0.0:80"


@pytest.mark.parametrize("key", ["address", "listen", "redis", "http"])
@pytest.mark.parametrize("host", ["10.0.0.1", "0.0.0.0", "[::]", "[fe80::1]", "example.org"])
def test_without_insecure_only_loopback_is_accepted(problems, key, host):
    server = f'{key}: "{host}:81", address: 127.0.0.1:80'
    if key == "address":
        server = f'address: "{host}:80"'
    (problem,) = problems(f"cluster: a\nservers: {{n1: {{{server}}}}}")
    wildcard_dialled = key != "listen" and host in ("0.0.0.0", "[::]")
    assert f"servers.n1.{key}: " in problem
    assert ("nobody can dial it" if wildcard_dialled else "'insecure: true'") in problem


@pytest.mark.parametrize(
    ("own", "common", "expected"),
    [
        (
            "election_timeout: 249ms",
            "",
            ["4:48: servers.n1.election_timeout: election_timeout 249ms is under 5 times the "
             "heartbeat_interval 50ms; at least 250ms is needed"],
        ),
        (
            "zone: x",
            "defaults: {heartbeat_interval: 200ms}\n",
            ["2:32: defaults.heartbeat_interval: election_timeout 500ms is under 5 times the "
             "heartbeat_interval 200ms; at least 1s is needed"],
        ),
        (
            "heartbeat_interval: 150ms, election_timeout: 2s",
            "",
            ["4:50: servers.n1.heartbeat_interval: election_timeout 500ms is under 5 times the "
             "heartbeat_interval 150ms of n1; at least 750ms is needed"],
        ),
        (
            "joint_timeout: 100ms",
            "",
            ["4:45: servers.n1.joint_timeout: joint_timeout 100ms is under 5 times the "
             "heartbeat_interval 50ms; at least 250ms is needed"],
        ),
    ],
)  # fmt: skip
def test_a_timeout_under_five_heartbeats_of_any_leader_is_refused(problems, own, common, expected):
    text = two_servers(f"address: 127.0.0.1:1, {own}", "address: 127.0.0.1:2", common)
    if not common:
        text = "# a comment\n" + text
    found = problems(text)
    assert found == expected


def test_five_heartbeats_are_enough(written):
    written(with_default("election_timeout", "250ms"))


def test_a_wrong_value_is_not_held_against_others(problems):
    text = with_default("heartbeat_interval", "20 s").replace("127.0.0.1:1", "127.0.0.1:0")
    found = problems(text)
    assert [problem.split(": ")[1] for problem in found] == [
        "defaults.heartbeat_interval",
        "servers.n1.address",
    ]


def test_a_cluster_of_learners_is_refused(problems):
    text = two_servers(
        "address: 127.0.0.1:1", "address: 127.0.0.1:2", "defaults: {role: learner}\n"
    )
    assert problems(text) == [
        "4:3: servers: all servers are learners; at least one has to be a voter"
    ]


def test_two_servers_on_one_machine_cannot_share_a_folder(problems, written):
    head = "insecure: true\ndefaults: {data_dir: /srv/raft}\n"
    (problem,) = problems(two_servers("address: 127.0.0.1:1", "address: localhost:2", head))
    assert problem.startswith("3:22: defaults.data_dir: '/srv/raft' would be the folder of both")
    written(two_servers("address: 10.0.0.1:1", "address: 10.0.0.2:1", head))


# --- files that are no cluster file ---------------------------------------------------------


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for file, reason in (
        (tmp_path / "absent.yaml", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(file)
        assert caught.value.problems == (f"{file}: cannot be read: {reason}",)


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n"])
def test_an_empty_file_is_refused(problems, text):
    assert problems(text) == ["1:1: $: the file is empty; it has to say cluster and servers"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cluster: a\nservers: {n1: [", "2:16: $: "),
        ("cluster: a\n\tservers: {}", "2:1: $: "),
        ("cluster: a: b", "1:11: $: "),
        ("cluster: a\n---\ncluster: b", "2:1: $: "),
        ("cluster: *gone", "1:10: $: found undefined alias 'gone'"),
        ("cluster: a\nservers: &s {n1: *s}", "2:18: $: the alias *s contains itself"),
        ("a: &a [x]\nb: &a [y]", "2:4: $: second occurrence (found duplicate anchor"),
        (b"cluster: a\nservers: \xff\xfe", "2:10: $: not UTF-8 text"),
        ("cluster: a\nname: \x01", "2:7: $: the character 0x1 is not allowed in YAML"),
        ("[" * 1000, f"1:{DEPTH_MAX + 1}: $: nested deeper than {DEPTH_MAX} levels"),
    ],
)
def test_a_syntax_error_has_a_position(problems, text, expected):
    (problem,) = problems(text)
    assert expected in problem


def test_a_tab_is_explained(problems):
    (problem,) = problems("cluster: a\nservers:\n\tn1: {}")
    assert "did you mean spaces?" in problem


def test_a_placeholder_that_needs_quotes_is_explained(problems):
    (problem,) = problems(with_default("data_dir", "data/{id}"))
    assert "did you mean quotes around a text with {id}?" in problem


def test_aliases_of_aliases_cannot_fill_the_memory(problems):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (problem,) = problems("\n".join(lines))
    assert "more than 100000 values" in problem


def test_aliases_cannot_nest_deeper_than_the_file_may(problems):
    lines = ["a0: &a0 [[[[[[x]]]]]]"]
    lines += [f"a{n}: &a{n} [[[[[[*a{n - 1}]]]]]]" for n in range(1, 5)]
    assert any(
        f"nested deeper than {DEPTH_MAX}" in problem for problem in problems("\n".join(lines))
    )


def test_an_enormous_file_is_refused_unread(problems):
    (problem,) = problems(b"#" * (FILE_BYTES_MAX + 1))
    assert "more than 1048576 bytes" in problem


# --- addresses, members, durations ----------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:7101", ("127.0.0.1", 7101)),
        ("[::1]:1", ("::1", 1)),
        ("raft_1.example.org:65535", ("raft_1.example.org", 65535)),
        ("n1:80", ("n1", 80)),
    ],
)
def test_an_address_is_taken_apart(text, expected):
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", ":", ":80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "a:080",
        "127.0.0.1: 80", "a:+80", "a:8０", "127.0.0.256:80", "127.1:80", "::1:80", "[::1]", "[::1",
        "[::1]80", "[::g]:80", "-a:80", "a..b:80", "a b:80", "ä:80", "http://a:80", "a/b:80",
        "a" * 64 + ":80", "a." * 200 + ":80",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        parse_address(text)


def test_brackets_are_suggested_for_ipv6():
    with pytest.raises(ValueError, match=r"did you mean \[::1\]:80\?"):
        parse_address("::1:80")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LocalHost"])
def test_loopback_is_recognised(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org", "127.0.0.1.example"],
)
def test_what_may_be_another_machine_is_no_loopback(host):
    assert not is_loopback(host)


def test_a_member_argument_is_taken_apart():
    assert parse_member_argument("n4=[::1]:7104") == ("n4", "[::1]:7104")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n4", "'n4' lacks an address: write ID=HOST:PORT"),
        ("127.0.0.1:7104", "lacks an address: write ID=HOST:PORT"),
        ("N4=127.0.0.1:7104", r"'N4' is not a name.*did you mean n4\?"),
        ("n4/abc=127.0.0.1:7104", "'n4/abc' is not a name"),
        ("=127.0.0.1:7104", "'' is not a name"),
        ("n4=127.0.0.1", "'127.0.0.1' lacks a port"),
        ("n4=0.0.0.0:7104", "nobody can dial it"),
    ],
)
def test_a_member_argument_that_is_wrong_says_which_part(text, expected):
    with pytest.raises(ValueError, match=expected):
        parse_member_argument(text)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("100us", 0.1),
        ("50ms", 50.0),
        ("1.5s", 1500.0),
        ("1.1s", 1100.0),
        ("2m", 120_000.0),
        ("1h", 3_600_000.0),
        ("0s", 0.0),
    ],
)
def test_a_duration_is_milliseconds(text, milliseconds):
    assert parse_duration_ms(text) == milliseconds


@pytest.mark.parametrize(
    "text", ["", "1", "s", "1 s", "1S", "1d", "-1s", "1e3s", ".5s", "1.s", "1s1s"]
)
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration_ms(text)


@pytest.mark.parametrize("text", ["100us", "12.5ms", "50ms", "1.5s", "30s", "90s", "2m", "24h"])
def test_a_duration_is_shown_as_people_write_it(text):
    assert format_duration(parse_duration_ms(text)) == text


@given(st.integers(min_value=0, max_value=10**12))
def test_a_shown_duration_reads_back_the_same(microseconds):
    assert parse_duration_ms(format_duration(microseconds / 1000)) == microseconds / 1000


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0B", 0),
        ("1B", 1),
        ("1.5KiB", 1536),
        ("64MiB", 67_108_864),
        ("0.5GiB", 536_870_912),
        ("1024GiB", 2**40),
    ],
)
def test_a_size_is_bytes(text, size_bytes):
    assert parse_size_bytes(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "1", "B", "1 B", "1b", "1kib", "1K", "1KB", "1e3B", ".5KiB", "1.KiB", "1MiB1B"]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="is not a size"):
        parse_size_bytes(text)


@pytest.mark.parametrize("text", ["0B", "1023B", "1KiB", "1.5KiB", "64MiB", "1.5GiB", "64GiB"])
def test_a_size_is_shown_as_people_write_it(text):
    assert format_size(parse_size_bytes(text)) == text


@given(st.integers(min_value=0, max_value=2**42) | st.integers(0, 2**22).map(lambda n: n * 512))
def test_a_shown_size_reads_back_the_same(size_bytes):
    assert parse_size_bytes(format_size(size_bytes)) == size_bytes


# --- the files that are shipped -------------------------------------------------------------


def test_the_shipped_clusters_are_what_their_names_say():
    addresses = {
        file: {name: server.address for name, server in load(CONFIGS / file).servers.items()}
        for file in ("local3.yaml", "local5.yaml", "replace-one.yaml")
    }
    local = {f"n{n}": f"127.0.0.1:710{n}" for n in range(1, 6)}
    assert addresses["local3.yaml"] == {name: local[name] for name in ("n1", "n2", "n3")}
    assert addresses["local5.yaml"] == local
    assert addresses["replace-one.yaml"] == {name: local[name] for name in ("n1", "n2", "n4")}


def test_every_shipped_file_loads():
    files = sorted(CONFIGS.glob("*.yaml"))
    assert len(files) >= 4
    for file in files:
        assert load(file).servers


def test_the_reference_has_every_key_with_its_default(written):
    reference = yaml.safe_load((CONFIGS / "reference.yaml").read_text())
    shared = {field.name for field in attrs.fields(SharedKeys)}
    assert set(reference) == {"cluster", "insecure", "defaults", "servers"}
    assert set(reference["defaults"]) == shared - {"zone"}, "zone has no default to show"
    assert set(reference["servers"]["n1"]) == {"address", "listen", "redis", "http", "zone"}
    assert set(DEFAULTS) == shared

    ours = attrs.evolve(written(MINIMAL).servers["n1"], data_dir=Path("data/n1"))
    shown = load(CONFIGS / "reference.yaml").servers["n1"]
    assert shown.data_dir == CONFIGS / "data" / "n1"
    assert shown.tls is not None
    assert shown.tls.cert == CONFIGS / "certs" / "n1.pem"
    own = attrs.evolve(
        shown,
        data_dir=Path("data/n1"),
        **dict.fromkeys(("zone", "redis", "http", "tls", "redis_password_file")),
    )
    assert own == ours


def test_the_reference_says_the_default_of_each_key_in_words():
    text = (CONFIGS / "reference.yaml").read_text()
    comments = " ".join(
        line.strip().lstrip("#").strip() for line in text.splitlines() if "#" in line
    )
    for key, value in DEFAULTS.items():
        shown = {float: format_duration, int: format_size}.get(type(value), str)(value)
        expected = {
            "zone": "none",
            "joint_timeout": "twice election_timeout",
            "clock_drift": "5%",
            "tls": "none",
            "redis_password_file": "none",
        }.get(key, shown)
        assert f"Default: {expected}." in comments, key


# --- what importing costs -------------------------------------------------------------------


def test_neither_trio_nor_network_is_imported_with_the_configuration():
    code = (
        "import sys; before = set(sys.modules); import raftd.config_values; "
        "assert not {'yaml', 'cattrs', 'attrs'} & set(sys.modules), 'values'; "
        "import raftd.config; assert 'trio' not in sys.modules, 'trio'"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=CONFIGS.parent, capture_output=True, text=True, timeout=30
    )
    assert (ended.returncode, ended.stderr) == (0, "")
