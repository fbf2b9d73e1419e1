"""What status, what-if and history say where no leader is left: only what could help, and how."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from raftctl.cli import main
from raftctl.status_text import (
    Layout,
    lacks,
    prospects,
    text,
)
from raftctl.what_if import Assumption, predict
from raftctl.what_if_text import text as what_if_text
from raftd.cluster_status.document import document
from raftd.cluster_status.notes import notes
from raftd.cluster_status.view import ClusterView, view
from raftd.protocol import LinkView
from tests.raftctl.speaking_servers import speaking_servers
from tests.raftctl.status_answers import (
    FIVE,
    THREE,
    address_of,
    all_of,
    answers,
    blank,
    leader,
    peer,
    reply,
)
from tests.raftctl.test_history import serve, story

WIDE = Layout(wide=True, width=1_000)


def dialling_by_file(words: str) -> str:
    return f"raftctl -c x.yaml {words}"


def z1_wiped_z2_down() -> ClusterView:
    """n1 runs with an empty disk, n2 is down, n3 is alone."""
    found = answers(blank("n1/z"), reply("n3/c", THREE, leader=""), silent=["n2"])
    return view(found, command=dialling_by_file)


def test_only_servers_that_would_help_are_to_be_started() -> None:
    cluster = z1_wiped_z2_down()
    expected = (
        "1 of 3 voters answers, 2 are needed: start n2 with its data (n1 runs without the data "
        "that counted)"
    )
    assert prospects(cluster) == lacks(cluster, "leader") == expected


def test_where_all_that_could_be_started_is_not_enough_nobody_is_sent_to_start_it() -> None:
    lost = [blank("n1/z"), blank("n2/z"), reply("n3/c", THREE, leader="")]
    assert prospects(view(answers(*lost))) == (
        "1 of 3 voters answers, 2 are needed: n1 and n2 run without the data that counted"
    )
    replies = [reply("n1/a", FIVE, leader=""), *map(blank, ("n2/z", "n3/z", "n4/z"))]
    assert prospects(view(answers(*replies, silent=["n5"]))) == (
        "1 of 5 voters answers, 3 are needed: n2, n3 and n4 run without the data that counted, and "
        "only n5 could be started"
    )


def test_who_cannot_reach_a_majority_is_told_of_recover() -> None:
    cluster = z1_wiped_z2_down()
    (note,) = notes(cluster)
    assert "`raftctl -c x.yaml recover plan DATA_DIR...`" in note
    assert document(cluster)["notes"] == [note]
    assert notes(view(answers(*all_of(THREE)[:2], silent=["n3"]))) == []


def test_what_if_waits_for_whom_it_would_help_to_have_back() -> None:
    cluster = z1_wiped_z2_down()
    lines = "\n".join(what_if_text(predict(cluster, Assumption()), (), cluster, WIDE))
    assert "it goes on once n2 is back with its data" in lines
    assert "recover plan DATA_DIR..." in lines
    lost = [blank("n1/z"), blank("n2/z"), reply("n3/c", THREE, leader="")]
    hopeless = view(answers(*lost))
    lines = "\n".join(what_if_text(predict(hopeless, Assumption()), (), hopeless, WIDE))
    assert "it cannot go on: n1 and n2 run without the data" in lines


def test_without_a_leader_nobody_is_told_to_add_or_replace() -> None:
    found = answers(blank("n4/d"), reply("n3/c", THREE, leader=""), silent=["n1", "n2"])
    cluster = view(found)
    shown = "\n".join(text(cluster, WIDE))
    assert "n4: blank" in shown
    assert "raftctl add" not in shown
    assert "raftctl replace" not in shown
    assert "raftctl add n4=" in "\n".join(text(view(answers(*all_of(THREE), blank("n4/d"))), WIDE))


def test_a_wrong_state_is_not_to_be_emptied_without_a_leader() -> None:
    replies = [reply(each, THREE, leader="", differing=("n3/c",)) for each in THREE.voters[1:]]
    shown = "\n".join(text(view(answers(*replies, silent=["n1"])), WIDE))
    assert "n3: diverged" in shown
    assert "empty the data" not in shown


def test_commands_in_advice_dial_as_the_call_did() -> None:
    fresh = view(answers(blank("n1/a"), blank("n2/b")), command=dialling_by_file)
    assert prospects(fresh).endswith("`raftctl -c x.yaml init` makes it one")
    waiting = view(answers(*all_of(THREE), blank("n4/d")), command=dialling_by_file)
    lines = text(waiting, WIDE)
    assert f"    next: raftctl -c x.yaml add n4={address_of('n4')}" in lines
    issue = document(waiting)["servers"][-1]["issues"][0]
    assert issue.endswith(f"next: raftctl -c x.yaml add n4={address_of('n4')}")


def moved(*, reached_at: str) -> ClusterView:
    """All members answer where the file has them; the configuration has them elsewhere."""
    old = attrs.evolve(THREE, addresses={each: f"10.0.0.{each[1]}:1" for each in THREE.voters})

    def links(server: str) -> tuple[LinkView, ...]:
        return tuple(
            LinkView(server=each, address=reached_at or address_of(each), connected=True, version=3)
            for each in THREE.voters
            if each != server
        )

    replies = [
        leader(old, links=links("n1/a"), peers=(peer("n2/b"), peer("n3/c"))),
        *(reply(each, old, links=links(each)) for each in THREE.voters[1:]),
    ]
    return view(answers(*replies), command=dialling_by_file)


def test_members_that_have_moved_are_readdressed_and_the_file_stays_as_it_is() -> None:
    cluster = moved(reached_at="")
    places = " ".join(f"n{at}={address_of(f'n{at}')}" for at in (1, 2, 3))
    assert notes(cluster) == [
        "n1, n2 and n3 answer where the cluster file has them, the configuration has them "
        f"elsewhere; `raftctl -c x.yaml readdress {places}` corrects that."
    ]


def test_history_asks_whoever_has_applied_most_and_no_blank_server(
    tmp_path: Path, no_surroundings: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        speaking_servers("n1/z", cluster_id="") as (wiped,),
        speaking_servers("n2/b", "n3/c") as (behind, ahead),
    ):
        serve(wiped, (), role="blank", features=0, cluster_id="", cluster_name="")
        serve(behind, story()[-1:], role="follower", applied_index=40)
        serve(ahead, story(), role="follower", applied_index=90)
        addresses = ",".join(server.address for server in (wiped, behind, ahead))
        code = main(["history", "-e", addresses, "--timeout", "1s"])
        shown = capsys.readouterr()
        assert (code, "there is no leader" in shown.err) == (0, True)
        assert "there is no history yet" not in shown.err
        assert "op-4" in shown.out
        behind.close()
        ahead.close()
        code = main(["history", "-e", addresses, "--timeout", "1s"])
        shown = capsys.readouterr()
    assert (code, shown.out) == (3, "")


def test_who_catches_up_is_not_blamed_for_an_older_configuration() -> None:
    older = attrs.evolve(THREE, index=30)
    behind = peer("n3/c", lag_entries=40_000, caught_up=False)
    replies = [leader(THREE, peers=(peer("n2/b"), behind)), reply("n2/b", THREE)]
    cluster = view(answers(*replies, reply("n3/c", older)))
    assert [issue.kind for issue in cluster.rows[2].issues] == ["lagging"]
    current = view(answers(*all_of(THREE)[:2], reply("n3/c", older)))
    assert [issue.kind for issue in current.rows[2].issues] == ["configuration"]
