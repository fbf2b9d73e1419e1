"""`raftctl what-if`: what failures and removals would do, from the answers of servers."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftctl.cli import main
from raftctl.status_text import Layout
from raftctl.what_if import Assumption, Outcome, Prediction, predict, predict_each
from raftctl.what_if_text import document, text
from raftd.cluster_status.view import ClusterView, view
from raftd.protocol import PeerView
from tests.raftctl.scripted_servers import scripted_servers
from tests.raftctl.status_answers import (
    FIVE,
    JOINT,
    THREE,
    all_of,
    answers,
    blank,
    configuration,
    leader,
    operation,
    peer,
    reply,
)
from tests.raftctl.test_status import free_address, healthy, write_cluster_file

NAMES = {f"n{at}": f"n{at}/{letter}" for at, letter in enumerate("abcde", start=1)}


def servers(names: str) -> frozenset[str]:
    return frozenset(NAMES[name] for name in names.split())


def predicted(cluster: ClusterView, lose: str = "", remove: str = "") -> Prediction:
    return predict(cluster, Assumption(lost=servers(lose), removed=servers(remove)))


def names(found: tuple[str, ...]) -> str:
    return " ".join(server.partition("/")[0] for server in found)


def healthy_three() -> ClusterView:
    return view(answers(*all_of(THREE)))


def lagging(behind: PeerView, *others: PeerView) -> ClusterView:
    """Return three servers of which n3 is as `behind` says."""
    return view(answers(leader(THREE, peers=(peer("n2/b"), behind, *others)), *all_of(THREE)[1:]))


BEHIND = peer(
    "n3/c",
    lag_entries=48_210,
    caught_up=False,
    lag_bytes=24 << 20,
    catch_up_bytes_per_second=3 << 20,
)


# --- losses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lose", "outcome", "leads", "could_lead", "tolerance", "delay_ms"),
    [
        ("", Outcome.GOES_ON, "n1", "n1 n2 n3", 1, 0.0),
        ("n2", Outcome.GOES_ON, "n1", "n1 n3", 0, 0.0),
        ("n1", Outcome.ELECTION, "", "n2 n3", 0, 1_000.0),
        ("n2 n3", Outcome.STOPS, "n1", "", -1, None),
        ("n1 n3", Outcome.STOPS, "", "", -1, None),
    ],
)
def test_three_servers_go_on_without_any_one_of_them(
    lose: str,
    outcome: Outcome,
    leads: str,
    could_lead: str,
    tolerance: int,
    delay_ms: float | None,
) -> None:
    found = predicted(healthy_three(), lose)
    assert (found.outcome, found.phase.tolerance) == (outcome, tolerance)
    assert (names((found.leader,)), names(found.could_lead)) == (leads, could_lead)
    assert found.delay_ms == delay_ms


def test_servers_that_are_down_count_as_lost() -> None:
    cluster = view(answers(*all_of(FIVE)[:4], silent=["n5"]))
    assert predicted(cluster, "n2").phase.tolerance == 0
    assert predicted(cluster, "n2 n3").outcome is Outcome.STOPS
    # Losing it once more changes nothing.
    assert predicted(cluster, "n2 n5").outcome is Outcome.GOES_ON


def test_while_joint_both_halves_need_their_majority() -> None:
    joint = configuration("n1/a n4/d n5/e", outgoing="n1/a n2/b n3/c")
    cluster = view(answers(*all_of(joint)))

    assert predicted(cluster, "n2 n4").outcome is Outcome.GOES_ON
    only_new = predicted(cluster, "n4 n5")
    assert (only_new.outcome, only_new.rolls_back) == (Outcome.STOPS, True)
    only_old = predicted(cluster, "n2 n3")
    assert (only_old.outcome, only_old.rolls_back) == (Outcome.STOPS, False)
    # Nobody is left that could roll it back.
    assert not predicted(cluster, "n1 n4 n5").rolls_back


@given(st.sets(st.sampled_from(sorted(NAMES))), st.sets(st.sampled_from(sorted(NAMES))))
def test_a_prediction_is_what_status_would_say_once_it_has_happened(
    down: set[str], lost: set[str]
) -> None:
    alive = [each for each in all_of(FIVE) if each.server[:2] not in down]
    cluster = view(answers(*alive, silent=sorted(down)))
    if cluster.configuration is None:
        return
    found = predicted(cluster, " ".join(sorted(lost)))

    # Then the ones that are left are asked again; whoever of them is leader.
    left = [reply(each.server, FIVE) for each in alive if each.server[:2] not in lost]
    if len(left) >= 3:
        known = leader(FIVE, server=left[0].server)
        after = view(answers(known, *left[1:], silent=sorted(down | lost)))
        assert found.goes_on
        assert found.phase.tolerance == after.failure_tolerance
        assert names(found.could_lead).split() == [each.server[:2] for each in left]
    else:
        assert not found.goes_on


# --- lag -------------------------------------------------------------------------------------


def test_a_majority_that_lags_has_to_catch_up_first() -> None:
    cluster = lagging(BEHIND)
    found = predicted(cluster, "n2")
    assert (found.outcome, names(found.waits_for)) == (Outcome.CATCH_UP, "n3")
    assert (found.delay_ms, found.delay_is_minimum, found.goes_on) == (8_000, False, True)
    # A majority of servers that have everything is left.
    assert predicted(cluster, "n3").outcome is Outcome.GOES_ON


def test_an_election_comes_before_the_catch_up_where_the_leader_is_lost() -> None:
    last = attrs.evolve(reply("n3/c", THREE), last_index=20)
    replies = [leader(THREE, peers=(peer("n2/b"), BEHIND), last_index=50_000)]
    replies += [reply("n2/b", THREE, last_index=50_000), last]
    found = predicted(view(answers(*replies)), "n1")
    assert (found.outcome, found.delay_ms) == (Outcome.CATCH_UP, 9_000)
    # n3 may vote, and lacks what is committed.
    assert names(found.could_lead) == "n2"


def test_a_snapshot_makes_the_time_a_lower_bound_and_without_a_rate_it_is_unknown() -> None:
    receiving = attrs.evolve(
        BEHIND, snapshot_bytes=27 << 20, snapshot_received_bytes=3 << 20, lag_bytes=100
    )
    found = predicted(lagging(receiving), "n2")
    assert (found.delay_ms, found.delay_is_minimum) == (8_000, True)

    stuck = attrs.evolve(BEHIND, catch_up_bytes_per_second=0)
    found = predicted(lagging(stuck), "n2")
    assert (found.outcome, found.delay_ms) == (Outcome.CATCH_UP, None)


def test_of_several_that_lag_the_quickest_that_are_needed_decide() -> None:
    slow = {"caught_up": False, "lag_entries": 9_000, "catch_up_bytes_per_second": 1 << 20}
    peers = (
        peer("n2/b"),
        peer("n3/c", **slow, lag_bytes=4 << 20),
        peer("n4/d", **slow, lag_bytes=2 << 20),
        peer("n5/e", **slow, lag_bytes=90 << 20),
    )
    cluster = view(answers(leader(FIVE, peers=peers), *all_of(FIVE)[1:]))
    assert predicted(cluster).delay_ms == 2_000
    found = predicted(cluster, "n2")
    assert (names(found.waits_for), found.delay_ms) == ("n3 n4 n5", 4_000)


# --- removals --------------------------------------------------------------------------------


def test_a_removal_says_what_is_left_and_what_its_joint_phase_survives() -> None:
    found = predicted(healthy_three(), remove="n3")
    assert found.joint is not None
    assert (found.outcome, found.joint.tolerance, found.phase.tolerance) == (Outcome.GOES_ON, 0, 0)
    assert found.phase.quorums == (servers("n1 n2"),)
    assert found.joint.quorums == (servers("n1 n2 n3"), servers("n1 n2"))

    of_five = predicted(view(answers(*all_of(FIVE))), remove="n4 n5")
    assert of_five.joint is not None
    assert (of_five.joint.tolerance, of_five.phase.tolerance) == (1, 1)


def test_a_dead_server_can_be_removed_and_then_there_is_less_to_lose() -> None:
    cluster = view(answers(*all_of(FIVE)[:4], silent=["n5"]))
    assert predicted(cluster, remove="n5").phase.tolerance == 1
    both = predicted(cluster, lose="n1", remove="n5")
    assert (both.outcome, both.phase.tolerance) == (Outcome.ELECTION, 0)


def test_a_removal_whose_new_half_is_dead_would_be_refused() -> None:
    cluster = view(answers(*all_of(THREE)[:2], silent=["n3"]))
    assert predicted(cluster, remove="n2").outcome is Outcome.REFUSED
    assert predicted(cluster, remove="n3").outcome is Outcome.GOES_ON


def test_a_leader_that_is_removed_hands_over_without_an_election_to_wait_for() -> None:
    found = predicted(healthy_three(), remove="n1")
    assert (found.outcome, found.hands_over, found.delay_ms) == (Outcome.GOES_ON, True, 0.0)
    assert names(found.could_lead) == "n2 n3"


def test_the_removal_of_a_learner_changes_no_vote() -> None:
    known = configuration("n1/a n2/b n3/c", learners="n4/d")
    found = predicted(view(answers(*all_of(known))), remove="n4")
    assert (found.joint, found.phase.tolerance) == (None, 1)


def test_while_a_change_runs_a_removal_begins_where_that_one_ends() -> None:
    replies = all_of(JOINT)
    replies[0] = attrs.evolve(replies[0], operation=operation())
    cluster = view(answers(*replies))
    found = predicted(cluster, remove="n2")
    assert found.phase.quorums == (frozenset({"n1/a", "n4/d"}),)
    assert (
        "op-17 runs: a removal has to wait until it has ended"
        in document(found, [], cluster)["notes"]
    )


# --- each of them ----------------------------------------------------------------------------


def test_without_options_the_loss_of_each_voter_and_of_each_zone_is_said() -> None:
    known = configuration("n1/a n2/b n3/c", learners="n4/d")
    zones = {"n1": "east", "n2": "east", "n3": "west", "n4": "west"}
    cluster = view(answers(*all_of(known)), zones=zones)
    found = {
        (tuple(sorted(each.assumption.lost)), each.assumption.lost_zones): each.outcome
        for each in predict_each(cluster)
    }
    assert found == {
        (("n1/a",), ()): Outcome.ELECTION,
        (("n2/b",), ()): Outcome.GOES_ON,
        (("n3/c",), ()): Outcome.GOES_ON,
        (("n1/a", "n2/b"), ("east",)): Outcome.STOPS,
        (("n3/c", "n4/d"), ("west",)): Outcome.GOES_ON,
    }


@pytest.mark.parametrize("size", [1, 2])
def test_exactly_the_fatal_sets_stop_it(size: int) -> None:
    cluster = view(answers(*all_of(configuration("n1/a n2/b n3/c", outgoing="n1/a"))))
    fatal = [set(each) for each in document(predicted(cluster), [], cluster)["fatal_sets"]]
    for some in combinations(("n1", "n2", "n3"), size):
        stops = not predicted(cluster, " ".join(some)).goes_on
        assert stops == any(each <= set(some) for each in fatal)


# --- as it looks -----------------------------------------------------------------------------


def zoned() -> tuple[ClusterView, Assumption]:
    """Nothing is lost, five servers in three zones."""
    zones = {"n1": "east", "n2": "east", "n3": "west", "n4": "west", "n5": "north"}
    return view(answers(*all_of(FIVE)), zones=zones), Assumption()


def waiting() -> tuple[ClusterView, Assumption]:
    """One that has everything is lost, and the one that is left has not."""
    return lagging(BEHIND), Assumption(lost=servers("n2"))


def stopping() -> tuple[ClusterView, Assumption]:
    """Too many are lost in the middle of a change."""
    replies = all_of(JOINT)
    replies[0] = attrs.evolve(replies[0], operation=operation())
    return view(answers(*replies)), Assumption(lost=frozenset({"n2/b", "n4/d"}))


def removing() -> tuple[ClusterView, Assumption]:
    """The leader is removed, then another one is lost."""
    cluster = view(answers(*all_of(FIVE)[:4], silent=["n5"]))
    return cluster, Assumption(removed=servers("n1"), lost=servers("n2"))


def refused() -> tuple[ClusterView, Assumption]:
    """The removal would leave one of two."""
    cluster = view(answers(*all_of(THREE)[:2], silent=["n3"]))
    return cluster, Assumption(removed=servers("n2"))


@pytest.mark.parametrize("situation", [zoned, waiting, stopping, removing, refused])
def test_what_if_looks_as_it_should(
    situation: Callable[[], tuple[ClusterView, Assumption]],
    columns: int,
    golden: Callable[[str, str], None],
) -> None:
    cluster, assumption = situation()
    each = predict_each(cluster) if assumption == Assumption() else []
    lines = text(predict(cluster, assumption), each, cluster, Layout(width=columns))
    assert max(map(len, lines)) <= columns
    golden(f"what_if_{situation.__name__}_{columns}", "\n".join(lines))


# --- the command -----------------------------------------------------------------------------


@pytest.fixture
def ctl(
    tmp_path: Path, no_surroundings: None, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, Any, Any]]:
    """Return a function that asks three servers, of which the last may be silent."""

    def run(*words: str, silent: bool = False, zones: str = "") -> tuple[int, Any, Any]:
        with scripted_servers(3) as scripted:
            healthy(scripted)
            if silent:
                scripted[2].close()
            file = write_cluster_file(tmp_path, [server.address for server in scripted])
            lines = file.read_text().splitlines()
            for at, zone in enumerate(zones.split(), start=2):
                lines[at] = lines[at].replace("}", f", zone: {zone}}}")
            file.write_text("\n".join(lines) + "\n")
            code = main(["-c", str(file), "what-if", *words, "-o", "json"])
        captured = capsys.readouterr()
        return (
            code,
            json.loads(captured.out) if captured.out else None,
            json.loads(captured.err)["error"] if captured.err else None,
        )

    return run


Ctl = Callable[..., tuple[int, Any, Any]]


def test_the_exit_code_says_whether_the_cluster_goes_on(ctl: Ctl) -> None:
    assert ctl()[0] == 0
    assert ctl("--lose", "n1")[0] == 0
    assert ctl("--lose", "n1,n2")[0] == ctl("--lose", "n1", "--lose", "n2")[0] == 6
    assert ctl("--lose", "n1", silent=True)[0] == 6
    assert ctl("--remove", "n3", silent=True)[0] == 0
    assert ctl("--remove", "n2", silent=True)[0] == 6


def test_the_document_says_everything(ctl: Ctl) -> None:
    code, found, _ = ctl("--lose", "n2", "--remove", "n3")
    assert code == 6
    assert list(found) == [
        *("format", "lost", "lost_zones", "removed", "outcome", "goes_on", "delay_ms"),
        *("delay_is_minimum", "waits_for", "leader", "could_lead", "quorums"),
        *("failure_tolerance", "fatal_sets", "fatal_set_count", "fatal_zones", "joint", "notes"),
        *("now", "each"),
    ]
    assert (found["lost"], found["removed"], found["outcome"]) == (["n2"], ["n3"], "stops")
    assert found["quorums"] == [
        {"half": None, "voters": ["n1", "n2"], "alive": ["n1"], "needed": 2}
    ]
    assert found["joint"]["fatal_sets"] == [["n1"], ["n2"]]
    assert found["now"]["failure_tolerance"] == 1

    _, found, _ = ctl()
    assert [(each["lost"], each["outcome"]) for each in found["each"]] == [
        (["n1"], "goes-on-after-election"),
        (["n2"], "goes-on"),
        (["n3"], "goes-on"),
    ]


def test_a_zone_is_lost_as_a_whole(ctl: Ctl) -> None:
    code, found, _ = ctl("--lose-zone", "east", zones="east east west")
    assert (code, found["lost"], found["lost_zones"]) == (6, ["n1", "n2"], ["east"])
    assert ctl("--zone", "west", zones="east east west")[0] == 0


@pytest.mark.parametrize(
    ("words", "zones", "message", "cause", "hint"),
    [
        (
            ("--lose", "n11"),
            "",
            "n11 is no member",
            "the members are n1, n2 and n3 (did you mean n1?)",
            "what-if --lose n1",
        ),
        (
            ("--remove", "zebra"),
            "",
            "zebra is no member",
            "the members are n1, n2 and n3",
            "what-if --remove n1",
        ),
        (
            ("--lose-zone", "easy"),
            "east east west",
            "no member is in a zone easy",
            "the zones are east and west (did you mean east?)",
            "what-if --lose-zone east",
        ),
        (("--zone", "east"), "", "no member is in a zone east", "there are no zones", "what-if"),
        (
            ("--lose", "n2", "--remove", "n2"),
            "",
            "n2 cannot be lost after it was removed",
            "the removal is thought to come first, and who is removed does not count any more",
            "what-if --remove n2",
        ),
    ],
)
def test_a_name_that_nobody_has_is_a_usage_error_with_what_was_meant(
    ctl: Ctl, words: tuple[str, ...], zones: str, message: str, cause: str, hint: str
) -> None:
    code, _, error = ctl(*words, zones=zones)
    assert (code, error["message"], error["cause"]) == (2, message, cause)
    assert error["hint"].endswith(hint)


@pytest.mark.parametrize("option", ["--lose", "--lose-zone", "--remove"])
@pytest.mark.parametrize("value", ["", ",", " "])
def test_an_option_that_names_nobody_is_a_usage_error(ctl: Ctl, option: str, value: str) -> None:
    code, _, error = ctl(option, value)
    assert (code, error["message"]) == (2, f"{option} names nobody")


def test_removing_every_voter_is_impossible(ctl: Ctl) -> None:
    code, _, error = ctl("--remove", "n1,n2,n3")
    assert (code, error["code"]) == (6, "no-voters")
    assert error["cause"] == "n1, n2 and n3 would leave nobody that has a vote"


def test_without_any_answer_nobody_can_say(
    tmp_path: Path, no_surroundings: None, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_cluster_file(tmp_path, [free_address(), free_address()])
    assert main(["-c", str(file), "what-if"]) == 3
    assert "n1: connection refused; n2: connection refused" in capsys.readouterr().err


def test_blank_servers_are_no_cluster_yet(
    tmp_path: Path, no_surroundings: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_servers(1) as scripted:
        scripted[0].status = blank("n1/a")
        file = write_cluster_file(tmp_path, [scripted[0].address])
        assert main(["-c", str(file), "what-if"]) == 1
    assert "there is no cluster yet: n1 is blank" in capsys.readouterr().err
