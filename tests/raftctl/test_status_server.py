"""`raftctl status ID`: one server in depth."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from raftctl.cli import main
from raftctl.render import width_of
from raftctl.server_text import server_text
from raftctl.status_text import Layout
from raftd.cluster_status.document import row_document, server_document
from raftd.cluster_status.view import ClusterView, view
from raftd.protocol import LinkView, StatusReply
from tests.raftctl.scripted_servers import scripted_servers
from tests.raftctl.status_answers import (
    THREE,
    address_of,
    answers,
    leader,
    peer,
    reply,
)
from tests.raftctl.test_status import healthy, write_cluster_file

MEASURED: dict[str, Any] = {
    "wall_clock_ms": 1_700_000_000_000,
    "protocol_version_max": 3,
    "features": 3,
    "zone": "east",
    "uptime_ms": 180_000_000,
    "log_bytes": 12 << 20,
    "snapshot_bytes": 3 << 20,
    "state_bytes": 26 << 20,
    "disk_free_bytes": 41 << 30,
    "disk_reserve_bytes": 256 << 20,
    "sync_p50_ms": 1.24,
    "sync_p99_ms": 8.41,
    "cpu_ms": 1_260_000,
    "rss_bytes": 96 << 20,
    "rss_anon_bytes": 41 << 20,
    "first_index": 80_001,
    "applied_index": 91_000,
    "commit_index": 91_204,
    "last_index": 91_210,
    "snapshot_index": 88_000,
    "links": (
        LinkView(server="n3/c", address=address_of("n3"), connected=False, problem="no route"),
        LinkView(server="n1/a", address=address_of("n1"), connected=True, version=3),
    ),
}


POSITIONS = ("last_index", "commit_index", "applied_index")


def cluster_with(second: StatusReply, **leading: Any) -> ClusterView:
    found = answers(leader(THREE, **leading), second, reply("n3/c", THREE))
    return view([attrs.evolve(each, clock_ahead_ms=float(at)) for at, each in enumerate(found)])


def healthy_server() -> tuple[ClusterView, int]:
    """A follower whose log is a little behind the leader's."""
    second = attrs.evolve(reply("n2/b", THREE), **MEASURED)
    return cluster_with(second, last_index=91_300, protocol_version_max=3), 1


def catching_up() -> tuple[ClusterView, int]:
    """A follower of an older release that receives a snapshot."""
    behind = peer(
        "n2/b",
        match_index=20,
        lag_entries=94_980,
        caught_up=False,
        snapshot_bytes=27 << 20,
        snapshot_received_bytes=3 << 20,
        lag_bytes=9 << 10,
        catch_up_bytes_per_second=3 << 20,
    )
    second = reply("n2/b", THREE, uptime_ms=4_000, **dict.fromkeys(POSITIONS, 20))
    return cluster_with(second, last_index=95_000, peers=(behind, peer("n3/c"))), 1


def silent_server() -> tuple[ClusterView, int]:
    """A member that does not answer, as the leader last saw it."""
    gone = peer("n3/c", last_contact_ms=95_000.0, connected=False, problem="connection refused")
    leading = leader(THREE, peers=(peer("n2/b"), gone))
    return view(answers(leading, reply("n2/b", THREE), silent=["n3"]), zones={"n3": "west"}), 2


@pytest.mark.parametrize("situation", [healthy_server, catching_up, silent_server])
def test_a_server_in_depth_looks_as_it_should(
    situation: Callable[[], tuple[ClusterView, int]],
    columns: int,
    golden: Callable[[str, str], None],
) -> None:
    cluster, at = situation()
    lines = server_text(cluster.rows[at], cluster, Layout(width=columns))
    golden(f"server_{situation.__name__}_{columns}", "\n".join(lines))
    assert max(width_of(line) for line in lines) <= columns


def log_lines(**fields: int) -> list[str]:
    """Return the picture of the log of a server and what stands beneath it."""
    cluster = cluster_with(attrs.evolve(reply("n2/b", THREE), **fields), last_index=100)
    lines = server_text(cluster.rows[1], cluster, Layout(width=40))
    first = next(at for at, line in enumerate(lines) if line.startswith("LOG"))
    end = next(at for at, line in enumerate(lines) if line.startswith("LEADER"))
    return [line[9:] for line in lines[first:end]]


def test_the_picture_shows_every_part_of_the_log_in_proportion_and_none_too_small() -> None:
    fields = {"first_index": 51, "applied_index": 97, "commit_index": 98, "last_index": 99}
    assert log_lines(**fields) == [
        "│··············████████████▓░ │",
        *("· 1 to 50", "  compacted, snapshot to 0"),
        *("█ 51 to 97", "  applied"),
        *("▓ 98 to 98", "  committed, not applied yet"),
        *("░ 99 to 99", "  stored, commit not known"),
        *("  100 to 100", "  n1 has it, it has not"),
    ]


def test_an_empty_log_has_no_picture() -> None:
    cluster = view(
        answers(reply("n2/b", THREE, last_index=0, commit_index=0, applied_index=0, leader=""))
    )
    assert "LOG      no entries" in server_text(cluster.rows[1], cluster, Layout())


def test_what_an_older_release_does_not_state_is_unknown_and_never_zero() -> None:
    cluster, at = catching_up()
    row = cluster.rows[at]
    text = "\n".join(server_text(row, cluster, Layout()))
    assert "PROCESS  unknown: its release does not say" in text
    assert "DISK     unknown: its release does not say" in text
    assert "LINKS    unknown: its release does not say" in text

    found = server_document(row, cluster)
    unknown = ("sync_p50_ms", "disk_free_bytes", "log_bytes", "state_bytes", "links", "features")
    unknown += ("cpu_ms", "rss_bytes", "rss_anon_bytes")
    assert [found[field] for field in unknown] == [None] * len(unknown)
    assert found["catch_up_bytes_per_second"] == 3 << 20
    assert found["catch_up_remaining_ms"] == 8_000


def test_the_document_of_a_server_is_its_row_and_everything_that_the_text_shows() -> None:
    cluster, at = healthy_server()
    row = cluster.rows[at]
    found = server_document(row, cluster)

    assert found.items() >= row_document(row, cluster).items()
    assert (found["state"], found["vote"], found["follows"]) == ("ok", "yes", "n1")
    assert found["links"] == [
        {
            "id": "n3",
            "address": "127.0.0.1:7103",
            "connected": False,
            "problem": "no route",
            "protocol_version": None,
        },
        {
            "id": "n1",
            "address": "127.0.0.1:7101",
            "connected": True,
            "problem": None,
            "protocol_version": 3,
        },
    ]
    assert (found["zone"], found["sync_p99_ms"], found["snapshot_bytes"]) == ("east", 8.41, 3 << 20)
    assert found["clock_difference_ms"] == 0.0
    assert (found["cpu_ms"], found["rss_bytes"]) == (1_260_000, 96 << 20)
    assert found["rss_anon_bytes"] == 41 << 20


def test_what_a_server_says_of_itself_cannot_move_the_cursor() -> None:
    evil = attrs.evolve(
        reply("n2/b", THREE),
        **MEASURED
        | {
            "version": "\x1b[2J",
            "zone": "e\x1b[31m",
            "links": (LinkView(server="n3\x1b/c", address="\x1b", connected=False, problem="\r"),),
        },
    )
    cluster = cluster_with(evil)
    lines = server_text(cluster.rows[1], cluster, Layout())
    assert not {"\x1b", "\r"} & set("".join(lines))


def test_status_of_a_name_prints_its_own_and_the_leaders_view(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_servers(3) as servers:
        healthy(servers)
        file = write_cluster_file(tmp_path, [server.address for server in servers])
        assert main(["-c", str(file), "status", "n2"]) == 0
        words = capsys.readouterr().out
        assert main(["-c", str(file), "status", "n2", "-o", "json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert main(["-c", str(file), "status", "n9"]) == 1
        refusal = capsys.readouterr().err

    assert "SAYS     term 7, follows n1" in words
    assert "n1 says: has entries up to 100, 0 behind, caught up after 3 rounds" in words
    assert [row["id"] for row in found["servers"]] == ["n2"]
    assert found["servers"][0]["follows"] == "n1"
    assert "there is no server n9" in refusal


def test_both_incarnations_of_a_name_are_shown_where_there_are_two() -> None:
    # The same words as in the table, so that they can be found there.
    two = attrs.evolve(
        THREE,
        voters=("n1/a", "n2/old"),
        learners=("n2/new",),
        addresses={"n1/a": address_of("n1"), "n2/old": "x:1", "n2/new": "x:2"},
    )
    cluster = view(answers(leader(two)))
    shown = [server_text(row, cluster, Layout())[0].split()[1] for row in cluster.rows]
    assert shown == ["n1", "n2/new", "n2/old"]
