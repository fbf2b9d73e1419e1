"""`raftctl config`: what it prints, and how it ends."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
import yaml

from raftctl.cli import main
from raftctl.commands.config import members_of
from raftd.config import load
from raftd.protocol import ConfigurationView
from tests.raftctl.speaking_servers import configuration as configuration_of
from tests.raftctl.speaking_servers import speaking_servers, status_of

CONFIGS = Path(__file__).parent.parent.parent / "configs"
LOCAL3 = str(CONFIGS / "local3.yaml")


@pytest.fixture(autouse=True)
def _nothing_around(tmp_path, monkeypatch):
    """Neither a cluster.yaml, nor a playground, nor settings of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for name in ("CONFIG", "ENDPOINTS", "OUTPUT", "TIMEOUT"):
        monkeypatch.delenv(f"RAFTCTL_{name}", raising=False)


@pytest.fixture
def broken(tmp_path):
    file = tmp_path / "broken.yaml"
    file.write_text("cluster: a\nservers:\n  n1: {addres: 1}\n")
    return file


# --- validate -------------------------------------------------------------------------------


def test_validate_counts_the_voters_of_a_good_file(capsys):
    assert main(["config", "validate", LOCAL3]) == 0
    assert capsys.readouterr() == (f"{LOCAL3}: ok: 3 voters, survives 1 failure\n", "")


def test_validate_mentions_learners_and_a_cluster_that_survives_nothing(tmp_path, capsys):
    file = tmp_path / "small.yaml"
    file.write_text(
        "cluster: a\n"
        "servers: {n1: {address: localhost:1}, n2: {address: localhost:2, role: learner}}"
    )
    assert main(["config", "validate", str(file)]) == 0
    assert capsys.readouterr().out.endswith(": ok: 1 voter, 1 learner, survives no failure\n")


def test_validate_prints_every_problem_on_stderr_and_exits_with_2(broken, capsys):
    assert main(["config", "validate", str(broken)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"{broken}:3:3: servers.n1: the key 'address' is missing",
        f"{broken}:3:8: servers.n1.addres: unknown key (did you mean 'address'?)",
    ]


def test_validate_gives_json_for_scripts(broken, capsys):
    assert main(["-o", "json", "config", "validate", LOCAL3]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["voters"] == ["n1", "n2", "n3"]
    assert (document["valid"], document["failure_tolerance"]) == (True, 1)

    assert main(["config", "validate", str(broken), "-o", "json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    error = json.loads(err)["error"]
    assert error["code"] == "config"
    assert error["message"] == f"{broken}: 2 problems"
    assert f"{broken}:3:8: " in error["cause"]


def test_a_file_that_is_absent_is_named(capsys):
    assert main(["config", "validate", "absent.yaml"]) == 2
    assert capsys.readouterr().err == "absent.yaml: cannot be read: No such file or directory\n"


@pytest.mark.parametrize("command", ["validate", "show"])
def test_without_a_file_the_usual_ones_are_taken(command, broken, tmp_path, capsys, monkeypatch):
    assert main(["config", command]) == 2
    error = capsys.readouterr().err
    assert "no cluster file was named" in error
    assert f"raftctl config {command} FILE" in error

    (tmp_path / "cluster.yaml").write_text(Path(LOCAL3).read_text())
    assert main(["config", command]) == 0
    assert "cluster.yaml" in capsys.readouterr().out

    monkeypatch.setenv("RAFTCTL_CONFIG", str(broken))
    assert main(["config", command]) == 2
    assert main(["config", command, "--config", LOCAL3]) == 0


# --- show -----------------------------------------------------------------------------------


def test_show_names_the_origin_of_each_value(capsys):
    assert main(["config", "show", LOCAL3]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == [LOCAL3]
    assert ["cluster", "orders", "file"] in lines
    assert ["insecure", "false", "default"] in lines
    start = lines.index(["n2"])
    server = {line[0]: line[1:] for line in lines[start + 1 : start + 12]}
    assert server["address"] == ["127.0.0.1:7102", "file"]
    assert server["election_timeout"] == ["500ms", "defaults"]
    assert server["joint_timeout"] == ["1s", "default"]
    assert server["zone"] == ["-", "default"]
    assert server["data_dir"] == [str(CONFIGS / "data" / "n2"), "defaults"]


def test_show_prints_the_same_as_json_and_yaml(capsys):
    assert main(["config", "show", LOCAL3, "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert main(["config", "show", LOCAL3, "-o", "yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == document
    assert document["servers"]["n1"]["role"] == {"value": "voter", "origin": "default"}


def test_show_of_a_wrong_file_prints_its_problems(broken, capsys):
    assert main(["config", "show", str(broken)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 2


# --- export ---------------------------------------------------------------------------------


def configuration(**changes) -> ConfigurationView:
    fields = {
        "index": 9,
        "committed": True,
        "joint": False,
        "voters": ("n1/a", "n2/b"),
        "outgoing": (),
        "learners": ("n4/d",),
        "addresses": {
            "n1/a": "127.0.0.1:7101",
            "n2/b": "127.0.0.1:7999",
            "n4/d": "127.0.0.1:7104",
            "n10/e": "127.0.0.1:7110",
        },
    }
    return ConfigurationView(**(fields | changes))


@contextmanager
def leader(view: ConfigurationView, cluster_name: str = "orders"):
    """Serve status as the leader of a cluster does, on a free port; yield HOST:PORT."""
    with speaking_servers("n1/a") as (server,):
        server.answer = lambda request: status_of(
            server, role="leader", view=view, leader=server, cluster_name=cluster_name
        )
        yield server.address


def exported(capsys, tmp_path):
    out, err = capsys.readouterr()
    (tmp_path / "exported.yaml").write_text(out)
    loaded = load(tmp_path / "exported.yaml")
    servers = [(server.id, server.address, server.role) for server in loaded.servers.values()]
    return loaded, servers, err


def test_export_prints_a_file_of_the_present_members(tmp_path, capsys):
    with leader(configuration()) as address:
        assert main(["-e", address, "config", "export"]) == 0
    loaded, servers, err = exported(capsys, tmp_path)
    assert loaded.cluster == "orders"
    assert servers == [
        ("n1", "127.0.0.1:7101", "voter"),
        ("n2", "127.0.0.1:7999", "voter"),
        ("n4", "127.0.0.1:7104", "learner"),
    ]
    assert err == ""


def test_export_writes_the_file_that_it_reads_without_losing_what_that_says(tmp_path, capsys):
    with speaking_servers("n1/a") as (server,):
        old = tmp_path / "cluster.yaml"
        old.write_text(
            "cluster: orders\ndefaults:\n  election_timeout: 700ms\n"
            f"servers:\n  n1: {{address: {server.address}}}\n  n9: {{address: 127.0.0.1:9}}\n"
        )
        view = configuration_of(server)
        server.answer = lambda request: status_of(server, role="leader", view=view)
        assert main(["config", "export", "-c", str(old), "--to", str(old)]) == 0
    assert capsys.readouterr().out == ""
    written = load(old)
    assert list(written.servers) == ["n1"]
    assert written.servers["n1"].election_timeout_ms == 700
    assert [path.name for path in tmp_path.iterdir()] == ["cluster.yaml"]


def test_export_keeps_what_the_named_file_says_of_members(tmp_path, capsys):
    with leader(configuration()) as address:
        old = tmp_path / "old.yaml"
        old.write_text(
            "cluster: orders\ndefaults: {heartbeat_interval: 20ms}\n"
            f"servers:\n  n2: {{address: {address}, zone: east}}\n  n3: {{address: localhost:1}}\n"
        )
        assert main(["config", "export", "-c", str(old)]) == 0
    loaded, servers, _ = exported(capsys, tmp_path)
    assert [name for name, _, _ in servers] == ["n2", "n1", "n4"], "the order of the file"
    assert loaded.servers["n2"].zone == "east"
    assert loaded.servers["n2"].address == "127.0.0.1:7999", "the cluster knows better"
    assert loaded.servers["n4"].heartbeat_interval_ms == 20.0


def test_export_as_json_is_a_cluster_file_too(tmp_path, capsys):
    with leader(configuration()) as address:
        assert main(["-e", address, "config", "export", "-o", "json"]) == 0
    _, servers, _ = exported(capsys, tmp_path)
    assert [name for name, _, _ in servers] == ["n1", "n2", "n4"]


def test_export_writes_the_zones_and_listeners_that_members_state(capsys):
    with speaking_servers("n1/a", "n2/b", "n9/x") as servers:
        one, two, stranger = servers
        # At the address of n4 somebody else answers.
        view = configuration_of(one, two, ("n4/d", stranger.address), learners=("n4/d",))
        for server, zone in zip(servers, ("east", "", "south"), strict=True):
            status = status_of(server, role="leader" if server is one else "follower", view=view)
            found = attrs.evolve(status, zone=zone, redis="127.0.0.1:9" if zone else "", http=None)
            server.answer = lambda request, found=found: found
        assert main(["-e", one.address, "config", "export", "-o", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["servers"] == {
            "n1": {"address": one.address, "zone": "east", "redis": "127.0.0.1:9"},
            "n2": {"address": two.address},
            "n4": {"address": stranger.address, "role": "learner"},
        }


def test_export_refuses_to_mix_two_clusters(capsys):
    with leader(configuration(), cluster_name="billing") as address:
        assert main(["config", "export", "-e", address, "-c", LOCAL3]) == 2
    assert "describes the cluster orders, but billing answers" in capsys.readouterr().err


def test_export_refuses_while_two_incarnations_of_a_name_are_members(capsys):
    view = configuration(voters=("n1/a", "n1/z"), addresses={"n1/a": "a:1", "n1/z": "a:2"})
    with leader(
        configuration(voters=view.voters, learners=(), addresses=view.addresses)
    ) as address:
        assert main(["-e", address, "config", "export"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "two members have the name n1" in err


def test_export_without_a_cluster_exits_with_3(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    assert main(["-e", address, "--timeout", "100ms", "config", "export"]) == 3
    assert address in capsys.readouterr().err


def test_while_joint_the_members_are_those_after_the_change():
    view = configuration(
        joint=True,
        outgoing=("n1/a", "n3/c"),
        voters=("n2/b", "n10/e"),
        learners=("n4/d",),
        learners_next=("n1/a",),
    )
    assert members_of(view, ("n4",)) == [
        ("n4", "127.0.0.1:7104", "learner"),
        ("n1", "127.0.0.1:7101", "learner"),
        ("n2", "127.0.0.1:7999", "voter"),
        ("n10", "127.0.0.1:7110", "voter"),
    ]


# --- what it costs --------------------------------------------------------------------------


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from raftctl.cli import main; main(['config', 'validate', '--help']); "
        "heavy = {'trio', 'cattrs', 'yaml', 'msgpack', 'raftd.config'} & set(sys.modules); "
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=CONFIGS.parent, capture_output=True, text=True, timeout=30
    )
    assert (ended.returncode, ended.stderr) == (0, "")
