"""The cluster file as `raftctl config` shows and exports it: what each key is, and where from."""

from __future__ import annotations

import attrs
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raftd.config import (
    ServerKeys,
    effective,
    export,
    export_document,
    load,
)
from tests.config_files import CONFIGS, with_default


def test_the_effective_configuration_names_the_origin_of_each_value(written, tmp_path):
    config = written(
        with_default("zone", "east").replace("127.0.0.1:1", "127.0.0.1:1, role: voter")
    )
    shown = effective(config)
    assert shown["file"] == str(tmp_path / "cluster.yaml")
    assert shown["insecure"] == {"value": False, "origin": "default"}
    n1 = shown["servers"]["n1"]
    assert n1["role"] == {"value": "voter", "origin": "file"}
    assert n1["zone"] == {"value": "east", "origin": "defaults"}
    assert n1["heartbeat_interval"] == {"value": "50ms", "origin": "default"}
    assert n1["disk_reserve"] == {"value": "256MiB", "origin": "default"}
    assert n1["data_dir"] == {"value": str(tmp_path / "data" / "n1"), "origin": "default"}
    keys = {field.name for field in attrs.fields(ServerKeys)}
    assert set(n1) == keys - {"tls"} | {"tls.ca", "tls.cert", "tls.key"}


def test_what_is_shown_for_a_server_is_read_again_as_the_same_server(written):
    text = """\
        cluster: a
        servers:
          n1:
            address: 127.0.0.1:1
            election_timeout: 1.5s
            snapshot_log_size: 1.5MiB
            snapshot_rate: 100000B
            disk_reserve: 0B
            redis: 127.0.0.1:3
            http: 127.0.0.1:4
        """
    (before,) = written(text).servers.values()
    rows = effective(written(text))["servers"]["n1"]
    shown = {key: row["value"] for key, row in rows.items() if row["value"] is not None}
    again = yaml.safe_dump({"cluster": "a", "servers": {"n1": shown}})
    assert written(again).servers["n1"] == before


def test_an_export_keeps_the_settings_of_servers_that_are_still_there(written):
    based_on = written(
        """\
        cluster: orders
        defaults: {heartbeat_interval: 20ms, role: learner, data_dir: "d/{id}", disk_reserve: 0B}
        servers:
          n1: {address: 127.0.0.1:1, role: voter, zone: "true", listen: "127.0.0.1:11",
               redis: "127.0.0.1:21", http: "127.0.0.1:31", catch_up_rate: 1.5MiB}
          n2: {address: 127.0.0.1:2, role: voter}
        """
    )
    members = [("n1", "127.0.0.1:5", "learner"), ("n3", "127.0.0.1:3", "voter")]
    config = written(export("orders", members, based_on))
    n1, n3 = config.servers.values()
    assert (n1.id, n1.address, n1.listen) == ("n1", "127.0.0.1:5", "127.0.0.1:11")
    assert (n1.redis, n3.redis) == ("127.0.0.1:21", None)
    assert (n1.http, n3.http) == ("127.0.0.1:31", None)
    assert (n1.role, n1.zone, n1.heartbeat_interval_ms) == ("learner", "true", 20.0)
    assert (n1.catch_up_bytes_per_second, n1.disk_reserve_bytes) == (1_572_864, 0)
    assert (n3.catch_up_bytes_per_second, n3.disk_reserve_bytes) == (2**30, 0)
    assert (n3.id, n3.address, n3.role, n3.heartbeat_interval_ms) == (
        "n3",
        members[1][1],
        "voter",
        20,
    )


def test_an_export_of_the_same_members_means_the_same(written):
    for file in CONFIGS.glob("*.yaml"):
        config = load(file)
        members = [(s.id, s.address, s.role) for s in config.servers.values()]
        exported = written(export(config.cluster, members, config))
        assert exported.written["servers"] == config.written["servers"]
        assert exported.written["defaults"] == config.written["defaults"]


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9-]{0,9}", fullmatch=True)
        | st.sampled_from(["no", "true", "null", "y"]),
        st.tuples(
            st.sampled_from(["127.0.0.1", "[::1]", "10.1.2.3", "example.org"]),
            st.sampled_from(["voter", "learner"]),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_every_export_is_a_cluster_file_of_its_members(tmp_path_factory, servers):
    file = tmp_path_factory.mktemp("export") / "cluster.yaml"
    members = [
        (name, f"{host}:{port}", "voter" if port == 1 else role)
        for port, (name, (host, role)) in enumerate(servers.items(), start=1)
    ]
    file.write_text(export("orders", members))
    loaded = load(file).servers.values()
    assert [(server.id, server.address, server.role) for server in loaded] == members


def test_an_export_has_the_zones_that_the_servers_state(written):
    based_on = written(
        "cluster: orders\ndefaults: {zone: east}\nservers:\n"
        "  n1: {address: 127.0.0.1:1}\n"
        "  n2: {address: 127.0.0.1:2, zone: north}\n"
        "  n3: {address: 127.0.0.1:3, zone: north}\n"
    )
    members = [(f"n{number}", f"127.0.0.1:{number}", "voter") for number in range(1, 5)]
    zones = {
        name: {"zone": zone} for name, zone in (("n1", "east"), ("n2", "west"), ("n4", "west"))
    }
    servers = export_document("orders", members, based_on, zones)["servers"]
    assert [server.get("zone") for server in servers.values()] == [None, "west", "north", "west"]
    found = written(export("orders", members, based_on, zones)).servers
    assert {name: server.zone for name, server in found.items()} == {
        "n1": "east",
        "n2": "west",
        "n3": "north",
        "n4": "west",
    }


def test_an_export_has_the_listeners_that_the_servers_state(written):
    based_on = written(
        "cluster: orders\nservers:\n"
        "  n1: {address: 127.0.0.1:1, redis: 127.0.0.1:11, http: 127.0.0.1:21}\n"
        "  n2: {address: 127.0.0.1:2, redis: 127.0.0.1:12}\n"
    )
    members = [(f"n{number}", f"127.0.0.1:{number}", "voter") for number in range(1, 4)]
    stated = {
        # What is written and not stated is kept: its server has yet to be started with it.
        "n1": {"redis": "", "http": "127.0.0.1:31"},
        "n3": {"redis": "127.0.0.1:13", "http": "localhost:23"},
    }
    servers = written(export("orders", members, based_on, stated)).servers
    assert {name: (server.redis, server.http) for name, server in servers.items()} == {
        "n1": ("127.0.0.1:11", "127.0.0.1:31"),
        "n2": ("127.0.0.1:12", None),
        "n3": ("127.0.0.1:13", "localhost:23"),
    }


def test_an_export_with_a_listener_that_others_reach_can_be_read_again(written):
    stated = {"n1": {"http": "10.0.0.1:80"}}
    exported = export("orders", [("n1", "127.0.0.1:1", "voter")], stated=stated)
    assert written(exported).servers["n1"].http == "10.0.0.1:80"


def test_where_a_zone_comes_from_is_shown(written):
    config = written(
        "cluster: orders\ndefaults: {zone: east}\nservers:\n"
        "  n1: {address: 127.0.0.1:1}\n  n2: {address: 127.0.0.1:2, zone: north}\n"
    )
    zones = {name: server["zone"] for name, server in effective(config)["servers"].items()}
    assert zones == {
        "n1": {"value": "east", "origin": "defaults"},
        "n2": {"value": "north", "origin": "file"},
    }
    config = written("cluster: orders\nservers: {n1: {address: 127.0.0.1:1}}\n")
    shown = effective(config)["servers"]["n1"]["zone"]
    assert shown == {"value": None, "origin": "default"}


def test_two_members_of_one_name_cannot_be_exported():
    with pytest.raises(ValueError, match="two members have the name n1"):
        export("a", [("n1", "127.0.0.1:1", "voter"), ("n1", "127.0.0.1:2", "voter")])
