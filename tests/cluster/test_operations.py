"""Membership operations that meet trouble in each of their phases."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest

from raftctl.client import expect
from raftd.core.messages import AppendEntriesResponse
from raftd.protocol import (
    ChangeReply,
    ChangeRequest,
    OpenSessionRequest,
    OperationsReply,
    OperationsRequest,
)
from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import (
    RunningCluster,
    Server,
    free_port,
    removal,
    voter,
    wait_for,
)
from tests.cluster.proxy import Fate, Passing, Rule, carries, carries_begin, where
from tests.cluster.workload import Workload
from tests.raftctl.hint_commands import problems_of_hint

CAUGHT_S = 20.0
"""For the message that a test waits for."""
SESSION = "0123456789abcdef"


def catch(cluster: RunningCluster, rule: Rule) -> Callable[[], None]:
    """Put `rule` in force; return a function that waits until it has stopped a message."""
    assert cluster.proxy is not None
    caught = cluster.proxy.caught
    cluster.proxy.obey(rule)

    def wait() -> None:
        assert caught.wait(CAUGHT_S), "the message that was waited for has not come"

    return wait


def heal(cluster: RunningCluster) -> None:
    assert cluster.proxy is not None
    cluster.proxy.heal()


# --- nobody is there --------------------------------------------------------------------------


def test_adding_a_server_where_nothing_listens_appends_nothing(make_cluster: MakeCluster) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    before = cluster.json_status()
    address = f"127.0.0.1:{free_port()}"
    refused = cluster.ctl("add", f"n4={address}", "-o", "json")
    assert refused.code == 1
    assert f"n4 at {address}" in refused.error["cause"]
    assert "refused" in refused.error["cause"]
    assert "nothing was changed" in refused.error["cause"]
    assert cluster.ctl("add", f"n4={address}", "--dry-run").code == 1
    after = cluster.json_status()
    assert after["configuration"] == before["configuration"]
    assert after["operation"] is None
    assert cluster.ctl("operation", "show", "op-2").code == 1
    assert [server["last_index"] for server in after["servers"]] == [
        server["last_index"] for server in before["servers"]
    ]


# --- the new half is lost ---------------------------------------------------------------------


def test_a_change_whose_new_half_is_killed_while_joint_rolls_itself_back(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3", proxied=True)
    new = ("n4", "n5", "n6")
    cluster.start_blank(*new)
    lost = where(
        lambda passing: passing.dest in new and carries("joint", "op-2")(passing),
        Fate.DROP,
    )
    with Workload(cluster.client, writers=2) as workload:
        wait = catch(cluster, lost)
        pairs = [("n1", "n4"), ("n2", "n5"), ("n3", "n6")]
        words = [word for old, to in pairs for word in (old, f"{to}={cluster[to].address}")]
        command = cluster.start_ctl("replace", *words, "-y", "-o", "json")
        wait()
        for name in new:
            cluster[name].kill()
        result = cluster.finish(command)
        assert result.code == 1, result.stderr
        stopped, missing, restored = result.error["cause"].splitlines()
        assert "no majority of the new voters stored C_old,new" in stopped
        assert missing.startswith("C_new has it on 0 of 3 and needs 2, without n4 (silent for ")
        assert restored == "restored: voters n1, n2, n3, learners none"
        assert list(problems_of_hint(result.error["hint"])) == []
        workload.wait_writes(10)
        workload.stop()
    shown = cluster.ctl("operation", "show", "op-2", "-o", "json").document
    assert shown["result"] == "aborted"
    assert "no majority of the new voters stored C_old,new: 2 of 3" in shown["explanation"]
    status = cluster.wait_settled(["n1", "n2", "n3"])
    assert status.configuration is not None
    assert not status.configuration.learners
    with cluster.client() as client:
        workload.check_nothing_is_lost(client)


# --- abort ------------------------------------------------------------------------------------


def test_abort_while_joining_leaves_the_configuration_untouched(make_cluster: MakeCluster) -> None:
    cluster = make_cluster("n1", "n2", "n3", proxied=True)
    cluster.start_blank("n4")
    new = cluster["n4"]
    before = cluster.wait_settled(["n1", "n2", "n3"]).configuration

    def stop_new_server(passing: Passing) -> Fate:
        # It has answered the preflight; that it is to join it must not hear.
        if carries_begin("add")(passing):
            new.pause()
            return Fate.DROP
        return Fate.PASS

    wait = catch(cluster, stop_new_server)
    started = cluster.start_ctl("add", f"n4={new.address}", "--no-wait")
    wait()
    heal(cluster)
    assert cluster.finish(started).stdout == "op-2\n"
    view = cluster.operation("op-2")
    assert view is not None
    assert view.record.phase == "joining"
    aborted = cluster.ctl("operation", "abort", "op-2", "-y", "--reason", "too early")
    assert aborted.code == 0, aborted.stderr
    after = cluster.wait_settled(["n1", "n2", "n3"]).configuration
    assert after is not None
    assert after == before
    new.resume()
    # It has no tombstone: the same data may come back.
    wait_for("n4 answers", new.status)
    assert cluster.ctl("add", f"n4={new.address}").code == 0
    cluster.wait_settled(["n1", "n2", "n3", "n4"])


def test_abort_while_catching_up_takes_the_learners_away_again(make_cluster: MakeCluster) -> None:
    cluster = make_cluster("n1", "n2", "n3", proxied=True)
    cluster.start_blank("n4")
    wait = catch(cluster, where(lambda passing: passing.dest == "n4", Fate.CUT))
    assert cluster.ctl("add", f"n4={cluster['n4'].address}", "--no-wait").stdout == "op-2\n"
    wait()

    def catching_up() -> bool:
        view = cluster.operation("op-2")
        return view is not None and view.record.phase == "catching-up"

    wait_for("op-2 is catching up", catching_up)
    aborted = cluster.ctl("operation", "abort", "-y", "--reason", "wrong server", "-o", "json")
    assert aborted.code == 0, aborted.stderr
    assert aborted.document["result"] == "aborted"
    heal(cluster)
    cluster.wait_settled(["n1", "n2", "n3"])
    shown = cluster.ctl("operation", "show", "op-2", "-o", "json").document
    assert ": wrong server; restored: voters n1, n2, n3, learners none" in shown["explanation"]
    assert cluster.ctl("add", f"n4={cluster['n4'].address}").code == 0


def test_abort_while_joint_restores_the_old_configuration(make_cluster: MakeCluster) -> None:
    # The new half answers and stores nothing; without the abort that would last for a minute.
    cluster = make_cluster("n1", "n2", "n3", proxied=True, settings="joint_timeout: 1m")
    new = ("n4", "n5")
    cluster.start_blank(*new)
    lost = where(
        lambda passing: passing.dest in new and carries("joint", "op-2")(passing), Fate.DROP
    )
    wait = catch(cluster, lost)
    words = ("n2", f"n4={cluster['n4'].address}", "n3", f"n5={cluster['n5'].address}")
    command = cluster.start_ctl("replace", *words, "-y", "-o", "json")
    wait()
    status = cluster.json_status()
    assert status["configuration"]["joint"]
    assert sorted(status["configuration"]["outgoing"]) == ["n1", "n2", "n3"]
    aborted = cluster.ctl("operation", "abort", "op-2", "-y", "--reason", "second thoughts")
    assert aborted.code == 0, aborted.stderr
    replaced = cluster.finish(command)
    assert replaced.code == 1
    assert "second thoughts" in replaced.error["cause"]
    heal(cluster)
    cluster.wait_settled(["n1", "n2", "n3"])
    assert cluster.ctl("put", "a", "1").code == 0


def test_abort_is_refused_once_the_new_configuration_is_in_the_log(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3", proxied=True)
    cluster.start_blank("n4")
    wait = catch(cluster, where(carries("final", "op-2"), Fate.DROP))
    command = cluster.start_ctl("add", f"n4={cluster['n4'].address}")
    wait()
    refused = cluster.ctl("operation", "abort", "op-2", "-y", "-o", "json")
    assert refused.code == 1
    assert "past the point of no return" in refused.error["message"]
    heal(cluster)
    assert cluster.finish(command).code == 0
    cluster.wait_settled(["n1", "n2", "n3", "n4"])
    refused = cluster.ctl("operation", "abort", "op-2", "-y", "-o", "json")
    assert refused.code == 1
    assert "has ended: done" in refused.error["message"]


# --- the leader dies --------------------------------------------------------------------------


@attrs.define
class Moment:
    """Recognises a moment of an operation in the messages of the leader, and stops it there."""

    leader: str
    kind: str
    """begin, or of a configuration entry."""
    stored_by: tuple[str, ...] = ()
    """Servers that get the entry, but whose acknowledgement the leader does not."""
    _index: int = 0

    def __call__(self, passing: Passing) -> Fate:
        if passing.source == self.leader:
            begins = self.kind == "begin"
            found = carries_begin("replace") if begins else carries(self.kind, "op-2")
            if not found(passing):
                return Fate.PASS
            self._index = max(self._index, passing.entries[-1].index)
            return Fate.PASS if passing.dest in self.stored_by else Fate.CUT
        message = passing.message
        acknowledges = (
            self._index > 0
            and passing.dest == self.leader
            and isinstance(message, AppendEntriesResponse)
            and message.success
            and message.match_index >= self._index
        )
        return Fate.CUT if acknowledges else Fate.PASS


@pytest.mark.parametrize(
    ("kind", "stored_by_others"),
    [
        pytest.param("begin", False, id="its-record-on-the-leader-only"),
        pytest.param("simple", False, id="joining"),
        pytest.param("joint", False, id="joint-on-the-leader-only"),
        pytest.param("joint", True, id="joint-everywhere-but-not-committed"),
        pytest.param("final", False, id="C_new-on-the-leader-only"),
        pytest.param("final", True, id="C_new-everywhere-but-not-committed"),
    ],
)
def test_the_next_leader_finishes_the_operation_of_one_that_died(
    make_cluster: MakeCluster, kind: str, stored_by_others: bool
) -> None:
    cluster = make_cluster("n1", "n2", "n3", proxied=True)
    cluster.start_blank("n4")
    leader = cluster.wait_leader()
    leaving, staying = cluster.followers(leader)
    others = (leaving.name, staying.name, "n4") if stored_by_others else ()
    wait = catch(cluster, Moment(leader.name, kind, others))
    request = ChangeRequest(
        session=SESSION,
        serial=1,
        kind="replace",
        changes=(removal(leaving.name), voter(cluster["n4"])),
        author="test",
    )
    with ThreadPoolExecutor() as executor, cluster.client() as client:
        client.ask(OpenSessionRequest(session=SESSION))
        answer = executor.submit(client.ask, request)
        wait()
        if stored_by_others:
            index = highest_index(leader)
            wait_for(
                "the others have it",
                lambda: all(highest_index(cluster[name]) >= index for name in others),
            )
        leader.kill()
        heal(cluster)
        operation = expect(answer.result(), ChangeReply).operation
        assert operation == "op-2"
        record = cluster.wait_operation(client, operation)
        assert record.result == "done", record.explanation
        assert leaving.wait_exit() == 70
        leader.start()
        cluster.wait_settled([leader.name, staying.name, "n4"])
        # The same request once more starts nothing: it is answered from the session.
        assert expect(client.ask(request), ChangeReply).operation == operation
        views = expect(client.ask(OperationsRequest()), OperationsReply).operations
        assert [view.record.kind for view in views] == ["init", "replace"]


def highest_index(server: Server) -> int:
    """Return the last index of a server that answers; 0 if it does not."""
    status = server.status()
    return status.last_index if status is not None else 0
